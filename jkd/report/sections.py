"""The page's sections, each from summary.json and what the run has written; HTML strings."""

from collections.abc import Iterable, Mapping
from typing import Any

from jkd import config as configs
from jkd.errors import UserError
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.report import classes, figures, markup, repeats, tables, text
from jkd.report.collect import Results
from jkd.report.plots import Plot, render
from jkd.report.summary import TEACHER, pairs_of, reference_of
from jkd.tasks import make_task

CLASSES_SHOWN = 20  # of a table class by class; summary.json has all


def plots(results: Results, summary: Mapping[str, Any], graph: KnowledgeGraph | None) -> dict[str, Plot]:
    """Every figure of the page by its file name, those left out for which there are no data."""
    drawn = [
        render("differences", "Paired differences", lambda theme: figures.differences(summary, theme)),
        render("repeats", "How far runs differ", lambda theme: repeats.draw(summary, theme)),
        render("curves", "Learning curves", lambda theme: figures.curves(results, summary, theme)),
        render("bytes", "Primary metric over bytes on disk", lambda theme: figures.over_bytes(summary, theme)),
        render("diagnosis", "Scores of the graph's views", lambda theme: figures.diagnosis(summary, theme)),
        graph and render("classes", "The class graph", lambda theme: classes.draw(graph, theme)),
    ]
    return {plot.name: plot for plot in drawn if plot}


def results_table(summary: Mapping[str, Any], results: Results) -> str:
    """Teacher and students with their metrics, labels and n."""
    rows = []
    everyone = tables.entries(summary)
    task = make_task(summary["config"]["task"])
    asked = {metric: task.further[metric] for metric in summary["config"]["report"].get("metrics", ())}
    names = dict(task.columns) | asked | {tables.churn_of(summary): "churn"}
    for name, entry in everyone.items():
        figures_ = [f'<span class="nowrap">{text.spread(m, entry["metrics"][m])}</span>' for m in names]
        labels = entry["labels"]
        count = text.DASH if labels["train"] is None else f"{labels['train']} + {labels['choose']}"
        n = entry["metrics"][summary["primary"]["metric"]]["n"]
        rows.append([text.escape(name), *figures_, f'<span class="nowrap">{count}</span>', str(n)])
    finished = [name for name in summary["students"] if everyone[name]["digests"]]
    best = max(finished, key=list(everyone).index, default=None)
    caption = (
        f"Mean over {tables.unit(summary)}s ± half of its 95 % interval; n counts them. {task.caption} Churn is over "
        f"{repeats.PAIRS[pairs_of(summary)]}. "
        "Labels: those trained on + those that only choices saw. Test inputs: "
        f"{results.manifest['data']['test']:,}, the same for all."
    )
    head = ["", *names.values(), "labels", "n"]
    return markup.table(head, rows, caption, None if best is None else list(everyone).index(best))


def by_class(summary: Mapping[str, Any]) -> str:
    """What a metric is for each class, a table each; nothing where none is by class."""
    task, made = make_task(summary["config"]["task"]), []
    for metric, networks in summary.get("by_class", {}).items():
        kinds = list(dict.fromkeys(kind for by_kind in networks.values() for kind in by_kind))[:CLASSES_SHOWN]
        rows = [
            [text.escape(name), *(_spread(metric, by_kind.get(kind)) for kind in kinds)]
            for name, by_kind in networks.items()
        ]
        called = {**task.columns, **task.further}.get(metric, metric)
        more = f"{text.escape(called)} of each class, percent; a dash where no test input has it."
        made.append(markup.table(["", *map(text.escape, kinds)], rows, more))
    return "".join(made)


def _spread(metric: str, entry: Mapping[str, Any] | None) -> str:
    return text.DASH if entry is None else f'<span class="nowrap">{text.spread(metric, entry)}</span>'


def differences(summary: Mapping[str, Any], plot: Plot | None) -> str:
    """Who differs from the reference student by how much."""
    reference = reference_of(summary)
    if reference is None or plot is None:
        return "<p>No two students are finished yet.</p>"
    metric = summary["primary"]["metric"]
    return markup.figure(
        plot,
        f"Differences in {metric} to {text.escape(reference)}, run by run, over {tables.unit(summary)}s, "
        f"with 95 % intervals. Runs of one {tables.unit(summary)} share data, teacher and order of "
        "samples, so pairing them "
        f"takes out what they have in common. summary.json has every pair and metric.",
    )


def sizes(summary: Mapping[str, Any], plot: Plot | None) -> str:
    """The receipt: what each network costs, and what share of the teacher that is."""
    teacher, names = summary["receipt"][TEACHER], tables.entries(summary)
    worded = any(summary["receipt"][name].get("embedding") for name in names)
    answered = any("latency_answer_ms" in summary["receipt"][name] for name in names)
    rows = []
    for name in names:
        receipt = summary["receipt"][name]
        smaller = text.DASH
        if teacher["bytes"] and receipt["bytes"]:
            smaller = f"{teacher['bytes'] / receipt['bytes']:.1f}×"
        cells = [
            text.amount(receipt["params"]),
            *([text.amount(receipt["embedding"])] if worded else []),
            text.size(receipt["bytes"]),
            smaller,
            text.amount(receipt["macs"]),
        ]
        times = [receipt["latency_ms"], *([receipt.get("latency_answer_ms")] if answered else [])]
        rows.append([text.escape(name), *cells, *map(text.milliseconds, times)])
    head = [
        "",
        "parameters",
        *(["of which tables"] if worded else []),
        "bytes on disk",
        "smaller",
        "multiply-adds",
        "latency",
        *(["latency of answers"] if answered else []),
    ]
    caption = "Multiply-adds and latency are for one input; latency is measured here, in the first replicate."
    if answered:
        caption += " That of answers counts what is made of the outputs, too: boxes, and which of them stay."
    return (
        markup.table(head, rows, caption)
        + _by_length(summary, names)
        + markup.figure(plot, f"{summary['primary']['metric'].capitalize()} over bytes on disk, with 95 % intervals.")
    )


def _by_length(summary: Mapping[str, Any], names: Iterable[str]) -> str:
    """Latency for texts of each padded length, where inputs are texts."""
    found = {name: summary["receipt"][name].get("latency_ms_by_length") for name in names}
    lengths = sorted({length for times in found.values() for length in times or ()}, key=int)
    if not lengths:
        return ""
    rows = [
        [text.escape(name), *(text.milliseconds((times or {}).get(length)) for length in lengths)]
        for name, times in found.items()
    ]
    return markup.table(["", *(f"{length} tokens" for length in lengths)], rows, "Latency by the length of a text.")


def graph_facts(summary: Mapping[str, Any], graph: KnowledgeGraph | None, plot: Plot | None) -> str:
    """What the graph is made of and whether its edges help."""
    if graph is None:
        return "<p>The knowledge graph of the first replicate is not there yet.</p>"
    counts = graph.counts
    pairs = [
        (what, text.join([f"{count:,} {text.escape(kind)}" for kind, count in counts[what].items() if count]))
        for what in ("nodes", "edges")
    ]
    pairs.append(("SHA-256", f"<code>{text.escape(graph.digest)}</code>"))
    found = summary["graph"]["diagnosis"]
    if not found:
        return markup.facts(pairs) + "<p>No labels were held back, so nobody knows whether the edges help.</p>"
    return markup.facts(pairs) + _diagnosis(found, plot)


def _diagnosis(found: Mapping[str, Any], plot: Plot | None) -> str:
    best: dict[str, Any] = {}
    for row in found["rows"]:
        if row["view"] not in best or row["nll_fitted"] < best[row["view"]]["nll_fitted"]:
            best[row["view"]] = row
    rows = []
    for view, row in best.items():
        homophily = found["homophily"].get(view)
        settings = [text.DASH] * 2 if view == "none" else [f"{row['strength']:g}", f"{row['mix']:g}"]
        scores = [text.number("accuracy", row["accuracy"]), f"{row['nll_fitted']:.3f}", f"{row['nll']:.3f}"]
        share = text.number("accuracy", homophily)
        rows.append(["no edges" if view == "none" else text.escape(view), share, *settings, *scores])
    by = "folds over the training labels" if found["by"] == "folds" else "a hold-out"
    chosen = found["best"]["view"]
    gate = (
        f"The gate is <b>open</b>: edges of <b>{text.escape(chosen)}</b> beat no edges."
        if found["gate_open"]
        else 'The gate is <b class="warn">closed</b>: no edges are as good, so gated students go without.'
    )
    head = ["view", "homophily", "strength", "mix", "accuracy", "NLL, fitted", "NLL"]
    caption = (
        f"The best setting of each view, scored by {by}: {text.plural(found['scored'], 'label')} hidden "
        f"once each, {found['labels_used']} of them spent on the choice alone. Homophily: share of the "
        "edges between labelled samples that join equal labels. NLL, fitted: after one temperature per "
        "candidate; this one decides."
    )
    table = markup.table(head, rows, caption, list(best).index(chosen))
    figure = markup.figure(
        plot,
        "Every candidate: each dot is one strength (darker is stronger) and mix; the dashed line is no "
        "edges, the ring "
        "the best. Left is better.",
    )
    return f"<p>{gate}</p>{table}{figure}"


def doubts(results: Results, summary: Mapping[str, Any], graph: KnowledgeGraph | None, cards_doubt: str) -> list[str]:
    """What is missing, and what a reader should not take for granted; plain text."""
    metric, unit = summary["primary"]["metric"], tables.unit(summary)
    lines = [f"Not finished: {part}." for part in results.missing]
    counts = {entry["metrics"][metric]["n"] for entry in summary["students"].values()}
    if len(counts) > 1:
        lines.append(f"Students differ in how many {unit}s are finished; compare them by the paired differences only.")
    if max(counts, default=0) == 1:
        lines.append(f"There is one {unit}, so no interval says what another one would change.")
    elif 1 < max(counts, default=0) < 5:
        lines.append(f"Intervals rest on {max(counts)} {unit}s, which is few.")
    if unit == "seed" and max(counts, default=0) > 1:
        lines.append("All seeds share one teacher, pool and graph; intervals say nothing about other ones.")
    if len(summary["students"]) > 2:
        others = len(summary["students"]) - 1
        lines.append(f"The best of {others} students was picked after the fact; no interval allows for that.")
    if summary["labels"]["choose"]:
        lines.append(f"Choices saw {summary['labels']['choose']} labels that training did not.")
    for name, by_key in results.students.items():
        closed = sorted(
            {key[0] for key, part in by_key.items() if (part.result.get("choices") or {}).get("gate_open") is False}
        )
        if closed:
            where = f"in {text.plural(len(closed), 'replicate')} of {results.replicates}"
            lines.append(f"{name}: the diagnosis closed the gate {where}, so it was trained without edges there.")
    if graph is not None and graph.diagnosis is None:
        lines.append("The graph has no diagnosis: it is not known whether its edges help.")
    skipped = results.manifest["data"].get("skipped") or []
    if skipped:
        first = ", ".join(f"{name} ({why})" for name, why in skipped[:5])
        lines.append(
            f"{text.plural(len(skipped), 'unreadable image')} left out: {first}{' …' if len(skipped) > 5 else ''}."
        )
    return [*lines, *([cards_doubt] if cards_doubt else [])]


def provenance(results: Results, summary: Mapping[str, Any]) -> str:
    """Versions, data, config and digests: what it takes to do it again, and to see that it came out alike."""
    data = results.manifest["data"]
    pairs = [
        (
            "data",
            f"{text.escape(data['name'])}, {data['train']:,} training and {data['test']:,} test samples",
        ),
        ("fingerprint", f"<code>{text.escape(data['fingerprint'])}</code>"),
    ]
    pairs += [(str(name), text.escape(value)) for name, value in summary["versions"].items()]
    differs, whole = _config(results.config)
    digests = "\n".join(
        f"{text.visible(name)} {run} {digest}"
        for name, entry in tables.entries(summary).items()
        for run, digest in entry["digests"].items()
    )
    return (
        f"{markup.facts(pairs)}{_replays(summary)}<h3>What this config changes</h3>{_lines(differs)}"
        f"<details><summary>The whole config</summary>{_lines(whole)}</details>"
        f"<details><summary>Digests of the parameters, by replicate/seed</summary>"
        f"{_lines(digests)}</details>"
    )


def _replays(summary: Mapping[str, Any]) -> str:
    """What `jkd replay` has found, part by part; nothing where it was not asked."""
    found = [part["replay"] for part in summary["parts"].values() if "replay" in part]
    if not found:
        return ""
    alike = sum(each.get("code") == 0 for each in found)
    told = f"<h3>Replayed</h3><p>{alike} of {len(found)} parts that were trained again did what their record says.</p>"
    return told + _lines("\n".join(str(each.get("found")) for each in found))


def _lines(lines: str) -> str:
    return f"<pre>{'<br>'.join(text.escape(line) for line in lines.split(chr(10)))}</pre>"


def _config(tree: dict[str, Any]) -> tuple[str, str]:
    try:
        config = configs.from_dict(tree)
    except UserError as error:  # written by another version of jkd
        return f"(cannot be compared with this version's defaults: {error})", repr(tree)
    return "\n".join(f"{path} = {value!r}" for path, value in configs.difference(config).items()), configs.show(config)
