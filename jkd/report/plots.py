"""Figures as PNG bytes, twice: for light and for dark pages. The same data give the same bytes."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from jkd.report import text

DPI = 240
WIDTH = 4.8  # inches: letters of 8.5 points can still be read where a phone shows it 400 pixels wide


@dataclass(frozen=True)
class Theme:
    """Colours of one of the two page styles; `cycle` is told apart by people who see few colours, too."""

    name: str
    paper: str
    ink: str
    faint: str
    accent: str
    cycle: tuple[str, ...]


LIGHT = Theme(
    "light",
    "#fffdf9",
    "#2b2a27",
    "#b9b4a8",
    "#b4451f",
    ("#1f5f8b", "#b4451f", "#3f7d52", "#8a5a9e", "#b58a1b", "#5b6b73", "#a83860", "#2f8f8f"),
)
DARK = Theme(
    "dark",
    "#191a1c",
    "#dedad1",
    "#55534e",
    "#f0916b",
    ("#7db7e0", "#f0916b", "#88c79b", "#c8a0db", "#e0bd5e", "#a7b4bb", "#e58bab", "#79cccc"),
)
Draw = Callable[[Theme], Figure | None]


@dataclass(frozen=True)
class Plot:
    """A figure in both styles, with what it shows in words for those who cannot see it."""

    name: str
    alt: str
    light: bytes
    dark: bytes


def render(name: str, alt: str, draw: Draw) -> Plot | None:
    """Draws a figure once per theme; None where there is nothing to draw."""
    light, dark = _png(draw, LIGHT), _png(draw, DARK)
    return None if light is None or dark is None else Plot(name, alt, light, dark)


def _png(draw: Draw, theme: Theme) -> bytes | None:
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.faint,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.6,
        "text.parse_math": False,
        "legend.frameon": False,
    }
    with style.context(["default", settings]):
        figure = draw(theme)
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes below each other, in inches."""
    # not pyplot's: a notebook keeps its own backend
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(panels, 1, squeeze=False)[:, 0])


def drawable(name: str, index: int) -> str:
    """A name as the figure's font can show it; its number where it cannot."""
    shown = text.visible(name)
    return shown if all(ord(character) in _glyphs() for character in shown) else f"#{index}"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
