"""What surrounds a run changes nothing in it, and names that come with data steer no terminal and no page."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jkd import report, run
from jkd.data import digits, open_dataset
from jkd.errors import UserError

ARGUMENTS = ("--only=kd/0", "--replicate=0", "--quiet")
AROUND: dict[str, dict[str, str]] = {
    "all at once": {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "4242", "PYTHONUTF8": "0"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "time zone": {"TZ": "America/St_Johns"},
    "hash seed 0": {"PYTHONHASHSEED": "0"},
    "hash seed": {"PYTHONHASHSEED": "4294967295"},
    "no home": {"HOME": "/nonexistent", "USER": "", "LOGNAME": ""},
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
}
# The clock goes backwards, by an hour a look; and nobody but the owner may read what is made.
SHIM = "import os, time; os.umask(0o077); now = [4e9]; time.time = lambda: now.append(now.pop() - 3600) or now[0]"


@pytest.mark.fault(27)
@pytest.mark.timeout(300)
def test_locale_zone_hash_seed_folder_umask_and_clock_change_no_bit(tries: Any, tiny: Any, done: Any, tmp_path: Path):
    expected = tiny.digests(done.workdir)
    for name in list(AROUND)[: tries.count(1, len(AROUND))]:
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        with tries(name), pytest.MonkeyPatch.context() as around:
            for key, value in AROUND[name].items():
                around.setenv(key, value)
            command = ("distill", f"--config={tiny.file}", "--workdir=run", *ARGUMENTS)
            process = tiny.start(*command, cwd=folder, code=SHIM if name == "all at once" else "")
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
            found = tiny.digests(folder / "run")
            assert len(found) == 3 and found == {part: expected[part] for part in found}


HOSTILE = (
    "new\nline",
    "carriage\rreturn",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnp.exe",
    "<script>alert(1)<script>",
    "<img src=x onerror=alert(1)>",
    "=cmd|'calc'!A0",
    "\"quoted\" & 'quoted' ]]>",
    "line\u2028separator\u200b",
    "{{x}} %s $(id) `id`",
)
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class Page(HTMLParser):
    """Collects what a page would do: elements, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.handlers, self.sources = 0, [], []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [key for key, _ in attributes if key.startswith("on")]
        self.sources += [value for key, value in attributes if key in ("src", "href") and value]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tiny: Any) -> tuple[Path, Any, Any]:
    """A finished run on digits whose classes and files have hostile names."""
    root = tmp_path_factory.mktemp("hostile")
    for split, source in zip(("train", "test"), digits.load(300, 100, 0), strict=True):
        for index in range(len(source)):
            folder = root / "data" / split / HOSTILE[source.labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            image = source.images(np.array([index]))[0, :, :, 0]
            Image.fromarray(image).save(folder / f"{index}\x1b[2J<b>\u202e\n.png")
    config = tiny.config(data__source="images", data__path=str(root / "data"), data__limit=0, data__test_limit=0)
    config.seeds, config.replicates = (0,), 1
    summary = run.distill(config, root / "run", quiet=True)
    return root / "run", summary, open_dataset(config.data)


@pytest.mark.fault(30)
def test_hostile_names_are_escaped_on_the_terminal(hostile: tuple[Path, Any, Any], tmp_path: Path):
    workdir, summary, dataset = hostile
    assert set(dataset.classes) == set(HOSTILE)
    for text in (run.graph("show", workdir), run.graph("check", workdir), report.table(summary)):
        assert not STEERS.search(text), text
    (tmp_path / "data/train/a").mkdir(parents=True)
    (tmp_path / "data/train/a/evil\x1b[31m\u202e\n.png").write_bytes(b"broken")
    with pytest.raises(UserError) as caught:
        from jkd.data.decode import Rules
        from jkd.data.folder import listings
        from jkd.data.images import load

        (tmp_path / "data/train/b").mkdir()
        (tmp_path / "data/train/b/x.png").write_bytes(b"broken")
        found = listings(str(tmp_path / "data"), ("train",), 10**6)[0]
        load(found, Rules(10**6), broken="refuse", broken_limit=0.0, limit=0)
    assert r"train/a/evil\x1b[31m\u202e\n.png is not an image" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.fault(30)
def test_hostile_names_do_nothing_on_the_page(hostile: tuple[Path, Any, Any], done: Any):
    page, plain = Page(), Page()
    text = (hostile[0] / "report/index.html").read_text(encoding="utf-8")
    page.feed(text)
    plain.feed((done.workdir / "report/index.html").read_text(encoding="utf-8"))
    assert page.scripts == plain.scripts and page.handlers == plain.handlers
    assert all(source.startswith(("data:", "#", "https://")) for source in page.sources)
    assert not STEERS.search(text) and "&lt;script&gt;alert(1)" in text


@pytest.mark.fault(30)
@pytest.mark.parametrize("ending", ["graphml", "json"])
def test_hostile_names_break_no_export_and_stay_apart(hostile: tuple[Path, Any, Any], tmp_path: Path, ending: str):
    path = tmp_path / f"graph.{ending}"
    run.graph("export", hostile[0], to=str(path))
    text = path.read_text(encoding="utf-8")
    assert not STEERS.search(text)
    if ending == "json":
        names = [node["id"] for node in json.loads(text)["nodes"]]
    else:
        space = "{http://graphml.graphdrawing.org/xmlns}"
        names = [node.get("id") for node in ElementTree.fromstring(text).iter(f"{space}node")]
    assert len(set(names)) == len(names) == 200 + 10
    assert not [name for name in names if name.startswith(("=", "+", "-", "@"))]  # no cell of a sheet is a formula


@pytest.mark.fault(30)
def test_a_message_of_an_error_shows_what_would_steer_a_terminal():
    assert str(UserError("\x1b[31m\u202e\u2028 keeps\nlines")) == "\\x1b[31m\\u202e\\u2028 keeps\nlines"
    assert os.linesep in str(UserError("a\nb"))
