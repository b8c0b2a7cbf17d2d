"""Strict promotion for the whole suite, and the fixtures that several folders share."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]
STRICT = ("losses", "graph", "models")  # optax itself fails under strict dtype promotion, so not everywhere


@pytest.fixture(autouse=True)
def _strict_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    folder = Path(request.node.fspath).parent.name
    with jax.numpy_dtype_promotion("strict" if folder in STRICT else "standard"):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden values beside the checkout, where there is one."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("needs ../shared (real data and golden values), which is not beside this checkout")
    return folder
