"""What a run is: its resolved config, versions and data, written once and compared when the run goes on."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import __version__, digest, files, xla
from jkd import config as configs
from jkd.data import DataSet
from jkd.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Changing these adds parts to a run or draws its report anew; parts that are there stay what they are, and so do the
# settings of a student that has begun.
# The data's own digest stands beside its path, so the data may move.
MAY_CHANGE = ("students.", "seeds", "replicates", "report.", "student.", "name", "devices", "data.workers", "data.path")


def check_place(workdir: Path) -> None:
    """Refuses a folder that cannot take a run, before anything is loaded; makes nothing.

    Raises:
      UserError: when it, or what it would stand in, is no folder, or it holds something else than a run.
    """
    for place in (workdir, *workdir.absolute().parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"--workdir: {place} is a file, not a folder. Choose another place.")
    if (workdir / "manifest.json").exists():
        _saved(workdir)
        return
    # Hidden files are locks and drafts: another process may be starting the same run.
    there = [entry.name for entry in workdir.iterdir() if entry.name[0] != "."] if workdir.exists() else []
    if there:
        raise UserError(
            f"--workdir: {workdir} is not empty and holds no run ({', '.join(sorted(there)[:5])}). "
            "Choose a new or empty folder."
        )


def open_run(workdir: Path, config: ConfigDict, dataset: DataSet) -> None:
    """Writes `manifest.json`, or checks that the run that is there is this one.

    Raises:
      UserError: when the folder holds something else, or a run of another config or data set (with the differences).
    """
    check_place(workdir)
    path, now = workdir / "manifest.json", describe(config, dataset)
    if path.exists() and _same_run(path, config, dataset) == now:
        return
    with files.lock(workdir, "the manifest", wait=True):  # processes that start together look one after the other
        if path.exists():
            _same_run(path, config, dataset)
        files.write_json(path, now)


def describe(config: ConfigDict, dataset: DataSet) -> dict[str, Any]:
    """The manifest of a run."""
    content = {
        "name": config.name,
        "config": configs.as_dict(config),
        "differs": configs.difference(config),
        "versions": versions(),
        "xla_flags": xla.flags(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "train": len(dataset.train),
            "test": len(dataset.test),
            "skipped": [list(pair) for pair in (*dataset.train.skipped, *dataset.test.skipped)],
        },
    }
    return content | {"digest": digest.of_json(content)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version(), "jkd": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def read(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The resolved config and the whole manifest of the run in `workdir`."""
    if not workdir.is_dir():
        raise UserError(f"--workdir: there is no folder {workdir}. Give that of a run.")
    if not (workdir / "manifest.json").exists():
        raise UserError(f"--workdir: {workdir} holds no run (no manifest.json). Make one with jkd distill.")
    manifest = _saved(workdir)
    return configs.from_dict(manifest["config"]), manifest


def check_data(workdir: Path, manifest: dict[str, Any], dataset: DataSet) -> None:
    """Refuses a data set that is not the one of a run's manifest."""
    if manifest["data"].get("fingerprint") != dataset.fingerprint:
        name = manifest["data"].get("name")
        raise UserError(f"{workdir} holds a run on other data ({name}). Choose another --workdir, or bring its data.")


def _saved(workdir: Path) -> dict[str, Any]:
    path = workdir / "manifest.json"
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), dict) for key in ("config", "data")):
        raise UserError(f"{path} is not a manifest of jkd. Choose another --workdir.")
    return manifest


def _same_run(path: Path, config: ConfigDict, dataset: DataSet) -> dict[str, Any]:
    """The saved manifest, once it is clear that this is the same run."""
    before = _saved(path.parent)
    check_data(path.parent, before, dataset)
    if before.get("xla_flags", []) != xla.flags():
        raise UserError(
            f"{path.parent} holds a run computed with the XLA flags {before.get('xla_flags')}, but those in force are "
            f"{xla.flags()}, which gives other bits. Set XLA_FLAGS to match, or choose another --workdir."
        )
    students = before["config"]["students"].keys() & config.students.keys()
    begun = {folder.name for folder in path.parent.glob("replicates/*/students/*")} & students
    fixed = tuple(f"students.{name}." for name in begun)
    old, new = configs.flatten(before["config"]), configs.flatten(configs.as_dict(config))
    changed = [
        f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and (key.startswith(fixed) or not key.startswith(MAY_CHANGE))
    ]
    if changed:
        raise UserError(
            f"{path.parent} holds a run of another config; it differs in {'; '.join(changed[:8])}"
            f"{f'; and {len(changed) - 8} more' if len(changed) > 8 else ''}. Choose another --workdir"
            + (
                ", or give a changed student a name of its own."
                if any(key.startswith(fixed) for key in changed)
                else "."
            )
        )
    return before
