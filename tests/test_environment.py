"""The environment: what is described, and which differences move bits."""

import copy
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import pytest

from jkd import environment, sharding
from jkd.environment import compare_environment, describe_environment, source_differences


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return describe_environment(sharding.make_mesh(2))


def _with(here: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    moved = copy.deepcopy(here)
    *groups, key = path.split("/")
    node = moved
    for group in groups:
        node = node[group]
    node[key] = value
    return moved


def test_it_says_where_this_is(here: dict[str, Any]):
    assert here["versions"]["jax"] == jax.__version__
    assert here["devices"] | {"kind": "", "runtime": ""} == {
        "platform": "cpu",
        "kind": "",
        "runtime": "",
        "seen": jax.device_count(),
        "count": 2,
        "computing": 2,
        "processes": 1,
        "mesh": dict(sharding.make_mesh(2).shape),
    }
    assert here["precision"]["matmul"] == "default" and here["precision"]["partitionable"] is True
    assert here["threads"]["pool"] >= jax.local_device_count()
    if Path("/proc/cpuinfo").exists() and here["cpu"]["machine"] == "x86_64":
        assert "sse2" in here["cpu"]["isa"] and not {"fpu", "smep"} & set(here["cpu"]["isa"])


def test_the_same_place_is_comparable(here: dict[str, Any]):
    assert compare_environment(here, describe_environment(sharding.make_mesh(2))) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("versions/jaxlib", "0.1", "The version of jaxlib was"),
        ("xla_flags", ["--xla_x=1"], "The XLA flags was"),
        ("devices/platform", "gpu", "The devices' platform was 'cpu' and is 'gpu'."),
        ("devices/kind", "H100", "The devices' kind was"),
        ("threads/pool", 96, "The size of the thread pool"),
        ("precision/x64", True, "jax's default of x64 was False and is True."),
        ("precision/matmul", "highest", "matmul"),
    ],
)
@pytest.mark.parametrize("reduction", ["plain", "elastic"])
def test_what_moves_bits_in_any_reduction_is_a_sentence(
    here: dict[str, Any], path: str, value: Any, words: str, reduction: str
):
    (sentence,) = compare_environment(here, _with(here, path, value), reduction)
    assert words.removesuffix(" was") in sentence and sentence.endswith(".")


def test_instruction_sets_are_named(here: dict[str, Any]):
    old, new = _with(here, "cpu/isa", ["avx2", "fma"]), _with(here, "cpu/isa", ["avx2", "avx512f"])
    assert compare_environment(old, new) == ["The CPU lacks fma and has avx512f besides."]


@pytest.mark.parametrize(
    ("path", "value"), [("devices/count", 8), ("devices/processes", 2), ("devices/mesh", {"data": 8})]
)
def test_how_many_there_are_matters_in_the_plain_reduction_only(here: dict[str, Any], path: str, value: Any):
    moved = _with(here, path, value)
    assert compare_environment(here, moved, "plain") and not compare_environment(here, moved, "elastic")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("cpu/model", "another"), ("devices/seen", 64), ("devices/computing", 8), ("threads/pinned", 4)),
        *(("devices/mesh", {}), ("versions/rich", "0.1"), ("package", "another")),
    ],
)
def test_what_is_only_recorded_does_not_matter(here: dict[str, Any], path: str, value: Any):
    assert not compare_environment(here, _with(here, path, value))


def test_another_source_is_told_but_comparable(here: dict[str, Any]):
    moved = _with(here, "source", {"commit": "other", "patch": "", "whole": True})
    assert not compare_environment(here, moved)
    assert [change.key for change in source_differences(here, moved)] == ["environment.source"]
    assert not source_differences(here, here)


def test_every_package_that_is_required_is_recorded(here: dict[str, Any]):
    named = {"jax", "jaxlib", "tokenizers", "scipy", "rich", "tensorboardx", "etils", "ml-collections"}
    assert named <= here["versions"].keys() and "ruff" not in here["versions"]


def test_a_version_that_nobody_looked_for_is_no_difference_but_a_plugin_that_came_is(here: dict[str, Any]):
    older = _with(here, "versions", {name: it for name, it in here["versions"].items() if name != "tokenizers"})
    assert not compare_environment(older, here)
    assert compare_environment(here, _with(here, "versions/libtpu", "1")) == [
        "The version of libtpu was absent and is '1'."
    ]


def test_what_moves_bits_is_compared_alone_as_in_the_whole(here: dict[str, Any]):
    kept = environment.of_bits(here)
    assert compare_environment(kept, here) == [] and not {"source", "package"} & kept.keys()
    assert "rich" not in kept["versions"] and "model" not in kept["cpu"] and kept["devices"]["count"] == 2
    assert compare_environment(kept, _with(here, "threads/pool", 96))
    assert "count" not in environment.of_bits(here, "elastic")["devices"]


def test_the_package_has_a_digest_without_git(tmp_path: Path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "one.py").write_text("a = 1\n")
        (folder / "data.npz").write_bytes(b"\0data")
        (folder / ".one.py.swp").write_text(str(folder))
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "one.cpython-311.pyc").write_text(str(folder))
        (folder / "__pycache__" / f"two.cpython-311.pyc.{folder.name}").write_text("")  # on its way to be renamed
    assert environment.package_digest(first) == environment.package_digest(second)
    environment.package_digest.cache_clear()
    before = environment.package_digest(first)
    environment.package_digest.cache_clear()
    (first / "data.npz").write_bytes(b"\0Data")
    changed = environment.package_digest(first)
    assert changed != before
    environment.package_digest.cache_clear()
    (first / "below" / "one.py").rename(first / "one.py")
    assert environment.package_digest(first) not in (before, changed)


def test_another_package_is_told_where_both_are_known(here: dict[str, Any]):
    moved = _with(here, "package", "another")
    assert [change.key for change in source_differences(here, moved)] == ["environment.package"]
    older = {key: value for key, value in here.items() if key != "package"}
    assert not source_differences(older, moved)


@pytest.mark.parametrize(
    ("given", "pool"),
    [
        *[("7", 7), (" 7", 7), ("+7 ", 7), ("1", 4), ("0", 4), ("-3", 4)],  # as XLA reads them
        *[("", None), ("many", None), ("7x", None), ("7 7", None), ("9" * 10, None), ("9" * 5000, None)],
    ],
)
def test_the_pool_is_as_pinned_but_one_thread_a_device(monkeypatch: pytest.MonkeyPatch, given: str, pool: int | None):
    monkeypatch.setenv("NPROC", given)
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    found = environment.threads()
    assert found["pinned"] == (None if pool is None else max(0, int(given)))
    assert found["pool"] == (pool or max(4, len(os.sched_getaffinity(0))))


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a package in it."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    _git(package.parent, "init", "-q")
    _git(package.parent, "add", "-A")
    _git(package.parent, "commit", "-q", "-m", "first")
    return package


def test_a_clean_checkout_has_a_commit_and_no_patch(checkout: Path):
    found = environment.source(checkout)
    assert found is not None and len(found["commit"]) == 40 and found["patch"] == "" and found["text"] == b""


def test_what_is_not_committed_is_a_patch_that_applies(checkout: Path):
    (checkout / "__init__.py").write_text("a = 2\n")
    (checkout / "more.py").write_text("b = 1\n")
    (checkout / "table.npz").write_bytes(bytes(range(256)))
    (checkout.parent / "notes.txt").write_text("not of the package\n")
    found = environment.source(checkout)
    assert found is not None and found["patch"] == hashlib.sha256(found["text"]).hexdigest() and found["whole"]
    (checkout.parent / "it.patch").write_bytes(found["text"])
    _git(checkout.parent, "stash")
    for name in ("more.py", "table.npz"):
        (checkout / name).unlink()
    _git(checkout.parent, "apply", "it.patch")
    assert (checkout / "table.npz").read_bytes() == bytes(range(256))
    assert (checkout / "__init__.py").read_text() == "a = 2\n" and (checkout / "more.py").read_text() == "b = 1\n"
    assert b"not of the package" not in found["text"]


def test_a_large_patch_is_cut_and_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "MOST_PATCH", 100)
    (checkout / "more.py").write_text("b = 1\n" * 100)
    found = environment.source(checkout)
    assert found is not None and len(found["text"]) == 100 and not found["whole"]


def test_no_checkout_no_git_and_an_installed_package_have_none(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = checkout.parent / ".venv" / "package"  # inside someone's checkout, but not tracked by it
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    bare = tmp_path / "bare"
    bare.mkdir()
    assert environment.source(installed) is None and environment.source(bare) is None
    monkeypatch.setenv("PATH", "")
    assert environment.source(tmp_path / "checkout" / "package" / ".") is None
    environment.source.cache_clear()


def test_a_setting_of_jax_counts_unless_it_is_known_to_be_idle(here: dict[str, Any]):
    assert {"jax_softmax_custom_jvp", "jax_use_direct_linearize", "jax_disable_jit"} <= set(here["jax"])
    idle = ("jax_compilation_cache_dir", "jax_log_compiles", "jax_debug_nans", "jax_platforms", "jax_enable_x64")
    assert not set(idle) & set(here["jax"])
    (change,) = environment.differences(here, _with(here, "jax", here["jax"] | {"jax_softmax_custom_jvp": "other"}))
    assert change.key == "environment.jax.jax_softmax_custom_jvp"
    fewer = {name: value for name, value in here["jax"].items() if name != "jax_disable_jit"}
    assert not environment.differences(_with(here, "jax", fewer), here)  # whoever wrote that did not look
