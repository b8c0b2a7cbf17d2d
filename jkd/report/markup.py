"""Small pieces of HTML. What comes from data passes through `text.escape`, here or at the caller."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jkd.report import text
from jkd.report.plots import Plot

QUOTED = 400  # characters of a text that are shown at most
PICTURE = 320  # pixels a side that a picture with boxes has at most
THUMBNAIL = 96  # pixels a side that a thumbnail has at most


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", best: int | None = None) -> str:
    """A table of ready HTML cells; on a narrow screen each row becomes a block with its column names.

    Args:
      head: column names, plain text.
      rows: cells, HTML.
      caption: HTML below the table.
      best: index of a row to set off.
    """
    titles = "".join(f'<th scope="col">{text.escape(name)}</th>' for name in head)
    body = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td data-label="{text.escape(name)}">{cell}</td>' for name, cell in zip(head[1:], row[1:], strict=True)
        )
        mark = ' class="best"' if index == best else ""
        body.append(f'<tr{mark}><th scope="row">{row[0]}</th>{cells}</tr>')
    below = f"<caption>{caption}</caption>" if caption else ""
    return f'<table class="stack">{below}<thead><tr>{titles}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def figure(plot: Plot | None, caption: str) -> str:
    """A figure in the page's style, light or dark; nothing where there is no plot."""
    if plot is None:
        return ""
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{data_uri(plot.dark)}">'
        f'<img src="{data_uri(plot.light)}" alt="{text.escape(plot.alt)}"></picture>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def data_uri(png: bytes) -> str:
    """The address under which a page carries an image in itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def thumbnail(image: UInt8[np.ndarray, "h w c"], alt: str) -> str:
    """A small picture whose pixels stay squares when it is shown larger."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3])
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    width, height = picture.size
    source = data_uri(buffer.getvalue())
    return f'<img class="pixels" src="{source}" width="{width}" height="{height}" alt="{text.escape(alt)}">'


def boxed(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    kind: str,
    alt: str,
    name: str,
    again: bool = False,
) -> str:
    """A picture with boxes and their classes on it.

    Args:
      image: the canvas.
      boxes: each `{box, class, score}`, in pixels of it.
      classes: names.
      kind: the CSS class of the boxes.
      alt: what it is called for those who do not see.
      name: of the picture, in the page.
      again: whether the page has shown this picture already, so that it need not be carried twice.
    """
    height, width = image.shape[:2]
    parts = [f'<use href="#{name}"/>']
    if not again:
        buffer = io.BytesIO()
        picture = Image.fromarray(image)
        picture.thumbnail((PICTURE, PICTURE), Image.Resampling.BOX)
        picture.save(buffer, format="PNG")
        parts = [f'<image id="{name}" href="{data_uri(buffer.getvalue())}" width="{width}" height="{height}"/>']
    size = round(max(height, width) / 24, 1)
    for box in boxes:
        x1, y1, x2, y2 = (float(side) for side in box["box"])
        score = "" if box["score"] is None else f" {100 * box['score']:.0f}"
        shape = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}"'
        parts.append(f"<rect {shape}/>")
        label = text.escape(classes[box["class"]])
        parts.append(f'<text x="{x1:.1f}" y="{max(y1 - 1, size):.1f}" font-size="{size}">{label}{score}</text>')
    inside = "".join(parts)
    return (
        f'<svg class="boxes {kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{text.escape(alt)}">'
        f"{inside}</svg>"
    )


def quote(passage: str) -> str:
    """A text as it stands, escaped and cut to what a card has room for."""
    shown = passage if len(passage) <= QUOTED else passage[: QUOTED - 1] + "…"
    return f'<blockquote dir="auto">{text.escape(shown)}</blockquote>'


def samples(source: Any, index: Sequence[int], alts: Sequence[str]) -> list[str]:
    """How the samples of a source are shown: pictures, with what they are called for those who do not see, or texts."""
    at = np.asarray(index, np.int64)
    if source.kind == "texts":
        return [quote(each) for each in source.texts(at)]
    return [thumbnail(image, alt) for image, alt in zip(source.images(at), alts, strict=True)]


def neighbours(found: Sequence[Mapping[str, Any]], pictures: Sequence[str], classes: Sequence[str]) -> str:
    """Graph nodes next to what a card explains.

    Args:
      found: from `interpret.neighbours`, each with its `id`.
      pictures: how each is shown, HTML.
      classes: names.
    """
    items = [
        f"<li>{picture}<b>{text.escape(classes[near['class']])}</b><br>{near['edge']}, teacher "
        f"{100 * near['belief']:.0f}<br>weight {100 * near['weight']:.0f}, cosine "
        f'{near["cosine"]:.2f}<br><span class="soft">{text.escape(near["id"])}</span></li>'
        for near, picture in zip(found, pictures, strict=True)
    ]
    return f'<ul class="neighbours">{"".join(items)}</ul>'


def bar(share: float, kind: str) -> str:
    """A probability as a bar and in percent."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return (
        f'<svg class="bar {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{width}" height="6"/></svg><span>{100 * share:.0f}</span>'
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values (HTML) below each other."""
    rows = "".join(f"<dt>{text.escape(name)}</dt><dd>{value}</dd>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'
