import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from jkd.errors import UserError
from jkd.pretrained.tensors import nested, opened, read_tree


def test_names_with_slashes_become_nested_dicts(tmp_path):
    save_file({"params/a/w": np.ones(2, np.float32), "scale": np.array(3, np.int32)}, tmp_path / "v.safetensors")
    tree = read_tree(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(tree["params"]["a"]["w"], [1, 1])
    assert tree["scale"] == 3 and tree["scale"].dtype == np.int32


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b")])
def test_a_name_that_is_leaf_and_folder_is_refused(names):
    with pytest.raises(UserError, match=r"v\.safetensors"):
        nested(dict.fromkeys(names, np.zeros(1)), "v.safetensors")


def test_types_that_are_not_read_are_refused_by_name(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "v.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    with pytest.raises(UserError, match="'w' is F8_E4M3"):
        read_tree(tmp_path / "v.safetensors")


def test_shapes_are_known_before_anything_is_read(tmp_path):
    save_file({"w": np.ones((2, 3), np.float16)}, tmp_path / "v.safetensors")
    with opened(tmp_path / "v.safetensors") as tensors:
        assert (tensors.shapes, tensors.dtypes) == ({"w": (2, 3)}, {"w": "F16"})
