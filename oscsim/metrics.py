"""How close an estimate comes to the exact gradient: metrics on pytrees of parameters."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from oscsim._arrays import norm
from oscsim.networks.base import named

Gradient: TypeAlias = PyTree[Array | np.ndarray]
"""Arrays as in a network's parameters, on the device or on the host."""


def cosine(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\langle a, b \rangle / (\|a\| \|b\|)$ over all parameters together; 1 for the same direction."""
    _require_same(estimate, exact)
    inner = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(estimate), jax.tree.leaves(exact), strict=True))
    return inner / (norm(estimate) * norm(exact))


def relative_error(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\|a - b\| / \|b\|$ over all parameters together."""
    _require_same(estimate, exact)
    pairs = zip(jax.tree.leaves(estimate), jax.tree.leaves(exact), strict=True)
    return norm([a - b for a, b in pairs]) / norm(exact)


def norm_ratio(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\|a\| / \|b\|$ over all parameters together: above 1 the estimate is too long."""
    _require_same(estimate, exact)
    return norm(estimate) / norm(exact)


def per_layer(metric: Callable, estimate: Gradient, exact: Gradient) -> dict[str, Float[Array, ""]]:
    """A metric of each parameter array on its own, by its name in the network, such as `weights[0]`."""
    _require_same(estimate, exact)
    return {name: metric(a, b) for a, (name, b) in zip(jax.tree.leaves(estimate), named(exact), strict=True)}


def _require_same(estimate: Gradient, exact: Gradient) -> None:
    for name, tree in {"estimate": estimate, "exact": exact}.items():
        if not all(eqx.is_array_like(leaf) for leaf in jax.tree.leaves(tree)):
            raise TypeError(f"{name}={tree!r}: give a gradient, a pytree of arrays")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (estimate, exact)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise ValueError(
            f"estimate has shapes {shapes[0]}, exact has {shapes[1]}: compare gradients of the same network (of a "
            "cumulative gradient, one row at a time or under jax.vmap)"
        )


@eqx.filter_jit
def errors_of(gradient: Any, exact: Any) -> tuple[Any, Any]:
    r"""Relative error and $1 - \cos = \frac12 \|\hat a - \hat b\|^2$, a form that rounding does not swallow."""

    def unit(tree):
        size = norm(tree)
        return jax.tree.map(lambda a: a / size, tree)

    return relative_error(gradient, exact), relative_error(unit(gradient), unit(exact)) ** 2 / 2
