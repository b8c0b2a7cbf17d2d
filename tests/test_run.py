"""A whole run: what it ends in, what it repeats to the bit, what it does not do twice."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from jkd import config as configs
from jkd import files, parts, replay, run
from jkd.data import open_dataset
from jkd.errors import Locked, UserError
from jkd.progress import RunProgress
from jkd.train import metrics

METRICS = ("accuracy", "nll", "ece", "agreement", "seed_churn", "replicate_churn")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report out, which takes longer than the run."""
    monkeypatch.setattr(run.reports, "write_report", lambda *given: {"written": True})


def _without_latency(workdir: Path) -> str:
    """summary.json, byte by byte, but for the one figure that is measured."""
    lines = (workdir / "report" / "summary.json").read_text().splitlines()
    return "\n".join(line for line in lines if '"latency_ms"' not in line)


def _times(workdir: Path) -> dict[Path, int]:
    """When each file of the parts was written; the empty lock files do not count."""
    every = (path for path in workdir.glob("replicates/**/*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in every}


def test_a_run_ends_in_the_summary(done: Any):
    summary = done.summary
    assert json.loads((done.workdir / "report" / "summary.json").read_text()) == summary
    assert set(summary["students"]) == {"cross_entropy", "kd", "knowledge_graph"}
    everyone = {"teacher": summary["teacher"], **summary["students"]}
    for name, entry in everyone.items():
        for metric in METRICS:
            assert set(entry["metrics"][metric]) >= {"mean", "sd", "n", "low", "high"}, (name, metric)
        keys = {"0/0", "1/0"} if name == "teacher" else {"0/0", "0/1", "1/0", "1/1"}
        assert set(entry["digests"]) == keys
        assert set(summary["receipt"][name]) >= {"params", "bytes", "macs", "latency_ms"}
        for other in everyone.keys() - {name}:
            assert set(summary["paired"][name][other]["accuracy"]) == {"mean", "low", "high", "n"}
    assert summary["students"]["kd"]["metrics"]["accuracy"]["n"] == 2  # replicates
    assert summary["labels"] == {"train": 40, "choose": 0}
    assert summary["graph"]["nodes"] == 210 and len(summary["graph"]["sha256"]) == 64 and summary["graph"]["diagnosis"]
    assert summary["primary"] == {"metric": "accuracy", "direction": "max"}
    assert {"jkd", "jax", "python"} <= set(summary["versions"])
    assert summary["config"]["students"]["kd"]["objective"]["kd"]["weight"] == 0.9


def test_each_distinct_step_compiles_once(done: Any):
    """Not once per replicate, seed or fold; the teacher and the students have one network, so one predictor serves."""
    assert {name: done.compiled.count(name) for name in ("train_steps", "forward", "project_nodes")} == {
        "train_steps": 4,
        "forward": 1,
        "project_nodes": 1,
    }


@pytest.mark.long
def test_a_resolved_config_elsewhere_gives_the_same_bytes(tiny: Any, done: Any, tmp_path: Path):
    run.distill(configs.resolve(tiny.config()), str(tmp_path / "run"), quiet=True)
    assert tiny.digests(tmp_path / "run") == tiny.digests(done.workdir)
    assert _without_latency(tmp_path / "run") == _without_latency(done.workdir)


@pytest.mark.usefixtures("no_report")
def test_a_second_time_nothing_is_made(tiny: Any, copied: Path, compilations: Any):
    before = _times(copied)
    with compilations() as compiled:
        run.distill(tiny.config(), copied, quiet=True)
    assert _times(copied) == before
    assert "train_steps" not in compiled and "forward" not in compiled


@pytest.mark.usefixtures("no_report")
def test_programs_that_were_let_go_in_between_move_no_bit(
    tiny: Any, done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cleared = []
    clear = run.build.jax.clear_caches
    monkeypatch.setattr(run.build.xla, "crowded", lambda: True)
    monkeypatch.setattr(run.build.jax, "clear_caches", lambda: cleared.append(clear()))
    run.distill(tiny.config(replicates=1), tmp_path / "crowded", quiet=True)
    assert len(cleared) >= 4  # teacher and students
    for path in (tmp_path / "crowded").glob("replicates/0/**/digests.jsonl"):
        there = done.workdir / path.relative_to(tmp_path / "crowded")
        assert path.read_text() == there.read_text()


@pytest.mark.usefixtures("no_report")
def test_what_is_added_is_all_that_is_made(tiny: Any, copied: Path):
    before = _times(copied)
    config = tiny.config(seeds=(0, 1, 5))
    assert run.distill(config, copied, only="kd/5", quiet=True) is None
    config.students.kd_twin = {"objective": {"cross_entropy": 0.1, "kd": 0.9}}
    run.distill(config, copied, only="kd_twin/0", replicate=1, quiet=True)
    config.replicates = 3
    run.distill(config, copied, only="cross_entropy/5", replicate=2, quiet=True)
    after = _times(copied)
    assert {path: after[path] for path in before} == before
    made = {path.parent.relative_to(copied / "replicates").as_posix() for path in after.keys() - before.keys()}
    assert {name for name in made if "checkpoints" not in name} == {
        "0/students/kd/5",
        "1/students/kd/5",
        "1/students/kd_twin/0",
        "2/teacher",
        "2/graph",
        "2/students/cross_entropy/5",
    }
    found = tiny.digests(copied)
    assert found["replicates/1/students/kd_twin/0"] == found["replicates/1/students/kd/0"]  # a name is no key stream


@pytest.mark.usefixtures("no_report")
@pytest.mark.fault(28)
def test_a_locked_student_is_left_for_last(tiny: Any, copied: Path, monkeypatch: pytest.MonkeyPatch):
    place = parts.Place(copied, 0)
    for seed in (0, 1):
        shutil.rmtree(place.student("kd", seed))
    order: list[str] = []
    let_go, make = threading.Event(), parts.make_student

    def hold() -> None:
        with files.lock(place.student("kd", 0), "it"):
            held.set()
            let_go.wait(60)

    def watched(*given: Any, **options: Any) -> Any:
        result = make(*given, **options)
        order.append(f"{given[4].replicate}/{given[5]}/{given[6]}")
        if order[-1] == "1/knowledge_graph/1":  # the last of all: now the other may end
            let_go.set()
        return result

    held, holder = threading.Event(), threading.Thread(target=hold)
    monkeypatch.setattr(run.parts, "make_student", watched)
    holder.start()
    try:
        assert held.wait(60)
        assert run.distill(tiny.config(), copied, quiet=True) == {"written": True}
    finally:
        let_go.set()
        holder.join()
    assert order[-1] == "0/kd/0" and len(order) == 12 and order.index("0/kd/1") == 2


@pytest.mark.usefixtures("no_report")
@pytest.mark.fault(28)
def test_a_student_asked_for_alone_is_refused_while_another_makes_it(tiny: Any, copied: Path):
    folder = parts.Place(copied, 0).student("kd", 1)
    shutil.rmtree(folder)
    with files.lock(folder, "it"), pytest.raises(Locked, match=r"student kd/1 of replicate 0 .* by process \d+ on"):
        run.distill(tiny.config(), copied, only="kd/1", quiet=True)


@pytest.mark.usefixtures("no_report")
@pytest.mark.fault(28)
def test_a_locked_teacher_is_waited_for(tiny: Any, copied: Path, monkeypatch: pytest.MonkeyPatch):
    folder, told = parts.Place(copied, 0).teacher, []
    result = (folder / "result.json").read_bytes()
    (folder / "result.json").unlink()
    monkeypatch.setattr(files, "POLL", 0.01)
    with files.lock(folder, "it"):

        def waiting(progress: RunProgress, holder: str) -> None:
            told.append((progress.label, holder))
            (folder / "result.json").write_bytes(result)  # the other process has made it
            told_so.set()

        told_so = threading.Event()
        monkeypatch.setattr(RunProgress, "waiting", waiting)
        thread = threading.Thread(target=run.distill, args=(tiny.config(), copied, "graph", 0, True))
        thread.start()
        assert told_so.wait(60)
    thread.join(60)
    assert told[0][0] == "replicate 0 teacher" and told[0][1].startswith("process ")
    assert (folder / "result.json").read_bytes() == result


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher__width": 8}, "teacher.width: 16 -> 8"),
        ({"graph__k": 4}, "graph.k: 8 -> 4"),
        ({"data__limit": 290}, "a run on other data"),
        ({"students__kd": {"objective": {"kd": 0.5}}}, "students.kd.objective.kd.weight: 0.9 -> 0.5"),
    ],
)
@pytest.mark.fault(20)
def test_another_run_is_refused_with_the_difference(tiny: Any, done: Any, changes: dict[str, Any], message: str):
    before = (done.workdir / "manifest.json").read_bytes()
    with pytest.raises(UserError) as caught:
        run.distill(tiny.config(**changes), done.workdir, quiet=True)
    assert message in str(caught.value)
    assert (done.workdir / "manifest.json").read_bytes() == before


@pytest.mark.fault(20)
def test_parts_of_other_inputs_are_refused_by_name(tiny: Any, copied: Path):
    place = parts.Place(copied, 0)
    path = place.student("kd", 0) / "result.json"
    result = files.read_json(path)
    result["made_of"]["graph"], result["inputs"] = "another", "another"
    files.write_signed(path, result)
    with pytest.raises(UserError, match=r"students/kd/0 holds a part made from other inputs; .*graph: 'another' ->"):
        run.distill(tiny.config(), copied, only="kd/0", quiet=True)


@pytest.mark.fault(4)
def test_damaged_predictions_of_a_teacher_are_held_against_no_student(tiny: Any, copied: Path):
    place = parts.Place(copied, 0)
    path = place.teacher / "predictions.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 128  # a sign
    path.write_bytes(data)
    shutil.rmtree(place.student("kd", 0))
    with pytest.raises(UserError, match=r"teacher/predictions\.safetensors is damaged"):
        run.distill(tiny.config(), copied, only="kd/0", replicate=0, quiet=True)
    assert not (place.student("kd", 0) / "metrics.jsonl").exists()  # found before anything is trained


@pytest.mark.parametrize("part", ["teacher", "students/kd/0"])
@pytest.mark.fault(4)
def test_damaged_variables_of_a_finished_part_are_refused_by_name(tiny: Any, copied: Path, part: str):
    path = copied / "replicates" / "0" / part / "variables.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{part}/variables.safetensors is damaged"):
        run.distill(tiny.config(), copied, only="kd/0", quiet=True)


@pytest.mark.fault(20)
def test_a_graph_in_the_place_of_another_is_used_for_nothing(tiny: Any, copied: Path):
    """Both are sound; which one students are made from is what the result says."""
    ours, theirs = parts.Place(copied, 0), parts.Place(copied, 1)
    for name in ("graph.json", "arrays.safetensors"):
        shutil.copy(theirs.graph / name, ours.graph / name)
    words = "graph holds another graph than its result.json names"
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and words in found.damaged
    shutil.rmtree(ours.student("kd", 0))
    with pytest.raises(UserError, match=words):
        run.distill(tiny.config(), copied, only="kd/0", replicate=0, quiet=True)
    with pytest.raises(UserError, match=words):
        run.graph("check", copied)
    with pytest.raises(UserError, match=words):
        run.report(copied)
    assert not (ours.student("kd", 0) / "result.json").exists()


@pytest.mark.fault(4)
def test_a_damaged_graph_is_refused_not_left_out(copied: Path):
    path = copied / "replicates" / "0" / "graph" / "arrays.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"arrays\.safetensors"):
        run.report(copied)


def test_a_place_is_refused_before_anything_is_loaded(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run.build, "open_session", lambda config: pytest.fail("loaded"))
    (tmp_path / "letters.txt").write_text("mine")
    for workdir, message in ((tmp_path, "not empty and holds no run"), (tmp_path / "letters.txt" / "x", "is a file")):
        with pytest.raises(UserError, match=message):
            run.distill(tiny.config(), workdir, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__pool": 9999}, "data.pool"),
        ({"devices": 99}, "devices: 99"),
        ({"devices": 3}, "train.batch: 16 samples cannot be cut"),
        ({"graph__files": {"mine": "gone.npz"}, "graph__views": ("mine",)}, "graph.files.mine: there is no file gone"),
        ({"graph__taxonomy": "gone.json"}, "gone.json is missing"),
        ({"students__kd__objective": {"rkd": {"student_tap": "hiden0"}}}, "student_tap: .* mean 'hidden0'"),
        ({"data__labels": 1}, "graph.folds: 2 folds need as many labels, but a pool has 1"),
        ({"graph__diagnosis": "holdout", "data__val": 0.001}, "data.val: 0.001 of 300 training samples is none"),
        ({"student__model": "vgg8", "student__layout": "torchvision"}, "students.cross_entropy.model: .* 8x8"),
        (
            {"students__kd__objective": {"sp": {"teacher_tap": "stage9"}}},
            "teacher_tap: the network has no tap 'stage9'",
        ),
        (
            {"students__kd__objective": {"review": {"student_tap": "hidden0", "teacher_tap": "hidden0,embedding"}}},
            "review: expected the same number",
        ),
        ({"students__kd__objective": {"fsp": {"student_tap": "hidden0", "teacher_tap": "hidden0"}}}, "at least 2"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tiny: Any, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        run.distill(tiny.config(**changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_evaluation_repeats_what_the_run_measured(done: Any):
    for student, folder in (("teacher", "teacher"), ("knowledge_graph/1", "students/knowledge_graph/1")):
        measured = files.read_json(done.workdir / "replicates" / "1" / folder / "result.json")["metrics"]
        again = run.evaluate(done.workdir, student, replicate=1)
        assert {key: again[key] for key in ("accuracy", "nll", "ece")} == {
            key: measured[key] for key in ("accuracy", "nll", "ece")
        }


def test_a_teacher_alone_needs_no_graph(tiny: Any, tmp_path: Path):
    config = configs.resolve(tiny.config())
    assert run.distill(config, tmp_path / "run", only="teacher", replicate=0, quiet=True) is None
    made = {path.parent.name for path in (tmp_path / "run").rglob("result.json")}
    assert made == {"teacher"} and not list((tmp_path / "run").rglob("graph.json"))


def test_evaluation_on_what_was_put_aside(tiny: Any, done: Any, tmp_path: Path):
    with pytest.raises(UserError, match="nothing was put aside"):
        run.evaluate(done.workdir, "teacher", split="val")
    config = configs.resolve(tiny.config(data__val=0.2, teacher__train__eval_every=20))
    run.distill(config, tmp_path / "run", only="teacher", replicate=0, quiet=True)
    found = run.evaluate(tmp_path / "run", "teacher", split="val")
    lines = metrics.read(tmp_path / "run/replicates/0/teacher/metrics.jsonl")
    last = [line for line in lines if "val_accuracy" in line][-1]
    assert found["accuracy"] == pytest.approx(last["val_accuracy"]) and found["agreement"] is None


@pytest.mark.parametrize("student", ["graph", "kd", "kd/7", "nobody/0", ""])
def test_evaluation_of_no_one_student_is_refused(done: Any, student: str):
    with pytest.raises(UserError, match="--student"):
        run.evaluate(done.workdir, student)


def test_a_report_of_nothing_finished_says_so(tiny: Any, tmp_path: Path):
    config = configs.resolve(tiny.config())
    run.manifest.open_run(tmp_path, config, open_dataset(config.data))
    summary = run.report(tmp_path)
    accuracy = summary["students"]["kd"]["metrics"]["accuracy"]
    assert accuracy == dict.fromkeys(("mean", "sd", "low", "high")) | {"n": 0}
    assert (tmp_path / "report" / "index.html").is_file()
