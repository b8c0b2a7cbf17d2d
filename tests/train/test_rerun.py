"""Running a part again: what is the same is the same; of an injected fault, step, stage and leaf are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest, sharding
from jkd.errors import Damaged, UserError
from jkd.train import checkpoint, record
from jkd.train.dispatch import MeshStep
from jkd.train.elastic import elastic_step
from jkd.train.loop import Fit, fit
from jkd.train.rerun import NotComparable, Parting, Stored, rerun, ulps

SHAPE, STEPS = (4, 4, 1), 6
TERMS = {"joined_beliefs": 0.5, "rkd": 0.1, "projection": {"weight": 0.1, "detach": False}}


class Tampered:
    """A step that something happens to once: `before(given, chunk)` and `after(state)`, at step `at`."""

    def __init__(self, sound: Any, at: int, before: Callable[..., Any] | None = None, after: Any = None) -> None:
        self.program, self.rows, self.place, self.leaves = sound.program, sound.rows, sound.place, sound.leaves
        self.sound, self.at, self.before, self.after = sound, at, before, after

    def bind(self, *given: Any) -> Any:
        def advance(state: Any, chunk: Any) -> Any:
            now, fixed = int(chunk["step"][0]) + 1, given
            if now == self.at and self.before:
                fixed, chunk = self.before(given, chunk)
            state, metrics = self.sound.bind(*fixed)(state, chunk)
            return (self.after(state) if now == self.at and self.after else state), metrics

        return advance


@pytest.fixture(scope="module", params=["plain"])
def setup(request: pytest.FixtureRequest, problem: Any) -> Any:
    network = problem.network(TERMS)
    with network.unlocked():
        network.batch_norm = True
        network.train.update(steps=STEPS, steps_per_call=1, checkpoint_every=1, digest_every=3, log_every=3)
    program, teacher = problem.program(network)
    plain = request.param == "plain"
    step = MeshStep(program, sharding.make_mesh(1)) if plain else elastic_step(program, 8, jax.devices())
    init = jax.jit(lambda run: program.init(run, teacher))
    batches = problem.batches(program, 1)

    def make(run: Any, folder: Path | None = None, step: Any = step, **changes: Any) -> tuple[Fit, Any]:
        given = dict(step=step, batches=batches, teacher=teacher, run=run, knowledge=problem.knowledge, folder=folder)
        return Fit(**(given | changes)), init(run)

    return make


def _again(setup: Any, run: Any, folder: Path, **where: Any) -> Any:
    fresh, state = setup(run)
    return rerun(fresh, record.read(folder), Stored(folder / "checkpoints", state), **where)


def test_a_sound_run_is_the_same_from_any_step_to_any_step(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    whole = _again(setup, run, tmp_path)
    assert (whole.first, whole.last, whole.rows, whole.digests, whole.parting) == (0, 6, 6, 2, None)
    part = _again(setup, run, tmp_path, first=4, last=5)
    assert (part.first, part.last, part.rows, part.parting) == (4, 5, 1, None)
    middle = _again(setup, run, tmp_path, first=2, last=4)  # no checkpoint is that old: from the beginning
    assert (middle.first, middle.last, middle.rows, middle.digests) == (0, 4, 4, 1)


def test_every_checkpoint_on_the_way_is_compared(setup: Any, run: Any, tmp_path: Path):
    """A checkpoint of other values, soundly written, in a run whose record repeats."""
    fit(*setup(run, tmp_path))
    state = checkpoint.read(tmp_path / "checkpoints" / "4", setup(run)[1])
    bias = state.params["classifier"]["bias"]
    other = state.replace(params=state.params | {"classifier": state.params["classifier"] | {"bias": bias + 1}})
    checkpoint.save(tmp_path / "checkpoints", other, "")
    parting = _again(setup, run, tmp_path).parting
    assert parting and (parting.step, parting.stage, parting.seen_at) == (4, "update", 4)
    assert [(leaf.path, leaf.values) for leaf in parting.leaves] == [("update/params/classifier/bias", 3)]


def test_a_damaged_checkpoint_on_the_way_is_told_as_damage(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    (tmp_path / "checkpoints" / "5.json").write_text("{}")
    with pytest.raises(Damaged, match=r"5\.json is damaged"):
        _again(setup, run, tmp_path)
    assert _again(setup, run, tmp_path, last=4).parting is None


def test_steps_behind_the_last_are_none(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    with pytest.raises(NotComparable, match="no steps from 100 to 6; it has 6"):
        _again(setup, run, tmp_path, first=100)


def test_a_resumed_run_has_the_record_of_an_unbroken_one(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path / "whole"))
    for stop in (1, 4, 6):
        fit(*setup(run, tmp_path / "cut"), stop_at=stop)
    one, two = record.read(tmp_path / "whole"), record.read(tmp_path / "cut")
    assert one.lines == two.lines and one.leaves == two.leaves and len(one.lines) == 2
    np.testing.assert_array_equal(one.rows, two.rows)


def test_a_record_that_a_kill_cut_short_is_read_as_far_as_it_goes(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    with open(tmp_path / record.ROWS, "r+b") as file:
        file.truncate((tmp_path / record.ROWS).stat().st_size - 3)
    with open(tmp_path / record.LINES, "a") as lines:
        lines.write('{"step": 9, "lo')
    assert len(record.read(tmp_path).rows) == 5 and len(record.read(tmp_path).lines) == 2
    found = _again(setup, run, tmp_path)
    assert found.parting is None and (found.last, found.rows) == (5, 5)
    with pytest.raises(NotComparable, match="holds 5 of the 6 steps"):
        _again(setup, run, tmp_path, last=6)


def test_rows_that_are_not_there_or_blank_are_not_the_same(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    rows = np.array(record.read(tmp_path).rows)
    rows[2] = 0
    (tmp_path / record.LINES).unlink()
    rows.astype("<u4").tofile(tmp_path / record.ROWS)
    with pytest.raises(NotComparable, match="holds 5 of the 6 steps"):
        _again(setup, run, tmp_path)
    (tmp_path / record.ROWS).write_bytes(b"")
    with pytest.raises(NotComparable, match="no steps from 0 to 0"):
        _again(setup, run, tmp_path)


def _line(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        lines = [json.loads(text) for text in (folder / record.LINES).read_text().splitlines()]
        lines[0] |= changes
        (folder / record.LINES).write_text("".join(json.dumps(line) + "\n" for line in lines))

    return damage


def _text(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


DAMAGES = {
    "loss": _line(loss="0x1p+0"),
    "rows": _line(rows="0" * 64),
    "state": _line(state="0" * 64),
    "chain": _line(chain="0" * 64),
    "parts": _line(parts={}),
    "a number": _text(record.LINES, b"5\n"),
    "another object": _text(record.LINES, b'{"a": 1}\n'),
    "no text": _text(record.LINES, b"\xff\xfe\n"),
    "no leaves": _text(record.NAMES, b'{"leaves": [["x"]], "given": {}}'),
    "a list": _text(record.NAMES, b"[5]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_and_a_resumed_run_begins_another(
    setup: Any, run: Any, tmp_path: Path, damage: str
):
    fit(*setup(run, tmp_path), stop_at=4)
    DAMAGES[damage](tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        record.read(tmp_path)
    with pytest.warns(UserWarning, match="begins anew"):
        fit(*setup(run, tmp_path))
    kept = record.read(tmp_path)
    assert [line["step"] for line in kept.lines] == [6]
    assert kept.rows.any(axis=1).tolist() == [False] * 4 + [True] * 2
    assert _again(setup, run, tmp_path, first=4).parting is None


def test_a_change_of_a_leaf_of_zeros_is_seen(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    fresh, state = setup(run)
    bias = state.params["classifier"]["bias"].at[0].set(np.float32(1e-45))
    other = state.replace(params=state.params | {"classifier": state.params["classifier"] | {"bias": bias}})
    parting = rerun(fresh, record.read(tmp_path), Stored(tmp_path / "checkpoints", other)).parting
    assert parting and (parting.step, parting.stage) == (0, "update")
    assert [leaf.path for leaf in parting.leaves] == ["update/params/classifier/bias"]


@pytest.mark.parametrize("what", ["teacher", "graph"])
def test_another_teacher_or_graph_is_told_before_the_first_step(setup: Any, run: Any, tmp_path: Path, what: str):
    fit(*setup(run, tmp_path))
    fresh, state = setup(run)
    if what == "teacher":
        fresh = replace(fresh, teacher=jax.tree.map(lambda leaf: leaf * 2, fresh.teacher))
    else:
        fresh = replace(fresh, knowledge=fresh.knowledge._replace(features=fresh.knowledge.features * 2))
    parting = rerun(fresh, record.read(tmp_path), Stored(tmp_path / "checkpoints", state)).parting
    assert parting and (parting.step, parting.stage) == (1, what)
    assert all(leaf.path.startswith(f"{what}/") for leaf in parting.leaves)


def test_other_data_part_at_the_first_batch(setup: Any, run: Any, tmp_path: Path):
    fit(*setup(run, tmp_path))
    fresh, state = setup(run)
    other = replace(fresh, batches=lambda first: (c | {"id": c["id"] + 1} for c in fresh.batches(first)))
    parting = rerun(other, record.read(tmp_path), Stored(tmp_path / "checkpoints", state)).parting
    assert parting and (parting.step, parting.stage) == (1, "batch") and parting.leaves[0].path == "batch/id"


def test_ulps_count_the_floats_between():
    one = np.array([1.0, -1.0, 0.0, 1.0], np.float32)
    two = np.array([np.nextafter(np.float32(1), np.float32(2)), -1.0, -0.0, 1.0], np.float32)
    assert ulps(one, two) == 1 and ulps(one, one) == 0
    assert ulps(np.float32([-1e-45]), np.float32([1e-45])) == 2
    assert ulps(np.array([1.0], jnp.bfloat16), np.array([1.0078125], jnp.bfloat16)) == 1


def _faulty(setup: Any, run: Any, folder: Path, at: int, **fault: Any) -> Parting | None:
    sound, state = setup(run, folder)
    fit(replace(sound, step=Tampered(sound.step, at, **fault)), state)
    return _again(setup, run, folder).parting


def _one_ulp(rng: Any, setup: Any, run: Any, folder: Path, at: int) -> tuple[Parting | None, str, str]:
    """In a parameter, a running statistic, a parameter of the objective or the optimiser's moments."""
    leaves = [path for path, leaf in _floats(setup(run)[1]).items() if leaf.dtype == np.float32]
    path = leaves[rng.integers(len(leaves))]

    def after(state: Any) -> Any:
        def nudge(name: str, leaf: Any) -> Any:
            if name != path:
                return leaf
            values = np.array(leaf)
            index = rng.integers(values.size)
            values.flat[index] = np.nextafter(values.flat[index], np.float32(np.inf))
            return jnp.asarray(values)

        return _mapped(state, nudge)

    return _faulty(setup, run, folder, at, after=after), "update", f"update/{path}"


def _swapped(rng: Any, setup: Any, run: Any, folder: Path, at: int) -> tuple[Parting | None, str, str]:
    i, j = rng.choice(16, 2, replace=False)

    def before(given: Any, chunk: Any) -> Any:
        order = np.arange(16)
        order[[i, j]] = j, i
        rows = {key: chunk[key][:, order] for key in ("input", "label", "id", "node")}
        return given, chunk | rows

    return _faulty(setup, run, folder, at, before=before), "batch", "batch/id"


def _teacher_bit(rng: Any, setup: Any, run: Any, folder: Path, at: int) -> tuple[Parting | None, str, str]:
    """In the weights of its last layer: elsewhere a flip may change no output, and then there is nothing to find."""

    def before(given: Any, chunk: Any) -> Any:
        teacher = jax.tree.map(np.array, given[0])
        kernel = teacher["params"]["classifier"]["kernel"].view(np.uint32)
        kernel.flat[rng.integers(kernel.size)] ^= np.uint32(1 << int(rng.integers(16, 30)))
        return (teacher, *given[1:]), chunk

    return _faulty(setup, run, folder, at, before=before), "teacher", "teacher/logits"


def _edge(rng: Any, setup: Any, run: Any, folder: Path, at: int) -> tuple[Parting | None, str, str]:
    """Of a node in the batch."""

    def before(given: Any, chunk: Any) -> Any:
        ids = np.array(given[1].neighbours)
        node = chunk["node"][0, rng.integers(16)]
        view, rank = rng.integers(ids.shape[0]), rng.integers(ids.shape[2])
        ids[view, node, rank] = (ids[view, node, rank] + 1 + rng.integers(60)) % 64
        return (given[0], given[1]._replace(neighbours=ids), given[2]), chunk

    return _faulty(setup, run, folder, at, before=before), "graph", "graph/neighbours"


def _mapped(state: Any, change: Callable[[str, Any], Any]) -> Any:
    """The state with `change(path, leaf)` in place of each leaf."""
    paths = list(_floats(state, every=True))
    leaves, tree = jax.tree.flatten({part: getattr(state, part) for part in record.PARTS})
    by_path = dict(zip(paths, leaves, strict=True))
    changed = [change(path, leaf) for path, leaf in by_path.items()]
    return state.replace(**jax.tree.unflatten(tree, changed))


def _floats(state: Any, every: bool = False) -> dict[str, Any]:
    found = digest.flatten({part: getattr(state, part) for part in sorted(record.PARTS)})
    return {path: leaf for path, leaf in found.items() if every or leaf.dtype.kind == "f"}


FAULTS = {"one ULP": _one_ulp, "swapped samples": _swapped, "teacher bit": _teacher_bit, "edge": _edge}


@pytest.mark.long
@pytest.mark.parametrize(
    ("setup", "times"),
    [
        ("plain", 3),
        ("elastic", 1),
        pytest.param("plain", 25, marks=pytest.mark.slow),
        pytest.param("elastic", 12, marks=pytest.mark.slow),
    ],
    indirect=["setup"],
)
@pytest.mark.parametrize("fault", FAULTS)
def test_step_stage_and_leaf_of_an_injected_fault_are_named(
    setup: Any, run: Any, tmp_path: Path, fault: str, times: int
):
    for time in range(times):
        rng = np.random.default_rng([time, len(fault)])
        at = int(rng.integers(1, STEPS + 1))
        parting, stage, leaf = FAULTS[fault](rng, setup, run, tmp_path / str(time), at)
        assert parting is not None, (fault, time, at)
        found = (parting.step, parting.stage, parting.leaves[0].path)
        assert found == (at, stage, leaf), (fault, time)
        if fault == "one ULP":
            assert len(parting.leaves) == 1 and parting.more == 0
            if parting.seen_at == at:
                assert (parting.leaves[0].values, parting.leaves[0].ulps) == (1, 1)
