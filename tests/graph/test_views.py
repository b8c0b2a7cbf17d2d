"""Views: images, embeddings from a file, edges from a file."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from jkd.errors import UserError
from jkd.graph import Edges, file_view, input_view

IDS = ("a", "b", "c", "d,4")


def edge_file(folder: Path, text: str, name: str = "edges.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_input_view_is_flat_and_in_zero_to_one() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    view = input_view(images)
    assert view.shape == (2, 12) and view.dtype == np.float32
    np.testing.assert_array_equal(view[1], np.arange(12, 24, dtype=np.float32) / np.float32(255))


def test_embeddings_are_taken_by_id_whatever_their_order(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, ids=np.asarray(["x", "d,4", "c", "b", "a"]), features=np.arange(10.0).reshape(5, 2))
    view = file_view(path, IDS, 2)
    assert isinstance(view, np.ndarray) and view.dtype == np.float32
    np.testing.assert_array_equal(view[:, 0], [8, 6, 4, 2])


@pytest.mark.fault(25)
def test_missing_double_and_broken_embeddings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, ids=np.asarray(["a", "b"]), features=np.zeros((2, 2)))
    with pytest.raises(UserError, match="2 of 4 samples have no features: 'c', 'd,4'"):
        file_view(path, IDS, 2)
    np.savez(path, ids=np.asarray(["a", "a"]), features=np.zeros((2, 2)))
    with pytest.raises(UserError, match="an id comes up twice"):
        file_view(path, IDS, 2)
    np.savez(path, ids=np.asarray(["a"]), features=np.asarray([[np.nan]]))
    with pytest.raises(UserError, match="not finite for 'a'"):
        file_view(path, ("a",), 2)
    np.savez(path, ids=np.asarray(["a"]), features=np.zeros(3))
    with pytest.raises(UserError, match=r"expected ids \[n\] and features \[n, D\]"):
        file_view(path, ("a",), 2)


@pytest.mark.fault(21)
def test_pickled_arrays_and_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", ids=np.asarray([{"a": 1}], object), features=np.zeros((1, 1)))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("p.npz", "text.npz"):
        with pytest.raises(
            UserError, match=r"not a readable npz of plain arrays|pickled Python objects, which are never loaded"
        ):
            file_view(tmp_path / name, IDS, 2)
    with pytest.raises(UserError, match=r"expected \.npz, \.csv or \.tsv, got '\.txt'"):
        file_view(edge_file(tmp_path, "", "edges.txt"), IDS, 2)
    with pytest.raises(UserError, match="there is no file"):
        file_view(tmp_path / "nowhere.npz", IDS, 2)


@pytest.mark.fault(24)
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w") as member,
    ):
        for _ in range(257):
            member.write(bytes(2**20))
    with pytest.raises(UserError, match=r"features\.npy would unpack to"):
        file_view(path, IDS, 2)


@pytest.mark.parametrize("name", ["edges.csv", "edges.tsv", "edges.npz"])
def test_edges_keep_the_heaviest_and_ties_go_to_the_lower_node(tmp_path: Path, name: str) -> None:
    rows = [("a", "d,4", 0.5), ("a", "c", 0.5), ("a", "b", 0.9), ("b", "a", -1.0), ("d,4", "elsewhere", 1.0)]
    path = tmp_path / name
    if name.endswith(".npz"):
        source, target, weight = zip(*rows, strict=True)
        np.savez(path, source=np.asarray(source), target=np.asarray(target), weight=np.asarray(weight))
    else:
        tab = "\t" if name.endswith(".tsv") else ","
        lines = ["source,target,weight".replace(",", tab)]
        lines += [tab.join(f'"{cell}"' for cell in (s, t, w)) for s, t, w in rows]
        path.write_text("\n".join(lines))
    view = file_view(path, IDS, 2)
    assert isinstance(view, Edges)
    np.testing.assert_array_equal(view.ids, [[1, 2], [0, -1], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(view.weights, np.asarray([[0.9, 0.5], [-1, 0], [0, 0], [0, 0]], np.float32))


def test_held_out_samples_have_edges_into_the_pool(tmp_path: Path) -> None:
    path = edge_file(tmp_path, "h,a,1\nh,h2,2\na,b,1\n")
    view = file_view(path, ("h", "h2"), 2, targets=("b", "a"))
    np.testing.assert_array_equal(view.ids, [[1, -1], [-1, -1]])


@pytest.mark.fault(25)
def test_everything_wrong_with_an_edge_list_is_listed(tmp_path: Path) -> None:
    path = edge_file(tmp_path, "a,a,1\nb,c,nan\na,ghost,1\nb,a,heavy\nc,a,1\nc,a,2\n")
    with pytest.raises(UserError) as caught:
        file_view(path, IDS, 2, known=set(IDS))
    for finding in (
        "line 1: 'a' has an edge to itself",
        "line 2: weight 'nan' is not a finite number",
        "line 3: there is no sample 'ghost'",
        "line 4: weight 'heavy' is not a finite number",
        "the edge from 'c' to 'a' comes up twice",
    ):
        assert finding in str(caught.value)


@pytest.mark.fault(25)
def test_lines_without_end_or_of_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a line is longer than"):
        file_view(edge_file(tmp_path, "a," + "x" * 10**6), IDS, 2)
    with pytest.raises(UserError, match="line 2 has 2 columns"):
        file_view(edge_file(tmp_path, "a,b,1\na,b\n"), IDS, 2)
    with pytest.raises(UserError, match="row 1 is not readable"):
        file_view(edge_file(tmp_path, '"' + "a,b,1\n" * 30_000), IDS, 2)
    with pytest.raises(UserError, match="no edge joins two samples"):
        file_view(edge_file(tmp_path, "x,y,1\n"), IDS, 2)
