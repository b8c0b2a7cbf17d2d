import dataclasses

import pytest

from jkd.errors import UserError
from jkd.models.darknet import AvgPool, Convolutional, Dropout, MaxPool, Net, Route, Shortcut, Upsample, shapes
from jkd.pretrained import darknet

# Every kind of layer and option, in the spellings that files have.
EVERYTHING = """
[net]
# Testing
width = 64
height=32
channels=3
learning_rate=0.001
steps=400000,450000

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish

[conv]
groups=8
filters=16   # two kernels a channel
size=5
pad=1
dilation=2
activation=leaky
[convolutional]
filters=8
size=1
pad=1
activation = swish
stopbackward=1

[dropout]
probability=.2

[shortcut]
from=-4
activation=linear

[shortcut]
from=-2, 0
activation=relu

; parts of channels
[route]
layers=-1
groups=2
group_id=1

[max]
size=5
stride=1

[maxpool]
size=2
stride=2
[upsample]
stride=2

[route]
layers=-1,-4, 0

[convolutional]
filters=14
padding=1
size=3
activation=logistic

[yolo]
mask=1,2
anchors = 4,5, 6.5,8, 10,12
classes=2
num=3
scale_x_y = 1.05
new_coords=1
iou_loss=ciou

[route]
layers=5
[avgpool]
[convolutional]
filters=7
[yolo]
mask=0
anchors=4,5
classes=2
num=1
"""

SMALL = """[net]
height=32
width=32
channels=3
[convolutional]
filters=8
size=3
stride=2
pad=1
[convolutional]
filters=18
[yolo]
mask=0,1,2
anchors=1,2,3,4,5,6
classes=1
"""


def _with(*lines: str) -> str:
    """SMALL with layers before its head."""
    return SMALL.replace("[convolutional]\nfilters=18", "\n".join([*lines, "[convolutional]\nfilters=18"]))


@pytest.fixture(scope="module")
def everything():
    return darknet.parse(EVERYTHING)


def test_every_construct_is_read(everything):
    layers = everything.layers
    assert everything.net == Net(32, 64, 3, (("learning_rate", "0.001"), ("steps", "400000,450000")))
    assert layers[0] == Convolutional(8, 3, 2, 1, 1, 1, True, "mish")
    assert layers[1] == Convolutional(16, 5, 1, 2, 8, 2, False, "leaky")
    assert layers[2] == Convolutional(8, 1, activation="swish", options=(("stopbackward", "1"),))
    assert layers[3:6] == (Dropout(0.2), Shortcut((0,)), Shortcut((3, 0), "relu"))
    assert layers[6:10] == (Route((5,), 2, 1), MaxPool(5, 1, 4), MaxPool(2, 2, 1), Upsample(2))
    assert layers[10] == Route((9, 6, 0))
    assert layers[13:16] == (Route((5,)), AvgPool(), Convolutional(7, 1))
    head = everything.heads[0]
    assert (head.mask, head.classes, head.scale_x_y, head.new_coords) == ((1, 2), 2, 1.05, True)
    assert head.anchors == ((4, 5), (6.5, 8), (10, 12))
    assert head.options == (("iou_loss", "ciou"),)


def test_shapes_follow(everything):
    whole, half = (16, 32), (8, 16)
    expected = [(*whole, 8), (*whole, 16), (*whole, 8), (*whole, 8), (*whole, 8), (*whole, 8), (*whole, 4), (*whole, 4)]
    expected += [(*half, 4), (*whole, 4), (*whole, 16), (*whole, 14), (*whole, 14), (*whole, 8), (1, 1, 8)]
    assert list(shapes(everything)) == [*expected, (1, 1, 7), (1, 1, 7)]


def test_what_is_written_is_read_back(everything):
    assert darknet.parse(darknet.dump(everything)) == everything


def test_a_cfg_can_be_hashed_and_differs_with_any_number(everything):
    net = dataclasses.replace(everything.net, width=96)
    assert len({everything, darknet.parse(EVERYTHING), dataclasses.replace(everything, net=net)}) == 2


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_published_files_are_read_and_written(shared, name):
    cfg = darknet.load(shared / "data" / "yolo_fastest" / f"{name}.cfg")
    assert darknet.parse(darknet.dump(cfg)) == cfg
    assert [shapes(cfg)[i] for i, layer in enumerate(cfg.layers) if layer in cfg.heads] == [
        (10, 10, 255),
        (20, 20, 255),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected [net]"),
        ("[convolutional]\n", "expected [net]"),
        ("width=3", "text.cfg:1: expected KEY=VALUE below a section"),
        ("[net", "text.cfg:1: expected a section"),
        (SMALL.replace("height=32", "height=1000000000"), "[net] height=1000000000: expected 1 to 8192"),
        (SMALL.replace("height=32\n", ""), "text.cfg:1: [net]: expected a line height=NUMBER"),
        (SMALL.replace("height=32", "height=" + "9" * 5000), "expected a whole number"),
        (SMALL.replace("filters=8", "filters=1000000000"), "text.cfg:5: layer 0 [convolutional]: filters=1000000000"),
        (SMALL.replace("filters=8", "filters=0"), "filters=0: expected 1"),
        (SMALL.replace("filters=8", "filters=8x"), "filters=8x: expected a whole number"),
        (SMALL.replace("filters=8", "filter=8"), "unknown option 'filter'. Did you mean 'filters'?"),
        (SMALL.replace("filters=8", "filters=8\nfilters=9"), "text.cfg:7: 'filters' comes twice"),
        (SMALL.replace("size=3", "size=0"), "size=0"),
        (SMALL.replace("size=3\nstride=2\npad=1", "size=33"), "a window of 33 does not fit its input 32x32x3"),
        (SMALL.replace("stride=2", "stride=0"), "stride=0"),
        (SMALL.replace("stride=2", "stride_x=2"), "expected one stride"),
        (SMALL.replace("size=3", "size=3\nactivation=gelu"), "activation=gelu: not known"),
        (SMALL.replace("size=3", "size=3\nxnor=1"), "xnor=1: Darknet has this, jkd does not"),
        (SMALL.replace("size=3", "size=3\ngroups=2"), "groups=2 does not divide both its 3 input channels and 8"),
        (SMALL.replace("filters=18", "filters=21"), "layer 2 [yolo]: 3 anchors and 1 classes need 18 input channels"),
        (SMALL.replace("mask=0,1,2", "mask=0,1,3"), "mask=0, 1, 3: expected indices of its 3 anchors"),
        (SMALL.replace("anchors=1,2,3", "anchors=1,2"), "5 numbers in anchors"),
        (SMALL.replace("anchors=1,", "anchors=-1,"), "an anchor's side"),
        (SMALL.replace("anchors=1,", "anchors=nan,"), "anchors=nan: expected a number"),
        (SMALL.replace("classes=1", "classes=1\nscale_x_y=inf"), "scale_x_y=inf: expected a number"),
        (
            SMALL.replace("classes=1", "classes=1\nscale_xy=1.05"),
            "unknown option 'scale_xy'. Did you mean 'scale_x_y'?",
        ),
        (SMALL.replace("[yolo]", "[region]"), "layer 2 [region]: unknown layer"),
        (SMALL.replace("[yolo]", "[yolol]"), "Did you mean 'yolo'?"),
        (SMALL.partition("[yolo]")[0], "no [yolo] layer"),
        (SMALL + "[convolutional]\nfilters=3\n", "layer 3 [convolutional]: it follows a [yolo] layer"),
        (SMALL + "[route]\nlayers=-1\n", "layer 2 as a source is [yolo]"),
        (SMALL + "[dropout]\n[yolo]\nanchors=1,2\n", "it follows a [yolo] layer"),
        (_with("[dropout]", "probability=1"), "probability=1.0: expected at least 0 and below 1"),
        (_with("[route]", "layers=1"), "layer 1 [route]: layer 1 as a source: expected one before it, 0 to 0"),
        (_with("[route]", "layers=2"), "layer 2 as a source: expected one before it"),
        (_with("[route]", "layers=-2"), "layer -1 as a source: expected one before it"),
        (_with("[route]"), "expected a line layers=NUMBER,NUMBER"),
        (_with("[route]", "layers=-1", "groups=3"), "groups=3 does not divide the 8 channels of layer 0"),
        (_with("[route]", "layers=-1", "groups=2", "group_id=2"), "group_id=2 of groups=2"),
        (_with("[maxpool]", "size=2", "stride=2", "[route]", "layers=0,1"), "layer 0 16x16x8, layer 1 8x8x8"),
        (_with("[maxpool]", "size=2", "stride=2", "[shortcut]", "from=0"), "expected the size of its input, 8x8x8"),
        (_with("[shortcut]", "from=-1", "weights_type=per_feature"), "weights_type=per_feature: Darknet has this"),
        (_with("[maxpool]", "size=40", "padding=0"), "a window of 40 does not fit"),
        (_with("[upsample]", "stride=-2"), "stride=-2: expected 1 to 64"),
        (_with(*["[upsample]", "stride=64"] * 3), "layer 2 [upsample]: its output 65536x65536x8 is too large"),
        (_with(*["[route]", "layers=-1,-1"] * 20), "is too large"),
        (_with("[route]", "layers=" + ",".join(["0"] * 65)), "65 layers as sources: expected 1 to 64"),
        (_with(*["[convolutional]", "filters=30000", "size=9", "pad=1"] * 2), "weights up to here"),
        (_with(*["[dropout]"] * 3000), "layers, expected 2048 at most"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(text, message):
    with pytest.raises(UserError) as caught:
        darknet.parse(text, "text.cfg")
    assert message in str(caught.value)
    assert str(caught.value).startswith("text.cfg")
    assert len(str(caught.value)) < 400


def test_files_that_are_none_are_refused(tmp_path):
    for name, data, message in (
        ("weights.cfg", b"\x00\xff\xfe" * 9, "is not text"),
        ("long.cfg", b"#" * (2**21 + 1), "bytes: expected a Darknet .cfg"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            darknet.load(tmp_path / name)
    with pytest.raises(UserError, match="is not a file"):
        darknet.load(tmp_path / "none.cfg")
