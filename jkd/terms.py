"""The terms of an objective: losses bound to their settings, and what their arguments are called.

A term is a pure function in `jkd.losses`, named by one line in `jkd.methods`. Its argument names say what it gets:

    student_logits, teacher_logits           [B, C]
    label_target [B, C], labelled [B]        label distribution (a zero row where unknown), and whether it is known
    joined [B, C], mix []                    the joined beliefs of the samples, and their share in the target
    student_feature, teacher_feature         the taps named by the term's `student_tap` and `teacher_tap`
    student_features, teacher_features       the same where these name several, as in `stage1,stage2`: tuples
    context                                  the term's own parameters, from its `own` (see `jkd.methods`)
    student_projection, teacher_projection   [B, P] unit norm: the projected student, the projected join
    mask                                     [B, L] the student's tap of that name: 1 where a text has a token
    anchor_mask                              [B] 1 where an anchor is real; None where all are

Where a sample has several anchors, such as the objects of an image, B counts anchors in all of these but `mask` and
taps. Terms of detectors get

    student_heads, teacher_heads             raw heads, a tuple of `[B, h, w, A, 5 + C]`
    student_necks, teacher_necks             the maps that these are computed from, a tuple of `[B, h, w, c]`
    student_description, teacher_description what the heads mean: static (`jkd.losses.yolo_heads.Heads`)
    boxes, box_classes, box_mask             [B, M, 4], [B, M], [B, M]: true ones, or the teacher's
    annotated                                [B] 1 where they are the true ones

A tap's name may hold a `*` for the layer, as in `layer*/hidden`: the term then stands for one term a pair of layers,
which `layers` picks (see `jkd.layer_map`), with equal shares of its weight. So does a term of one tap to which several
are given, as in `stage1,stage2`: the first with the teacher's first, and so on.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from jkd import methods
from jkd.errors import UserError
from jkd.layer_map import layer_map

INPUTS = frozenset(
    [
        "student_logits",
        "teacher_logits",
        "label_target",
        "labelled",
        "joined",
        "mix",
        "student_feature",
        "teacher_feature",
        "student_features",
        "teacher_features",
        "student_projection",
        "teacher_projection",
        "mask",
        "anchor_mask",
        "student_heads",
        "teacher_heads",
        "student_necks",
        "teacher_necks",
        "student_description",
        "teacher_description",
        "boxes",
        "box_classes",
        "box_mask",
        "annotated",
        "context",
    ]
)
AUTO = "auto"
ANY = "*"  # in a tap's name: of each layer
AND = ","  # between the names of several taps
Shapes = tuple[tuple[int, ...], ...]  # of a side's taps


@dataclass(frozen=True)
class Term:
    """A loss with its weight and schedule, bound to its options and taps.

    Attributes:
      name: what its value is called, unique in an objective.
      key: the config's name of it, of which there may be several terms: one a pair of layers or listed taps.
    """

    name: str
    key: str
    function: Callable[..., Float[Array, ""]]
    weight: float
    schedule: str
    warmup: float
    options: Mapping[str, Any]
    student_tap: str
    teacher_tap: str
    regress: bool
    detach: bool
    own: Callable[[Key[Array, ""], Shapes, Shapes], Any] | None = None

    @property
    def student_taps(self) -> tuple[str, ...]:
        return names_of(self.student_tap)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return names_of(self.teacher_tap)

    @property
    def needs(self) -> frozenset[str]:
        """The names in `INPUTS` that the function asks for."""
        return frozenset(inspect.signature(self.function).parameters) & INPUTS

    def factor(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """The weight at `progress`, the share of the run that is over, in [0, 1)."""
        shape = {
            "constant": jnp.ones_like(progress),
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
        }[self.schedule]
        rise = jnp.minimum(1.0, progress / self.warmup) if self.warmup else 1.0
        return self.weight * shape * rise


def make_term(name: str, settings: Mapping[str, Any] | ConfigDict) -> Term:
    """Binds a line of `jkd.methods` to a config's settings of it."""
    method = methods.METHODS[name]
    chosen = {key: settings[key] for key in method.options if key != "detach"}
    return Term(
        name=name,
        key=name,
        function=_named(method.function),
        weight=settings["weight"],
        schedule=settings["schedule"],
        warmup=settings["warmup"],
        options=chosen,
        student_tap=settings["student_tap"] if method.taps else "",
        teacher_tap=settings["teacher_tap"] if method.taps else "",
        regress=method.regress,
        detach=bool(settings["detach"]) if "detach" in method.options else False,
        own=_named(method.own) if method.own else None,
    )


def names_of(taps: str) -> tuple[str, ...]:
    """The names in a term's `student_tap` or `teacher_tap`."""
    return tuple(name.strip() for name in taps.split(AND)) if taps else ()


def _named(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def terms_of(name: str, settings: ConfigDict, depths: tuple[int, int] = (0, 0), where: str = "student") -> list[Term]:
    """What a config's term stands for: itself, or a term for each pair of the taps or layers that it names.

    Args:
      name: of a line in `jkd.methods`.
      settings: the config's.
      depths: layers of the student and of the teacher; 0 where a network has none.
      where: the student's key, for messages.
    """
    listed = _over_taps(make_term(name, settings), where)
    return [term for each in listed for term in _over_layers(each, settings, depths, where)]


def _over_taps(term: Term, where: str) -> list[Term]:
    """The term once for each pair of the taps that are listed; just the term where it takes several at once."""
    for key, names in (("student_tap", term.student_taps), ("teacher_tap", term.teacher_taps)):
        if methods.METHODS[term.key].taps and not all(names or ("",)):
            raise UserError(
                f"{where}.objective.{term.key}.{key}: expected the name of a tap, or names between commas, got "
                f"'{getattr(term, key)}'."
            )
    pairs = len(term.student_taps), len(term.teacher_taps)
    if "student_features" in term.needs or max(pairs) < 2:
        return [term]
    if pairs[0] != pairs[1]:
        raise UserError(
            f"{where}.objective.{term.key}: expected as many taps of the student as of the teacher, got "
            f"{pairs[0]} ({term.student_tap}) and {pairs[1]} ({term.teacher_tap})."
        )
    return [
        replace(term, name=f"{term.name}_{index}", weight=term.weight / pairs[0], student_tap=own, teacher_tap=theirs)
        for index, (own, theirs) in enumerate(zip(term.student_taps, term.teacher_taps, strict=True))
    ]


def _over_layers(term: Term, settings: ConfigDict, depths: tuple[int, int], where: str) -> list[Term]:
    """The term once for each pair of layers; just the term where its taps name none."""
    taps = (term.student_tap, term.teacher_tap)
    if not any(ANY in tap for tap in taps):
        return [term]
    key = f"{where}.objective.{term.key}.layers"
    pairs = _pairs(settings["layers"], depths, key)
    return [
        replace(
            term,
            name=f"{term.name}_{own}_{theirs}",
            weight=term.weight / len(pairs),
            student_tap=term.student_tap.replace(ANY, str(own)),
            teacher_tap=term.teacher_tap.replace(ANY, str(theirs)),
        )
        for own, theirs in pairs
    ]


def _pairs(layers: str, depths: tuple[int, int], where: str) -> tuple[tuple[int, int], ...]:
    """Which of the student's layers goes with which of the teacher's."""
    if re.fullmatch(r"\d+-\d+(,\d+-\d+)*", layers):
        given = [tuple(int(number) for number in pair.split("-")) for pair in layers.split(",")]
        return layer_map("given", *depths, given, where=where)
    if layers == "final":
        return layer_map("given", *depths, [(depths[0] - 1, depths[1] - 1)], where=where)
    if layers not in methods.LAYERS:
        known = ", ".join(methods.LAYERS)
        raise UserError(f"{where}: expected {known}, or pairs of layers as in '0-1,1-3', got '{layers}'.")
    return layer_map(layers, *depths, where=where)
