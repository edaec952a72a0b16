"""Training on several devices, of one process or many: each takes its share of a batch, and all hold the parameters."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree

from oscsim.core.arrays import is_key
from oscsim.core.checks import require_instance
from oscsim.core.errors import BadValue

AXIS = "batch"
"""The name of the mesh's one axis; `jax.lax.pmean(a, AXIS)` is the mean over the devices."""

Devices: TypeAlias = Sequence[object]
"""Some of `jax.devices()`."""

Tree = TypeVar("Tree")

REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(AXIS)
"""How an array lies on the devices: whole on each, or its leading axis split over them."""


def as_mesh(devices: Devices | None, batch_size: int) -> Mesh | None:
    """The devices to compute on; None where there is only the one that jax takes by itself.

    Raises:
        ValueError: no devices, a batch that they cannot share equally, or not all of those of several processes.
    """
    chosen = jax.devices() if devices is None else list(devices)
    for device in chosen:
        require_instance("devices", device, jax.Device, "give some of jax.devices()")
    if not chosen:
        raise BadValue("devices is empty: give some of jax.devices(), or leave it out")
    if jax.process_count() > 1 and len(chosen) != jax.device_count():
        raise BadValue(f"devices names {len(chosen)} of {jax.device_count()}: several processes use all they have")
    if batch_size % len(chosen):
        raise BadValue(
            f"batch_size={batch_size} cannot be shared equally by {len(chosen)} devices: use a multiple of "
            f"{len(chosen)}, or devices=jax.devices()[:n]"
        )
    return None if devices is None and len(chosen) == 1 else Mesh(np.array(chosen), (AXIS,))


def replicate(mesh: Mesh | None, tree: Tree) -> Tree:
    """The arrays of a pytree, whole on every device."""
    if mesh is None:
        return tree
    place = NamedSharding(mesh, REPLICATED)

    def whole(a):
        if not eqx.is_array(a):
            return a
        if is_key(a):
            return jax.random.wrap_key_data(whole(jax.random.key_data(a)), impl=jax.random.key_impl(a))
        a = np.asarray(a)  # the devices of other processes are out of reach: each process fills its own
        return jax.make_array_from_callback(a.shape, place, lambda index: a[index])

    return jax.tree.map(whole, tree)


def shard(mesh: Mesh | None, a: np.ndarray, axis: int) -> Array | np.ndarray:
    """An array that every process holds, one axis of it split over the devices."""
    if mesh is None:
        return a
    place = NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXIS))
    return jax.make_array_from_callback(a.shape, place, lambda index: a[index])


def unreplicate(mesh: Mesh | None, tree: Tree) -> Tree:
    """The arrays of a pytree that are whole on every device, on one of this process."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda a: a.addressable_data(0) if isinstance(a, jax.Array) else a, tree)


def sharded(function: Callable, mesh: Mesh | None, out: PyTree, whole: int) -> Callable:
    """Under jit: a function of pytrees, computed by all devices, each with its share of the leading axis of the arrays.

    Args:
        function: of pytrees.
        mesh: the devices; None gives the function as it is.
        out: `REPLICATED` or `SHARDED` for each of what it returns: the same on all devices, or shares to put together.
        whole: so many arguments, the first ones, all devices have; the others are split.
    """
    if mesh is None:
        return function

    def shared(*arguments):
        arrays, rest = eqx.partition((arguments[:whole], arguments[whole:]), eqx.is_array)

        def share(arrays):
            first, parts = eqx.combine(arrays, rest)
            return function(*first, *parts)

        specs = ((REPLICATED, SHARDED),)
        return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(arrays)

    return shared


def own_key(mesh: Mesh | None, key: Key[Array, ""]) -> Key[Array, ""]:
    """Within `sharded`: a key of each device's own."""
    return key if mesh is None else jax.random.fold_in(key, lax.axis_index(AXIS))


def mean_over(mesh: Mesh | None, tree: Tree) -> Tree:
    """Within `sharded`: the mean over the devices."""
    return tree if mesh is None else lax.pmean(tree, AXIS)


def largest_over(mesh: Mesh | None, a: Array) -> Array:
    """Within `sharded`: the largest over the devices."""
    return a if mesh is None else lax.pmax(a, AXIS)


def gather(mesh: Mesh | None, tree: Tree) -> Tree:
    """Under jit: arrays that are split over the devices, whole on each."""
    return tree if mesh is None else lax.with_sharding_constraint(tree, NamedSharding(mesh, REPLICATED))


# Several processes run the same program; where a clock or a disk decides, the first decides for all.


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """What the first process has."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(jnp.int32(value)))


def wait_for_all(name: str) -> None:
    """Go on when every process has come to this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
