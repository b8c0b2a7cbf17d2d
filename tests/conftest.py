"""Strict promotion for the whole suite, and the fixtures that several folders share."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import contextlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

jax.config.update("jax_numpy_rank_promotion", "raise")

# Nothing of jkd is imported up here: `--jaxtyping-packages` checks only what is imported after it has been set up.
ROOT = Path(__file__).resolve().parents[1]
CACHE = pytest.StashKey[Path]()
STRICT = ("losses", "graph", "models")  # optax itself fails under strict dtype promotion, so not everywhere


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the first test looks for devices, so that all of them compute as a run does."""
    from jkd import xla

    xla.set_flags()
    if getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        return  # whoever only hands out the tests compiles nothing
    session.config.stash[CACHE] = folder = Path(tempfile.mkdtemp(prefix="jkd-compiled-"))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Compiled programs are kept for one session: they are what most of the time of a test goes into."""
    if folder := session.config.stash.get(CACHE, None):
        shutil.rmtree(folder, ignore_errors=True)


def put_value(config: ConfigDict, path: str, value: Any) -> None:
    """Sets `a.b.c` to any value, of whatever type: what a config file may do, right or wrong."""
    *groups, key = path.split(".")
    for group in groups:
        config = config[group]
    with config.ignore_type():
        config[key] = value


class Tries:
    """Counts injected faults. `with tries(what):` is one; it passes when its body does, and the others still run.

    Attributes:
      full: whether the full counts were asked for (`launch/faults.sh`) or a seeded sample.
    """

    def __init__(self) -> None:
        self.full = os.environ.get("JKD_FAULTS") == "full"
        self.tried = self.passed = 0
        self.failures: list[str] = []
        self.by_row: dict[int, list[int]] = {}  # of tries that are about one row alone: tried, passed

    def count(self, sample: int, full: int) -> int:
        """How many to inject."""
        return full if self.full else sample

    @contextlib.contextmanager
    def __call__(self, what: object, row: int = 0) -> Iterator[None]:
        """One try; `row` says of which row it is, where a test is about several and each try about one."""
        self.tried += 1
        own = self.by_row.setdefault(row, [0, 0]) if row else [0, 0]
        own[0] += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.passed += 1
            own[1] += 1


TRIES = pytest.StashKey[Tries]()


@pytest.fixture
def tries(request: pytest.FixtureRequest) -> Tries:
    """Counts injected faults; the test fails in the end when one of them did."""
    request.node.stash[TRIES] = Tries()
    return request.node.stash[TRIES]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Fails a test of which an injected fault did."""
    result = yield
    tries = pyfuncitem.stash.get(TRIES, None)
    if tries and tries.failures:
        shown = "\n".join(tries.failures[:10])
        pytest.fail(f"{len(tries.failures)} of {tries.tried} failed, such as\n{shown}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Writes a line for each fault of the table that a test is about, where `launch/faults.sh` asks for it.

    Tries that are about several rows at once stand in each; `again` says of a line that its tries stand in another.
    """
    report = yield
    record, tries = os.environ.get("JKD_FAULTS_RECORD"), item.stash.get(TRIES, None)
    if record and (report.when == "call" or not report.passed):
        counted = tries and tries.tried and report.when == "call"
        tried, passed = (tries.tried, tries.passed) if counted else (1, int(report.passed))
        by_row = tries.by_row if counted else {}
        elsewhere = report.failed and tried == passed  # than in a try
        with open(record, "a", encoding="utf-8") as file:
            rows = [row for mark in item.iter_markers("fault") for row in mark.args]
            for place, row in enumerate(rows):
                own = by_row.get(row, [0, 0]) if by_row else [tried, passed]
                line = {"row": row, "test": item.nodeid, "skipped": report.skipped, "again": place > 0 and not by_row}
                file.write(json.dumps(line | {"tried": own[0] + elsewhere, "passed": own[1]}) + "\n")
    return report


@pytest.fixture(scope="session")
def put() -> Callable[[ConfigDict, str, Any], None]:
    """`put_value`, for tests."""
    return put_value


@pytest.fixture(autouse=True)
def _strict_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    folder = Path(request.node.fspath).parent.name
    with jax.numpy_dtype_promotion("strict" if folder in STRICT else "standard"):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden values beside the checkout, where there is one."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("needs ../shared (real data and golden values), which is not beside this checkout")
    return folder


TINY = """
from jkd import config as base


def get_config(arg=""):
    config = base.default()
    config.name = "tiny"
    config.seeds, config.replicates, config.devices = (0, 1), 2, 1
    config.data.update(source="digits", limit=300, test_limit=100, pool=200, labels=40, mean=(0.3,), std=(0.37,))
    config.graph.folds = 2
    for network in (config.teacher, config.student):
        network.update(model="mlp", width=16, depth=1)
        network.train.update(steps=40, batch=16, steps_per_call=10, log_every=10, checkpoint_every=20)
        network.train.optimizer.learning_rate = 0.01
    config.students = {
        "cross_entropy": {"objective": {"cross_entropy": 1.0}, "sampling": {"of": "labelled"}},
        "kd": {"objective": {"cross_entropy": 0.1, "kd": 0.9}},
        "knowledge_graph": {"objective": {"joined_beliefs": 0.9, "projection": 0.1}, "graph": {"edges": "real"}},
    }
    return base.variant(config, arg, {})
"""


@dataclass
class Tiny:
    """A run of seconds: 2 replicates of 3 students with 2 seeds on 200 digits.

    Attributes:
      file: its config file.
      cache: compiled programs, shared by all runs and processes of the session.
    """

    file: Path
    cache: Path

    def config(self, **changes: Any) -> ConfigDict:
        """The config as its file returns it, with changes such as `data__limit=200`."""
        from jkd import config as configs

        config = configs.load(str(self.file))
        for path, value in changes.items():
            put_value(config, path.replace("__", "."), value)
        return config

    def start(
        self, *arguments: str, code: str = "", environment: dict[str, str] | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Starts `jkd` in a process of its own; `code` runs in it before, `environment` is set besides."""
        # A shell without job control has its background jobs ignore Ctrl-C, and everything below them inherits that.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        whole = f"import sys\n{heard}\n{code}\nfrom jkd.cli import main\nsys.exit(main())"
        streams = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        whole_environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            **(environment or {}),
        }
        command = [sys.executable, "-c", whole, *arguments]
        return subprocess.Popen(command, env=whole_environment, **(streams | options))

    @staticmethod
    def digests(workdir: Path) -> dict[str, str]:
        """What every finished part of a run is, by its path: the digest of its variables, or of its graph."""
        from jkd import files

        keys = {"result.json": "params", "graph.json": "sha256"}
        found = {
            str(path.parent.relative_to(workdir)): files.read_json(path).get(key)
            for name, key in keys.items()
            for path in sorted(workdir.rglob(name))
        }
        return {name: digest for name, digest in found.items() if digest}


@dataclass
class Done:
    """The finished run that many tests look at and none changes.

    Attributes:
      workdir: of the run.
      summary: what `distill` returned.
      compiled: names of the programs that were compiled, one entry a compilation.
    """

    workdir: Path
    summary: dict[str, Any]
    compiled: list[str]


@pytest.fixture(autouse=True)
def _variables_stay() -> Iterator[None]:
    """Fails where a test leaves other variables behind that move bits: every later run would be of that environment."""
    before = _variables()
    yield
    assert _variables() == before


def _variables() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key == "NPROC" or key.startswith(("XLA_", "JAX_"))}


@pytest.fixture(scope="session")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The run of seconds, not yet started."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text(TINY)
    return Tiny(folder / "tiny.py", request.config.stash[CACHE])


@pytest.fixture(scope="session")
def done(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The run of seconds, finished."""
    from jkd import run

    workdir = tmp_path_factory.mktemp("done") / "run"
    with _compilations() as compiled:
        summary = run.distill(tiny.config(), workdir, quiet=True)
    assert summary is not None
    return Done(workdir, summary, compiled)


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Path:
    """A copy of the finished run, to change."""
    return Path(shutil.copytree(done.workdir, tmp_path / "copied"))


@pytest.fixture
def compilations() -> Any:
    """`with compilations() as names:` lists the programs that jax compiles in the body."""
    return _compilations


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
    """Collects the names of the programs that jax compiles (or takes from its cache) while the body runs."""
    names: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.search(r"Finished XLA compilation of (?:jit\()?([^\s)]+)", record.getMessage())
            if found:
                names.append(found[1])

    logger = logging.getLogger("jax._src.dispatch")
    level, propagate, handler = logger.level, logger.propagate, Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
