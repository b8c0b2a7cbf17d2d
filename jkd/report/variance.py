"""How far the runs of one network differ: every pair of its seeds within a replicate, and every pair of replicates.

Two seeds of one replicate share data, labels, teacher and graph, and differ in their initial weights and the order of
the samples. Two replicates differ in all of it, and share the test split. So the two are never mixed: what is measured
over pairs of seeds is `seeds`, what is measured over pairs of replicates `replicates`.

Intervals are of three kinds: Student-t over units, the test inputs as they are (over pairs of runs with the jackknife);
and by bootstrap, over test inputs with the runs as they are, and over runs; see jkd/report/resampled.py.

Neighbours are compared over seeds alone: a node is another sample in another replicate's graph.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from jkd import evaluate, interpret
from jkd.report.collect import Key, Part, Results
from jkd.report.resampled import RESAMPLES, Group, Name, over_inputs, over_runs
from jkd.tasks import Differences, Task

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
Differ = Callable[[Sequence[dict[str, np.ndarray]]], Differences]
Values = dict[Name, dict[int, float]]  # measure, or k -> unit -> value


@dataclass(frozen=True)
class Spread:
    """How far runs differ, over one kind of pairs.

    Attributes:
      pairs: how many pairs of runs were compared.
      values: every measure, and by k the Jaccard index of the k nearest nodes, by unit: by replicate, the mean over its
        pairs of seeds; else pseudo-values by run, whose mean is the mean over pairs.
      random: Jaccard index of as many nodes drawn at random, by k.
      over_inputs: bootstrap intervals over test inputs.
      over_runs: bootstrap intervals over seeds, of each replicate, or over replicates.
    """

    pairs: int
    values: Values
    random: dict[int, float]
    over_inputs: dict[Name, evaluate.Span]
    over_runs: dict[Name, evaluate.Span]

    def as_dict(self) -> dict[str, Any]:
        """`pairs`; every measure's mean, sd, n, low, high; `neighbours`, a list by k, or None where there are none;
        `resamples`; `over_inputs` and `over_runs`, by measure: mean, low, high, as in each of the neighbours.
        """
        entries = {measure: _interval(self.values.get(measure, {})) for measure in MEASURES}
        neighbours = [
            {
                "k": k,
                "jaccard": _interval(self.values[k]),
                "random": self.random[k],
                "over_inputs": _ends(self.over_inputs, k),
                "over_runs": _ends(self.over_runs, k),
            }
            for k in self.random
        ]
        return {
            "pairs": self.pairs,
            **entries,
            "neighbours": neighbours or None,
            "resamples": RESAMPLES,
            "over_inputs": {measure: _ends(self.over_inputs, measure) for measure in MEASURES},
            "over_runs": {measure: _ends(self.over_runs, measure) for measure in MEASURES},
        }


def spreads(results: Results, by_key: Mapping[Key, Part], labels: np.ndarray, task: Task) -> dict[str, Spread | None]:
    """How far the finished runs of one network differ, by kind of pairs; None where there are not two runs."""

    def differ(arrays: Sequence[dict[str, np.ndarray]]) -> Differences:
        return task.differences(arrays, labels)

    return {"seeds": _over_seeds(results, by_key, differ), "replicates": _over_replicates(by_key, differ)}


def _over_seeds(results: Results, by_key: Mapping[Key, Part], differ: Differ) -> Spread | None:
    runs = {replicate: group for replicate, group in _grouped(by_key, 0).items() if len(group) > 1}
    if not runs:
        return None
    ks = sorted({results.config["report"]["neighbours"], NEAREST})
    found = [_within(group, differ, ks) for group in runs.values()]
    groups = [group for group, _ in found]
    values = [_by_run(list(by_seed), group.pairs) for by_seed, group in zip(runs.values(), groups, strict=True)]
    gathered: Values = values[0]
    if results.unit != "seed":
        gathered = {name: {} for some in values for name in some}
        for replicate, some in zip(runs, values, strict=True):
            for name, by in some.items():
                if by:
                    gathered[name][replicate] = statistics.fmean(by.values())
    ks = list(dict.fromkeys(k for _, random in found for k in random))
    chance = {k: statistics.fmean(random[k] for _, random in found if k in random) for k in ks}
    pairs = sum(group.runs * (group.runs - 1) // 2 for group in groups)
    return Spread(pairs, gathered, chance, over_inputs(groups), over_runs(groups))


def _within(group: Mapping[int, Part], differ: Differ, ks: Sequence[int]) -> tuple[Group, dict[int, float]]:
    """One replicate's seeds, and the overlap that neighbours have by chance, by k."""
    arrays = [part.predictions() for part in group.values()]
    found, chance = differ(arrays), {}
    pairs: dict[Name, np.ndarray] = dict(found.pairs.items())
    inputs: dict[Name, np.ndarray] = dict(found.samples.items())
    if _comparable(list(group.values()), arrays):
        nodes = len(arrays[0]["nodes"])
        ks = sorted({min(k, nodes) for k in ks if k > 0})
        nearest = np.stack([interpret.nearest(some["projection"], some["nodes"], ks[-1])[0] for some in arrays])
        for k in ks:
            shares = evaluate.jaccard_by_sample(nearest[:, :, :k])
            pairs[k], inputs[k] = evaluate.square(shares.mean(axis=1), len(arrays)), shares.mean(axis=0)
            chance[k] = evaluate.random_jaccard(nodes, k)
    right = None if found.right is None else found.right[None]
    return Group(pairs, inputs, right, found.classes), chance


def _over_replicates(by_key: Mapping[Key, Part], differ: Differ) -> Spread | None:
    """Pairs of replicates at one seed, mean over the seeds; of those replicates that have every seed."""
    seeds = _grouped(by_key, 1)
    complete = [key for key in _grouped(by_key, 0) if all(key in by_replicate for by_replicate in seeds.values())]
    if len(complete) < 2:
        return None
    found = [differ([by_replicate[key].predictions() for key in complete]) for by_replicate in seeds.values()]
    rights = [some.right for some in found if some.right is not None]
    group = Group(
        {measure: np.mean([some.pairs[measure] for some in found], axis=0) for measure in found[0].pairs},
        {measure: np.mean([some.samples[measure] for some in found], axis=0) for measure in found[0].samples},
        np.stack(rights) if rights else None,
        found[0].classes,
    )
    pairs = len(seeds) * len(complete) * (len(complete) - 1) // 2
    return Spread(pairs, _by_run(complete, group.pairs), {}, over_inputs([group]), over_runs([group]))


def _by_run(keys: Sequence[int], matrices: Mapping[Name, np.ndarray]) -> Values:
    """Pseudo-values by run; two runs have one value, under the first."""
    values = {name: evaluate.pseudo_values(matrix) for name, matrix in matrices.items()}
    if "expected_churn" in values:
        values["normalised_churn"] = evaluate.ratio_of(values["churn"], values["expected_churn"])
    return {name: dict(zip(keys, some, strict=False)) for name, some in values.items()}


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


def _ends(spans: Mapping[Name, evaluate.Span], name: Name) -> dict[str, float | None]:
    return spans[name]._asdict() if name in spans else dict.fromkeys(evaluate.Span._fields)
