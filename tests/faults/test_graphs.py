"""Graphs that were damaged, and edge lists that attack: every bit counts, and memory is bounded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph import store, taxonomy
from jkd.graph.relation import join_beliefs
from jkd.graph.views import file_view

IDS = [f"train/{number}.png" for number in range(30)]


@pytest.fixture(scope="module")
def stored(done: Any) -> Path:
    return done.workdir / "replicates/0/graph"


@pytest.mark.fault(4)
def test_a_flipped_bit_in_a_graph_is_found(tries: Any, stored: Path, tmp_path: Path, chance: Any, flip: Any):
    for name in ("graph.json", "arrays.safetensors"):
        shutil.copy(stored / name, tmp_path / name)
    assert len(store.load(tmp_path)) == 200
    for _ in range(tries.count(25, 200)):
        path = tmp_path / chance.choice(("graph.json", "arrays.safetensors"))
        bit = chance.randrange(8 * path.stat().st_size)
        with tries(f"bit {bit} of {path.name}"):
            flip(path, bit)
            with pytest.raises(UserError, match=rf"{tmp_path}/(graph\.json|arrays\.safetensors)"):
                store.load(tmp_path)
        flip(path, bit)


@pytest.mark.fault(3)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_graph_is_refused(stored: Path, tmp_path: Path, share: float):
    for name in ("graph.json", "arrays.safetensors"):
        for other in ("graph.json", "arrays.safetensors"):
            shutil.copy(stored / other, tmp_path / other)
        os.truncate(tmp_path / name, int((tmp_path / name).stat().st_size * share))
        with pytest.raises(UserError, match=str(tmp_path / name)):
            store.load(tmp_path)


def _edges(path: Path, *lines: str) -> Path:
    path.write_text("source,target,weight\n" + "".join(f"{line}\n" for line in lines))
    return path


ATTACKS = {
    "a self loop": (("train/0.png,train/0.png,1",), "has an edge to itself"),
    "an edge twice": (("train/0.png,train/1.png,1", "train/0.png,train/1.png,2"), "comes up twice"),
    "a dangling id": (("train/0.png,train/99.png,1",), "there is no sample 'train/99.png'"),
    "id 2^31": (("train/0.png,2147483648,1",), "there is no sample '2147483648'"),
    "a NaN weight": (("train/0.png,train/1.png,nan",), "weight 'nan' is not a finite number"),
    "an infinite weight": (("train/0.png,train/1.png,1e999",), "weight '1e999' is not a finite number"),
    "no weight": (("train/0.png,train/1.png,",), "weight '' is not a finite number"),
    "a weight of words": (("train/0.png,train/1.png,=cmd|'x'",), "is not a finite number"),
    "two columns": (("train/0.png,train/1.png",), "has 2 columns"),
    "a NUL": (("train/0.png\0,train/1.png,1",), "there is no sample"),
    "an endless line": (("x" * 200_000,), "a line is longer than"),
    "no edges": ((), "no edge joins two samples"),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_edge_list_that_attacks_is_refused_by_line(tmp_path: Path, name: str):
    lines, message = ATTACKS[name]
    with pytest.raises(UserError, match=r"edges\.csv") as caught:
        file_view(_edges(tmp_path / "edges.csv", *lines), IDS, 4, known=frozenset(IDS))
    assert message in str(caught.value)


@pytest.mark.fault(25)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_of_concepts_is_refused(stored: Path, tmp_path: Path, length: int):
    """Where it comes in: the taxonomy's file."""
    concepts = [f"c{number}" for number in range(length)]
    is_a = {name: concepts[(number + 1) % length] for number, name in enumerate(concepts)} | {"0": "c0"}
    (tmp_path / "t.json").write_text(json.dumps({"classes": ["0", "1"], "concepts": concepts, "is_a": is_a}))
    with pytest.raises(UserError, match=r"t\.json: is_a: there is a cycle through 'c\d'"):
        taxonomy.load(tmp_path / "t.json", ("0", "1"))


@pytest.mark.fault(25)
def test_a_node_without_neighbours_keeps_its_belief_and_parts_do_not_mix(tmp_path: Path):
    """Two parts of a disconnected graph, and a sample that nothing is said of."""
    lines = [f"train/{a}.png,train/{b}.png,1" for a, b in ((0, 1), (1, 0), (2, 3), (3, 2))]
    table = file_view(_edges(tmp_path / "edges.csv", *lines), IDS, 4)
    assert (table.ids[4:] == -1).all() and (table.weights[4:] == 0).all()
    beliefs = np.random.default_rng(0).dirichlet(np.ones(3), len(IDS)).astype(np.float32)
    ids, weights = table.ids[None], table.weights[None]
    joined = np.asarray(join_beliefs(beliefs, ids, weights, np.float32(0.1), np.float32(0.8), 20))
    np.testing.assert_allclose(joined[4:], beliefs[4:], rtol=1e-5)
    assert np.isfinite(joined).all() and np.abs(joined[:4] - beliefs[:4]).max() > 0.01
    beliefs[2:4] = 1 / 3
    other = np.asarray(join_beliefs(beliefs, ids, weights, np.float32(0.1), np.float32(0.8), 20))
    np.testing.assert_array_equal(other[:2], joined[:2])


MANY = """
import json, sys, time
from jkd.graph.views import file_view
peak = lambda: 1024 * int(next(line for line in open("/proc/self/status") if line[:5] == "VmHWM").split()[1])
ids = [f"s{number}" for number in range(int(sys.argv[2]))]
start, begun = peak(), time.monotonic()
table = file_view(sys.argv[1], ids, 8, known=frozenset(ids))
print(json.dumps([int((table.ids >= 0).sum()), peak() - start, time.monotonic() - begun]))
"""


@pytest.mark.fault(25)
@pytest.mark.timeout(300)
def test_an_edge_list_of_many_lines_takes_bounded_memory(tmp_path: Path, root: Path, tries: Any):
    nodes, each = tries.count(2_000, 20_000), tries.count(100, 500)
    with open(tmp_path / "edges.csv", "w") as file:
        for source in range(nodes):
            file.write("".join(f"s{source},s{(source + d) % nodes},{d}\n" for d in range(1, each + 1)))
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path / "edges.csv"), str(nodes)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept, memory, _ = json.loads(done.stdout)
    assert kept == 8 * nodes
    assert memory < 2 * (tmp_path / "edges.csv").stat().st_size + 2**28 and memory < 100 * nodes * each + 2**26
