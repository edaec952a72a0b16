r"""The plain iteration $u \leftarrow \partial\Phi/\partial s$, a fixed number of steps, with noise at each of them.

What the paper's code does in place of settling to a tolerance; `Phases` and `Classic` offer it as `steps=(T1, T2)`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from oscsim.core.arrays import Count, all_finite, describe, is_traced
from oscsim.core.checks import as_count
from oscsim.core.errors import BadType, BadValue, DivergenceError
from oscsim.estimators.base import AbstractEstimator, Estimate
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.signals import StepNoise
from oscsim.signals.noise import Noise


def as_steps(steps: Sequence[int]) -> tuple[int, int]:
    """`(T1, T2)`: steps of the free phase, and of each nudged one.

    Raises:
        ValueError: not two positive integers.
    """
    remedy = "use two positive integers, free steps and steps per point"
    try:
        free, nudged = steps
    except (TypeError, ValueError) as error:
        raise BadValue(f"steps={steps!r}: {remedy}") from error
    entry = f"steps={steps}: entry"
    return as_count(f"{entry} 0", free, remedy=remedy), as_count(f"{entry} 1", nudged, remedy=remedy)


def check_step_noise(noise: Noise, steps: Sequence[int] | None) -> None:
    """Refuse a noise that is not one per step, or has no steps to disturb.

    Raises:
        ValueError: noise without steps.
        TypeError: another noise than `StepNoise`.
    """
    if noise is not None and steps is None:
        raise BadValue("noise needs steps=(T1, T2): a noisy network settles nowhere")
    if noise is not None and not isinstance(noise, StepNoise):
        raise BadType(f"noise={describe(noise)}: use StepNoise(standard_deviation), which acts at every step")


def require_finite(estimate: Estimate, estimator: AbstractEstimator) -> None:
    """Refuse an estimate whose neurons ran away (under jit nothing can be looked at).

    Raises:
        DivergenceError: names the estimator and what to lower.
    """
    if not is_traced(estimate) and not bool(all_finite((estimate.loss, estimate.gradient))):
        raise DivergenceError(f"the neurons diverged under {describe(estimator)}: lower the amplitude")


def iterate(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    beta: ArrayLike,
    count: Count | int,
    noise: StepNoise | None,
    key: Key[Array, ""] | None,
) -> Layers:
    """The potentials after `count` steps from `u` under a constant `beta`."""

    def step(number, u):
        u = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
        return u if noise is None or key is None else noise(u, jax.random.fold_in(key, number))

    return lax.fori_loop(0, count, step, u)


def movement(net: AbstractNetwork, inputs: Inputs, free: Layers) -> Array:
    """How far one more step without noise would move a free state, at most: its residual."""
    moved = net.force(inputs.clamped, net.activities(free), inputs.y, jnp.zeros((), net.dtype))
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in zip(moved, free, strict=True)]))
