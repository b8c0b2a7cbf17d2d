"""The device mesh and where arrays live on it: batches split over `data`, everything else on every device.

A mesh may span processes. Each then loads only its own rows of a batch, and gives what is the same everywhere whole.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jkd import processes
from jkd.errors import UserError

AXIS = "data"


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh with one axis, `data`, over the first `devices` devices of all processes (0 = all)."""
    there = jax.devices()
    if devices > len(there):
        raise UserError(f"devices: {devices} asked for, but jax sees {len(there)}. Lower config.devices or use 0.")
    if devices and devices != len(there) and processes.count() > 1:
        raise UserError(f"devices: {devices} of {len(there)} asked for, but several processes use all. Set it to 0.")
    return Mesh(np.array(there[: devices or len(there)]), (AXIS,))


def one_device() -> Mesh:
    """A mesh of this process's first device alone: what each process then computes for itself."""
    return Mesh(np.array(jax.local_devices()[:1]), (AXIS,))


def local_devices(devices: int = 0) -> list[jax.Device]:
    """This process's devices (the first `devices` of them where there is one process)."""
    if processes.count() == 1:
        return list(make_mesh(devices).devices.flat)
    return jax.local_devices()


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def over_samples(mesh: Mesh) -> NamedSharding:
    """For arrays `[batch, ...]`: the batch is split over `data`."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def over_steps_and_samples(mesh: Mesh) -> NamedSharding:
    """For arrays `[steps, batch, ...]`: the batch is split over `data`."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS))


def spans_processes(mesh: Any) -> bool:
    """Whether devices of other processes are in it."""
    return bool(mesh.is_multi_process)


def place(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process holds alike, put whole on every device of the mesh."""
    everywhere = replicated(mesh)
    if not spans_processes(mesh):
        return jax.device_put(tree, everywhere)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

    return jax.tree.map(put, tree)


def place_rows(tree: Any, sharding: NamedSharding) -> Any:
    """This process's rows of a batch as arrays over the mesh; NumPy stays NumPy where there is one device.

    Without being placed, a batch would be put whole on every device by `jit`, and each compute all of it.
    """
    if sharding.mesh.size == 1:
        return tree
    if not spans_processes(sharding.mesh):
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def rows(mesh: Mesh, batch: int) -> slice:
    """Which rows of a global batch this process loads."""
    if not spans_processes(mesh):
        return slice(0, batch)
    each = batch // processes.count()
    return slice(processes.rank() * each, (processes.rank() + 1) * each)


def check_batch(parts: int, batch: int, accumulate: int, where: str) -> None:
    """Refuses a batch that cannot be cut into equal parts, one a device (or virtual shard)."""
    if batch % (parts * accumulate):
        raise UserError(
            f"{where}.train.batch: {batch} samples cannot be cut into {accumulate} micro-batches on {parts} devices or "
            f"virtual shards. Use a multiple of {parts * accumulate}, or set config.devices (config.shards)."
        )
