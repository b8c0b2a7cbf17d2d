"""Disks that are full, read-only, forbidden or failing: told at once, and what was good stays good."""

import contextlib
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jkd import files, run
from jkd.data.listing import InFile
from jkd.errors import UserError
from jkd.train import checkpoint

INPUTS = "made of this"
# After a save that failed tensorstore still calls the loop that orbax has closed; the command line is silent about it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`disk(size="64k")`: a file system of that size, mounted anew with other options when called again."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root and mount, to make a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(**options: str) -> Path:
        spelled = ",".join(key if value == "" else f"{key}={value}" for key, value in options.items())
        again = ("remount,",) if mounted else ("",)
        command = ["mount", "-t", "tmpfs", "-o", again[0] + spelled, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small file system")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.fault(5)
def test_a_full_disk_keeps_the_good_checkpoint_and_goes_on_when_freed(disk: Any, make_state: Any):
    folder = disk(size="1m") / "checkpoints"
    checkpoint.save(folder, make_state(1, 100), INPUTS)
    filler = folder.parent / "filler"
    with contextlib.suppress(OSError), open(filler, "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    with pytest.raises(UserError, match=rf"cannot save the checkpoint {folder / '2'}: [Nn]o space left .*Free space"):
        checkpoint.save(folder, make_state(2, 100), INPUTS)
    for task, told in (("/orbax/handlers.py:1", False), ("/elsewhere.py:1", True)):  # never retrieved: as it may end
        left = logging.LogRecord("asyncio", logging.ERROR, "", 0, f"future: <Task defined at {task}>", (), None)
        assert bool(logging.getLogger("asyncio").filter(left)) == told
    with pytest.raises(UserError, match=r"cannot write \S+: No space left on device. Free space"):
        checkpoint.restore(folder, make_state(0, 100), INPUTS)  # a run would not get far
    filler.unlink()
    assert int(checkpoint.restore(folder, make_state(0, 100), INPUTS).step) == 1
    checkpoint.save(folder, make_state(2, 100), INPUTS)
    assert int(checkpoint.restore(folder, make_state(0, 100), INPUTS).step) == 2


@pytest.mark.fault(5)
def test_a_run_on_a_disk_that_fills_up_is_refused_and_goes_on_to_the_same_bits(
    disk: Any, tiny: Any, done: Any, tries: Any
):
    """However far it got: the disk grows until the run is through."""
    kilobytes, part = 16, dict(only="kd/0", replicate=0, quiet=True)
    while True:
        place = disk(size=f"{kilobytes}k")
        try:
            run.distill(tiny.config(), place / "run", **part)
            break
        except UserError as error:
            with tries(f"{kilobytes} kB: {error}"):
                assert "no space left on device" in str(error).lower() and "\n" not in str(error)
        assert kilobytes < 4096
        kilobytes += tries.count(96, 12)
    found = tiny.digests(place / "run")
    assert len(found) == 3 and found == {name: tiny.digests(done.workdir)[name] for name in found}


@pytest.mark.slow
@pytest.mark.fault(5)
@pytest.mark.parametrize("kilobytes", [48, 160, 320])
def test_a_command_on_a_full_disk_ends_in_one_line(disk: Any, tiny: Any, kilobytes: int):
    place = disk(size=f"{kilobytes}k")
    process = tiny.start("distill", f"--config={tiny.file}", f"--workdir={place / 'run'}", "--only=kd/0", "--quiet")
    said, errors = process.communicate(timeout=180)
    assert (process.returncode, said) == (2, "") and errors.count("\n") == 1, errors
    assert errors.startswith("jkd: cannot ") and "no space left on device" in errors.lower()


@pytest.mark.fault(6)
@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_disk_is_refused_before_anything_is_trained(
    disk: Any, tiny: Any, done: Any, monkeypatch: pytest.MonkeyPatch, begun: bool
):
    place = disk(size="8m")
    if begun:
        shutil.copytree(done.workdir, place / "run")
        (place / "run/replicates/0/students/kd/0/result.json").unlink()
    disk(ro="", size="8m")
    monkeypatch.setattr("jkd.parts.part.batches", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(UserError, match=rf"cannot \w+ .*{place}.*: Read-only file system. "):
        run.distill(tiny.config(), place / "run", only="kd/0", replicate=0, quiet=True)


@pytest.mark.fault(6)
def test_checkpoints_that_could_not_be_written_are_refused_before_the_first_step(two: Path, make_state: Any):
    """Somebody else's folder, as on a shared disk."""
    with _as_nobody(two):
        with pytest.raises(UserError, match=rf"cannot write {two}/\S+: Permission denied. .*check permissions"):
            checkpoint.restore(two, make_state(), INPUTS)
        with pytest.raises(UserError, match=r"cannot make the folder .*Permission denied"):
            files.make_folder(two / "more")
        with pytest.raises(UserError, match=r"cannot lock .*Permission denied"), files.lock(two, "it"):
            pass
    assert int(checkpoint.restore(two, make_state(), INPUTS).step) == 2


@contextlib.contextmanager
def _as_nobody(folder: Path) -> Iterator[None]:
    """The body may not write in `folder`."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    parents = [parent for parent in (folder, *folder.parents) if "pytest-of" in str(parent)]
    modes = [parent.stat().st_mode for parent in parents]
    for parent in parents:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in zip(parents, modes, strict=True):
            parent.chmod(mode)


@pytest.mark.fault(5, 29)
@pytest.mark.timeout(300)
def test_whichever_write_of_a_save_fails_the_good_checkpoint_stays(tries: Any, root: Path, tmp_path: Path):
    """ENOSPC from the n-th write on; EIO once, which is tried again; EIO for good."""
    library = tmp_path / "failing.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs a C compiler, to let writes fail")
    source = root / "tests/faults/failing.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, str(root / "tests/faults/failing_writes.py"), str(tmp_path / "w"), str(tries.count(4, 1000))],
        env=os.environ | {"PYTHONPATH": str(root), "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) >= 12 and sum(trial["hit"] for trial in trials) > 0.9 * len(trials)
    for trial in trials:
        if not trial["hit"]:  # this save had a write less than the first: nothing was injected
            trial |= {"kind": "EIO once"}
        row = 5 if trial["kind"] == "full" else 29
        with tries(trial, row) if trial["hit"] else contextlib.nullcontext():
            reason = {"full": "no space left on device", "EIO": "input/output error", "EIO once": ""}[trial["kind"]]
            assert reason in trial["said"].lower() and bool(reason) == bool(trial["said"])
            assert trial["restored"] == trial["before"] + (not reason) and trial["after"] == 1 and not trial["left"]


@pytest.mark.fault(29)
@pytest.mark.parametrize("number", files.PASSING)
def test_what_may_pass_is_tried_three_times_more_then_told(
    tries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    path = tmp_path / "value.json"
    files.write_json(path, {"value": 1})
    image = InFile(str(path), 0, 4)
    actions = {
        "write": lambda: files.write_json(path, {"value": 1}),
        "read": lambda: files.read_json(path),
        "image": image.read,
    }
    for what, action in actions.items():
        for failures in range(1, 5):
            with tries(f"{what}, {failures} failures"), monkeypatch.context() as patched:
                waited.clear()
                opened = _opened(tmp_path, failures, number)
                patched.setattr("builtins.open", opened)
                patched.setattr("io.open", opened)
                if failures <= 3:
                    action()
                else:
                    with pytest.raises((UserError, OSError), match=os.strerror(number)):
                        action()
                assert waited == list(files.PAUSES[:failures]) and waited == sorted(waited)


def _opened(folder: Path, failures: int, number: int, real: Any = open) -> Any:
    """`open`, which fails so often for what lies in `folder`."""
    left = [failures]

    def opened(name: Any, *more: Any, **options: Any) -> Any:
        if left[0] and str(name).startswith(str(folder)):
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(name, *more, **options)

    return opened


@pytest.mark.fault(29)
def test_what_does_not_pass_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        files.retried(full)
