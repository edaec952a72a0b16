r"""The Taylor polynomial of the settled state in $\beta$: where points of the teaching circle are looked for."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from oscsim.core.arrays import per_sample, sample_norm
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs

ORDER = 2
"""Of the polynomial: an order more saves no time, and takes one second more to compile."""

ROUGH = 1e-3
"""How right a coefficient is: what is left of it is settled with the rest."""

SWEEPS = 30
"""For each coefficient, at most."""

FALLING = 0.7
"""A term counts that is at most so large as the one before: beyond the radius the polynomial leads nowhere."""


def taylor(net: AbstractNetwork, inputs: Inputs, u: Layers) -> tuple[Layers, ...]:
    r"""About the coefficients $v_1, ..., v_K$ of $u(\beta) = u + \sum_n v_n \beta^n$ at the free potentials $u$.

    All are real: $(1 - \partial F/\partial u)\, v_n$ is the coefficient of $\beta^n$ in
    $F(u + \sum_{m<n} v_m \beta^m, \beta)$.
    """
    resolvent, zero, found = Resolvent(net, inputs, u), jnp.zeros((), net.dtype), ()
    for n in range(1, ORDER + 1):

        def force(e, found=found):
            at = tuple(
                a + sum(v * e ** (m + 1) for m, v in enumerate(parts)) for a, *parts in zip(u, *found, strict=True)
            )
            return net.force(inputs.clamped, net.activities(at), inputs.y, e)

        source = tuple(a / math.factorial(n) for a in _derivative(force, n)(zero))
        found = (*found, resolvent.approximately(source, ROUGH, SWEEPS))
    return found


def _derivative(function: Callable[[Array], Layers], n: int) -> Callable[[Array], Layers]:
    """The derivative of that order."""
    for _ in range(n):
        function = lambda e, f=function: jax.jvp(f, (e,), (jnp.ones_like(e),))[1]  # noqa: E731
    return function


def continued_to(u: Layers, coefficients: tuple[Layers, ...], beta: Inexact[Array, "points batch"]) -> Layers:
    """The polynomial at points of each sample, (points, batch, ...) per layer, up to the term that falls no more."""
    size, used, at = jnp.finfo(u[0].dtype).max, True, tuple(a[None] for a in u)
    for n, term in enumerate(coefficients, start=1):
        power = beta**n
        now = sample_norm(term) * jnp.max(jnp.abs(power), axis=0)
        used &= now <= (FALLING if n > 1 else 1) * size
        power = jnp.where(used, power, 0)
        term = tuple(jnp.where(per_sample(used, b), b, 0) for b in term)  # what does not exist is nan
        at = tuple(a + per_sample(power, b[None]) * b[None] for a, b in zip(at, term, strict=True))
        size = now
    return at
