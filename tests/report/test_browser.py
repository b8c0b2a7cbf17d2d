"""The page in a real browser, where one is installed."""

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jkd.report import write_report

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
)
# The page stands unchanged in a frame of the width that is asked for; a script outside it measures it.
MEASURE = """<!doctype html><body style="margin:0">
<iframe id="f" width="{width}" height="900" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const inside = document.getElementById("f").contentDocument;
  const all = [...inside.querySelectorAll("body *")];
  const out = e => e.getBoundingClientRect().right > {width} + 0.5 || e.scrollWidth > {width};
  const wide = all.filter(out);
  document.body.dataset.result = [
    inside.documentElement.scrollWidth,
    wide.map(element => element.tagName).join(" "),
    [...inside.images].filter(image => !image.complete || !image.naturalWidth).length,
    inside.styleSheets.length,
  ].join("|");
}};
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs chromium, which is not installed")
    return found


def _open(chromium: str, page: str, width: int, folder: Path) -> tuple[list[str], list[str]]:
    """Opens a page in a frame; returns what was measured and what the console said."""
    document = folder / "frame.html"
    document.write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [chromium, *FLAGS, profile, "--window-size=1300,1000", "--dump-dom", document.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    result = re.search(r'data-result="([^"]*)"', done.stdout)
    assert result, done.stderr[-2000:]
    return result[1].split("|"), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def _check(chromium: str, workdir: Path, width: int, folder: Path) -> None:
    page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
    (scroll_width, wide, broken, styles), console = _open(chromium, page, width, folder)
    assert console == []
    assert int(scroll_width) <= width and wide == ""
    assert broken == "0"
    assert styles == "1"  # the policy let the page's own style in


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_screen_and_the_console_is_silent(
    written: tuple, chromium: str, width: int, tmp_path: Path
) -> None:
    _check(chromium, written[0].workdir, width, tmp_path)


def test_long_names_do_not_widen_the_page(make_run: Callable, chromium: str, tmp_path: Path) -> None:
    run = make_run(replicates=1, classes=tuple(letter * 70 for letter in "abcdef"), name="n" * 90)
    write_report(run.workdir, run.dataset, run.graph)
    _check(chromium, run.workdir, 400, tmp_path)


def test_a_page_that_breaks_its_policy_is_noticed(chromium: str, tmp_path: Path) -> None:
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page = f"{policy}<p style='width: 900px'>wide</p>"
    _, console = _open(chromium, page, 400, tmp_path)
    assert any("Content Security Policy" in line for line in console)
