"""Darknet network files (`.cfg`), read and written. The format is that of AlexeyAB's Darknet, YOLOv3 and YOLOv4.

    [net]            the input and how to train
    [convolutional]  one section a layer; an index below 0 counts back from the layer, any other from the first

A file that means something other than what jkd would compute is refused: unknown sections, unknown options of a layer,
and options that Darknet has but jkd does not. Options that only concern training are kept for `dump` and not used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from jkd import places
from jkd.errors import UserError, did_you_mean, some
from jkd.models.darknet import (
    ACTIVATIONS,
    MOST_LAYERS,
    NAMES,
    AvgPool,
    Cfg,
    Convolutional,
    Dropout,
    Layer,
    LayerError,
    MaxPool,
    Net,
    Options,
    Route,
    Shortcut,
    Upsample,
    YoloHead,
    shapes,
)
from jkd.places import Path

MOST_BYTES = 2**21  # of a file; yolov4-p7 has 30 KB
MOST_DIGITS = 32

# Options of a convolution that change nothing of what it computes.
OF_YOLO = (  # of a [yolo] layer, what concerns training, or suppression, which is jkd's own
    *("jitter", "resize", "random", "max", "map", "ignore_thresh", "truth_thresh", "iou_thresh", "iou_thresh_kind"),
    *("cls_normalizer", "iou_normalizer", "obj_normalizer", "delta_normalizer", "uc_normalizer", "max_delta"),
    *("iou_loss", "nms_kind", "beta_nms", "focal_loss", "label_smooth_eps", "objectness_smooth", "counters_per_class"),
    *("show_details", "embedding_layer", "track_history_size", "track_ciou_norm", "sim_thresh", "dets_for_track"),
    *("dets_for_show", "background", "ignore_iof"),
)
TRAINING_ONLY = ("stopbackward", "learning_rate", "burnin_update", "train_only_bn", "reverse")


def load(path: str | Path) -> Cfg:
    """Reads a cfg file and checks the whole network.

    Raises:
      UserError: one message with file, line, layer, what was expected and what came.
    """
    path = places.path_of(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file. Give the path of a Darknet .cfg.")
    if places.size(path) > MOST_BYTES:
        raise UserError(f"{path} has {places.size(path):,} bytes: expected a Darknet .cfg, {MOST_BYTES:,} at most.")
    try:
        with places.open_read(path) as file:
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not text: expected a Darknet .cfg. Weights go to the setting for weights."
        ) from None
    return parse(text, str(path))


def parse(text: str, source: str = "cfg") -> Cfg:
    """The network that a cfg's text describes; `source` names it in messages.

    Raises:
      UserError: as `load`.
    """
    sections = _sections(text, source)
    if not sections or sections[0].name not in ("net", "network"):
        raise UserError(f"{source}: expected [net] as the first section of a Darknet .cfg.")
    net = _net(sections[0])
    if len(sections) - 1 > MOST_LAYERS:
        raise UserError(f"{source}: {len(sections) - 1} layers, expected {MOST_LAYERS} at most.")
    layers = []
    for index, section in enumerate(sections[1:]):
        section.where = f"{source}:{section.line}: layer {index} [{section.name}]"
        if section.name not in _READERS:
            raise UserError(f"{section.where}: unknown layer.{did_you_mean(section.name, _READERS)}")
        layers.append(_READERS[section.name](section, index))
        section.finish()
    cfg = Cfg(net, tuple(layers))
    try:
        shapes(cfg)
    except LayerError as error:
        raise UserError(f"{source}:{sections[1 + error.index].line}: {error}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return cfg


def small() -> Cfg:
    """A detector of 55 thousand parameters for images of some 96 pixels, to try things with."""
    return load(places.path_of(__file__).parent / "small.cfg")


def dump(cfg: Cfg) -> str:
    """A cfg file's text, which `parse` gives back as it was, and Darknet reads."""
    net = {"height": cfg.net.height, "width": cfg.net.width, "channels": cfg.net.channels, **dict(cfg.net.options)}
    parts = [_section("net", net)]
    for index, layer in enumerate(cfg.layers):
        parts.append(_section(NAMES[type(layer)], _options(layer, index)))
    return "\n".join(parts)


def _section(name: str, options: dict[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in options.items()), ""])


def _options(layer: Layer, index: int) -> dict[str, object]:
    """The lines of a layer, as Darknet names them."""
    if isinstance(layer, Convolutional):
        made: dict[str, object] = {"batch_normalize": 1} if layer.batch_normalize else {}
        made |= {"filters": layer.filters, "size": layer.size, "stride": layer.stride}
        made |= {"pad": 1} if layer.padding == layer.size // 2 else {"padding": layer.padding}
        made |= {key: value for key, value in (("groups", layer.groups), ("dilation", layer.dilation)) if value != 1}
        return made | {"activation": layer.activation, **dict(layer.options)}
    if isinstance(layer, Shortcut):
        return {"from": _listed(source - index for source in layer.sources), "activation": layer.activation}
    if isinstance(layer, Route):
        parts = {} if layer.groups == 1 else {"groups": layer.groups, "group_id": layer.group_id}
        return {"layers": _listed(layer.sources), **parts}
    if isinstance(layer, Upsample):
        return {"stride": layer.stride} | ({} if layer.scale == 1 else {"scale": layer.scale})
    if isinstance(layer, MaxPool):
        return {"size": layer.size, "stride": layer.stride, "padding": layer.padding}
    if isinstance(layer, Dropout):
        return {"probability": layer.probability}
    if isinstance(layer, YoloHead):
        sides = [side for anchor in layer.anchors for side in anchor]
        anchors = _listed(int(side) if side == int(side) else side for side in sides)
        made = {"mask": _listed(layer.mask), "anchors": anchors, "classes": layer.classes, "num": len(layer.anchors)}
        made |= {"scale_x_y": layer.scale_x_y} | ({"new_coords": 1} if layer.new_coords else {})
        return made | dict(layer.options)
    return {}


def _listed(values: object) -> str:
    return ",".join(str(value) for value in values)  # type: ignore[attr-defined]


@dataclass
class _Section:
    """A section's lines. Each option is taken once; `finish` refuses what nobody took."""

    name: str
    line: int
    where: str
    options: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    def refuse(self, problem: str) -> UserError:
        return UserError(f"{self.where}: {problem}")

    def text(self, key: str, default: str) -> str:
        self.known.append(key)
        return self.options.pop(key, default)

    def integer(self, key: str, default: int | None) -> int:
        if default is None and key not in self.options:
            raise self.refuse(f"expected a line {key}=NUMBER.")
        return self._integer(key, self.text(key, str(default)))

    def integers(self, key: str) -> tuple[int, ...]:
        if not self.options.get(key):
            raise self.refuse(f"expected a line {key}=NUMBER,NUMBER,...")
        return tuple(self._integer(key, part) for part in self.text(key, "").rstrip(",").split(","))

    def number(self, key: str, default: float) -> float:
        return self._number(key, self.text(key, str(default)))

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(self._number(key, part) for part in self.text(key, "").rstrip(",").split(",") if part)

    def switch(self, key: str) -> bool:
        value = self.integer(key, 0)
        if value not in (0, 1):
            raise self.refuse(f"{key}={value}: expected 0 or 1.")
        return bool(value)

    def activation(self, default: str) -> str:
        value = self.text("activation", default)
        if value not in ACTIVATIONS:
            raise self.refuse(f"activation={value[:40]}: not known.{did_you_mean(value[:40], ACTIVATIONS)}")
        return value

    def rest(self, keys: tuple[str, ...] | None = None) -> Options:
        """Takes what is left, or of it what is among `keys`, in the order of the file."""
        self.known += keys or ()
        taken = [key for key in self.options if keys is None or key in keys]
        return tuple((key, self.options.pop(key)) for key in taken)

    def off(self, *keys: str) -> None:
        """Takes options that Darknet has and jkd has not, which therefore have to be off."""
        for key in keys:
            value = self.options.pop(key, "0")
            if value not in ("0", "none"):
                raise self.refuse(
                    f"{key}={value[:40]}: Darknet has this, jkd does not. Expected {key}=0 or no such line."
                )

    def finish(self) -> None:
        for key in self.options:
            raise self.refuse(f"unknown option '{key[:40]}'.{did_you_mean(key[:40], self.known)}")

    def _integer(self, key: str, text: str) -> int:
        try:
            if len(text) > MOST_DIGITS or not text.isascii():
                raise ValueError
            return int(text)
        except ValueError:
            raise self.refuse(f"{key}={text[:40]}: expected a whole number.") from None

    def _number(self, key: str, text: str) -> float:
        try:
            value = float(text) if len(text) <= MOST_DIGITS and text.isascii() else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.refuse(f"{key}={text[:40]}: expected a number.")
        return value


def _sections(text: str, source: str) -> list[_Section]:
    """Sections in order; as in Darknet, white space means nothing, and `#` and `;` begin a comment."""
    found: list[_Section] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = "".join(raw.split("#")[0].split())
        if not line or line[0] == ";":
            continue
        if line[0] == "[":
            if line[-1] != "]":
                raise UserError(f"{source}:{number}: expected a section such as [net], not {some([line[:40]])}.")
            name = line[1:-1]
            found.append(_Section(name, number, f"{source}:{number}: [{name[:40]}]"))
            continue
        key, equals, value = line.partition("=")
        if not equals or not found:
            raise UserError(f"{source}:{number}: expected KEY=VALUE below a section, not {some([line[:40]])}.")
        if found[-1].options.setdefault(key, value) != value:
            raise UserError(f"{source}:{number}: '{key[:40]}' comes twice in one section, with two values.")
    return found


def _net(section: _Section) -> Net:
    height, width = section.integer("height", None), section.integer("width", None)
    return Net(height, width, section.integer("channels", 3), section.rest())


def _convolutional(section: _Section, index: int) -> Convolutional:
    size, stride = section.integer("size", 1), section.integer("stride", 1)
    if {section.integer("stride_x", stride), section.integer("stride_y", stride)} != {stride}:
        raise section.refuse("stride_x and stride_y differ from stride: expected one stride.")
    section.off("binary", "xnor", "bin_output", "flipped", "dot", "antialiasing", "deform", "sway", "rotate", "stretch")
    section.off(
        "stretch_sway", "assisted_excitation", "share_index", "dontload", "dontloadscales", "coordconv", "angle", "cbn"
    )
    padding = section.integer("padding", 0)
    return Convolutional(
        filters=section.integer("filters", 1),
        size=size,
        stride=stride,
        padding=size // 2 if section.switch("pad") else padding,
        groups=section.integer("groups", 1),
        dilation=1 if size == 1 else section.integer("dilation", 1),
        batch_normalize=section.switch("batch_normalize"),
        activation=section.activation("logistic"),
        options=section.rest(TRAINING_ONLY),
    )


def _shortcut(section: _Section, index: int) -> Shortcut:
    section.off("weights_type", "weights_normalization")
    return Shortcut(_absolute(section.integers("from"), index), section.activation("linear"))


def _route(section: _Section, index: int) -> Route:
    section.rest(("stopbackward",))
    sources = _absolute(section.integers("layers"), index)
    return Route(sources, section.integer("groups", 1), section.integer("group_id", 0))


def _absolute(sources: tuple[int, ...], index: int) -> tuple[int, ...]:
    return tuple(source if source >= 0 else index + source for source in sources)


def _upsample(section: _Section, index: int) -> Upsample:
    return Upsample(section.integer("stride", 2), section.number("scale", 1.0))


def _maxpool(section: _Section, index: int) -> MaxPool:
    stride = section.integer("stride", 1)
    if {section.integer("stride_x", stride), section.integer("stride_y", stride)} != {stride}:
        raise section.refuse("stride_x and stride_y differ from stride: expected one stride.")
    section.off("maxpool_depth", "antialiasing")
    size = section.integer("size", stride)
    return MaxPool(size, stride, section.integer("padding", size - 1))


def _avgpool(section: _Section, index: int) -> AvgPool:
    return AvgPool()


def _dropout(section: _Section, index: int) -> Dropout:
    section.off("dropblock", "dropblock_size_rel", "dropblock_size_abs")
    return Dropout(section.number("probability", 0.2))


def _yolo(section: _Section, index: int) -> YoloHead:
    sides = section.numbers("anchors")
    if not sides or len(sides) % 2 or len(sides) > 2048:
        raise section.refuse(f"{len(sides)} numbers in anchors: expected pairs of width and height.")
    anchors = tuple(zip(sides[::2], sides[1::2], strict=True))
    number = section.integer("num", len(anchors))
    if number > len(anchors):
        raise section.refuse(f"num={number}, but there are {len(anchors)} pairs in anchors.")
    return YoloHead(
        mask=section.integers("mask") if "mask" in section.options else tuple(range(max(number, 0))),
        anchors=anchors[: max(number, 0)],
        classes=section.integer("classes", 20),
        scale_x_y=section.number("scale_x_y", 1.0),
        new_coords=section.switch("new_coords"),
        options=section.rest(OF_YOLO),
    )


_READERS: dict[str, Callable[[_Section, int], Layer]] = {
    "convolutional": _convolutional,
    "conv": _convolutional,
    "shortcut": _shortcut,
    "route": _route,
    "upsample": _upsample,
    "maxpool": _maxpool,
    "max": _maxpool,
    "avgpool": _avgpool,
    "avg": _avgpool,
    "dropout": _dropout,
    "yolo": _yolo,
}
