"""On disk: the same bytes for the same graph, and no flipped bit goes unnoticed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jkd import digest, files
from jkd.errors import UserError
from jkd.graph import KnowledgeGraph, choose, load, read_manifest, save

FILES = ("graph.json", "arrays.safetensors")


@pytest.fixture(scope="module")
def stored(graph: KnowledgeGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    save(graph, folder)
    return folder


def copied(stored: Path, folder: Path) -> Path:
    for name in FILES:
        (folder / name).write_bytes((stored / name).read_bytes())
    return folder


def test_what_is_loaded_is_what_was_saved(graph: KnowledgeGraph, stored: Path) -> None:
    again = load(stored)
    assert again.digest == graph.digest
    assert again.diagnosis == graph.diagnosis and again.settings == graph.settings
    for name, array in graph.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_a_holdout_graph_comes_back_with_its_material(holdout_graph: KnowledgeGraph, tmp_path: Path) -> None:
    save(holdout_graph, tmp_path)
    again = load(tmp_path)
    assert again.digest == holdout_graph.digest and again.material.labels_used == 20
    student = dict(edges="random", view="auto", strength="auto", mix="auto", gate=False, inject=True, sharpen=1.0)
    assert choose(again, student, seed=0, replicate=0) == choose(holdout_graph, student, seed=0, replicate=0)


def test_equal_graphs_give_equal_bytes(stored: Path, make_graph: Callable[..., KnowledgeGraph], tmp_path: Path) -> None:
    save(make_graph(), tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (stored / name).read_bytes()


def test_loaded_arrays_cannot_be_written_to(stored: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load(stored).labels[0] = 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.fault(4)
def test_every_flipped_bit_is_refused(stored: Path, tmp_path: Path, name: str) -> None:
    copied(stored, tmp_path)
    whole = (stored / name).read_bytes()
    for position in np.random.default_rng(0).integers(0, 8 * len(whole), 150).tolist():
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(UserError, match=name):
            load(tmp_path)


@pytest.mark.fault(4)
def test_every_bit_of_the_arrays_header_counts(stored: Path, tmp_path: Path) -> None:
    copied(stored, tmp_path)
    whole = (stored / "arrays.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in range(0, 8 * header, 7):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        (tmp_path / "arrays.safetensors").write_bytes(flipped)
        with pytest.raises(UserError, match=r"arrays\.safetensors"):
            load(tmp_path)


def test_a_changed_array_is_named(graph: KnowledgeGraph, stored: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    copied(stored, tmp_path)
    arrays = {name: array.copy() for name, array in graph.arrays().items()}
    arrays["weights"][0, 0, 0] += 1
    save_file(arrays, tmp_path / "arrays.safetensors")
    with pytest.raises(UserError, match="array 'weights' is not what was saved"):
        load(tmp_path)
    del arrays["weights"]
    save_file(arrays, tmp_path / "arrays.safetensors")
    with pytest.raises(UserError, match="does not hold the arrays"):
        load(tmp_path)


@pytest.mark.fault(25)
def test_a_graph_signed_again_after_tampering_is_still_validated(stored: Path, tmp_path: Path) -> None:
    copied(stored, tmp_path)
    signed = json.loads((stored / "graph.json").read_text())

    def sign_again() -> None:
        signed["sha256"] = digest.of_json(signed["manifest"])
        files.write_signed(tmp_path / "graph.json", signed)

    signed["manifest"]["classes"][0] = "dog"
    sign_again()
    with pytest.raises(UserError, match="classes: a name comes up twice"):
        load(tmp_path)
    signed["manifest"]["schema"] = 99
    sign_again()
    with pytest.raises(UserError, match="schema 99"):
        load(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.fault(3)
def test_a_cut_file_is_refused(stored: Path, tmp_path: Path, name: str, share: float) -> None:
    copied(stored, tmp_path)
    whole = (stored / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=name):
        load(tmp_path)


def test_a_folder_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no finished graph"):
        read_manifest(tmp_path)


def test_the_digest_covers_provenance_and_settings(make_graph: Callable[..., KnowledgeGraph]) -> None:
    graph = make_graph()
    assert replace(graph, provenance={"teacher": "other"}).digest != graph.digest
    assert replace(graph, settings=dict(graph.settings) | {"k": 5}).digest != graph.digest
