import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jkd.data.letterbox import FITS, lay, place, resize

SIDES = st.tuples(st.integers(1, 900), st.integers(1, 900))


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SIDES, st.tuples(st.integers(32, 640), st.integers(32, 640)), st.sampled_from(FITS))
def test_boxes_come_back_to_where_they_were(image, canvas, fit):
    made = place(image, canvas, fit)
    boxes = np.asarray([[0, 0, image[1], image[0]], [image[1] / 3, image[0] / 4, image[1] / 2, image[0] / 2]])
    there = made.to_canvas(boxes)
    np.testing.assert_allclose(made.to_image(there), boxes, atol=1e-9)
    left, top = made.offset
    np.testing.assert_allclose(there[0], [left, top, left + made.placed[1], top + made.placed[0]], atol=1e-9)
    assert left >= 0 and top >= 0 and left + made.placed[1] <= canvas[1] and top + made.placed[0] <= canvas[0]


@given(SIDES)
def test_a_letterbox_keeps_the_aspect_to_a_pixel_and_touches_two_borders(image):
    made = place(image, (320, 320), "letterbox")
    assert 320 in made.placed
    scale = 320 / max(image)
    assert abs(made.placed[0] - max(image[0] * scale, 1)) <= 0.5 + 1e-9
    assert abs(made.placed[1] - max(image[1] * scale, 1)) <= 0.5 + 1e-9


def test_what_the_image_does_not_reach_is_grey():
    canvas = lay(np.zeros((50, 100, 3), np.uint8), place((50, 100), (64, 64), "letterbox"), fill=127)
    assert (canvas[:16] == 127).all() and (canvas[48:] == 127).all() and (canvas[16:48] == 0).all()


def test_a_coordinate_beyond_the_image_is_cut_off_unless_asked_not_to():
    made = place((50, 100), (64, 64), "letterbox")
    beyond = np.asarray([-9.0, 0.0, 80.0, 64.0])
    np.testing.assert_allclose(made.to_image(beyond), [0, 0, 100, 50])
    assert made.to_image(beyond, clip=False)[0] < 0


def test_the_golden_inputs_come_out_byte_for_byte(shared):
    golden = np.load(shared / "golden" / "yolo" / "yolo-fastest-1.1.npz", allow_pickle=False)
    names = [key.removesuffix("_input") for key in golden.files if key.endswith("_input")]
    assert len(names) == 5
    for name in names:
        with Image.open(shared / "data" / "yolo_fastest" / "images" / f"{name}.jpg") as file:
            image = np.asarray(file.convert("RGB"))
        canvas = lay(image, place(image.shape[:2], (320, 320)))
        np.testing.assert_array_equal(canvas, golden[f"{name}_input"][0])


@given(SIDES.filter(lambda size: size[0] * size[1] < 40_000), st.tuples(st.integers(1, 120), st.integers(1, 120)))
def test_two_taps_are_bilinear_interpolation_to_a_level(image, size):
    pixels = _image(*image)
    made = resize(pixels, size).astype(np.float64)
    across, down = (
        np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        for new, old in zip(size[::-1], image[::-1], strict=True)
    )
    x, y = np.floor(across).astype(int), np.floor(down).astype(int)
    x2, y2 = np.minimum(x + 1, image[1] - 1), np.minimum(y + 1, image[0] - 1)
    fx, fy = (across - x)[None, :, None], (down - y)[:, None, None]
    upper = pixels[y][:, x] * (1 - fx) + pixels[y][:, x2] * fx
    lower = pixels[y2][:, x] * (1 - fx) + pixels[y2][:, x2] * fx
    assert np.abs(made - (upper * (1 - fy) + lower * fy)).max() < 1.3


def test_antialiased_is_pillows():
    image = _image(90, 70)
    expected = np.asarray(Image.fromarray(image).resize((20, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, (30, 20), "antialiased"), expected)


def test_an_image_of_that_size_stays_as_it_is():
    image = _image(20, 30)
    assert resize(image, (20, 30)) is image


@pytest.mark.parametrize("wrong", [dict(fit="crop"), dict(interpolation="cubic")])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        lay(_image(4, 5), place((4, 5), (8, 8), wrong.get("fit", "stretch")), wrong.get("interpolation", "bilinear"))
