"""The exact gradient at a settled state: the reference for every estimate."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from oscsim.core.arrays import is_traced, per_sample, promoting
from oscsim.core.checks import as_count, as_positive, checked, choice
from oscsim.core.errors import NotSettledError
from oscsim.equilibrium.acceleration import PATIENCE
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.settling import free_equilibrium, state_at
from oscsim.equilibrium.states import At, Equilibrium, default_tolerance, is_settled
from oscsim.equilibrium.vectors import flatten_samples, largest
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, gradient_of
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient, split_parameters

as_method = choice("implicit", "bptt")
"""How an exact gradient is computed."""

PRODUCTS = 100
"""Products with the Jacobian that find the longest step which holds a state."""


@promoting
@checked(method=as_method)
def exact_gradient(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    method: Literal["implicit", "bptt"] = "implicit",
    *,
    at: At = None,
    tolerance: float | None = None,
    max_steps: int = 1000,
) -> Gradient:
    r"""The gradient of the mean loss at the free equilibrium, a pytree like `parameters(net)`.

    A network with several stable states has a loss, and a gradient, at each of them: `at` says which one is meant.

    `"implicit"`: with $F = \partial\Phi_0/\partial s$ and $u = F(\sigma(u), \theta)$ settled, the adjoint
    $\lambda = \partial C/\partial u + (\partial F/\partial u)^\top \lambda$ is settled in the same way, or where that
    fails solved for, and $dL/d\theta = \lambda^\top \partial F/\partial\theta + \partial C/\partial\theta$.
    `"bptt"`: backpropagation through `max_steps` steps $u \leftarrow u + h (F(\sigma(u)) - u)$ that hold the state,
    with $h = 1$ (Euler steps of length tau) unless those would leave it.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        method: `"implicit"` or `"bptt"`.
        at: the state, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds from rest.
        tolerance: as in `settle`.
        max_steps: as in `settle`; the number of steps for `"bptt"`.

    Raises:
        NotSettledError: the free network, or the adjoint, does not settle; `at` is no free equilibrium; the steps of
            `"bptt"` are too few for the slowest mode.
        ValueError: an unknown method, bad inputs (see `Inputs.of`), tolerance, counts, or a state of another network.

    Example:
        >>> exact = osc.exact_gradient(net, x, y)
        >>> print(osc.relative_error(osc.exact_gradient(net, x, y, method="bptt"), exact) < 1e-3)
        True
    """
    check_parameters(net)
    tolerance = None if tolerance is None else as_positive("tolerance", tolerance)
    return exact_solution(net, Inputs.of(net, x, y), method, tolerance, as_count("max_steps", max_steps), at)[0]


def exact_solution(
    net: AbstractNetwork,
    inputs: Inputs,
    method: str = "implicit",
    tolerance: float | None = None,
    max_steps: int = 1000,
    at: At = None,
) -> tuple[Gradient, Equilibrium, Bool[Array, ""]]:
    """The exact gradient of checked inputs, the free equilibrium, and whether all settled: raised where it can be."""
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    found = free_equilibrium(net, inputs, tolerance, max_steps) if at is None else state_at(net, inputs, at)
    if method == "implicit":
        gradient, off = implicit_gradient(net, inputs, found.potentials, np.asarray(tolerance), np.int32(max_steps))
    else:
        gradient, off = _bptt_gradient(net, inputs, found.potentials, max_steps)
    # What the resolvent lets pass, and the rounding that solving leaves, which grows with how slow the slowest mode is.
    allowed = 10 * max(tolerance, 10 * float(jnp.finfo(net.dtype).eps))
    if not is_traced(off) and not bool(jnp.all(off <= allowed)):
        sample, worst = int(jnp.argmax(off)), float(jnp.max(off))
        remedy = (
            "the free network is close to instability; use a smaller scale or slope"
            if method == "implicit"
            else "a slow mode is not forgotten within them; use more max_steps, or method='implicit'"
        )
        raise NotSettledError(
            f"the adjoint of sample {sample} did not settle in {max_steps} steps (residual {worst:.3g}, tolerance "
            f"{allowed:.3g}): {remedy}"
        )
    return gradient, found, jnp.all(is_settled(found, tolerance)) & jnp.all(off <= allowed)


@eqx.filter_jit
def implicit_gradient(
    net: AbstractNetwork, inputs: Inputs, u: Layers, tolerance: ArrayLike, max_steps: ArrayLike = 1000
) -> tuple[Gradient, Float[Array, " batch"]]:
    """The gradient at a settled state, and what is left of the adjoint's equation relative to its size; pure."""
    source = jax.grad(lambda u: _loss(net, inputs, inputs.clamped, u))(u)
    sweeps = jnp.minimum(max_steps, 3 * PATIENCE)
    adjoint, off = Resolvent(net, inputs, u, transposed=True)(source, tolerance, sweeps)
    size = largest(source)
    off = off * size / jnp.maximum(largest(adjoint), jnp.where(size > 0, size, 1))
    return _gradient_with(net, inputs, u, adjoint), off


def _loss(net: AbstractNetwork, inputs: Inputs, clamped: PyTree, u: Layers) -> Array:
    return jnp.sum(net.loss(clamped, net.activities(u), inputs.y))


def _force(net: AbstractNetwork, inputs: Inputs, clamped: PyTree, u: Layers) -> Layers:
    return net.force(clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))


def _gradient_with(net: AbstractNetwork, inputs: Inputs, u: Layers, adjoint: Layers) -> Gradient:
    """The derivative of the Lagrangian in the parameters, at a settled state and its adjoint."""

    def lagrangian(net, clamped):
        work = sum(jnp.sum(a * f) for a, f in zip(adjoint, _force(net, inputs, clamped, u), strict=True))
        return (_loss(net, inputs, clamped, u) + work) / inputs.x.shape[0]

    return gradient_of(lagrangian, net, inputs.x)


@eqx.filter_jit
def _bptt_gradient(
    net: AbstractNetwork, inputs: Inputs, u: Layers, steps: int
) -> tuple[Gradient, Float[Array, " batch"]]:
    r"""Backpropagation through steps that hold the state; and how much of the loss still depends on where they began.

    That is $|\partial L/\partial u|$ at their beginning over that at their end, per sample: nothing, had they no end.
    """
    learned, fixed = split_parameters(net)
    start = jax.tree.map(lax.stop_gradient, u)
    length = lax.stop_gradient(_holding_step(net, inputs, start))

    def loss(learned, start):
        net = eqx.combine(learned, fixed)
        clamped = net.clamped(inputs.x)

        @jax.checkpoint
        def step(u, _):
            force = _force(net, inputs, clamped, u)
            return tuple(a + per_sample(length, a) * (f - a) for a, f in zip(u, force, strict=True)), None

        return _loss(net, inputs, clamped, lax.scan(step, start, length=steps)[0]) / inputs.x.shape[0]

    gradient, begun = jax.grad(loss, argnums=(0, 1))(learned, start)
    ended = jax.grad(lambda u: _loss(net, inputs, inputs.clamped, u) / inputs.x.shape[0])(start)
    scale = largest(ended)
    return gradient, largest(begun) / jnp.where(scale > 0, scale, 1)


def _holding_step(net: AbstractNetwork, inputs: Inputs, u: Layers) -> Float[Array, " batch"]:
    r"""The step $h \le 1$ at which $u + h (F(u) - u)$ contracts to a state, $1.8 / \rho(1 - \partial F/\partial u)$.

    By power iteration for the largest eigenvalue.
    """

    def slope(v):
        pushed = jax.jvp(lambda u: _force(net, inputs, inputs.clamped, u), (u,), (v,))[1]
        return tuple(a - b for a, b in zip(v, pushed, strict=True))

    def size(v):
        return jnp.linalg.norm(flatten_samples(v)[0], axis=1)

    def one(_, carry):
        v, _ = carry
        new = slope(v)
        length = jnp.maximum(size(new), jnp.finfo(net.dtype).tiny)
        return tuple(a / per_sample(length, a) for a in new), length

    keys = jax.random.split(jax.random.key(0), len(u))
    v = tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, u, strict=True))
    length = size(v)
    v = tuple(a / per_sample(length, a) for a in v)
    largest = lax.fori_loop(0, PRODUCTS, one, (v, length))[1]
    return jnp.where(largest < 2, 1.0, 1.8 / largest).astype(net.dtype)
