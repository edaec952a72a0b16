r"""The free state continued along rays of complex $\beta$."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from oscsim.core.arrays import per_sample, sample_norm, to_complex
from oscsim.equilibrium import settle_inputs
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs


def without_x(inputs: Inputs) -> Inputs:
    """The same without the inputs themselves, which rays need not repeat: the force needs what they contribute."""
    return Inputs(jnp.zeros((len(inputs.y), 0), inputs.x.dtype), inputs.y, inputs.clamped)


@eqx.filter_jit
def continued(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    velocity: Layers,
    beta: Complex[Array, " batch"],
    steps: Array,
    tolerance: Array,
) -> tuple[Layers, Complex[Array, " batch"], Float[Array, " batch"], Bool[Array, " batch"]]:
    r"""Potentials, the $\beta$ reached, residuals and which samples were lost, at the end of each sample's ray.

    Args:
        net: the neurons.
        inputs: what they are shown.
        u: their free potentials.
        velocity: $du/d\beta$ there.
        beta: where each ray ends.
        steps: how many, all equal, each settled from the line through the two states before.
        tolerance: of settling. A sample is lost where it does not settle, or settles away from that line by more than
            half of the step.
    """
    u = to_complex(u)
    before = tuple(a - v * per_sample(beta / steps, v) for a, v in zip(u, velocity, strict=True))
    none = jnp.zeros(beta.shape, bool)
    carry = (jnp.zeros((), jnp.int32), u, before, jnp.zeros_like(beta), jnp.zeros_like(beta.real), none)

    def advance(carry):
        step, u, before, reached, residual, lost = carry
        # What is lost stays at the last point where it settled, so that the others need not wait for it.
        aim = jnp.where(lost, reached, beta * ((step + 1) / steps).astype(net.dtype))
        guess = tuple(jnp.where(per_sample(lost, a), a, 2 * a - b) for a, b in zip(u, before, strict=True))
        found = settle_inputs(net, inputs, aim, tolerance, 300, start=guess)
        moved = sample_norm(jax.tree.map(jnp.subtract, found.potentials, u))
        missed = sample_norm(jax.tree.map(jnp.subtract, found.potentials, guess))
        kept = (found.residual <= tolerance) & (missed <= 0.5 * moved + 1e3 * tolerance) & ~lost
        residual = jnp.where(lost, residual, found.residual)
        new = tuple(jnp.where(per_sample(kept, a), a, b) for a, b in zip(found.potentials, u, strict=True))
        return step + 1, new, u, jnp.where(kept, aim, reached), residual, ~kept

    _, u, _, reached, residual, lost = lax.while_loop(lambda carry: carry[0] < steps, advance, carry)
    return u, reached, residual, lost
