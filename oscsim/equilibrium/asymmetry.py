"""Asymmetric couplings: what they do to the gradient that a lock-in reads."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from oscsim.core.arrays import norm, ratio, to_complex
from oscsim.equilibrium.corrected import uncorrected
from oscsim.equilibrium.exact_gradients import implicit_gradient
from oscsim.equilibrium.linear import gradient_read, linear_response
from oscsim.equilibrium.states import default_tolerance
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.feedback import AbstractFeedback
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient


class Asymmetry(eqx.Module):
    r"""The gradient that an endless, slow lock-in reads, beside the exact one at the same state.

    Attributes:
        read: with the response $\chi(0)$; a pytree like `parameters(net)`.
        exact: with the adjoint $\lambda$.
        residual: the larger of what is left of the two linear systems, per sample: of the response relative to its
            source, of the adjoint to its size.
    """

    read: Gradient
    exact: Gradient
    residual: Float[Array, " batch"]


@eqx.filter_jit
def asymmetry_error(net: AbstractNetwork, inputs: Inputs, potentials: Layers) -> Asymmetry:
    r"""How far the gradient that is read is from the exact one because the force has no potential; pure.

    With $J = \partial F/\partial u$ at the state $u$, a lock-in of vanishing frequency reads the response
    $\chi = -\sigma' (1 - J)^{-1}\, \partial C/\partial s$, while the exact gradient takes the adjoint
    $\lambda = (1 - J)^{-T} \sigma' \partial C/\partial s$. Of a layered network, with $D = \sigma'$, $P = D^{-1} - K$
    and $K$ the couplings, $\chi = -P^{-1} P^T \lambda$: the difference is that of the antisymmetric part of $K$.
    Where the force has a potential, $\chi = -\lambda$.

    Costs two linear solves per sample, by `oscsim.equilibrium.resolvent.Resolvent`.

    Args:
        net: a holomorphic network.
        inputs: what it is shown.
        potentials: $u$, real, one (batch, neurons) array per layer: a settled state, or that of a run.

    Source: Laborieux & Zenke (2024).
    """
    _, chi, left = linear_response(net, inputs, potentials)
    read = gradient_read(net, inputs, net.activities(potentials), to_complex(chi))
    exact, left_of_adjoint = implicit_gradient(net, inputs, potentials, default_tolerance(net.dtype))
    return Asymmetry(read, exact, jnp.maximum(left, left_of_adjoint))


DRAWS = 16
"""Vectors for each sample that the antisymmetric share is the mean over."""


@eqx.filter_jit
def antisymmetric_share(net: AbstractNetwork, inputs: Inputs, s: Layers) -> Float[Array, ""]:
    r"""$|K - K^\top|_F / (2 |K|_F)$ at the activities `s`, the mean over the batch, by random vectors.

    0 for symmetric couplings, $1/\sqrt2$ for couplings that lead one way only, 1 for antisymmetric ones.
    """
    pushed, pulled = random_products(net, inputs.clamped, inputs.y, s, jax.random.key(0), DRAWS)
    return ratio(norm(jax.tree.map(jnp.subtract, pushed, pulled)), norm(pushed)) / 2


def random_products(
    net: AbstractNetwork, clamped: PyTree[Array], y: Array, s: Layers, key: Key[Array, ""], draws: int
) -> tuple[Layers, Layers]:
    r"""$K e$ and $K^\top e$ for normal vectors $e$ of all neurons, so many for each sample: (draws, batch, neurons)."""
    _, forward = jax.linearize(lambda s: net.force(clamped, s, y, jnp.zeros((), net.dtype)), s)
    back = jax.linear_transpose(forward, s)

    def one(key: Array) -> tuple[Layers, Layers]:
        keys = jax.random.split(key, len(s))
        e = tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, s, strict=True))
        return forward(e), back(e)[0]

    return jax.vmap(one)(jax.random.split(key, draws))


def asymmetry_measures(net: AbstractNetwork, inputs: Inputs, s: Layers) -> dict[str, Array]:
    """What to follow of a network without symmetry: its antisymmetric share, and the angles between its two ways."""
    within = uncorrected(net)
    clamped = Inputs(inputs.x, inputs.y, within.clamped(inputs.x))
    angles = within.angles if isinstance(within, AbstractFeedback) else {}
    share = antisymmetric_share(within, clamped, s[: len(within.shapes)])
    return {"antisymmetric": share} | {f"angle/{name}": angle for name, angle in angles.items()}
