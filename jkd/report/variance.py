"""How far the runs of one network differ: every pair of its seeds within a replicate, and every pair of replicates.

Two seeds of one replicate share data, labels, teacher and graph, and differ in their initial weights and the order of
the samples. Two replicates differ in all of it, and share the test split. So the two are never mixed: what is measured
over pairs of seeds is `seeds`, what is measured over pairs of replicates `replicates`.

Intervals are over units, the test inputs as they are; `over_inputs` is the churn's over test inputs, the runs as they
are.

Neighbours are compared over seeds alone: a node is another sample in another replicate's graph.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from jkd import evaluate, interpret
from jkd.report.collect import Key, Part, Results
from jkd.tasks import Task

MEASURES = (
    "churn",  # share of test inputs on which the two predict different classes; good + bad + both wrong
    "good_churn",  # the later run (by number) is right where the earlier is wrong
    "bad_churn",  # the other way round
    "both_wrong_churn",  # both are wrong, in different ways
    "agreement",  # 1 - churn
    "expected_churn",  # of runs with the same accuracies that err independently; see jkd/evaluate/pairs.py
    "normalised_churn",  # churn / expected churn, each a mean over pairs; null where none is expected
    "js",  # Jensen-Shannon divergence of the predicted distributions, nats
)
KINDS = ("seeds", "replicates")
NEAREST = 10  # neighbours compared besides `report.neighbours`
Differ = Callable[[Sequence[dict[str, np.ndarray]]], dict[str, np.ndarray]]  # R runs' predictions -> measures `[R, R]`
Values = dict[str, dict[int, float]]  # measure -> unit -> value


@dataclass(frozen=True)
class Spread:
    """How far runs differ, over one kind of pairs.

    Attributes:
      pairs: how many pairs of runs were compared.
      values: every measure by unit: by replicate, the mean over its pairs of seeds; else pseudo-values by run, whose
        mean is the mean over pairs.
      overlap: Jaccard index of the k nearest nodes, by k, then as `values`.
      random: the same of as many nodes drawn at random, by k.
      over_inputs: churn with its interval over resampled test inputs; None where an answer is more than a class.
    """

    pairs: int
    values: Values
    overlap: dict[int, dict[int, float]]
    random: dict[int, float]
    over_inputs: evaluate.Span | None = None

    def as_dict(self) -> dict[str, Any]:
        """`pairs`; every measure's mean, sd, n, low, high; `neighbours`, a list by k, or None where there are none;
        `churn_over_inputs`: mean, low, high.
        """
        entries = {measure: _interval(self.values.get(measure, {})) for measure in MEASURES}
        neighbours = [
            {"k": k, "jaccard": _interval(values), "random": self.random[k]} for k, values in self.overlap.items()
        ]
        ends = self.over_inputs._asdict() if self.over_inputs else dict.fromkeys(evaluate.Span._fields)
        return {"pairs": self.pairs, **entries, "neighbours": neighbours or None, "churn_over_inputs": ends}


def spreads(results: Results, by_key: Mapping[Key, Part], labels: np.ndarray, task: Task) -> dict[str, Spread | None]:
    """How far the finished runs of one network differ, by kind of pairs; None where there are not two runs."""

    def differ(arrays: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return task.differences(arrays, labels)

    found = {"seeds": _over_seeds(results, by_key, differ), "replicates": _over_replicates(by_key, differ)}
    return {
        kind: spread and replace(spread, over_inputs=_over_inputs(by_key, kind, task)) for kind, spread in found.items()
    }


def _over_seeds(results: Results, by_key: Mapping[Key, Part], differ: Differ) -> Spread | None:
    groups = _grouped(by_key, 0)
    ks = sorted({results.config["report"]["neighbours"], NEAREST})
    found = [(replicate, _within(group, differ, ks)) for replicate, group in groups.items() if len(group) > 1]
    if not found:
        return None
    if results.unit == "seed":
        return found[0][1]
    values: Values = {measure: {} for measure in MEASURES}
    overlap: dict[int, dict[int, float]] = {}
    for replicate, spread in found:
        for measure, by in spread.values.items():
            if by:
                values[measure][replicate] = statistics.fmean(by.values())
        for k, by in spread.overlap.items():
            overlap.setdefault(k, {})[replicate] = statistics.fmean(by.values())
    chance = {k: statistics.fmean(spread.random[k] for _, spread in found if k in spread.random) for k in overlap}
    return Spread(sum(spread.pairs for _, spread in found), values, overlap, chance)


def _within(group: Mapping[int, Part], differ: Differ, ks: Sequence[int]) -> Spread:
    """One replicate's seeds."""
    keys, arrays = list(group), [part.predictions() for part in group.values()]
    values = _by_run(keys, differ(arrays))
    overlap, chance = {}, {}
    if _comparable(list(group.values()), arrays):
        nodes = len(arrays[0]["nodes"])
        ks = sorted({min(k, nodes) for k in ks if k > 0})
        found = np.stack([interpret.nearest(some["projection"], some["nodes"], ks[-1])[0] for some in arrays])
        for k in ks:
            shares = evaluate.pseudo_values(evaluate.jaccard(found[:, :, :k]))
            overlap[k] = dict(zip(keys, shares, strict=False))
            chance[k] = evaluate.random_jaccard(nodes, k)
    return Spread(len(keys) * (len(keys) - 1) // 2, values, overlap, chance)


def _over_replicates(by_key: Mapping[Key, Part], differ: Differ) -> Spread | None:
    """Pairs of replicates at one seed, mean over the seeds; of those replicates that have every seed."""
    seeds, complete = _grouped(by_key, 1), _complete(by_key)
    if len(complete) < 2:
        return None
    of_seed = []
    for by_replicate in seeds.values():
        of_seed.append(differ([by_replicate[replicate].predictions() for replicate in complete]))
    matrices = {measure: np.mean([found[measure] for found in of_seed], axis=0) for measure in of_seed[0]}
    pairs = len(seeds) * len(complete) * (len(complete) - 1) // 2
    return Spread(pairs, _by_run(complete, matrices), {}, {})


def _complete(by_key: Mapping[Key, Part]) -> list[int]:
    """The replicates that have every seed."""
    seeds = _grouped(by_key, 1)
    return [replicate for replicate in _grouped(by_key, 0) if all(replicate in some for some in seeds.values())]


def _over_inputs(by_key: Mapping[Key, Part], kind: str, task: Task) -> evaluate.Span | None:
    """Churn over the same pairs, with its interval over test inputs."""
    if task.answers is None:
        return None
    groups = _grouped(by_key, KINDS.index(kind))
    if kind == "replicates":
        groups = {seed: {unit: by[unit] for unit in _complete(by_key)} for seed, by in groups.items()}
    shares = []
    for group in groups.values():
        answers = [task.answers(part.predictions()) for part in group.values()]
        if len(answers) > 1:
            shares.append(np.mean([one != other for one, other in combinations(answers, 2)], axis=0))
    return evaluate.bootstrap(np.mean(shares, axis=0)[:, None])[0] if shares else None


def _by_run(keys: Sequence[int], matrices: Mapping[str, np.ndarray]) -> Values:
    """Pseudo-values by run; two runs have one value, under the first."""
    values = {measure: evaluate.pseudo_values(matrix) for measure, matrix in matrices.items()}
    if "expected_churn" in values:
        values["normalised_churn"] = evaluate.ratio_of(values["churn"], values["expected_churn"])
    return {measure: dict(zip(keys, some, strict=False)) for measure, some in values.items()}


def _comparable(parts: Sequence[Part], arrays: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Whether all runs have places for the nodes of the same graph."""
    if not all("projection" in some and "nodes" in some for some in arrays):
        return False
    graphs = [(part.result.get("made_of") or {}).get("graph") for part in parts]
    sizes = [len(some["nodes"]) for some in arrays]
    return all(a == b for a, b in pairwise(graphs)) and all(a == b for a, b in pairwise(sizes)) and sizes[0] > 0


def _grouped(by_key: Mapping[Key, Part], place: int) -> dict[int, dict[int, Part]]:
    """Runs by replicate (`place` 0) or by seed (1), then by the other; both ascending."""
    grouped: dict[int, dict[int, Part]] = {}
    for key, part in sorted(by_key.items()):
        grouped.setdefault(key[place], {})[key[1 - place]] = part
    return dict(sorted(grouped.items()))


def _interval(values: Mapping[int, float]) -> dict[str, Any]:
    return evaluate.interval(list(values.values()))._asdict()
