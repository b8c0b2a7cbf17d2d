import numpy as np
import pytest
from PIL import Image

from jkd.data.annotations import Annotated, annotation
from jkd.data.listing import InMemory
from jkd.data.objects import Canvas, ObjectSource, load
from jkd.data.sources import Source
from jkd.errors import UserError

SIZES = ((40, 60), (80, 50), (33, 77), (64, 64))


@pytest.fixture
def listing(encoded):
    """Four images of four sizes: two objects, none, not annotated, three; each box is a bright rectangle."""
    boxes = [[[10, 8, 30, 20], [40, 20, 55, 36]], [], None, [[4, 4, 12, 12], [16, 4, 60, 30], [20, 40, 50, 60]]]
    blobs, marks = [], []
    for (height, width), found in zip(SIZES, boxes, strict=True):
        image = np.zeros((height, width, 3), np.uint8)
        for x0, y0, x1, y1 in found or []:
            image[y0:y1, x0:x1] = 255
        blobs.append(InMemory(encoded(image)))
        marks.append(None if found is None else annotation(found, [0] * len(found), size=(height, width)))
    labels = np.asarray([0, 0, -1, 0], np.int32)
    return Annotated("made:train", ("box", "other"), ["a", "b", "c", "d"], labels, blobs, marks)


def _load(listing, fit="stretch", **more) -> ObjectSource:
    return load(listing, Canvas((96, 128), fit), max_pixels=10_000, **more)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_boxes_lie_on_what_they_are_boxes_of(listing, fit):
    source = _load(listing, fit)
    pixels, boxes = source.images(np.arange(4)), source.boxes(np.arange(4))
    assert pixels.shape == (4, 96, 128, 3) and boxes.boxes.shape == (4, 3, 4) and source.max_boxes == 3
    for row in (0, 3):
        bright = pixels[row, :, :, 0] == 255
        for box, kind in zip(boxes.boxes[row], boxes.classes[row], strict=True):
            if kind >= 0:
                left, top, right, bottom = box
                inside = bright[int(np.ceil(top + 1)) : int(bottom - 1), int(np.ceil(left + 1)) : int(right - 1)]
                assert inside.size and inside.all()
                bright[max(int(top) - 1, 0) : int(bottom) + 2, max(int(left) - 1, 0) : int(right) + 2] = False
        assert not bright.any()


def test_it_is_a_source_of_images_and_objects_are_numbered_through(listing):
    source = _load(listing)
    assert isinstance(source, Source)
    assert source.labels.tolist() == [0, 0, -1, 0] and source.counts["unannotated"] == 1
    boxes = source.boxes(np.asarray([3, 2, 0]))
    assert boxes.object.tolist() == [[2, 3, 4], [-1, -1, -1], [0, 1, -1]]
    assert (boxes.boxes[boxes.classes < 0] == 0).all()
    assert source.image_of.tolist() == [0, 0, 3, 3, 3] and source.objects(np.asarray([3, 1])).tolist() == [2, 3, 4]
    np.testing.assert_allclose(source.to_image(3, boxes.boxes[0]), source.truth(3).boxes, atol=1e-4)


def test_images_decoded_when_asked_for_are_the_same(listing, monkeypatch):
    whole = _load(listing, "letterbox")
    monkeypatch.setattr("jkd.data.objects.IN_MEMORY_BYTES", 0)
    lazy = _load(listing, "letterbox")
    assert whole.in_memory and not lazy.in_memory
    index = np.asarray([2, 0, 3])
    np.testing.assert_array_equal(whole.images(index), lazy.images(index))
    assert lazy.fingerprint == _load(listing, "letterbox").fingerprint


def test_an_image_that_changed_since_it_was_looked_at_is_refused_by_name(listing, monkeypatch):
    monkeypatch.setattr("jkd.data.objects.IN_MEMORY_BYTES", 0)
    lazy = _load(listing)
    lazy.images(np.asarray([0, 1]))
    monkeypatch.setattr(InMemory, "read", lambda blob: listing.blobs[0].data)  # another file of the same size
    lazy.images(np.asarray([0]))
    with pytest.raises(UserError, match=f"{listing.ids[1]} has changed since the run began"):
        lazy.images(np.asarray([1]))


def test_the_fingerprint_changes_with_a_box_a_flag_and_the_fit(listing):
    marks = list(listing.annotations)
    moved = Annotated(**vars(listing) | {"annotations": [annotation([[10, 8, 30, 21]], [0]), *marks[1:]]})
    flagged = marks[0].__class__(**vars(marks[0]) | {"crowd": np.asarray([False, True])})
    crowd = Annotated(**vars(listing) | {"annotations": [flagged, *marks[1:]]})
    made = [_load(listing), _load(listing, "letterbox"), _load(moved), _load(crowd)]
    assert len({source.fingerprint for source in made}) == 4
    assert made[0].fingerprint == _load(listing).fingerprint


def test_more_objects_than_slots_leave_the_largest(listing):
    source = _load(listing, max_boxes=2)
    assert source.counts["over"] == 1 and source.boxes(np.asarray([3])).object.tolist() == [[2, 3]]
    np.testing.assert_allclose(
        source.to_image(3, source.boxes(np.asarray([3])).boxes[0, 0]), [16, 4, 60, 30], atol=1e-4
    )
    assert len(source.truth(3).boxes) == 3  # an evaluation sees them all
    assert _load(listing, max_boxes=7).boxes(np.asarray([0])).boxes.shape == (1, 7, 4)


def test_a_teachers_boxes_fill_in_for_an_annotation(listing):
    source = _load(listing)
    found = {2: (np.asarray([[10.0, 10, 50, 40], [20, 20, 20, 20]]), np.asarray([1, 0]))}
    filled = source.with_boxes(found)
    assert filled.labels.tolist() == [0, 0, 0, 0] and source.labels[2] == -1
    boxes = filled.boxes(np.arange(4))
    assert boxes.object.tolist() == [[0, 1, -1], [-1] * 3, [2, -1, -1], [3, 4, 5]]
    np.testing.assert_allclose(boxes.boxes[2, 0], [10, 10, 50, 40], atol=1e-4)
    assert filled.counts["found"] == 1 and filled.fingerprint != source.fingerprint


def test_a_limit_keeps_the_same_images_with_their_boxes(listing):
    whole, part = _load(listing), _load(listing, limit=2)
    ids = [whole.id(i) for i in range(4)]
    for row in range(2):
        same = ids.index(part.id(row))
        np.testing.assert_array_equal(part.images(np.asarray([row])), whole.images(np.asarray([same])))
        np.testing.assert_array_equal(part.truth(row).boxes, whole.truth(same).boxes)


def test_broken_images_are_refused_or_left_out_with_their_boxes(listing):
    broken = Annotated(**vars(listing) | {"blobs": [InMemory(b"no image"), *listing.blobs[1:]]})
    with pytest.raises(UserError, match="1 of 4 images cannot be read: a is not an image"):
        _load(broken)
    source = _load(broken, broken="skip", broken_limit=0.3)
    assert [source.id(i) for i in range(3)] == ["b", "c", "d"] and source.image_of.tolist() == [2, 2, 2]


def test_grey_images_become_three_channels(listing, encoded):
    grey = InMemory(encoded(Image.new("L", (60, 40), 77)))
    source = _load(Annotated(**vars(listing) | {"blobs": [grey, *listing.blobs[1:]]}))
    assert (source.images(np.asarray([0])) == 77).all() and source.shape == (96, 128, 3)
