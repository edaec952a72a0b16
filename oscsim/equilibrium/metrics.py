"""How close an estimate comes to the exact gradient: metrics on pytrees of parameters.

They take gradients, or whole `Estimate`s: two of those say where they belong to different states, which bare gradients
cannot.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from oscsim.core.arrays import compiled, is_traced, norm, sample_norm
from oscsim.core.checks import as_function, as_real, asked, checked
from oscsim.core.errors import BadValue, warn
from oscsim.networks.base import Layers
from oscsim.networks.learned import Gradient, as_gradient, named

APART = 1e-2
"""Two free states whose activities differ by more than this, in the Euclidean norm of a sample, are not the same."""


def cosine(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\langle a, b \rangle / (\|a\| \|b\|)$ over all parameters together; 1 for the same direction.

    Example:
        >>> print(f"{osc.cosine(run.gradient(), osc.exact_gradient(net, x, y)):.2f}")
        1.00
    """
    return _cosine(*_gradients(estimate, exact))


def relative_error(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\|a - b\| / \|b\|$ over all parameters together.

    Example:
        >>> print(osc.relative_error(run.gradient(), osc.exact_gradient(net, x, y)) < 0.05)
        True
    """
    return _relative_error(*_gradients(estimate, exact))


def norm_ratio(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    r"""$\|a\| / \|b\|$ over all parameters together: above 1 the estimate is too long.

    Example:
        >>> double = jax.tree.map(lambda g: 2 * g, run.gradient())
        >>> print(f"{osc.norm_ratio(double, run.gradient()):.2f}")
        2.00
    """
    estimate, exact = _gradients(estimate, exact)
    return norm(estimate) / norm(exact)


@checked(metric=as_function)
def per_layer(metric: Callable, estimate: Gradient, exact: Gradient) -> dict[str, Float[Array, ""]]:
    """A metric of each parameter array on its own, by its name in the network, such as `weights[0]`.

    Example:
        >>> cosines = osc.per_layer(osc.cosine, run.gradient(), osc.exact_gradient(net, x, y))
        >>> {name: f"{cosine:.2f}" for name, cosine in cosines.items()}
        {'weights[0]': '1.00', 'weights[1]': '1.00', 'biases[0]': '1.00', 'biases[1]': '1.00'}
    """
    estimate, exact = _gradients(estimate, exact)
    pairs = zip(jax.tree.leaves(estimate), named(exact), strict=True)
    return {name: _measured(metric, name, a, b) for a, (name, b) in pairs}


def _measured(metric: Callable, name: str, estimate: Array, exact: Array) -> Float[Array, ""]:
    """The metric of one parameter array, or an error that names it where it is no number."""
    found = as_real(f"metric({name})", asked("metric", metric, estimate, exact))
    if found.ndim:
        raise BadValue(f"metric({name}) has shape {found.shape}: use a function that returns one number")
    return found


@compiled
def _cosine(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    inner = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(estimate), jax.tree.leaves(exact), strict=True))
    return jnp.clip(inner / (norm(estimate) * norm(exact)), -1, 1)


@compiled
def _relative_error(estimate: Gradient, exact: Gradient) -> Float[Array, ""]:
    pairs = zip(jax.tree.leaves(estimate), jax.tree.leaves(exact), strict=True)
    return norm([a - b for a, b in pairs]) / norm(exact)


def apart(s: Layers, t: Layers) -> np.ndarray:
    """The numbers of the samples that two free states, by their activities, differ in; none of other shapes."""
    if jax.tree.map(np.shape, s) != jax.tree.map(np.shape, t):
        return np.zeros(0, int)
    return np.flatnonzero(np.asarray(sample_norm(jax.tree.map(jnp.subtract, s, t))) > APART)


def _gradients(estimate: Any, exact: Gradient) -> tuple[Gradient, Gradient]:
    """The two gradients; of estimates, with a warning where they belong to different states."""
    # a gradient is a network too, whose `activities` is a method
    states = [s if isinstance(s := getattr(v, "activities", None), tuple) else None for v in (estimate, exact)]
    match states:
        case [(_, *_) as one, (_, *_) as other] if not is_traced(states) and (others := apart(one, other)).size:
            warn(
                f"sample {others[0]} rests in another state in one estimate than in the other ({others.size} of "
                f"{len(one[0])} do): their gradients are of different losses; compare with exact_gradient(..., "
                "at=run), or start both from 'settled'"
            )
    found = (getattr(v, "gradient", v) if s is not None else v for v, s in zip((estimate, exact), states, strict=True))
    estimate, exact = map(as_gradient, ("estimate", "exact"), found)
    _require_same(estimate, exact)
    return estimate, exact


def _require_same(estimate: Gradient, exact: Gradient) -> None:
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (estimate, exact)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise BadValue(
            f"estimate has shapes {shapes[0]}, exact has {shapes[1]}: compare gradients of the same network (of a "
            "cumulative gradient, one row at a time or under jax.vmap)"
        )


@eqx.filter_jit
def errors_of(gradient: Gradient, exact: Gradient) -> tuple[Array, Array]:
    r"""Relative error and $1 - \cos = \frac12 \|\hat a - \hat b\|^2$, a form that rounding does not swallow."""

    def unit(tree):
        size = norm(tree)
        return jax.tree.map(lambda a: a / size, tree)

    return relative_error(gradient, exact), relative_error(unit(gradient), unit(exact)) ** 2 / 2
