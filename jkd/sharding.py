"""The device mesh and where arrays live on it: batches split over `data`, everything else on every device."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jkd.errors import UserError


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh with one axis, `data`, over the first `devices` devices (0 = all)."""
    there = jax.devices()
    if devices > len(there):
        raise UserError(f"devices: {devices} asked for, but jax sees {len(there)}. Lower config.devices or use 0.")
    return Mesh(np.array(there[: devices or len(there)]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def over_steps_and_samples(mesh: Mesh) -> NamedSharding:
    """For arrays `[steps, batch, ...]`: the batch is split over `data`."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def check_batch(mesh: Mesh, batch: int, accumulate: int, where: str) -> None:
    """Refuses a batch that the mesh cannot cut into equal parts."""
    devices = mesh.devices.size
    if batch % (devices * accumulate):
        raise UserError(
            f"{where}.train.batch: {batch} samples cannot be cut into {accumulate} micro-batches on {devices} devices. "
            f"Use a multiple of {devices * accumulate}, or set config.devices."
        )
