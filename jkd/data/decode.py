"""One encoded image to uint8 pixels, by written rules, without trusting its header.

Rules: the first frame of an animation; EXIF orientation applied; bilevel, grey and grey + alpha images give
one channel, 16-bit grey is scaled to 0..255, everything else (palette, CMYK, YCbCr, alpha) becomes RGB, alpha
dropped; 32-bit integer and float pixels have no agreed range and are refused. Resizing is Pillow's
antialiased bilinear, to a square, without keeping the aspect.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

# Formats decoded in this process only: EPS, for one, would start another program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
GREY = ("1", "L", "LA", "La")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
JPEG_MOST = 1024  # pixels a byte of a JPEG stands for at most: an 8x8 block takes a bit or more, so 512 and a margin
SCANS = 100  # most passes of a JPEG over its pixels: progressive ones have about ten, each takes time for all pixels
JPEGS = ("JPEG", "MPO")  # Pillow's names; the other is a JPEG with further ones behind it
START, END = 0xDA, 0xD9  # JPEG's markers of a scan and of the end
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # not stuffing, and none of those that stand within a scan


class Unreadable(Exception):
    """Why an image cannot be used."""


@dataclass(frozen=True)
class Rules:
    """How images are read: pixels refused from the header on, and the side to resize to (0 = as they are)."""

    max_pixels: int
    image_size: int = 0

    @property
    def max_bytes(self) -> int:
        """Most bytes that a file may have: no honest format needs over 16 bits for each of 4 channels."""
        return 8 * self.max_pixels + 2**20


def header(data: bytes, rules: Rules) -> tuple[int, int, bool]:
    """Height, width (as `decode` would give them) and whether it is grey, without decoding.

    Raises:
      Unreadable: not an image in one of `FORMATS`, or too many pixels.
    """
    try:
        image = _open(data, rules)
        # The base class reads what the header held; PNG's own method would decode the body to look behind it.
        turned = Image.Image.getexif(image).get(ORIENTATION) in TURNED
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plugins raise whatever they meet in broken bytes
        raise Unreadable(_reason(error)) from None
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    if rules.image_size:
        height = width = rules.image_size
    return height, width, image.mode in GREY + SIXTEEN_BIT


def decode(data: bytes, rules: Rules) -> UInt8[np.ndarray, "h w c"]:
    """Pixels of an encoded image, `[H, W, 1]` for grey and `[H, W, 3]` for colour.

    Raises:
      Unreadable: not an image in one of `FORMATS`, truncated, too many pixels, or pixels without an agreed
        range.
    """
    try:
        image: Image.Image = _open(data, rules)
        image.load()
        image = _to_8_bit(ImageOps.exif_transpose(image))
        if rules.image_size and image.size != (rules.image_size, rules.image_size):
            image = image.resize((rules.image_size, rules.image_size), Image.Resampling.BILINEAR)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plugins raise whatever they meet in broken bytes
        raise Unreadable(_reason(error)) from None
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def resize(images: UInt8[np.ndarray, "n h w c"], side: int) -> UInt8[np.ndarray, "n side side c"]:
    """Resizes decoded images to a square, channel by channel, as `decode` does."""
    resized = np.empty((len(images), side, side, images.shape[3]), np.uint8)
    for index, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            resized[index, :, :, channel] = np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR))
    return resized


def _open(data: bytes, rules: Rules) -> Image.Image:
    """Reads the header only. Pillow's own guard against bombs stays as it is, beside ours."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise Unreadable(f"claims over {most} pixels, over data.max_pixels={rules.max_pixels}") from None
    if image.width * image.height > rules.max_pixels:
        raise Unreadable(f"claims {image.height}x{image.width} pixels, over data.max_pixels={rules.max_pixels}")
    if image.format in JPEGS and image.width * image.height > JPEG_MOST * len(data):  # libjpeg would fill in grey
        raise Unreadable(f"claims {image.height}x{image.width} pixels, more than its {len(data)} bytes can hold")
    if image.format in JPEGS and (scans := _scans(data)) > SCANS:
        raise Unreadable(f"is a JPEG of {scans} scans, over {SCANS}")
    return image


def _scans(data: bytes) -> int:
    """Scans of a JPEG, which is what comes up to its end; not those of a preview within it, or of what follows it."""
    scans = data.count(bytes((0xFF, START)))
    if scans <= SCANS:  # hardly ever more, so the segments need not be walked
        return scans
    at, scans = 2, 0
    while (found := MARKER.search(data, at)) and found[1][0] != END:
        scans += found[1][0] == START
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return scans


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32_767) // 65_535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise Unreadable(f"has 32-bit pixels (mode {image.mode}), which have no agreed range")
    return image.convert("L" if image.mode in GREY else "RGB")


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return f"is not an image in a known format ({', '.join(FORMATS)})"
    return f"cannot be decoded: {str(error) or type(error).__name__}"
