"""Does a run repeat? Made again and again, each time in a new workdir, in processes of their own.

    python launch/repeat.py again    [--config=...] [--times=20]   R0: the same command again
    python launch/repeat.py kill     [--times=20]                  R1: killed after every step, and at so many instants
    python launch/repeat.py topology [--cells=54]                  R2: devices x processes x workers x cores
    python launch/repeat.py devices  [--config=...]                R2: on 1, 2, 4 and 8 devices of one process

Each prints how many runs gave the digests of the first: of every part's variables and of the chain of its training.
`again` and `devices` take any config as it stands, the latter with elastic reduction; the other two
`configs/repeat.py`, which has it, or a variant of it: `:text`, `:objects` and, for `kill`, `:plain`. The student that
is killed is the config's first by name, or `--student`, and has to be one of a step a call. `--cells` and `--times`
pick an evenly spread sample; `--after=N` leaves out the first N cells but the first of all, which the others are held
against: the whole takes an hour or more, and can so be made in parts. With `--jobs=N`, `topology` and `kill` make N
runs at a time, each on two cores of its own. Flags that are not known here go to `jkd distill`. The exit code is 1 when
any differs.
"""

import argparse
import concurrent.futures
import functools
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jkd import config as configs

ROOT = Path(__file__).resolve().parents[1]
DEVICES, PROCESSES, WORKERS, CORES = (1, 2, 4, 8), (1, 2, 4), (0, 1, 4), (1, 2)
Made = tuple[str, dict[str, str]]  # what a run is called, and its digests
LIMIT = 3600  # seconds a run may take

# Ends the process with SIGKILL once the step has been computed, before anything of it is written.
KILL_AFTER = """
import os, signal
from jkd.train import dispatch, elastic
def deadly(bind):
    def bound(self, *given):
        advance = bind(self, *given)
        def step(state, chunk):
            state, metrics = advance(state, chunk)
            if int(state.step) == {step}:
                os.kill(os.getpid(), signal.SIGKILL)
            return state, metrics
        return step
    return bound
for kind in (elastic.ElasticStep, dispatch.MeshStep):
    kind.bind = deadly(kind.bind)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("again", "kill", "topology", "devices"))
    parser.add_argument("--config", default="configs/repeat.py")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--cells", type=int, default=54)
    parser.add_argument("--student", default="")
    parser.add_argument("--after", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="jkd-repeat-") as folder:
        work = Path(folder)
        what = {"again": again, "kill": kill, "topology": topology, "devices": devices}[options.what]
        runs = what(work, options, flags)
        expected, alike, tried = None, 0, 0
        for label, found in runs:
            if expected is None:
                expected = found
                print(f"{label}: {len(found)} digests, {abs(hash_of(found)):x}", flush=True)
            tried, alike = tried + 1, alike + (found == expected)
            if found != expected:
                print(f"{label}: differs in {', '.join(sorted(k for k in expected if found.get(k) != expected[k]))}")
            else:
                print(f"{label}: {alike} of {tried} so far", flush=True)
    print(f"{options.what}: {alike} of {tried} with the same digests")
    return int(alike < tried)


def again(work: Path, options: argparse.Namespace, flags: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """R0."""
    for time_ in range(options.times):
        place = work / str(time_)
        distill(place, options.config, flags)
        yield f"run {time_ + 1}", digests(place)
        shutil.rmtree(place)


def kill(work: Path, options: argparse.Namespace, flags: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """R1: one student of a run whose teacher and graph are there; killed, then started again."""
    killed = f"{killed_student(options.config, options.student)}/0"
    flags = [*flags, f"--only={killed}"]
    base, cache = work / "base", kept_programs(work / "cache")
    distill(base, options.config, flags, environment=cache)
    yield "unbroken", digests(base)
    student = f"replicates/0/students/{killed}"
    steps = json.loads((base / student / "result.json").read_text())["steps"]
    shutil.rmtree(base / student)
    started = time.monotonic()
    distill(shutil.copytree(base, work / "timed"), options.config, flags, environment=cache)
    took = time.monotonic() - started

    def cut(index: int, moment: int | None, cores: list[int]) -> tuple[str, dict[str, str]]:
        wait, code = float(LIMIT), KILL_AFTER.format(step=moment)
        if not moment:  # spread over the run, never at the same instant twice
            wait, code = took * (0.3 + 0.7 * (index * 0.6180339887 % 1)), ""
        while True:
            place = shutil.copytree(base, work / f"cut{index}")
            process, begun = start(place, options.config, flags, cores, cache, code), time.monotonic()
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            if process.returncode not in (0, -signal.SIGKILL) or (moment and process.returncode == 0):
                sys.exit(f"cut {index}: it ended with {process.returncode} and was not killed")
            if not (place / student / "result.json").exists():
                break
            shutil.rmtree(place)  # it had finished, which is no fault: again, and earlier
            wait = 0.9 * min(wait, time.monotonic() - begun)
        saved = [int(path.stem) for path in (place / student / "checkpoints").glob("*.json")]
        distill(place, options.config, flags, cores=cores, environment=cache)
        found = digests(place)
        shutil.rmtree(place)
        label = f"killed after step {moment}"
        if not moment:
            label = f"killed after {wait:.2f} s of {took:.2f}, newest checkpoint {max(saved, default=0)}"
        return label, found

    moments = [*range(1, steps + 1), *(None for _ in range(options.times))]
    yield from side_by_side([functools.partial(cut, *item) for item in enumerate(moments)], options.jobs)


def killed_student(config: str, asked: str = "") -> str:
    """The name of the student to kill: of several steps a call, the process could only die after the last of them."""
    students = configs.resolve(configs.load(config)).students
    name = asked or min(students)
    if name not in students or students[name].train.steps_per_call > 1:
        sys.exit(f"--student={name}: expected a student of {config} with steps_per_call = 1")
    return name


def topology(work: Path, options: argparse.Namespace, flags: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """R2: devices in all, dealt out to processes."""
    short = f"{options.config}{',' if ':' in options.config else ':'}short"
    cells = [cell for cell in itertools.product(DEVICES, PROCESSES, WORKERS, CORES) if cell[0] >= cell[1]]
    apart = max(1, len(cells) // options.cells)

    def run(cell: tuple[int, int, int, int], own: list[int]) -> tuple[str, dict[str, str]]:
        devices, processes, workers, cores = cell
        place = work / "-".join(map(str, cell))
        common = ["--replicate=0", f"--config.data.workers={workers}", *flags]  # no report
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        group = [f"--coordinator=localhost:{port}", f"--processes={processes}"] if processes > 1 else []
        host = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // processes}"}
        # Loader workers have no say in what is compiled: each of the other three settings compiles its own once.
        host |= kept_programs(work / f"programs-{devices}-{processes}-{cores}")
        started = [
            start(place, short, [*common, *group, *([f"--process={index}"] if group else [])], own[:cores], host)
            for index in range(processes)
        ]
        for process in started:
            check(process)
        found = digests(place)
        shutil.rmtree(place)
        return f"{devices} devices, {processes} processes, {workers} workers, {cores} cores", found

    # Taken so that few of them hold each of the numbers.
    taken = cells[2 * apart // 3 :: apart][: options.cells]
    taken = [*taken[:1], *taken[max(1, options.after) :]]
    yield from side_by_side([functools.partial(run, cell) for cell in taken], options.jobs)


def devices(work: Path, options: argparse.Namespace, flags: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """R2 of a whole config: devices that the CPU pretends to be."""
    for count in DEVICES:
        place, host = work / str(count), {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        distill(place, options.config, ["--config.reduction=elastic", *flags], environment=host)
        yield f"{count} devices", digests(place)
        shutil.rmtree(place)


def side_by_side(runs: list[Callable[[list[int]], Made]], jobs: int) -> Iterator[Made]:
    """Calls each with the cores that it may use, so many at a time, each with two of its own; gives what they return.

    Raises:
      SystemExit: too few cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if jobs == 1:
        for each in runs:
            yield each(cores)
        return
    if 2 * jobs > len(cores):
        sys.exit(f"--jobs={jobs} needs {2 * jobs} cores; there are {len(cores)}")
    free: queue.Queue[list[int]] = queue.Queue()
    for job in range(jobs):
        free.put(cores[2 * job : 2 * job + 2])

    def run(each: Callable[[list[int]], Made]) -> Made:
        own = free.get()
        try:
            return each(own)
        finally:
            free.put(own)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run, each) for each in runs]):
            yield future.result()


def kept_programs(folder: Path) -> dict[str, str]:
    """Environment in which compiled programs are kept in a folder and taken from there."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def distill(place: Path, config: str, flags: list[str], **options: object) -> None:
    """Runs the command to its end."""
    check(start(place, config, flags, **options))  # type: ignore[arg-type]


def start(
    place: Path,
    config: str,
    flags: list[str],
    cores: list[int] | None = None,
    environment: dict[str, str] | None = None,
    code: str = "",
) -> "subprocess.Popen[str]":
    """Starts `jkd distill`, on some cores or all; `code` runs in the process before."""
    whole = f"import sys\n{code}\nfrom jkd.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", whole, "distill", f"--config={config}", f"--workdir={place}", "--quiet", *flags]
    use = lambda: os.sched_setaffinity(0, cores or os.sched_getaffinity(0))  # noqa: E731
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | (environment or {}),
        preexec_fn=use,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(process: "subprocess.Popen[str]") -> None:
    """Waits for a process and stops the script where it failed."""
    _, errors = process.communicate(timeout=LIMIT)
    if process.returncode:
        sys.exit(f"{' '.join(process.args[3:])} ended with {process.returncode}:\n{errors[-2000:]}")  # type: ignore[index]


def digests(place: Path) -> dict[str, str]:
    """Of each part of a run: its variables or graph, its outputs on the test set, and the chain of its training."""
    found = {}
    for path in sorted(place.rglob("result.json")):
        name = str(path.parent.relative_to(place))
        result = json.loads(path.read_text())
        found[name] = f"{result.get('params')} {json.dumps(result.get('metrics'), sort_keys=True)}"
        lines = path.parent / "digests.jsonl"
        if lines.exists():
            found[f"{name} chain"] = json.loads(lines.read_text().splitlines()[-1])["chain"]
    for path in sorted(place.rglob("graph.json")):
        found[str(path.parent.relative_to(place))] = json.loads(path.read_text())["sha256"]
    return found


def hash_of(found: dict[str, str]) -> int:
    """A short name for a set of digests, to print."""
    import hashlib

    return int(hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12], 16)


if __name__ == "__main__":
    sys.exit(main())
