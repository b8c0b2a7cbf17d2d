"""XLA flags: set before jax looks for devices, never claimed when it is too late."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from jkd import xla
from jkd.errors import UserError

LATE = """
import os, warnings
os.environ.pop("XLA_FLAGS", None)
import jax.numpy as jnp
{before}
from jkd import xla
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    xla.set_flags()
print(len(caught), xla.flags())
"""


@pytest.mark.parametrize(
    ("before", "said"), [("", f"0 [{xla.CPU_FUSION!r}, {xla.GPU_DETERMINISTIC!r}]"), ("jnp.ones(3)", "1 []")]
)
def test_flags_are_set_in_time_or_not_claimed(before: str, said: str):
    code = LATE.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == said, done.stderr


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch):
    own = f"{xla.CPU_FUSION.split('=')[0]}=LIBRARY_FUSION_TYPE_REDUCE", "--xla_gpu_deterministic_ops=false"
    monkeypatch.setenv("XLA_FLAGS", f"{' '.join(own)} --xla_force_host_platform_device_count=2")
    with pytest.warns(UserWarning, match=r"XLA_FLAGS has --xla_gpu_deterministic_ops=false, which wins over determ"):
        xla.set_flags()
    assert xla.flags() == list(own)


@pytest.mark.parametrize("given", ["--xla_gpu_deterministic_ops=true", "--xla_gpu_deterministic_ops", "", "false too"])
def test_flags_that_agree_are_no_warning(monkeypatch: pytest.MonkeyPatch, given: str):
    off = "--xla_gpu_deterministic_ops=0"
    for flags, deterministic in ((given.replace("false too", off), given != "false too"), (f"{off} {given}", False)):
        monkeypatch.setenv("XLA_FLAGS", f"{xla.CPU_FUSION} {flags} {xla.GPU_DETERMINISTIC}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            xla.set_flags(deterministic=deterministic)


def test_elastic_reduction_pins_the_thread_pool_and_leaves_a_users_own(monkeypatch: pytest.MonkeyPatch):
    code = "import os\nfrom jkd import xla\nxla.set_flags('elastic')\nprint(os.environ['NPROC'], xla.flags())"
    for own, expected in (("", f"{xla.THREADS} "), ("3", "3 ")):
        monkeypatch.delenv("NPROC", raising=False)
        if own:
            monkeypatch.setenv("NPROC", own)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith(expected), done.stderr


def test_of_two_flags_of_a_name_the_last_is_in_force(monkeypatch: pytest.MonkeyPatch):
    for last in ("true", "false"):
        other = "false" if last == "true" else "true"
        monkeypatch.setenv("XLA_FLAGS", f"--xla_cpu_enable_fast_math={other} --xla_cpu_enable_fast_math={last}")
        assert xla.flags() == [f"--xla_cpu_enable_fast_math={last}"]


def test_a_file_of_flags_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "flags.txt"
    path.write_text("--xla_cpu_enable_fast_math=false\n--xla_gpu_deterministic_ops=true\n")
    code = "from jkd import xla\nxla.set_flags()\nimport jax\nprint(jax.device_count(), xla.flags())"
    environment = os.environ | {"XLA_FLAGS": str(path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("1 [") and "--xla_cpu_enable_fast_math=false" in done.stdout, done.stderr
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "nothing.txt"))
    with pytest.raises(UserError, match=r"XLA_FLAGS names a file that cannot be read: .*nothing\.txt"):
        xla.flags()


@pytest.mark.parametrize(("given", "pinned"), [(None, "8"), ("", "8"), ("many", "8"), ("3", "3"), (" 5", " 5")])
def test_elastic_pins_the_pool_where_no_number_is_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, pinned: str
):
    monkeypatch.setattr(xla, "_in_use", lambda: False)
    monkeypatch.setenv("NPROC", "")  # so that what is set below is taken back after the test
    monkeypatch.delenv("NPROC")
    if given is not None:
        monkeypatch.setenv("NPROC", given)
    xla.set_flags("elastic")
    assert os.environ["NPROC"] == pinned


@pytest.mark.parametrize(("areas", "most", "crowded"), [(10, "20", False), (11, "20\n", True), (10, "many", False)])
def test_crowded_is_more_than_half_of_what_the_system_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, areas: int, most: str, crowded: bool
):
    (tmp_path / "maps").write_text("an area\n" * areas)
    (tmp_path / "most").write_text(most)
    monkeypatch.setattr(xla, "AREAS", str(tmp_path / "maps"))
    monkeypatch.setattr(xla, "MOST_AREAS", str(tmp_path / "most"))
    assert xla.crowded() == crowded


def test_nothing_is_crowded_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xla, "AREAS", "nowhere")
    assert not xla.crowded()


@pytest.mark.skipif(not Path(xla.AREAS).is_file(), reason="the system does not say how many areas a process has")
def test_letting_compiled_programs_go_gives_their_areas_back():
    code = """
import gc, jax, jax.numpy as jnp
count = lambda: sum(1 for _ in open(%r))
kept = [jax.jit(lambda x, i=i: jnp.sort(x + i).sum()) for i in range(20)]
before = count()
for each in kept:
    each(jnp.ones(50))
full = count()
jax.clear_caches()
gc.collect()
print(full - before, count() - before)
"""
    done = subprocess.run([sys.executable, "-c", code % xla.AREAS], capture_output=True, text=True, timeout=120)
    taken, left = map(int, done.stdout.split())
    assert taken > 40 and left < taken / 2, done.stderr
