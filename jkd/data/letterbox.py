"""Images and boxes onto the network's canvas and back: plain resize, or letterbox.

A coordinate counts pixels from the left or upper border, so a pixel's centre is at its number + 0.5 and an image of
width w reaches from 0 to w. `Placement` is the affine map from image to canvas, for boxes as for pixels.

Two interpolations:

- `bilinear`: two taps an axis around the centre of the target pixel, no antialiasing, in the fixed-point arithmetic
  (11 bits of weight) that OpenCV's `INTER_LINEAR` has for bytes: equal to it byte for byte, so that a network sees
  here what it saw in Darknet's and OpenCV's evaluations.
- `antialiased`: Pillow's bilinear, whose filter grows with the reduction. Less noise where images shrink a lot; other
  pixels than the ones above (2 to 7 levels of 255 in the mean on photographs reduced to 320).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

FITS = ("stretch", "letterbox")
INTERPOLATIONS = ("bilinear", "antialiased")
GREY = 114  # what surrounds a letterboxed image; Darknet's 0.5 is 127
BITS = 11  # of a weight; OpenCV's INTER_RESIZE_COEF_BITS


@dataclass(frozen=True)
class Placement:
    """Where an image lies on the canvas: canvas = image * scale + offset, per axis (x, y), in pixels.

    Attributes:
      image: height and width of the image.
      canvas: height and width of the canvas.
      placed: height and width that the image has on the canvas, whole pixels.
      offset: left and top border, whole pixels.
    """

    image: tuple[int, int]
    canvas: tuple[int, int]
    placed: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels of an image pixel, x and y."""
        return self.placed[1] / self.image[1], self.placed[0] / self.image[0]

    def to_canvas(self, boxes: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b 4"]:
        """Boxes xyxy in pixels of the image to pixels of the canvas, float64; nothing is clipped."""
        return boxes.astype(np.float64) * np.tile(self.scale, 2) + np.tile(self.offset, 2)

    def to_image(self, boxes: Float[np.ndarray, "*b 4"], clip: bool = True) -> Float[np.ndarray, "*b 4"]:
        """Boxes xyxy in pixels of the canvas to pixels of the image, float64, cut off at its borders by default."""
        back = (boxes.astype(np.float64) - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        if clip:
            back = np.clip(back, 0.0, np.tile((self.image[1], self.image[0]), 2).astype(np.float64))
        return back


def place(image: tuple[int, int], canvas: tuple[int, int], fit: str = "stretch") -> Placement:
    """How an image is laid on the canvas.

    `stretch` fills it and may change the aspect. `letterbox` keeps the aspect: the image becomes as large as fits,
    rounded to whole pixels, in the middle; an odd pixel of border goes to the right or bottom.

    Args:
      image: height and width.
      canvas: height and width.
      fit: one of `FITS`.
    """
    if fit == "stretch":
        return Placement(image, canvas, canvas, (0, 0))
    if fit != "letterbox":
        raise ValueError(f"fit: expected {' or '.join(FITS)}, got {fit!r}")
    scale = min(canvas[0] / image[0], canvas[1] / image[1])
    height, width = (max(1, min(whole, round(side * scale))) for side, whole in zip(image, canvas, strict=True))
    return Placement(image, canvas, (height, width), ((canvas[1] - width) // 2, (canvas[0] - height) // 2))


def lay(
    pixels: UInt8[np.ndarray, "h w 3"], placement: Placement, interpolation: str = "bilinear", fill: int = GREY
) -> UInt8[np.ndarray, "H W 3"]:
    """The canvas with the image on it.

    Args:
      pixels: the image that `placement` was made for.
      placement: from `place`.
      interpolation: one of `INTERPOLATIONS`.
      fill: 0..255, of all channels, where the image does not reach.
    """
    if pixels.shape[:2] != placement.image:
        raise ValueError(f"an image of {pixels.shape[:2]} for the placement of one of {placement.image}")
    small = resize(pixels, placement.placed, interpolation)
    if placement.placed == placement.canvas:
        return small
    canvas = np.full((*placement.canvas, 3), fill, np.uint8)
    left, top = placement.offset
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def resize(
    pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int], interpolation: str = "bilinear"
) -> UInt8[np.ndarray, "H W c"]:
    """An image at another height and width, by one of the two interpolations above."""
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == "antialiased":
        wide = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(wide)
    if interpolation != "bilinear":
        raise ValueError(f"interpolation: expected {' or '.join(INTERPOLATIONS)}, got {interpolation!r}")
    return _two_taps(pixels, size)


def _two_taps(pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W c"]:
    (top, bottom, down), (left, right, across) = (_taps(*pair) for pair in zip(pixels.shape[:2], size, strict=True))
    # Columns first, of those rows that are needed; a pixel is moved as one item, which is twice as fast.
    needed, at = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    channels, one = pixels.shape[2], 1 << BITS
    items = np.ascontiguousarray(pixels[needed]).view(f"V{channels}")[..., 0]
    first, second = (np.take(items, which, axis=1) for which in (left, right))
    weight = np.repeat(across, channels)[None]
    mixed = _integers(first) * (one - weight)
    mixed += _integers(second) * weight
    mixed >>= 4
    weight = down[:, None]
    # The very shifts of OpenCV's vector code: each product loses its low 16 bits before the two are summed.
    total = (mixed[at[: len(top)]] * (one - weight)) >> 16
    total += (mixed[at[len(top) :]] * weight) >> 16
    total += 2
    return (total >> 2).astype(np.uint8).reshape(*size, channels)  # at most 255, as 4 * 255 + 2 is below 4 * 256


def _integers(items: np.ndarray) -> np.ndarray:
    """Pixels as rows of channel values, int32 `[h, w * c]`."""
    return items.view(np.uint8).reshape(len(items), -1).astype(np.int32)


def _taps(length: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source pixels of every target pixel along an axis, and the weight of the second in 1/2048, int32."""
    centre = ((np.arange(new) + 0.5) * (length / new) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int32)
    share = centre - first.astype(np.float32)
    outside = (first < 0) | (first >= length - 1)
    share[outside] = 0
    first = np.clip(first, 0, length - 1)
    weight = np.rint(share * np.float32(1 << BITS)).astype(np.int32)
    return first, np.minimum(first + 1, length - 1), weight
