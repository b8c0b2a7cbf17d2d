"""What a run is: its resolved config, environment and data, written once and compared when the run goes on.

The rule is one: a run has one config and one environment, and `distill` and `graph build` compute in no other. What
only adds parts may change freely, and `report`, `evaluate` and the rest of `graph` read a run anywhere. Every other
difference is refused by name, unless it is allowed (`--allow-change=KEY`), and then it is recorded under "changes".
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from jkd import changes, digest, files, places, processes, sharding
from jkd import config as configs
from jkd.changes import Allowed, Change
from jkd.data import DataSet
from jkd.environment import (
    PLAIN,
    describe_environment,
    differences,
    of_bits,
    sentence,
    source,
    source_differences,
)
from jkd.errors import Damaged, Notice, UserError, some
from jkd.places import Path

PATCH = "source.patch"  # what was not committed of the source when the run began
# Changing these adds parts to a run or draws its report anew; parts that are there stay what they are, and so do the
# settings of a student that has begun.
# The data's own digest stands beside its path, so the data may move; how many devices there are, in the environment.
MAY_CHANGE = (
    *("students.", "seeds", "replicates", "report.", "student.", "name", "devices"),
    *("data.workers", "data.timeout", "data.path", "data.broken_limit"),
)


def check_place(workdir: Path) -> None:
    """Refuses a folder that cannot take a run, before anything is loaded; makes nothing.

    Raises:
      UserError: when it, or what it would stand in, is no folder, or it holds something else than a run.
    """
    above = () if places.is_remote(workdir) else workdir.absolute().parents  # a store has no folders to be in the way
    for place in (workdir, *above):
        if places.exists(place) and not place.is_dir():
            raise UserError(f"--workdir: {place} is a file, not a folder. Choose another place.")
    if (workdir / "manifest.json").exists():
        _saved(workdir)
        return
    # Another process may be starting the same run: hidden files are locks and drafts, the patch precedes the manifest.
    entries = [entry.name for entry in workdir.iterdir()] if workdir.exists() else []
    there = [name for name in entries if name[0] != "." and name != PATCH]
    if there:
        raise UserError(
            f"--workdir: {workdir} is not empty and holds no run ({', '.join(sorted(there)[:5])}). "
            "Choose a new or empty folder."
        )


def open_run(
    workdir: Path,
    config: ConfigDict,
    dataset: DataSet,
    mesh: Mesh | None = None,
    allow: Sequence[str] = (),
    networks: Mapping[str, Any] | None = None,
) -> Allowed:
    """Writes `manifest.json`, or checks that the run that is there is this one, in the same environment.

    Args:
      workdir: the run's folder.
      config: resolved.
      dataset: opened from it.
      mesh: the devices that the run uses.
      allow: keys that may differ from the manifest's, given now (`--allow-change`); what differs is recorded.
      networks: what else to say of them, by name.

    Returns:
      The keys that may differ in parts that are there: those given now, and those recorded before.

    Raises:
      UserError: when the folder holds something else, or a run of another config, data set or environment (with the
        differences, and what to give to go on with them).
    """
    check_place(workdir)
    path, now, allowed = workdir / "manifest.json", describe(config, dataset, mesh, networks), Allowed(tuple(allow))
    before = _saved(workdir) if path.exists() else None
    if before and before == _merged(workdir, before, now, allowed):
        return allowed.with_recorded(before["changes"])
    with files.lock(workdir, "the manifest", wait=True):  # processes that start together look one after the other
        before = _saved(workdir) if path.exists() else None
        whole = _merged(workdir, before, now, allowed)
        if before and source_differences(before["environment"], whole["environment"]):
            told = f"the source of jkd is not what {workdir} began with; its manifest says so."
            warnings.warn(told, Notice, stacklevel=2)  # first: where it ends the run, nothing is recorded
        _write_patch(workdir, whole)
        files.write_json(path, whole)
    return allowed.with_recorded(whole["changes"])


def describe(
    config: ConfigDict, dataset: DataSet, mesh: Mesh | None = None, networks: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The manifest of a run that begins here and now.

    The digests of teachers and graphs come later, for they are known only when these are made: see `record_parts`.
    """
    plain = configs.as_dict(config)
    each = {"teacher": config.teacher} | {f"students.{name}": student for name, student in config.students.items()}
    return digest.signed(
        {
            "name": config.name,
            "config": plain,
            "differs": configs.difference(config),
            "seeds": {"teacher": config.teacher.seed, "students": list(config.seeds), "replicates": config.replicates},
            "arithmetic": {
                "reduction": plain.get("reduction", PLAIN),
                **{key: plain[key] for key in ("shards", "parallelism") if key in plain},
                "dtypes": {name: network.dtype for name, network in each.items()},
            },
            "networks": dict(networks or {}),
            "environment": describe_environment(mesh, _computing(config)),
            "data": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "shape": list(dataset.shape),
                "train": len(dataset.train),
                "test": len(dataset.test),
                "counts": {split.name: dict(split.counts) for split in (dataset.train, dataset.test) if split.counts},
                "skipped": [list(pair) for pair in (*dataset.train.skipped, *dataset.test.skipped)],
            },
            "changes": [],
        }
    )


def record_parts(workdir: Path) -> None:
    """Writes into `manifest.json`, under "parts", the digest of every teacher and graph that is finished.

    The table has a digest of its own, and the manifest's is of all but it: what a run is does not change when a part
    of it is made. What a part was made from stands in its `result.json`.
    """
    with files.lock(workdir, "the manifest", wait=True):
        before = _saved(workdir)
        found: dict[str, Any] = {}
        for what, key in (("teacher", "params"), ("graph", "sha256")):
            for path in workdir.glob(f"replicates/*/{what}/result.json"):
                result = files.read_signed(path)
                if key in result:
                    found[path.parent.relative_to(workdir).as_posix()] = result[key]
        whole = before | {"parts": digest.signed(found)}
        if whole != before:
            files.write_json(workdir / "manifest.json", whole)


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with its digest, which is of all but the table of parts."""
    parts = {key: manifest[key] for key in ("parts",) if key in manifest}
    return digest.signed({key: value for key, value in manifest.items() if key not in parts}) | parts


def same_everywhere(config: ConfigDict, dataset: DataSet) -> dict[str, Any]:
    """What several processes that compute one run must have in common."""
    now = describe_environment()
    own = {key: now[key] for key in ("source", "package")}
    return {"config": configs.as_dict(config), "data": dataset.fingerprint, **of_bits(now, config.reduction), **own}


def _computing(config: ConfigDict) -> int:
    """How many devices work for a run with the elastic reduction, whose mesh does not tell; 0 with another."""
    if config.reduction != "elastic":
        return 0
    # With several steps a call, every process computes all of it on one device (`elastic_step`).
    shared = any(network.train.steps_per_call == 1 for network in (config.teacher, *config.students.values()))
    here = len(sharding.local_devices(config.devices)) if shared else 1
    return processes.count() * min(here, config.shards // processes.count())  # each process has as many shards


def read(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The resolved config and the whole manifest of the run in `workdir`."""
    if not places.exists(workdir) or not workdir.is_dir():
        raise UserError(f"--workdir: there is no folder {workdir}. Give that of a run.")
    if not (workdir / "manifest.json").exists():
        raise UserError(f"--workdir: {workdir} holds no run (no manifest.json). Make one with jkd distill.")
    manifest = _saved(workdir)
    return configs.from_dict(manifest["config"]), manifest


def check_data(workdir: Path, manifest: dict[str, Any], dataset: DataSet) -> None:
    """Refuses a data set that is not the one of a run's manifest."""
    if manifest["data"].get("fingerprint") != dataset.fingerprint:
        raise _other_data(workdir, manifest)


def _other_data(workdir: Path, manifest: dict[str, Any]) -> UserError:
    name = manifest["data"].get("name")
    return UserError(f"{workdir} holds a run on other data ({name}). Choose another --workdir, or bring its data.")


def _saved(workdir: Path) -> dict[str, Any]:
    path = workdir / "manifest.json"
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(key), dict) for key in ("config", "environment", "data")
    ):
        raise UserError(f"{path} is not a manifest of jkd. Choose another --workdir.")
    parts = manifest.get("parts", {"digest": digest.of_json({})})
    if signed(manifest) != manifest or not isinstance(parts, dict) or digest.signed(parts) != parts:
        raise Damaged(f"{path} is not what was saved: its digest differs. Copy it anew, or choose another --workdir.")
    return manifest


def _merged(workdir: Path, before: dict[str, Any] | None, now: dict[str, Any], allowed: Allowed) -> dict[str, Any]:
    """The manifest as it should stand: this run's, in the environment in which it began, with every change since.

    Raises:
      UserError: when it is another run's, or differs in what may not change and is not allowed to.
    """
    allowed.check(_keys(now) | (_keys(before) if before else {}))
    if before is None:
        return now
    if before["data"].get("fingerprint") != now["data"]["fingerprint"]:
        raise _other_data(workdir, before)
    config = _config_changes(workdir, before, now)
    moved = differences(before["environment"], now["environment"], now["arithmetic"]["reduction"])
    if refused := allowed.refused(config):
        raise UserError(_another_config(workdir, before, refused))
    if refused := allowed.refused(moved):
        where = " ".join(sentence(change) for change in refused[: changes.MOST])
        advice = changes.remedy(refused, "Go back to that environment, or choose another --workdir.")
        raise UserError(
            f"{workdir} holds a run computed in another environment, which gives other bits. {where} {advice}"
        )
    edited = source_differences(before["environment"], now["environment"])
    source = [change for change in allowed.refused(edited) if change.key == changes.PACKAGE]
    if source and (begun := _unfinished(workdir)):
        advice = changes.remedy(source, "Go back to that source, or choose another --workdir.")
        raise UserError(
            f"{workdir}: training began with another source of jkd, and is not finished, in {some(begun)}. {advice}"
        )
    recorded = [change._asdict() for change in (*config, *moved, *edited)]
    environment = now["environment"] if moved or edited else before["environment"]
    # A setting that went back and forth stands there each time: what a part was made under depends on when.
    made = {"environment": environment, "changes": before["changes"] + recorded}
    return signed(now | made | {key: before[key] for key in ("parts",) if key in before})


def _config_changes(workdir: Path, before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """How the config differs in what is settled: everything but what only adds parts, and students that have begun."""
    fixed = tuple(f"students.{name}." for name in _begun(workdir, before, now))
    found = changes.between(before["config"], now["config"])
    return [change for change in found if change.key.startswith(fixed) or not change.key.startswith(MAY_CHANGE)]


def _begun(workdir: Path, before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    students = before["config"]["students"].keys() & now["config"]["students"].keys()
    return {folder.name for folder in workdir.glob("replicates/*/students/*")} & students


def _unfinished(workdir: Path) -> list[str]:
    """Parts that would go on from a checkpoint."""
    found = (path.parents[1] for path in workdir.glob("replicates/*/**/checkpoints/*.json"))
    return sorted({str(part.relative_to(workdir)) for part in found if not (part / "result.json").exists()})


def _another_config(workdir: Path, before: dict[str, Any], refused: list[Change]) -> str:
    students = tuple(f"students.{name}." for name in before["config"]["students"])
    of_student = any(change.key.startswith(students) for change in refused)
    advice = "Choose another --workdir" + (", or give a changed student a name of its own." if of_student else ".")
    return (
        f"{workdir} holds a run of another config; it differs in {changes.listed(refused)}. "
        f"{changes.remedy(refused, advice)}"
    )


def _keys(manifest: dict[str, Any]) -> dict[str, Any]:
    """Every key that a manifest holds a value of, as `--allow-change` names it."""
    return configs.flatten(manifest["config"]) | configs.flatten({"environment": manifest["environment"]})


def _write_patch(workdir: Path, manifest: dict[str, Any]) -> None:
    """`source.patch`: what was not committed when the run began; what was later, in `source-DIGEST.patch`."""
    found = source()
    if not found or not found["patch"] or (manifest["environment"]["source"] or {}).get("patch") != found["patch"]:
        return
    later = any(change["key"] == "environment.source" for change in manifest["changes"])
    name = f"source-{found['patch'][:12]}.patch" if later else PATCH
    files.write_bytes(workdir / name, found["text"])
