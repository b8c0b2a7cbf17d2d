"""The loop: cut anywhere it goes on to the same bits; what is not finite is refused where it happens."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jkd import digest, files, sharding
from jkd.errors import UserError
from jkd.train import checkpoint, interrupt, loop, metrics
from jkd.train.dispatch import MeshStep
from jkd.train.loop import Fit, fit
from jkd.train.metrics import MetricsLog
from jkd.train.record import Record


@pytest.fixture(scope="module")
def setup(problem: Any) -> Any:
    network = problem.network({"kd": 1.0, "cross_entropy": 0.1, "projection": 0.1})
    program, teacher = problem.program(network)
    step = MeshStep(program, sharding.make_mesh(1))
    init = jax.jit(lambda run: program.init(run, teacher))

    def make(run: Any, folder: Path | None = None, **changes: Any) -> tuple[Fit, Any]:
        given = dict(step=step, batches=problem.batches(program, 4), teacher=teacher, run=run)
        given |= dict(knowledge=problem.knowledge, folder=folder, inputs="made of this")
        return Fit(**(given | changes)), init(run)

    return make


def _digest(state: Any) -> str:
    return digest.of_tree(jax.tree.map(np.asarray, {"params": state.params, "objective": state.objective}))


@pytest.mark.parametrize("cuts", [(8,), (13,), (1, 2, 39)])
def test_cut_at_any_step_it_goes_on_to_the_same_bits(setup: Any, run: Any, tmp_path: Path, cuts: tuple[int, ...]):
    whole = fit(*setup(run))
    for cut in cuts:
        assert int(fit(*setup(run, tmp_path), stop_at=cut).step) == cut
    assert _digest(fit(*setup(run, tmp_path))) == _digest(whole)
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == list(range(4, 41, 4))


def test_what_a_checkpoint_goes_on_from_is_written_before_it(
    setup: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []
    for kind, name in ((MetricsLog, "sync"), (Record, "sync"), (checkpoint, "save")):
        real = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda *given, real=real, kind=kind: [order.append(kind.__name__), real(*given)]
        )
    fit(*setup(run, tmp_path), stop_at=8)
    assert order == ["MetricsLog", "Record", "jkd.train.checkpoint"]


def test_metrics_lines_and_events_are_written(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert {"step", "loss", "kd", "cross_entropy", "projection", "gradient_norm"} <= set(lines[0])
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_validation_metrics_come_along(setup: Any, run: Any, tmp_path: Path):
    one, state = setup(run, tmp_path, evaluate=lambda variables: {"accuracy": 0.5})
    with one.step.program.settings.unlocked():
        one.step.program.settings.eval_every = 20
    try:
        fit(one, state)
    finally:
        with one.step.program.settings.unlocked():
            one.step.program.settings.eval_every = 0
    found = [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl") if "val_accuracy" in line]
    assert found == [20, 40]


def test_a_request_to_stop_saves_first(setup: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupt, "_received", [15])
    with pytest.raises(interrupt.Interrupted) as caught:
        fit(*setup(run, tmp_path))
    assert caught.value.code == 143
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]
    monkeypatch.setattr(interrupt, "_received", [])
    assert _digest(fit(*setup(run, tmp_path))) == _digest(fit(*setup(run)))


def test_a_loss_that_is_not_finite_names_the_step_and_is_never_saved(
    setup: Any, run: Any, tmp_path: Path, problem: Any
):
    one, state = setup(run, tmp_path)
    broken = problem.knowledge._replace(features=problem.knowledge.features * np.inf)
    with pytest.raises(UserError, match="at step 1"):
        fit(Fit(**{**one.__dict__, "knowledge": broken}), state)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_a_checkpoint_of_other_inputs_is_refused(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path), stop_at=8)
    with pytest.raises(UserError, match="another config"):
        fit(*setup(run, tmp_path, inputs="made of that"))


def _largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_used(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path), stop_at=8)
    fit(*setup(run, tmp_path), stop_at=16)
    assert checkpoint.steps(tmp_path / "checkpoints") == [8, 16]
    _flip(_largest(tmp_path / "checkpoints" / "16"), 0.6)
    with pytest.warns(UserWarning, match=r"checkpoint .*16 .*Going on from step 8"):
        state = fit(*setup(run, tmp_path))
    assert _digest(state) == _digest(fit(*setup(run)))


def test_all_checkpoints_bad_is_refused_never_restarted(setup: Any, run: Any, tmp_path: Path):
    for step in (8, 16):
        fit(*setup(run, tmp_path), stop_at=step)
    for step in (8, 16):
        path = _largest(tmp_path / "checkpoints" / str(step))
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="no sound checkpoint"):
        fit(*setup(run, tmp_path))


def test_a_part_whose_sidecars_are_lost_is_refused_and_its_data_kept(setup: Any, run: Any, tmp_path: Path):
    for step in (8, 16):
        fit(*setup(run, tmp_path), stop_at=step)
    folder = tmp_path / "checkpoints"
    for step in (8, 16):
        (folder / f"{step}.json").rename(tmp_path / f"{step}.json")
    for _ in range(2):
        with pytest.raises(UserError, match=rf"no sound checkpoint in {folder}: \S+/16\.json is missing.* Delete the"):
            fit(*setup(run, tmp_path))
    (tmp_path / "8.json").rename(folder / "8.json")
    with pytest.warns(UserWarning, match=r"/16\.json is missing.* Going on from step 8"):
        assert _digest(fit(*setup(run, tmp_path))) == _digest(fit(*setup(run)))


def test_a_wrong_shape_names_every_leaf(setup: Any, run: Any, tmp_path: Path, problem: Any):
    _, state = setup(run, tmp_path)
    checkpoint.save(tmp_path / "checkpoints", state, "made of this")
    kernel = jax.tree.map(lambda leaf: leaf[..., :1] if leaf.ndim == 2 else leaf, state.params)
    with pytest.raises(UserError) as caught:
        checkpoint.restore(tmp_path / "checkpoints", state.replace(params=kernel), "made of this")
    assert str(caught.value).count("kernel: expected float32[") == len(
        [x for x in jax.tree.leaves(kernel) if x.ndim == 2]
    )


def test_a_wrong_dtype_is_refused_not_cast(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run, tmp_path)
    checkpoint.save(tmp_path / "checkpoints", state, "made of this")
    half = state.replace(params=jax.tree.map(lambda leaf: leaf.astype(jax.numpy.bfloat16), state.params))
    with pytest.raises(UserError, match=r"expected bfloat16\[.*got float32\["):
        checkpoint.restore(tmp_path / "checkpoints", half, "made of this")


def test_a_checkpoint_that_a_kill_left_without_its_sidecar_does_not_count(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run, tmp_path)
    checkpoint.save(tmp_path, state, "x")
    (tmp_path / "0.json").unlink()
    (tmp_path / "0" / "sealed").unlink()  # so it stands when a kill comes before the sidecar is written
    assert checkpoint.restore(tmp_path, state, "x") is None and not list(tmp_path.iterdir())


def test_only_the_newest_two_are_kept(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run)
    for step in range(4):
        checkpoint.save(tmp_path, state.replace(step=np.uint32(step)), "x")
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "2.json", "3", "3.json"]


def test_a_sidecar_holds_a_digest_for_every_leaf(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run)
    checkpoint.save(tmp_path, state, "x")
    leaves = json.loads((tmp_path / "0.json").read_text())["leaves"]
    assert len(leaves) == len(jax.tree.leaves(state))


def _flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 4
    path.write_bytes(bytes(data))


def test_what_a_kill_left_of_a_checkpoint_is_removed(setup: Any, run: Any, tmp_path: Path):
    (tmp_path / "4.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "4.orbax-checkpoint-tmp-1" / "half").write_text("")
    _, state = setup(run)
    checkpoint.save(tmp_path, state, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "0.json"]


def test_parameters_that_the_last_step_broke_are_refused(setup: Any, run: Any, altered: Any, tmp_path: Path):
    one, state = setup(run, tmp_path)

    def step(advance: Any, state: Any, chunk: Any) -> Any:
        state, metrics = advance(state, chunk)
        if int(state.step) == 40:  # no later loss is there to tell
            state = state.replace(params=jax.tree.map(lambda leaf: leaf * np.inf, state.params))
        return state, metrics

    with pytest.raises(UserError, match=r"params/\S+ is not finite after step 40 of .*clip"):
        fit(replace(one, step=altered(one.step, step)), state)


@pytest.mark.fault(26)
@pytest.mark.parametrize("at", [4, 12])
def test_a_device_that_runs_out_of_memory_says_what_to_lower_and_loses_nothing(
    setup: Any, run: Any, altered: Any, tmp_path: Path, at: int
):
    for cut in range(4, at, 4):
        fit(*setup(run, tmp_path), stop_at=cut)
    one, state = setup(run, tmp_path)

    def step(advance: Any, state: Any, chunk: Any) -> Any:
        state, metrics = advance(state, chunk)
        if int(state.step) >= at:
            jax.block_until_ready(jax.numpy.ones((2**46,), jax.numpy.float32))  # 256 TiB, which the runtime refuses
        return state, metrics

    with pytest.raises(UserError, match=rf"too little memory for the steps of {tmp_path}\. Raise train\.accumulate"):
        fit(replace(one, step=altered(one.step, step)), state)
    assert checkpoint.steps(tmp_path / "checkpoints") == list(range(4, at, 4))[-2:]
    assert _digest(fit(*setup(run, tmp_path))) == _digest(fit(*setup(run)))


def test_several_processes_ask_at_agreed_steps_that_take_about_ten_seconds(monkeypatch: pytest.MonkeyPatch):
    now, heard = [0.0], [np.array([False, True])]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(loop.processes, "count", lambda: 2)
    gathered: list[int] = []

    def gather(own: np.ndarray) -> np.ndarray:
        gathered.append(int(own[0, 1]))
        return np.stack([own[0], [heard[0][1], 7]])  # process 1 has another clock, which does not count

    monkeypatch.setattr(loop.processes, "gather", gather)
    heard[0] = np.array([False, False])
    asked, at = loop._Asked(100), []
    for step in range(104, 20_000, 4):
        now[0] += 60.0 if step == 104 else 0.4  # the first compiles
        before = len(gathered)
        assert not asked.to_stop(step)
        at += [step] * (len(gathered) - before)
    assert at[:3] == [104, 108, 208] and set(np.diff(at[2:])) == {100}
    heard[0] = np.array([False, True])
    assert asked.to_stop(at[-1] + 100)


def test_handlers_are_put_back_after_listening():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with interrupt.listen():
        assert not interrupt.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested()
        with pytest.raises(interrupt.Interrupted, match="SIGTERM"):
            interrupt.stop_if_requested()
        assert signal.getsignal(signal.SIGTERM) == before[0]  # a second one acts at once
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    with interrupt.listen():
        assert not interrupt.requested()  # an earlier request is forgotten


@pytest.mark.fault(4)
def test_a_damaged_checkpoint_does_not_push_out_a_sound_one(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run)
    for step in (10, 13):
        checkpoint.save(tmp_path, state.replace(step=np.uint32(step)), "x")
    _flip(next(path for path in (tmp_path / "13").rglob("*") if path.is_file() and path.stat().st_size), 0.5)
    with pytest.warns(UserWarning, match="Going on from step 10"):
        checkpoint.restore(tmp_path, state, "x")
    assert checkpoint.steps(tmp_path) == [10]
    checkpoint.save(tmp_path, state.replace(step=np.uint32(20)), "x")
    assert checkpoint.steps(tmp_path) == [10, 20]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"files": []}, "does not hold"), ({"leaves": []}, "does not hold"), ({"step": 7}, "of step 7: it was renamed")],
)
def test_a_signed_sidecar_of_another_form_or_step_is_refused(
    setup: Any, run: Any, tmp_path: Path, change: dict[str, Any], words: str
):
    _, state = setup(run)
    checkpoint.save(tmp_path, state, "x")
    files.write_signed(tmp_path / "0.json", files.read_json(tmp_path / "0.json") | change)
    with pytest.raises(UserError, match=words):
        checkpoint.restore(tmp_path, state, "x")


@pytest.mark.fault(3)
def test_a_link_in_a_checkpoint_is_found_and_not_followed(setup: Any, run: Any, tmp_path: Path):
    _, state = setup(run)
    checkpoint.save(tmp_path, state, "x")
    (tmp_path / "0" / "endless").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="endless differ from"):
        checkpoint.restore(tmp_path, state, "x")
