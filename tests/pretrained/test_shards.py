import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jkd.errors import UserError
from jkd.pretrained.shards import opened_folder, weight_files


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "one.safetensors")
    save_file({"b": np.ones(3, np.float16)}, tmp_path / "two.safetensors")
    _index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    return tmp_path


def _index(folder, names):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_shards_are_read_as_one(sharded):
    with opened_folder(sharded) as tensors:
        assert (tensors.shapes, tensors.dtypes) == ({"a": (2,), "b": (3,)}, {"a": "F32", "b": "F16"})
        np.testing.assert_array_equal(tensors.read("b"), np.ones(3, np.float32))
    assert weight_files(sharded) == ["model.safetensors.index.json", "one.safetensors", "two.safetensors"]


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": "one.safetensors", "x": "two.safetensors"}, r"it says are \[x\], not where they should be are \[b\]"),
        ({"a": "one.safetensors", "b": "one.safetensors"}, r"not where it says are \[b\]"),
        ({"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}, r"not where it says are \[c\]"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, r"not where it says are \[a, b\]"),
        ({"a": "three.safetensors"}, "three.safetensors is not a file"),
        ({"a": "../one.safetensors"}, "expected the name of a safetensors file in the same folder"),
        ({"a": "/etc/passwd"}, "expected the name of a safetensors file in the same folder"),
        ({"a": "gs://x.safetensors"}, "expected the name of a safetensors file in the same folder"),
        ({"a": "weights.bin"}, "expected the name of a safetensors file in the same folder"),
        ({"a": 3}, "expected the name of a safetensors file in the same folder"),
        ({f"t{n}": f"{n}.safetensors" for n in range(1001)}, "names 1001 files; expected at most 1000"),
        ([], "has no 'weight_map'"),
        ({}, "has no 'weight_map'"),
    ],
)
def test_an_index_that_is_wrong_is_refused(sharded, names, message):
    _index(sharded, names)
    with pytest.raises(UserError, match=message), opened_folder(sharded):
        pass


def test_a_tensor_outside_the_index_is_refused(sharded):
    save_file({"b": np.ones(3, np.float16), "stray": np.ones(1)}, sharded / "two.safetensors")
    with pytest.raises(UserError, match=r"not where they should be are \[stray\]"), opened_folder(sharded):
        pass


def test_no_weights_at_all(tmp_path):
    with pytest.raises(UserError, match=r"has neither model\.safetensors nor"), opened_folder(tmp_path):
        pass
    with pytest.raises(UserError, match="is not a folder"), opened_folder(tmp_path / "nothing"):
        pass
    assert weight_files(tmp_path) == []
