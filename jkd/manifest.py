"""What a run is: its resolved config, versions and data, written once and compared when the run goes on."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jkd import config as configs
from jkd import digest, files, xla
from jkd.data import DataSet
from jkd.errors import UserError

PACKAGES = ("jkd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Changing these adds parts to a run or draws its report anew; parts that are there stay what they are.
MAY_CHANGE = ("students.", "seeds", "replicates", "report.", "student.", "name", "devices", "data.workers")


def open_run(workdir: Path, config: ConfigDict, dataset: DataSet) -> None:
    """Writes `manifest.json`, or checks that the run that is there is this one.

    Raises:
      UserError: when the folder holds something else, or a run of another config or data set (with the differences).
    """
    path = workdir / "manifest.json"
    if not path.exists():
        if workdir.is_dir() and any(workdir.iterdir()):
            there = ", ".join(sorted(entry.name for entry in workdir.iterdir())[:5])
            raise UserError(
                f"--workdir: {workdir} is not empty and holds no run ({there}). Choose a new or empty folder."
            )
    else:
        before = files.read_json(path)
        if not isinstance(before, dict) or "config" not in before or "data" not in before:
            raise UserError(f"{path} is not a manifest of jkd. Choose another --workdir.")
        _compare(path, before, config, dataset)
    files.write_json(path, describe(config, dataset))


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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def read(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The resolved config and the whole manifest of the run in `workdir`."""
    if not workdir.is_dir():
        raise UserError(f"--workdir: there is no folder {workdir}.")
    manifest = files.read_json(workdir / "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise UserError(f"{workdir / 'manifest.json'} is not a manifest of jkd. Choose another --workdir.")
    return configs.from_dict(manifest["config"]), manifest


def _compare(path: Path, before: dict[str, Any], config: ConfigDict, dataset: DataSet) -> None:
    if before["data"].get("fingerprint") != dataset.fingerprint:
        raise UserError(
            f"{path.parent} holds a run on other data ({before['data'].get('name')}). Choose another --workdir."
        )
    old, new = configs.flatten(before["config"]), configs.flatten(configs.as_dict(config))
    changed = [
        f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        raise UserError(
            f"{path.parent} holds a run of another config; it differs in {'; '.join(changed[:8])}"
            f"{f'; and {len(changed) - 8} more' if len(changed) > 8 else ''}. Choose another --workdir."
        )
