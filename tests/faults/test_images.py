"""Images that are broken, strange or bombs: read by rule, set aside by name, or refused from the header."""

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jkd.config import default
from jkd.data import open_dataset
from jkd.data.decode import Rules, Unreadable, decode, header
from jkd.errors import UserError

RULES = Rules(max_pixels=10_000)
NOISE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def _encoded(image: Any = NOISE, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def _settings(path: Path, **differs: Any) -> Any:
    data = default().data
    data.source, data.path = "images", str(path)
    data.update(differs)
    return data


def _write(root: Path, each: int, **broken: bytes) -> list[str]:
    """`each` images a class and split; `broken` replaces training images of the first class. Returns their ids."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                (root / split / name / f"{number:04d}.png").write_bytes(_encoded())
    ids = []
    for number, (name, content) in enumerate(broken.items()):
        (root / f"train/a/{number:04d}.png").unlink()
        ids.append(f"train/a/{number:04d}{name}.png")
        (root / ids[-1]).write_bytes(content)
    return ids


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(NOISE, "JPEG", exif=exif, quality=100)


def _animated() -> bytes:
    return _encoded(Image.fromarray(NOISE).convert("P"), "GIF", save_all=True, append_images=[Image.new("P", (12, 12))])


STRANGE: dict[str, Callable[[], bytes]] = {
    "cmyk": lambda: _encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    "sixteen bit": lambda: _encoded(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257)),
    "palette": lambda: _encoded(Image.fromarray(NOISE).convert("P")),
    "palette with transparency": lambda: _encoded(Image.fromarray(NOISE).convert("P"), transparency=3),
    "alpha": lambda: _encoded(Image.fromarray(NOISE).convert("RGBA")),
    "grey and alpha": lambda: _encoded(Image.fromarray(NOISE).convert("LA")),
    "one bit": lambda: _encoded(Image.fromarray(NOISE).convert("1")),
    "rotated by exif": _turned,
    "animated": _animated,
    "a jpeg named png": lambda: _encoded(NOISE, "JPEG"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_but_sound_image_is_read_by_rule(tmp_path: Path, name: str):
    data = STRANGE[name]()
    pixels = decode(data, RULES)
    assert pixels.dtype == np.uint8 and pixels.shape in ((12, 12, 1), (12, 12, 3))
    assert header(data, RULES)[:2] == pixels.shape[:2]
    if name == "rotated by exif":
        np.testing.assert_array_equal(pixels, np.rot90(decode(_encoded(NOISE, "JPEG", quality=100), RULES), -1))
    if name == "alpha":
        np.testing.assert_array_equal(pixels, NOISE)
    _write(tmp_path, 2, it=data)
    assert len(open_dataset(_settings(tmp_path)).train) == 4


BROKEN = dict(
    truncated=_encoded()[:-60],
    headless=_encoded()[20:],
    empty=b"",
    noise=np.random.default_rng(1).bytes(600),
    text=b"this is a text with the ending of an image",
    html=b"<html><body>404 Not Found</body></html>",
    floats=_encoded(Image.fromarray(NOISE[:, :, 0].astype(np.float32)), "TIFF"),
    bomb=_encoded(Image.new("L", (20_000, 4_000))),
)


@pytest.mark.fault(12)
def test_broken_images_are_set_aside_by_name_and_reason_the_same_each_time(tmp_path: Path, tries: Any):
    ids = _write(tmp_path, 10, **BROKEN)
    with pytest.raises(UserError, match=rf"8 of 20 images cannot be read: {ids[0]} .*and 3 more.*data.broken='skip'"):
        open_dataset(_settings(tmp_path))
    opened = [open_dataset(_settings(tmp_path, broken="skip", broken_limit=0.4)) for _ in range(2)]
    left_out = dict(opened[0].train.skipped)
    for name, what in zip(ids, BROKEN, strict=True):
        with tries(what):
            assert left_out[name] and "\n" not in left_out[name]
    assert len(left_out) == len(BROKEN) and len(opened[0].train) == 12 and not opened[0].test.skipped
    assert opened[0].fingerprint == opened[1].fingerprint and opened[0].train.skipped == opened[1].train.skipped
    assert "data.max_pixels" in left_out[ids[-1]]


@pytest.mark.fault(12)
@pytest.mark.parametrize("on_demand", [False, True])
def test_more_broken_images_than_the_limit_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_demand: bool
):
    if on_demand:
        monkeypatch.setattr("jkd.data.images.IN_MEMORY_BYTES", 0)
    ids = _write(tmp_path, 10, one=b"broken", two=b"")
    with pytest.raises(UserError, match=rf"2 of 20 .* data.broken_limit lets 0 be skipped: {ids[0]} is .*{ids[1]} is"):
        open_dataset(_settings(tmp_path, broken="skip"))  # one in a thousand by default
    with pytest.raises(UserError, match=r"lets 1 be skipped"):
        open_dataset(_settings(tmp_path, broken="skip", broken_limit=0.09))
    assert len(open_dataset(_settings(tmp_path, broken="skip", broken_limit=0.1)).train) == 18


@pytest.mark.fault(12)
@pytest.mark.filterwarnings("ignore")
def test_cut_and_changed_images_of_every_format_are_pixels_or_unreadable(tries: Any, chance: Any):
    whole = {kind: _encoded(NOISE, kind) for kind in KINDS} | {name: make() for name, make in STRANGE.items()}
    for number in range(tries.count(300, 5000)):
        kind = chance.choice(sorted(whole))
        data = bytearray(whole[kind])
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.choice((1, 1, 3, 30))):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        with tries(f"{number}: {kind}"):
            for look in (header, decode):
                try:
                    look(bytes(data), RULES)
                except Unreadable as why:
                    assert str(why)


def _png(width: int, height: int) -> bytes:
    def piece(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(bytes(2**20))) + piece(b"IEND", b"")
    )


def _patched(kind: str, old: bytes, new: bytes) -> bytes:
    data = _encoded(Image.new("RGB", (250, 251)), kind)
    assert old in data
    return data.replace(old, new, 1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 50,000 x 50,000": lambda: _png(50_000, 50_000),
    "png of 9,000 x 9,000": lambda: _png(9_000, 9_000),  # below Pillow's own limit
    "png of 2^31 - 1 square": lambda: _png(2**31 - 1, 2**31 - 1),
    "jpeg that claims 65,500 square": lambda: _patched(
        "JPEG", struct.pack(">HH", 251, 250), struct.pack(">HH", 65_500, 65_500)
    ),
    "gif that claims 65,535 square": lambda: _patched(
        "GIF", struct.pack("<HH", 250, 251), struct.pack("<HH", 65_535, 65_535)
    ),
    "bmp that claims 50,000 square": lambda: _patched(
        "BMP", struct.pack("<ii", 250, 251), struct.pack("<ii", 50_000, 50_000)
    ),
    "ppm that claims 50,000 square": lambda: _patched("PPM", b"250 251", b"50000 50000"),
}

# What a process inherits of its parent's peak through fork, `ru_maxrss` keeps; VmHWM begins with the program.
OPEN = """
import json, sys, time
from jkd.config import default
from jkd.data import open_dataset
from jkd.errors import UserError
from PIL import Image
peak = lambda: 1024 * int(next(line for line in open("/proc/self/status") if line[:5] == "VmHWM").split()[1])
data = default().data
data.source, data.path = "images", sys.argv[1]
begun, said = time.monotonic(), ""
try:
    open_dataset(data)
except UserError as error:
    said = str(error)
print(json.dumps([said, time.monotonic() - begun, peak()]))
"""


@pytest.mark.fault(13)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, root: Path, name: str):
    ids = _write(tmp_path, 2, bomb=BOMBS[name]())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPEN, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, seconds, memory = json.loads(done.stdout)
    assert f"{ids[0]} claims " in said and "over data.max_pixels=64000000" in said
    assert seconds < 1 and memory < 2**30


@pytest.mark.fault(13)
def test_a_header_within_the_limit_over_a_body_that_cannot_be_there_is_unreadable():
    lying = _patched("JPEG", struct.pack(">HH", 251, 250), struct.pack(">HH", 5_000, 5_000))
    with pytest.raises(Unreadable, match=rf"claims 5000x5000 pixels, more than its {len(lying)} bytes can hold"):
        decode(lying, Rules(max_pixels=64_000_000))
    for options in (dict(quality=1), dict(quality=1, progressive=True), dict(quality=1, optimize=True)):
        plain = _encoded(Image.new("L", (4_000, 4_000), 128), "JPEG", **options)  # the fewest bytes there can be
        assert header(plain, Rules(max_pixels=64_000_000)) == (4_000, 4_000, True)


def _repeated(data: bytes, times: int) -> bytes:
    """A JPEG whose last scan comes up again and again."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


@pytest.mark.fault(13)
def test_a_jpeg_of_very_many_scans_is_refused_from_its_markers():
    rules = Rules(max_pixels=64_000_000)
    plain = _encoded(Image.new("L", (3_000, 3_000), 128), "JPEG", progressive=True)
    begun = time.monotonic()
    for look in (header, decode):
        with pytest.raises(Unreadable, match=r"is a JPEG of 1206 scans, over 100"):
            look(_repeated(plain, 1_200), rules)
    assert time.monotonic() - begun < 1
    several = _encoded(NOISE, "MPO", progressive=True, save_all=True, append_images=[Image.fromarray(NOISE)])
    end = several.index(b"\xff\xd9") + 2
    with pytest.raises(Unreadable, match=r"is a JPEG of \d+ scans"):
        header(_repeated(several[:end], 100) + several[end:], rules)
    assert decode(_repeated(plain, 94), rules).shape == (3_000, 3_000, 1)


@pytest.mark.fault(13)
def test_what_looks_like_a_scan_within_a_segment_or_behind_the_end_is_none():
    plain = _encoded(NOISE, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda\0\x08" * 200)
    for data in (plain, plain + plain * 20):
        assert data.count(b"\xff\xda") > 200
        np.testing.assert_array_equal(decode(data, RULES), decode(_encoded(NOISE, "JPEG", progressive=True), RULES))
