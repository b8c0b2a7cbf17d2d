"""summary.json: every figure of a run, a pure function of the files in its workdir.

A run has *units*: its replicates where there are several (a student's seeds are averaged inside each first),
else its seeds. Means, intervals and paired differences are over units.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jkd import config as configs
from jkd import evaluate
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report.collect import Part, Results
from jkd.tasks import TASKS

METRICS = ("accuracy", "nll", "ece", "agreement", "kl", "churn")
RECEIPT = ("params", "bytes", "macs", "latency_ms")
TEACHER = "teacher"
Values = Mapping[str, Mapping[int, float]]  # metric -> unit -> value


def summarize(results: Results, graph: KnowledgeGraph | None) -> dict[str, Any]:
    """The content of summary.json.

    Args:
      results: from `collect`.
      graph: the first replicate's knowledge graph, or None.
    """
    values = {name: _student_values(results, name) for name in results.students}
    teacher = _teacher_values(results)
    over_seeds = results.unit == "seed"  # then there is one teacher, the same for every seed
    beside = {metric: dict.fromkeys(results.seeds, by[0]) for metric, by in teacher.items() if 0 in by}
    everyone = {TEACHER: beside if over_seeds else teacher} | values
    parts = {name: list(by_key.values()) for name, by_key in results.students.items()}
    every_part = [*results.teachers.values(), *(part for some in parts.values() for part in some)]
    seed = results.config["teacher"]["seed"]
    metric, best = TASKS[results.config["task"]].primary
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
        "paired": _paired(everyone),
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


def churn_over(results: Results) -> str:
    """Which pairs of runs churn compares: `seeds` of one replicate, else `replicates`, else `nothing`."""
    if len(results.seeds) > 1:
        return "seeds"
    return "replicates" if results.replicates > 1 else "nothing"


def _student_values(results: Results, name: str) -> dict[str, dict[int, float]]:
    by_key = results.students[name]
    over_seeds = results.unit == "seed"
    gathered: dict[str, dict[int, list[float]]] = {metric: {} for metric in METRICS}
    for (replicate, seed), part in sorted(by_key.items()):
        for metric in METRICS:
            value = part.result["metrics"].get(metric)
            if value is not None:
                gathered[metric].setdefault(seed if over_seeds else replicate, []).append(value)
    values = {metric: {unit: statistics.fmean(some) for unit, some in by.items()} for metric, by in gathered.items()}
    values["churn"] = _churn(results, by_key)
    return values


def _teacher_values(results: Results) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
    for replicate, part in sorted(results.teachers.items()):
        for metric in METRICS:
            value = part.result["metrics"].get(metric)
            if value is not None:
                values[metric][replicate] = value
    if churn_over(results) == "replicates":
        values["churn"] = pseudo_values({key: part.answers for key, part in sorted(results.teachers.items())})
    return values


def _churn(results: Results, by_key: Mapping[tuple[int, int], Part]) -> dict[int, float]:
    """Churn per unit: of each replicate, over pairs of its seeds; else pseudo-values over pairs of units."""
    if results.unit == "replicate" and len(results.seeds) > 1:
        churn = {}
        for replicate in sorted({replicate for replicate, _ in by_key}):
            answers = [part.answers for (of, _), part in sorted(by_key.items()) if of == replicate]
            value = evaluate.churn(answers)
            if value is not None:
                churn[replicate] = value
        return churn
    place = 1 if results.unit == "seed" else 0
    return pseudo_values({key[place]: part.answers for key, part in sorted(by_key.items())})


def pseudo_values(answers: Mapping[int, np.ndarray]) -> dict[int, float]:
    """Churn as one value per run, so that it has an interval although pairs of runs are not independent.

    The jackknife's pseudo-values n * churn(all) - (n - 1) * churn(all but this run): their mean is the mean
    over pairs, and their spread is that of a statistic of pairs. Two runs give one value, a lone run none.
    """
    keys = list(answers)
    runs = len(keys)
    if runs < 2:
        return {}
    table = np.array([[np.mean(answers[a] != answers[b]) for b in keys] for a in keys])
    total = table.sum() / 2
    whole = total / (runs * (runs - 1) / 2)
    if runs == 2:
        return {keys[0]: float(whole)}
    without = (total - table.sum(axis=1)) / ((runs - 1) * (runs - 2) / 2)
    return dict(zip(keys, (runs * whole - (runs - 1) * without).tolist(), strict=True))


def _metrics(values: Values) -> dict[str, dict[str, Any]]:
    return {metric: _entry(list(values[metric].values())) for metric in METRICS}


def _entry(values: Sequence[float]) -> dict[str, Any]:
    return evaluate.interval(values)._asdict()


def _paired(everyone: Mapping[str, Values]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for a in everyone:
        for b in everyone:
            if a != b:
                table.setdefault(a, {})[b] = {
                    metric: _difference(everyone[a].get(metric, {}), everyone[b].get(metric, {})) for metric in METRICS
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
    times = [r["latency_ms"] for r in receipts if r.get("latency_ms") is not None]
    return entry | {"latency_ms": statistics.median(times) if times else None}


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
