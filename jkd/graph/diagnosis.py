"""The graph knows whether it helps: every view, their mean and no edges, scored on labels held back.

The score is the NLL of the beliefs a student would be taught, after one temperature fitted per candidate: raw
NLL punishes smooth beliefs and picks strengths too low.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32

from jkd import evaluate
from jkd.graph.material import Material
from jkd.graph.nearest import Edges
from jkd.graph.relation import LEAST, join_beliefs, q0, sharpen

STRENGTHS = (0.5, 0.8, 0.9, 0.95)
MIXES = (0.5, 0.8)  # not 1: the teacher's answer to the augmented image stays, which held-back labels cannot see
SMOOTHINGS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
DECIMALS = 6  # scores are compared and kept to so many places


@dataclass(frozen=True)
class Row:
    """What joining over `view` with `strength` and mixing with `mix` scores on the labels held back."""

    view: str  # a view, `mean`, or `none`
    strength: float
    mix: float
    accuracy: float
    nll: float
    nll_fitted: float
    temperature: float


@dataclass(frozen=True)
class Diagnosis:
    """All candidates with their scores.

    Attributes:
      by: `folds` or `holdout`.
      rows: the one without edges first, then by view, strength and mix.
      homophily: for each view, the share of its edges between labelled nodes that join equal labels; None
        where it has no such edge.
      scored: how many labels the scores are over.
      labels_used: labels that the choice saw and training does not.
    """

    by: str
    rows: tuple[Row, ...]
    homophily: Mapping[str, float | None]
    scored: int
    labels_used: int

    @property
    def no_edges(self) -> Row:
        return self.rows[0]

    @property
    def best(self) -> Row:
        """The best row that has edges; ties go to the earlier view, then the weaker setting."""
        return min(self.rows[1:], key=lambda row: row.nll_fitted)

    @property
    def gate_open(self) -> bool:
        """Whether edges beat no edges; a tie keeps them off."""
        return self.best.nll_fitted < self.no_edges.nll_fitted

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with what follows from the rows spelled out for a reader."""
        return asdict(self) | {
            "rows": [asdict(row) for row in self.rows],
            "best": asdict(self.best),
            "no_edges": asdict(self.no_edges),
            "gate_open": self.gate_open,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Diagnosis":
        """Reads what `as_dict` wrote."""
        rows = tuple(Row(**row) for row in value["rows"])
        return cls(value["by"], rows, value["homophily"], value["scored"], value["labels_used"])


def diagnose(
    material: Material,
    edges: Mapping[str, Edges] | None = None,
    *,
    temperature: float,
    rounds: int,
    inject: bool = True,
    sharpen: float = 1.0,
    views: Sequence[str] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    mixes: Sequence[float] = MIXES,
) -> Diagnosis:
    """Scores candidates on the labels each trial hid, all trials pooled before the one temperature is fitted.

    Args:
      material: the trials.
      edges: other tables than the material's own, view by view; so a control is tuned by exactly the same
        folds.
      temperature: of the row softmax.
      rounds: of the belief join.
      inject: start the join from the label where the trial may see it.
      sharpen: power the joined beliefs are raised to.
      views: candidates; default every view and, where there are several, `mean`.
      strengths: candidates for a.
      mixes: candidates for m of (1 - m) teacher + m joined beliefs.
    """
    edges = material.edges if edges is None else edges
    views = views or (*edges, *(("mean",) if len(edges) > 1 else ()))
    trial, node = _scored(material)
    labels, taught = material.labels[node], material.beliefs[trial, node].astype(np.float64)
    rows = [_score("none", 0.0, 0.0, taught, labels)]
    for view in views:
        tables = list(edges.values()) if view == "mean" else [edges[view]]
        for strength in strengths:
            joined = _join_trials(material, tables, temperature, strength, rounds, inject, sharpen)[trial, node]
            for mix in mixes:
                rows.append(_score(view, strength, mix, (1 - mix) * taught + mix * joined, labels))
    return Diagnosis(
        by=material.by,
        rows=tuple(rows),
        homophily={view: homophily(table, material.labels) for view, table in edges.items()},
        scored=len(labels),
        labels_used=material.labels_used,
    )


def choose_smoothing(
    material: Material, grid: Sequence[float] = SMOOTHINGS
) -> tuple[float, tuple[dict[str, float], ...]]:
    """The m of the smoothed target (1 - m) teacher + m / C that has the least raw NLL on labels held back.

    Raw, because a fitted temperature undoes smoothing. Returns m and a row per candidate; ties go to the
    smaller m.
    """
    trial, node = _scored(material)
    labels, taught = material.labels[node], material.beliefs[trial, node].astype(np.float64)
    rows = tuple({"smoothing": float(m), "nll": _nll((1 - m) * taught + m / taught.shape[1], labels)} for m in grid)
    return min(rows, key=lambda row: row["nll"])["smoothing"], rows


def homophily(edges: Edges, labels: Int[np.ndarray, " N"]) -> float | None:
    """Share of the edges between labelled nodes that join equal labels; None where there is no such edge."""
    ids = edges.ids
    source, target = labels[:, None], labels[np.maximum(ids, 0)]
    known = (ids >= 0) & (source >= 0) & (target >= 0)
    return round(float(((source == target) & known).sum() / known.sum()), DECIMALS) if known.any() else None


def _scored(material: Material) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " S"]]:
    """(trial, node) of every label that is hidden once."""
    node = np.flatnonzero((material.trial_of >= 0) & (material.labels >= 0))
    return material.trial_of[node], node


def _score(view: str, strength: float, mix: float, beliefs: np.ndarray, labels: np.ndarray) -> Row:
    fitted, nll_fitted = evaluate.fit_temperature(np.log(np.maximum(beliefs, LEAST)), labels)
    return Row(
        view=view,
        strength=float(strength),
        mix=float(mix),
        accuracy=round(float((beliefs.argmax(-1) == labels).mean()), DECIMALS),
        nll=_nll(beliefs, labels),
        nll_fitted=round(float(nll_fitted), DECIMALS) + 0.0,  # no -0
        temperature=round(float(fitted), DECIMALS),
    )


def _nll(beliefs: np.ndarray, labels: np.ndarray) -> float:
    return round(float(-np.log(np.maximum(beliefs[np.arange(len(labels)), labels], LEAST)).mean()), DECIMALS)


def _join_trials(
    material: Material,
    tables: Sequence[Edges],
    temperature: float,
    strength: float,
    rounds: int,
    inject: bool,
    power: float,
) -> np.ndarray:
    """Joined beliefs of every trial, float64 `[F, M, C]`. One trial at a time: memory is one trial's."""
    joined = []
    for trial, beliefs in enumerate(material.beliefs):
        seen = np.where(material.trial_of == trial, -1, material.labels) if inject else material.labels * 0 - 1
        of_trial = [Edges(table.ids[trial % len(table.ids)], table.weights[trial % len(table.ids)]) for table in tables]
        ids, weights = (np.stack(part) for part in zip(*of_trial, strict=True))
        # A held-out sample reads the pool's beliefs of the round before, so one more round shows it the last.
        more = int(material.by == "holdout")
        scale = np.asarray([temperature, strength, power], np.float32)
        joined.append(np.asarray(_join(beliefs, seen, ids, weights, scale, rounds + more), np.float64))
    return np.stack(joined)


@partial(jax.jit, static_argnames="rounds")
def _join(
    beliefs: Float32[Array, "M C"],
    seen: Int32[Array, " M"],
    ids: Int32[Array, "V M K"],
    weights: Float32[Array, "V M K"],
    scale: Float32[Array, " 3"],
    rounds: int,
) -> Float32[Array, "M C"]:
    q = join_beliefs(q0(beliefs, seen), ids, weights, scale[0], scale[1], rounds)
    return sharpen(q, jnp.asarray(scale[2]))
