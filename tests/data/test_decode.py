import numpy as np
import pytest
from PIL import Image

from jkd.data.decode import Rules, Unreadable, decode, header, resize

RULES = Rules(max_pixels=10_000)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(encoded, kind):
    np.testing.assert_array_equal(decode(encoded(COLOUR, kind), RULES), COLOUR)


def test_grey_keeps_one_channel(encoded):
    np.testing.assert_array_equal(decode(encoded(GREY), RULES), GREY[:, :, None])


@pytest.mark.fault(12)
def test_sixteen_bit_grey_is_scaled_to_255(encoded):
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(encoded(wide), RULES), GREY[:, :, None])


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK"])
@pytest.mark.fault(12)
def test_palette_alpha_and_cmyk_become_rgb(encoded, mode):
    image = Image.new("RGB", (7, 5), (255, 0, 0)).convert(mode)
    pixels = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), RULES)
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([255, 0, 0]), (5, 7, 3)))


@pytest.mark.fault(12)
def test_float_pixels_are_refused(encoded):
    image = Image.fromarray(np.zeros((3, 3), np.float32))
    with pytest.raises(Unreadable, match="no agreed range"):
        decode(encoded(image, "TIFF"), RULES)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.fault(12)
def test_exif_orientation_is_applied_and_header_says_the_same_size(encoded, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(COLOUR, "PNG", exif=exif.tobytes())
    turned = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }[orientation]
    np.testing.assert_array_equal(decode(data, RULES), turned)
    assert header(data, RULES) == (*turned.shape[:2], False)


@pytest.mark.fault(12)
def test_of_an_animation_the_first_frame_counts(encoded):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 255, 0))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(data, RULES)[0, 0], [255, 0, 0])


@pytest.mark.fault(13)
def test_too_many_pixels_are_refused_from_the_header(encoded):
    data = encoded(np.zeros((101, 100), np.uint8))
    cut = data[: len(data) // 2]  # the body is not even there
    for look in (header, decode):
        with pytest.raises(Unreadable, match="claims 101x100 pixels"):
            look(cut, RULES)


@pytest.mark.fault(13)
def test_pillows_own_guard_stays_on(encoded, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Unreadable, match=r"claims over 20 pixels, over data\.max_pixels=10000"):
        decode(encoded(COLOUR), RULES)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data[:20], lambda data: b"hello", lambda _: b""]
)
@pytest.mark.fault(12)
def test_broken_bytes_are_unreadable(encoded, damage):
    noise = np.random.default_rng(2).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    with pytest.raises(Unreadable):
        decode(damage(encoded(noise)), RULES)


def test_formats_that_would_start_a_program_are_not_tried():
    with pytest.raises(Unreadable, match="known format"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", RULES)


def test_image_size_resizes_to_a_square_and_arrays_alike(encoded):
    rules = Rules(max_pixels=10_000, image_size=4)
    data = encoded(COLOUR)
    assert header(data, rules)[:2] == (4, 4)
    np.testing.assert_array_equal(decode(data, rules), resize(COLOUR[None], 4)[0])


def test_shrinking_is_antialiased(encoded):
    checks = np.indices((32, 32)).sum(0) % 2 * np.uint8(255)
    pixels = decode(encoded(checks.astype(np.uint8)), Rules(10_000, image_size=4))
    assert abs(pixels.astype(int) - 127).max() < 8
