"""The command line: every verb does its work, every mistake is one message and leaves nothing behind."""

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from jkd import cli
from jkd.errors import Notice

VERBS = ("distill", "evaluate", "report", "config", "graph", "methods")


@pytest.fixture
def jkd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one command here; returns its exit code, stdout and stderr."""

    def command(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return command


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _empty_class(folder: Path) -> list[str]:
    for split in ("train", "test"):
        (folder / split / "cat").mkdir(parents=True)
        (folder / split / "dog").mkdir()
    return ["--config.data.source=images", f"--config.data.path={folder}"]


def _text_as_tar(folder: Path) -> list[str]:
    for split in ("train", "test"):
        (folder / f"{split}.tar.gz").write_text("just words")
    return ["--config.data.source=images", f"--config.data.path={folder}"]


def _missing_data(folder: Path) -> list[str]:
    return ["--config.data.source=images", f"--config.data.path={folder / 'nothing'}"]


def _config_file(text: str) -> Any:
    def write(folder: Path) -> list[str]:
        (folder / "mine.py").write_text(text)
        return [f"--config={folder / 'mine.py'}"]

    return write


RAISES = "from jkd import config as base\ndef get_config(arg=''):\n    config = base.default()\n"

# what is wrong -> (its arguments, words of the message); given after --config and --workdir of a run that would work
WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a mistyped key": (["--config.student.wdith=3"], ("student.wdith: unknown key", "Did you mean 'width'?")),
    "a mistyped key of two letters": (["--config.teacher.fm=a:b"], ("teacher.fm: unknown key", "Did you mean 'fn'?")),
    "a mistyped flag": (["--onyl=kd/0"], ("unknown argument '--onyl=kd/0'", "Did you mean '--only'?")),
    "a wrong type": (["--config.student.width=wide"], ("expected a whole number", "'wide'")),
    "a value out of range": (["--config.student.train.batch=0"], ("train.batch", "expected 1 to", "got 0")),
    "no value": (["--config.student.width"], ("--config.KEY=VALUE",)),
    "an unknown flag": (["--workers=3"], ("unknown argument '--workers=3'", "'--workdir'")),
    "a replicate that is not there": (["--replicate=99"], ("--replicate: expected 0 to 1, got 99",)),
    "a replicate that is no number": (["--replicate=first"], ("--replicate", "first")),
    "a student that is not there": (["--only=nobody/0"], ("there is no student 'nobody'",)),
    "a seed that is not there": (["--only=kd/7"], ("kd has no seed 7", "(0, 1)")),
    "only nothing": (["--only="], ("--only: expected NAME/SEED",)),
    "a path that is not there": (_missing_data, ("data.path", "nothing")),
    "a text file named .tar.gz": (_text_as_tar, (".tar.gz",)),
    "an empty class folder": (_empty_class, ("cat",)),
    "an npz of nothing": (["--config.data.source=npz", "--config.data.path=/dev/null"], ("data.path",)),
    "a config file that does not parse": (_config_file("def get_config(:"), ("mine.py does not parse",)),
    "a config file with an unknown name": (
        _config_file(RAISES + "    return confg\n"),
        ("mine.py, line 4 failed with NameError", "confg"),
    ),
    "a config file with a missing key": (
        _config_file(RAISES + "    config.studnet.width = 3\n    return config\n"),
        ("mine.py, line 4 failed with AttributeError", "studnet"),
    ),
    "a config file without the function": (_config_file("x = 1\n"), ("no function get_config",)),
    "a config file that returns nothing": (_config_file("def get_config():\n    pass\n"), ("returned NoneType",)),
}


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.fault(19)
def test_a_mistake_is_one_message_and_nothing_is_written(jkd: Any, tiny: Any, tmp_path: Path, mistake: str):
    arguments, words = WRONG[mistake]
    arguments = arguments(tmp_path) if callable(arguments) else arguments
    before = _files(tmp_path)
    code, out, errors = jkd("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert (code, out) == (2, "") and errors.startswith("jkd: ") and errors.count("\n") == 1, errors
    assert all(word in errors for word in words), errors
    assert _files(tmp_path) == before and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distil", "--workdir=x"], ("unknown verb 'distil'", "Did you mean 'distill'?")),
        ([], ("VERB",)),
        (["distill", "--config={file}"], ("--workdir",)),
        (["distill", "--workdir={dir}/run"], ("--config",)),
        (["distill", "--config={file}:full", "--workdir={dir}/run"], ("unknown variant", "full")),
        (["distill", "--config={dir}/gone.py", "--workdir={dir}/run"], ("there is no file",)),
        (["distill", "--config={file}", "--workdir={file}/run"], ("is a file, not a folder",)),
        (["distill", "--config={file}", "--workdir=/proc/run"], ("cannot make the folder /proc/run",)),
        (["evaluate", "--workdir={dir}", "--student=teacher"], ("holds no run", "jkd distill")),
        (["report", "--workdir={dir}"], ("holds no run",)),
        (["report", "--workdir={dir}/gone"], ("there is no folder",)),
        (["report", "--workdir={dir}", "--config.student.width=3"], ("'jkd report' takes no config",)),
        (["graph", "show", "--workdir={dir}"], ("there is no graph in",)),
        (["graph", "draw", "--workdir={dir}"], ("draw",)),
        (["graph", "build", "--workdir={dir}"], ("graph build needs --config",)),
        (["graph", "export", "--workdir={dir}"], ("--to",)),
        (["distill", "--config={file}", "--workdir={dir}/run", "--allow-change="], ("--allow-change: expected a key",)),
        (["distill", "--config={file}", "--workdir={dir}/run", "--process=-3"], ("belong together",)),
        (["distill", "--config={file}", "--workdir={dir}/run", "--processes=-2"], ("belong together",)),
    ],
)
@pytest.mark.fault(19)
def test_a_wrong_command_is_one_message(
    jkd: Any, tiny: Any, tmp_path: Path, arguments: list[str], words: tuple[str, ...]
):
    code, out, errors = jkd(*(text.format(file=tiny.file, dir=tmp_path) for text in arguments))
    assert (code, out) == (2, "") and errors.startswith("jkd: ") and errors.count("\n") == 1
    assert all(word in errors for word in words), errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value"), [("JAX_PLATFORMS", "cuda"), ("XLA_FLAGS", "--xla_force_host_platform_device_count=0")]
)
def test_no_device_is_one_message(tiny: Any, tmp_path: Path, variable: str, value: str):
    if variable == "JAX_PLATFORMS" and shutil.which("nvidia-smi"):
        pytest.skip("needs a machine without a GPU")
    arguments = ("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}")
    process = tiny.start(*arguments, environment={variable: value})
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, said) == (2, "") and errors.count("\n") == 1, errors
    assert errors.startswith("jkd: jax finds no device to compute on (") and f"{variable}='{value}" in errors
    assert not (tmp_path / "run").exists()


def test_a_foreign_workdir_is_left_as_it_was(jkd: Any, tiny: Any, done: Any, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "manifest.json").write_text('{"name": "of another program"}')
    before = _files(tmp_path)
    code, _, errors = jkd("distill", f"--config={tiny.file}", f"--workdir={tmp_path}")
    assert code == 2 and "is not a manifest of jkd" in errors
    (tmp_path / "manifest.json").unlink()
    code, _, errors = jkd("distill", f"--config={tiny.file}", f"--workdir={tmp_path}")
    assert code == 2 and "is not empty and holds no run (thesis.tex)" in errors
    assert _files(tmp_path) == {"thesis.tex": before["thesis.tex"]}
    before = _files(done.workdir)
    code, _, errors = jkd("distill", f"--config={tiny.file}", f"--workdir={done.workdir}", "--config.graph.k=5")
    assert code == 2 and "graph.k: 8 -> 5" in errors and _files(done.workdir) == before


@pytest.mark.fault(10)
def test_a_loss_that_is_not_finite_names_the_step(jkd: Any, tiny: Any, tmp_path: Path):
    common = ("distill", f"--config={tiny.file}", f"--workdir={tmp_path}", "--only=graph", "--replicate=0", "--quiet")
    optimizer = "--config.teacher.train.optimizer."
    code, _, errors = jkd(*common, f"{optimizer}learning_rate=1e9")
    assert code == 2 and "learning_rate: expected 0 to 1000000" in errors and not list(tmp_path.iterdir())
    wild = (f"{optimizer}name=sgd", f"{optimizer}learning_rate=1e6", f"{optimizer}weight_decay=100")
    code, _, errors = jkd(*common, *wild)
    assert code == 2 and re.search(r"is (nan|inf) at step \d+ of \S*teacher\b.*Lower the learning rate", errors), errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("checkpoints/*.json"))


def test_verbs_do_their_work(jkd: Any, tiny: Any, done: Any, copied: Path):
    code, out, errors = jkd("distill", f"--config={tiny.file}", f"--workdir={copied}")
    assert code == 0 and "knowledge_graph" in out and out.rstrip().endswith(f"report: {copied / 'report/index.html'}")
    assert errors.count("already there") == 16 and "\x1b" not in errors
    lines = [(root / "report" / "summary.json").read_text().splitlines() for root in (copied, done.workdir)]
    assert lines[0] == lines[1]  # the latencies too: nothing was measured again
    code, out, errors = jkd("evaluate", f"--workdir={copied}", "--student=kd/1", "--replicate=1")
    assert (code, errors) == (0, "") and [line.split()[0] for line in out.splitlines()][:3] == [
        "accuracy",
        "nll",
        "ece",
    ]
    code, out, _ = jkd("graph", "show", f"--workdir={copied}")
    assert code == 0 and "similar_to/input" in out and "diagnosis by folds" in out
    code, out, _ = jkd("graph", "check", f"--workdir={copied}", "--replicate=1")
    assert code == 0 and "200 nodes, every digest as written" in out
    for suffix in ("graphml", "json"):
        target = copied.parent / f"graph.{suffix}"
        assert jkd("graph", "export", f"--workdir={copied}", f"--to={target}") == (0, f"wrote {target}\n", "")
        assert "digits/" in target.read_text()
    code, out, _ = jkd("graph", "build", f"--config={tiny.file}", f"--workdir={copied}")
    assert code == 0 and "similar_to/input" in out


def test_config_shows_what_is_not_the_default(jkd: Any, tiny: Any):
    code, out, _ = jkd("config", f"--config={tiny.file}", "--config.students.kd.width=24")
    assert code == 0
    assert "* students.kd.width = 24" in out and "* replicates = 2" in out and "  graph.k = 8" in out


def test_methods_lists_every_term(jkd: Any):
    from jkd import methods

    code, out, _ = jkd("methods")
    assert code == 0 and all(f"\n{name}\n" in f"\n{out}" for name in methods.METHODS)


def test_methods_says_more_of_those_that_are_named(jkd: Any):
    code, out, _ = jkd("methods", "kd", "review")
    assert code == 0 and out.startswith("kd\n") and "Knowledge review: each of" in out and "Hinton, Vinyals" in out
    code, _, error = jkd("methods", "reviw")
    assert code == 2 and "methods: there is no term 'reviw'. Did you mean 'review'?" in error


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"] if verb else ["--help"])
    assert caught.value.code == 0 and f"example:\n  jkd {verb or 'distill'}" in capsys.readouterr().out


@pytest.mark.fault(3)
def test_what_would_be_a_warning_ends_a_strict_run(jkd: Any, tiny: Any, tmp_path: Path):
    asked = ("distill", f"--config={tiny.file}", f"--workdir={tmp_path / 'run'}", "--only=kd/0", "--replicate=0")
    asked = (*asked, "--config.student.train.checkpoint_every=10", "--quiet")
    assert jkd(*asked, "--strict")[0] == 0
    place = tmp_path / "run/replicates/0/students/kd/0"
    for name in ("result.json", "variables.safetensors"):
        (place / name).unlink()
    (place / "checkpoints/30.json").write_text("{")
    code, _, errors = jkd(*asked, "--strict")
    assert code == 2 and errors.count("\n") == 1 and "Going on from step 20. (--strict)" in errors
    assert not (place / "result.json").exists()
    with pytest.warns(UserWarning, match=r"Going on from step 20\."):
        assert jkd(*asked)[0] == 0


def test_a_warning_is_a_line_without_code(jkd: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    jkd("methods")
    assert warnings.formatwarning("going on", Notice, "/loop.py", 3) == "jkd: going on\n"
    assert "elsewhere.py:3" in warnings.formatwarning("going on", UserWarning, "/elsewhere.py", 3)
