import jax.numpy as jnp
import numpy as np
import pytest

from jkd import digest
from jkd.compress import load_variables, save_variables
from jkd.errors import UserError

VARIABLES = {
    "params": {"hidden0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}},
    "batch_stats": {"norm0": {"var": np.ones(3, np.float32)}},
}


def test_variables_come_back_with_the_same_digest(tmp_path):
    save_variables(tmp_path / "a.safetensors", VARIABLES)
    assert digest.of_leaves(load_variables(tmp_path / "a.safetensors")) == digest.of_leaves(VARIABLES)


def test_equal_variables_give_equal_bytes(tmp_path):
    save_variables(tmp_path / "a.safetensors", VARIABLES)
    save_variables(tmp_path / "b.safetensors", dict(reversed(VARIABLES.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_bfloat16_is_saved_as_float32_and_integers_stay(tmp_path):
    save_variables(tmp_path / "a.safetensors", {"w": jnp.ones(2, jnp.bfloat16), "i": np.arange(2, dtype=np.int32)})
    loaded = load_variables(tmp_path / "a.safetensors")
    assert (loaded["w"].dtype, loaded["i"].dtype) == (jnp.float32, jnp.int32)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_variables(path, VARIABLES)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"a\.safetensors is not a readable safetensors file"):
        load_variables(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        load_variables(tmp_path / "none.safetensors")
