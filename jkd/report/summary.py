"""summary.json: every figure of a run, a pure function of the files in its workdir.

A run has *units*: its replicates where there are several (a student's seeds are averaged inside each first),
else its seeds. Means, Student-t intervals and paired differences are over units.

Keys:
  teacher, students   `metrics`: mean, sd, n and a 95 % interval over units; digests of the parameters; labels used.
    seed_churn        among the metrics: share of test inputs on which two seeds of one replicate predict different
                      classes; over the replicates' means, or jackknifed where there is one replicate.
    replicate_churn   the same of two replicates with one seed, jackknifed.
  receipt             what each network costs.
  paired              every network minus every other, by metric: mean and 95 % interval over units.
  variance            by network, then by kind of pairs, `seeds` or `replicates`: churn and its parts, expected and
                      normalised churn, Jensen-Shannon divergence, overlap of neighbours; and the same with bootstrap
                      intervals, `over_inputs` and `over_runs`; see jkd/report/variance.py.
  points              accuracy and its paired differences with intervals over test inputs; see jkd/report/points.py.
  parts               by folder: what each part was made from, its digest, and what `jkd replay` found of it, if asked.
  labels, graph, primary, versions, config, manifest
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from jkd import config as configs
from jkd import evaluate
from jkd.errors import UserError
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report.collect import Key, Part, Results
from jkd.report.points import points
from jkd.report.variance import KINDS, Spread, spreads
from jkd.tasks import make_task

CHURNS = ("seed_churn", "replicate_churn")
RECEIPT = ("params", "embedding", "bytes", "macs", "latency_ms")
TEACHER = "teacher"
OF_CLASS = "/"  # between a metric and the class that it is of
Values = Mapping[str, Mapping[int, float]]  # metric -> unit -> value


def summarize(results: Results, graph: KnowledgeGraph | None, labels: Integer[np.ndarray, " t"]) -> dict[str, Any]:
    """The content of summary.json.

    Args:
      results: from `collect`.
      graph: the first replicate's knowledge graph, or None.
      labels: of the test inputs.

    Raises:
      UserError: a run's predictions are not of these test inputs.
    """
    seed, task = results.config["teacher"]["seed"], make_task(results.config["task"])
    measured = (*task.columns, *task.further, *CHURNS)
    networks = {TEACHER: {(replicate, seed): part for replicate, part in results.teachers.items()}} | results.students
    _check_sizes(networks, len(labels))
    variance = {name: spreads(results, by_key, labels, task) for name, by_key in networks.items()}
    values = {name: _student_values(results, name, measured) | _churn(variance[name]) for name in results.students}
    teacher = _teacher_values(results, measured) | _churn(variance[TEACHER])
    over_seeds = results.unit == "seed"  # then there is one teacher, the same for every seed
    beside = {metric: dict.fromkeys(results.seeds, by[0]) for metric, by in teacher.items() if 0 in by}
    everyone = {TEACHER: beside if over_seeds else teacher} | values
    parts = {name: list(by_key.values()) for name, by_key in results.students.items()}
    every_part = [*results.teachers.values(), *(part for some in parts.values() for part in some)]
    metric, best = task.primary
    classes = _by_class(results)
    return {
        "teacher": {
            "metrics": _metrics(teacher),
            "digests": {f"{replicate}/{seed}": part.result["params"] for replicate, part in results.teachers.items()},
            "labels": _labels(list(results.teachers.values())),
        },
        "students": {
            name: {
                "metrics": _metrics(values[name]),
                "digests": {f"{replicate}/{seed}": part.result["params"] for (replicate, seed), part in by_key.items()},
                "labels": _labels(parts[name]),
            }
            for name, by_key in results.students.items()
        },
        "receipt": {
            name: _receipt(some) for name, some in [(TEACHER, list(results.teachers.values())), *parts.items()]
        },
        **({"by_class": classes} if classes else {}),
        "paired": _paired(everyone, measured),
        "variance": {
            name: {kind: spread and spread.as_dict() for kind, spread in by_kind.items()}
            for name, by_kind in variance.items()
        },
        "points": points(results, TEACHER, labels, task),
        "labels": _labels(every_part),
        "graph": _graph(graph),
        "primary": {"metric": metric, "direction": best},
        "versions": results.manifest["environment"]["versions"],
        "manifest": results.manifest.get("digest"),
        "parts": results.digests,
        "config": results.config,
    }


def reference_of(summary: Mapping[str, Any]) -> str | None:
    """The student that others are compared with: `report.reference`, else `kd`, else the first, else None."""
    names = list(summary["config"]["students"])
    wanted = summary["config"]["report"]["reference"]
    for name in (wanted, "kd", *names):
        if name != configs.AUTO and name in names:
            return name
    return None


def pairs_of(summary: Mapping[str, Any]) -> str | None:
    """Which pairs of runs come first: `seeds` of one replicate, else `replicates`; None where there are none."""
    config = summary["config"]
    return "seeds" if len(config["seeds"]) > 1 else "replicates" if config["replicates"] > 1 else None


def _check_sizes(networks: Mapping[str, Mapping[Key, Part]], size: int) -> None:
    for part in (part for by_key in networks.values() for part in by_key.values()):
        if part.size != size:
            path = part.folder / "predictions.safetensors"
            raise UserError(f"{path}: expected {size} test inputs, got {part.size}. Delete it and run again.")


def _student_values(results: Results, name: str, measured: Sequence[str]) -> dict[str, dict[int, float]]:
    by_key = results.students[name]
    over_seeds = results.unit == "seed"
    gathered: dict[str, dict[int, list[float]]] = {metric: {} for metric in measured}
    for (replicate, seed), part in sorted(by_key.items()):
        for metric in measured:
            value = part.result["metrics"].get(metric)
            if value is not None:
                gathered[metric].setdefault(seed if over_seeds else replicate, []).append(value)
    return {metric: {unit: statistics.fmean(some) for unit, some in by.items()} for metric, by in gathered.items()}


def _teacher_values(results: Results, measured: Sequence[str]) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {metric: {} for metric in measured}
    for replicate, part in sorted(results.teachers.items()):
        for metric in measured:
            value = part.result["metrics"].get(metric)
            if value is not None:
                values[metric][replicate] = value
    return values


def _by_class(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Metrics that parts have of each class (`map50/NAME`): metric, network, class -> its interval over units."""
    parts = [*results.teachers.values(), *(part for by_key in results.students.values() for part in by_key.values())]
    keys = list(dict.fromkeys(key for part in parts for key in part.result["metrics"] if OF_CLASS in key))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in (TEACHER, *results.students):
        values = _teacher_values(results, keys) if name == TEACHER else _student_values(results, name, keys)
        for key, by_unit in values.items():
            metric, _, kind = key.partition(OF_CLASS)
            if by_unit:
                found.setdefault(metric, {}).setdefault(name, {})[kind] = _entry(list(by_unit.values()))
    return found


def _churn(variance: Mapping[str, Spread | None]) -> dict[str, dict[int, float]]:
    """`seed_churn` and `replicate_churn` by unit."""
    found = {kind: variance[kind] for kind in KINDS}
    return {
        f"{kind.removesuffix('s')}_churn": spread.values["churn"] if spread else {} for kind, spread in found.items()
    }


def _metrics(values: Values) -> dict[str, dict[str, Any]]:
    return {metric: _entry(list(by_unit.values())) for metric, by_unit in values.items()}


def _entry(values: Sequence[float]) -> dict[str, Any]:
    return evaluate.interval(values)._asdict()


def _paired(everyone: Mapping[str, Values], measured: Sequence[str]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for a in everyone:
        for b in everyone:
            if a != b:
                table.setdefault(a, {})[b] = {
                    metric: _difference(everyone[a].get(metric, {}), everyone[b].get(metric, {})) for metric in measured
                }
    return table


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> dict[str, Any]:
    common = [unit for unit in a if unit in b]
    found = evaluate.paired([a[unit] for unit in common], [b[unit] for unit in common])
    return {key: getattr(found, key) for key in ("mean", "low", "high", "n")}


def _receipt(parts: Sequence[Part]) -> dict[str, Any]:
    """The size of a network, the same in all its runs, and the median of their latencies."""
    receipts = [part.result["receipt"] for part in parts]
    entry: dict[str, Any] = {key: next((r[key] for r in receipts if r.get(key) is not None), None) for key in RECEIPT}
    lengths = {length for each in receipts for length in each.get("latency_ms_by_length", {})}
    by_length = {
        length: statistics.median(r["latency_ms_by_length"][length] for r in receipts if "latency_ms_by_length" in r)
        for length in sorted(lengths, key=int)
    }
    entry |= {"latency_ms_by_length": by_length} if by_length else {}
    for key in ("latency_ms", "latency_answer_ms"):
        if times := [r[key] for r in receipts if r.get(key) is not None]:
            entry[key] = statistics.median(times)
    return entry


def _labels(parts: Sequence[Part]) -> dict[str, int | None]:
    """The most labels of a replicate that any of these runs trained on, and that any choice saw besides."""
    return {key: max((part.result["labels"][key] for part in parts), default=None) for key in ("train", "choose")}


def _graph(graph: KnowledgeGraph | None) -> dict[str, Any]:
    if graph is None:
        return {"nodes": None, "edges": None, "sha256": None, "diagnosis": None}
    return {
        "nodes": sum(graph.counts["nodes"].values()),
        "edges": sum(graph.counts["edges"].values()),
        "sha256": graph.digest,
        "diagnosis": graph.diagnosis and graph.diagnosis.as_dict(),
    }
