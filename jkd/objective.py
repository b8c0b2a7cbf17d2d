"""The weighted sum of named terms that a student is trained on, and the parameters that the terms own.

The arrays are those of the whole global batch: under `jit` with a sharded batch they are global by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from jkd import methods, random
from jkd.graph import projection, relation
from jkd.tasks import Anchors
from jkd.terms import AUTO, Term, make_term, terms_of

OF_ANCHORS = frozenset(["student_logits", "teacher_logits", "student_projection", "teacher_projection"])
SEVERAL = ("heads", "necks")  # inputs of a side that are tuples of taps


@dataclass(frozen=True)
class Side:
    """One network's view of a batch: its anchors and those of its taps (name -> array) that a term compares."""

    anchors: Anchors
    taps: Mapping[str, Any]  # jax also builds it of shapes, gradients and shardings


jax.tree_util.register_dataclass(Side, data_fields=["anchors", "taps"], meta_fields=[])


@dataclass(frozen=True)
class Objective:
    """A sum of terms; `init` makes the parameters they own, calling it gives the loss and each term's value."""

    terms: tuple[Term, ...]
    projection: int
    heads: int
    edge_types: int
    masked: bool = False
    student_described: Mapping[str, Any] = field(default_factory=dict)
    teacher_described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def student_taps(self) -> tuple[str, ...]:
        masks = {"mask"} if "mask" in self.needs else set()
        several = self._several("student", self.student_described)
        return tuple(sorted(masks | several | {tap for term in self.terms for tap in term.student_taps}))

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        several = self._several("teacher", self.teacher_described)
        return tuple(sorted(several | {tap for term in self.terms for tap in term.teacher_taps}))

    def _several(self, side: str, described: Mapping[str, Any]) -> set[str]:
        return {tap for what in SEVERAL if f"{side}_{what}" in self.needs for tap in described[what]}

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(term.needs for term in self.terms))

    @property
    def needs_teacher(self) -> bool:
        return any(name.startswith("teacher_") for name in self.needs - {"teacher_description"})

    @property
    def needs_anchors(self) -> bool:
        """Whether a term asks for what is said of the anchors."""
        return bool(self.needs & OF_ANCHORS)

    @property
    def projects(self) -> bool:
        return "student_projection" in self.needs

    def init(self, key: Key[Array, ""], student: Side, teacher: Side | None) -> dict[str, Any]:
        """Parameters of the terms, from the shapes of one batch (arrays or `ShapeDtypeStruct`s)."""
        params: dict[str, Any] = {}
        for index, term in enumerate(self.terms):
            if term.regress:
                assert teacher is not None
                wide, out = student.taps[term.student_tap].shape[-1], teacher.taps[term.teacher_tap].shape[-1]
                params[term.name] = projection.init_projection(random.subkey(key, 100 + index), wide, out)
            if term.own:
                assert teacher is not None
                sides = ((student, term.student_taps), (teacher, term.teacher_taps))
                shapes = [tuple(tuple(side.taps[tap].shape) for tap in taps) for side, taps in sides]
                params[f"{term.name}_context"] = term.own(random.subkey(key, 10_000 + index), *shapes)
        if self.projects:
            assert teacher is not None
            feature, own = teacher.anchors.feature.shape[-1], student.anchors.feature.shape[-1]
            join = relation.init_feature_join(random.subkey(key, 0), feature, self.edge_types, self.heads)
            joined = feature + join["value"].shape[-1] * self.heads
            params["join"] = join
            params["teacher"] = projection.init_projection(random.subkey(key, 1), joined, self.projection)
            params["student"] = projection.init_projection(random.subkey(key, 2), own, self.projection)
        return params

    def project_student(self, params: Mapping[str, Any], feature: Float[Array, "b d"]) -> Float[Array, "b p"]:
        """S_i = normalise(P_s s_i). Joins nothing: a lone test input must have the same S as in a batch."""
        return projection.project(params["student"], feature)

    def project_teacher(
        self, params: Mapping[str, Any], feature: Float[Array, "b d"], given: Mapping[str, Array]
    ) -> Float[Array, "b p"]:
        """T_i = normalise(P_t [t_i ; r_i]), r_i gathered by attention over the graph's edges."""
        gathered = relation.feature_join(
            params["join"],
            feature,
            given["neighbour_features"],
            given["neighbour_weights"],
            given["neighbour_mask"],
        )
        return projection.project(params["teacher"], feature, gathered)

    def __call__(
        self,
        params: Mapping[str, Any],
        student: Side,
        teacher: Side | None,
        given: Mapping[str, Array],
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Returns the loss and each term's unweighted value.

        Args:
          params: from `init`.
          student: the student's side of the global batch.
          teacher: the teacher's, already without gradient; None when no term asks for it.
          given: what does not come from a network: `label_target`, `labelled`, and, where a term asks for them,
            `joined`, `mix`, `smoothing`, and the anchors' `neighbour_features [B, V, K, D]`, `neighbour_weights` and
            `neighbour_mask [B, V, K]`.
          progress: share of the run that is over.
        """
        student, teacher = _flat(student), teacher and _flat(teacher)
        total = jnp.zeros((), jnp.float32)
        values: dict[str, Float[Array, ""]] = {}
        for term in self.terms:
            value = term.function(
                **{name: self._input(name, term, params, student, teacher, given) for name in sorted(term.needs)},
                **{key: given[key] if option == AUTO else option for key, option in term.options.items()},
            )
            values[term.name] = value
            total = total + term.factor(progress) * value
        return total, values

    def _input(
        self,
        name: str,
        term: Term,
        params: Mapping[str, Any],
        student: Side,
        teacher: Side | None,
        given: Mapping[str, Array],
    ) -> Any:
        if name in given:
            return given[name]
        side_name, _, what = name.partition("_")
        if what in SEVERAL or what == "description":
            side, described = (
                (student, self.student_described) if side_name == "student" else (teacher, self.teacher_described)
            )
            if what == "description":
                return described[what]
            assert side is not None, name
            return tuple(side.taps[tap] for tap in described[what])
        if name == "context":
            return params[f"{term.name}_context"]
        if name == "anchor_mask":
            return student.anchors.mask if self.masked else None
        if name == "student_logits":
            return student.anchors.logits
        if name == "mask":
            return jax.lax.stop_gradient(student.taps["mask"])
        if name == "student_feature":
            tap = student.taps[term.student_tap]
            own = params.get(term.name)
            return tap if own is None else tap @ own["kernel"] + own["bias"].reshape((1,) * (tap.ndim - 1) + (-1,))
        if name == "student_features":
            return tuple(student.taps[tap] for tap in term.student_taps)
        if name == "student_projection":
            feature = student.anchors.feature
            return self.project_student(params, jax.lax.stop_gradient(feature) if term.detach else feature)
        assert teacher is not None, name
        if name == "teacher_logits":
            return teacher.anchors.logits
        if name == "teacher_feature":
            return teacher.taps[term.teacher_tap]
        if name == "teacher_features":
            return tuple(teacher.taps[tap] for tap in term.teacher_taps)
        return self.project_teacher(params, teacher.anchors.feature, given)


def _flat(side: Side) -> Side:
    return Side(side.anchors.flat, side.taps)


def make_objective(
    student: ConfigDict,
    edge_types: int,
    depths: tuple[int, int] = (0, 0),
    where: str = "student",
    described: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Objective:
    """The objective of a student's config; terms of weight 0 are left out.

    Args:
      student: the config.
      edge_types: that the feature join attends over: views and relations of the graph.
      depths: layers of the student and of the teacher, for terms over layers; 0 where a network has none.
      where: the student's key, for messages.
      described: `Task.described` of the student's and the teacher's; where there is something, anchors may be padding.
    """
    named = [(name, settings) for name, settings in sorted(student.objective.items()) if settings.weight]
    terms = [term for name, settings in named for term in terms_of(name, settings, depths, where)]
    return Objective(
        terms=tuple(terms),
        projection=student.projection,
        heads=student.heads,
        edge_types=edge_types,
        masked=bool(described[0]),
        student_described=described[0],
        teacher_described=described[1],
    )


def supervised(term: str = "cross_entropy", described: Mapping[str, Any] | None = None) -> Objective:
    """A task's term of the labels alone: what a teacher is trained on."""
    made = make_term(term, methods.options(term))
    described = described or {}
    return Objective((made,), projection=1, heads=1, edge_types=1, masked=bool(described), student_described=described)
