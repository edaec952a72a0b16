"""Vectors of all neurons of one sample, for linear algebra."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from oscsim.networks.base import AbstractNetwork, Layers

DENSE = 1024
"""Neurons up to which one sample's linear system is solved as a matrix; above, by GMRES without one."""


def is_dense(net: AbstractNetwork) -> bool:
    """Whether one sample's linear system is solved as a matrix."""
    return sum(math.prod(shape) for shape in net.shapes) <= DENSE


@jax.custom_batching.sequential_vmap
def _factorised(matrix: Array, right: Array) -> Array:
    return jnp.linalg.solve(matrix, right)


def with_matrix(matrix: Array, right: Array) -> Array:
    """The solution $v$ of $A v = r$ by LU, for one system after another, also where jax batches them.

    Two batched factorisations in one program can lock up XLA's CPU thread pool for ever (jaxlib 0.10, two threads).
    """
    return lax.custom_linear_solve(
        lambda v: matrix @ v,
        right,
        solve=lambda _, r: _factorised(matrix, r),
        transpose_solve=lambda _, r: _factorised(matrix.T, r),
    )


def without_matrix(apply: Callable[[PyTree[Array]], PyTree[Array]], right: PyTree[Array]) -> PyTree[Array]:
    """The solution $v$ of $A v = r$ by GMRES, to about rounding; `apply` is $A$, and $r$ real."""
    operator = lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: right))
    level = 30 * float(jnp.finfo(jax.tree.leaves(right)[0].dtype).eps)
    solver = lx.GMRES(rtol=level, atol=level, restart=50, stagnation_iters=50)
    return lx.linear_solve(operator, right, solver, throw=False).value


def flat(layers: Layers) -> Array:
    """The layers of one sample as one vector."""
    return jnp.concatenate([layer.reshape(-1) for layer in layers])


def as_layers(net: AbstractNetwork, vector: Array) -> Layers:
    """The vectors (..., all neurons) as layers (..., neurons)."""
    ends = np.cumsum([math.prod(shape) for shape in net.shapes])[:-1]
    parts = jnp.split(vector, ends, axis=-1)
    return tuple(part.reshape(*vector.shape[:-1], *shape) for part, shape in zip(parts, net.shapes, strict=True))


def flat_time_constants(net: AbstractNetwork) -> Array:
    """The time constant of each neuron."""
    return flat(
        tuple(jnp.broadcast_to(tau, (1, *shape)) for tau, shape in zip(net.time_constants, net.shapes, strict=True))
    )


def flat_force(net: AbstractNetwork, clamped: PyTree[Array], y: Array) -> Callable[[Array, Array], Array]:
    r"""$F(u, \beta)$ of one sample, on vectors of all its neurons."""
    clamped, y = jax.tree.map(lambda a: a[None], (clamped, y))

    def force(u: Array, beta: ArrayLike) -> Array:
        return flat(net.force(clamped, net.activities(as_layers(net, u[None])), y, beta))

    return force


def even_and_odd(layers: Layers) -> tuple[range, ...]:
    """The blocks in which layers are swept: the second, fourth, ... first, then the others; one layer by itself."""
    places = range(len(layers))
    return (places[1::2], places[::2]) if len(layers) > 1 else (places,)


def flatten_samples(tree: PyTree[Array]) -> tuple[Array, Callable[[Array], PyTree[Array]]]:
    """A batch of pytrees as one real (batch, numbers) array, and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    batch = leaves[0].shape[0]
    parts = [part for a in leaves for part in ((a.real, a.imag) if jnp.iscomplexobj(a) else (a,))]
    ends = np.cumsum([p.size // batch for p in parts])[:-1]

    def unravel(flat: Array) -> PyTree[Array]:
        columns = iter(jnp.split(flat, ends, axis=1))
        restored = []
        for a in leaves:
            column = next(columns).reshape(a.shape)
            restored.append(jax.lax.complex(column, next(columns).reshape(a.shape)) if jnp.iscomplexobj(a) else column)
        return jax.tree.unflatten(structure, restored)

    return jnp.concatenate([p.reshape(batch, -1) for p in parts], axis=1), unravel


def largest(tree: PyTree[Array]) -> Float[Array, " batch"]:
    """The largest number of each sample, the parts of complex ones by themselves, as settling measures what is left."""
    return jnp.max(jnp.abs(flatten_samples(tree)[0]), axis=1)
