r"""The linear operator of neurons near a state, $1 + i\omega\tau - \partial F/\partial u$, and how it is solved.

At a frequency it gives the response to a signal; at $\omega = 0$ the derivatives of a settled state, and transposed the
adjoint of a gradient.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact

from oscsim.core.arrays import per_sample
from oscsim.equilibrium.acceleration import PATIENCE, anderson
from oscsim.equilibrium.vectors import (
    DENSE,
    as_layers,
    even_and_odd,
    flat,
    flat_force,
    flat_time_constants,
    largest,
    with_matrix,
    without_matrix,
)
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs

MEMORY = 5
"""How many sweeps are mixed."""


class Resolvent(eqx.Module):
    r"""$(1 + i\omega\tau - \partial F/\partial u)^{-1}$ at some potentials, for each sample of a batch.

    All samples are swept together, as `settle` does: the layers in two blocks, $v \leftarrow (r + \frac{\partial
    F}{\partial u} v) / (1 + i\omega\tau)$, mixed by Anderson acceleration. Those that this does not solve are solved by
    LU up to `DENSE` neurons, and by GMRES above. It has derivatives of any order, forward and in reverse.

    Attributes:
        network: the neurons.
        inputs: what they are shown.
        potentials: $u$, one real or complex (batch, neurons) array per layer.
        omega: $\omega$; None is 0, without complex numbers.
        beta: the teaching signal at that state, one number per sample, complex where $u$ is; None is 0.
        transposed: whether the Jacobian is transposed.
    """

    network: AbstractNetwork
    inputs: Inputs
    potentials: Layers
    omega: Float[Array, ""] | None = None
    beta: Inexact[Array, " batch"] | None = None
    transposed: bool = eqx.field(static=True, default=False)

    def __call__(
        self, source: Layers, tolerance: ArrayLike, max_sweeps: ArrayLike = 3 * PATIENCE
    ) -> tuple[Layers, Float[Array, " batch"]]:
        r"""$v$ with $(1 + i\omega\tau - \partial F/\partial u)\, v = r$, and what is left of each sample's equation.

        Args:
            source: $r$, complex where there is a frequency, or the potentials are.
            tolerance: how much may be left in each neuron, relative to the largest number in $r$.
            max_sweeps: samples that so many do not solve are solved one by one.

        Returns:
            $v$, and the largest number that is left of each sample's equation relative to that of $r$.
        """
        apply = self._operator()
        v = self._solved(apply, source, tolerance, max_sweeps)
        off = _left(apply, source, v) / _size(source)
        return v, jnp.where(jnp.isfinite(off), off, jnp.inf)

    def solved(self, source: Layers, tolerance: ArrayLike, max_sweeps: ArrayLike = 3 * PATIENCE) -> Layers:
        """$v$ alone, linear in $r$ for jax."""
        return self._solved(self._operator(), source, tolerance, max_sweeps)

    def approximately(self, source: Layers, tolerance: ArrayLike, max_sweeps: ArrayLike) -> Layers:
        """The same by at most so many sweeps; it may be far from solved."""
        return self._swept(self._operator(), source, tolerance, max_sweeps)[0]

    def _solved(
        self, apply: Callable[[Layers], Layers], source: Layers, tolerance: ArrayLike, max_sweeps: ArrayLike
    ) -> Layers:
        """By sweeps, and one by one where they fail."""

        def solve(apply, source, transposed):
            swept, off = self._swept(apply, source, tolerance, max_sweeps)
            unsolved = ~(off <= 10 * jnp.asarray(tolerance, off.dtype))
            one_by_one = lambda: self._one_by_one(source, swept, unsolved, transposed)  # noqa: E731
            return lax.cond(jnp.any(unsolved), one_by_one, lambda: swept)

        return lax.custom_linear_solve(
            apply,
            source,
            solve=lambda apply, source: solve(apply, source, self.transposed),
            transpose_solve=lambda apply, source: solve(apply, source, not self.transposed),
        )

    def _swept(
        self, apply: Callable[[Layers], Layers], source: Layers, tolerance: ArrayLike, max_sweeps: ArrayLike
    ) -> tuple[Layers, Float[Array, " batch"]]:
        """By accelerated sweeps over the even layers and then the odd ones, all samples together; and what is left.

        Each sample's source is scaled to 1, so that one tolerance serves all.
        """
        size, inertia, layers = _size(source), self._inertia(), range(len(source))
        right = tuple(a / per_sample(size, a) for a in source)

        def sweep(v):
            for block in even_and_odd(right):  # the compiler leaves out the products that are not taken
                moved = apply(v)
                v = tuple(v[i] + (right[i] - moved[i]) / inertia[i] if i in block else v[i] for i in layers)
            return v

        start = tuple(r / k for r, k in zip(right, inertia, strict=True))
        v = anderson(sweep, start, tolerance, max_sweeps, MEMORY, linear=True).value
        return tuple(a * per_sample(size, a) for a in v), _left(apply, right, v)

    def _inertia(self) -> tuple[Inexact[Array, "..."], ...]:
        tau = self.network.time_constants
        return tuple(jnp.ones_like(t) if self.omega is None else 1 + 1j * self.omega * t for t in tau)

    def _operator(self) -> Callable[[Layers], Layers]:
        """What is to be inverted, on a batch."""
        beta = jnp.zeros((), self.network.dtype) if self.beta is None else self.beta

        def force(u):
            return self.network.force(self.inputs.clamped, self.network.activities(u), self.inputs.y, beta)

        push = jax.linearize(force, self.potentials)[1]
        if self.transposed:
            pull = jax.linear_transpose(push, self.potentials)
            push = lambda v: pull(v)[0]  # noqa: E731
        return _subtracted_from(self._inertia(), push, jnp.iscomplexobj(self.potentials[0]))

    def _one_by_one(self, right: Layers, swept: Layers, unsolved: Array, transposed: bool) -> Layers:
        """The same for those that sweeps did not solve: one sample after another, as `with_matrix` needs it."""
        net, omega = self.network, self.omega
        tau, is_complex = flat_time_constants(net), jnp.iscomplexobj(self.potentials[0])
        beta = jnp.zeros(len(unsolved), net.dtype) if self.beta is None else self.beta
        inertia = jnp.ones_like(tau) if omega is None else 1 + 1j * omega * tau

        def one(sample):
            clamped, y, beta, u, right, swept, unsolved = sample
            force, u, right = flat_force(net, clamped, y), flat(u), flat(right)

            def still(u):
                return force(u, beta)

            push = jax.linearize(still, u)[1]
            pull = jax.linear_transpose(push, u)
            moved = (lambda v: pull(v)[0]) if transposed else push
            apply = _subtracted_from((inertia,), lambda v: (moved(v[0]),), is_complex)

            def solve(right):
                if u.size <= DENSE:
                    jacobian = jax.jacfwd(still, holomorphic=is_complex)(u)
                    return with_matrix(jnp.diag(inertia) - (jacobian.T if transposed else jacobian), right)
                if not jnp.iscomplexobj(right):
                    return without_matrix(lambda v: apply((v,))[0], right)

                def parts(v):
                    moved = apply((lax.complex(*v),))[0]
                    return moved.real, moved.imag

                return lax.complex(*without_matrix(parts, (right.real, right.imag)))

            def solved():
                v = solve(right)
                return v + solve(right - apply((v,))[0])  # once refined, so that it is right to rounding

            return lax.cond(unsolved, solved, lambda: flat(swept))

        samples = self.inputs.clamped, self.inputs.y, beta, self.potentials, right, swept, unsolved
        return as_layers(net, lax.map(one, samples))


def _subtracted_from(
    inertia: tuple[Inexact[Array, "..."], ...], push: Callable[[Layers], Layers], is_complex: bool
) -> Callable[[Layers], Layers]:
    """A linear map, real unless `is_complex`, subtracted from a diagonal one, on real or complex vectors."""

    def apply(v: Layers) -> Layers:
        if jnp.iscomplexobj(v[0]) and not is_complex:  # one product of the stacked parts is faster than two
            stacked = jax.vmap(push)(tuple(jnp.stack([a.real, a.imag]) for a in v))
            pushed = tuple(lax.complex(a[0], a[1]) for a in stacked)
        else:
            pushed = push(v)
        return tuple(k * a - p for k, a, p in zip(inertia, v, pushed, strict=True))

    return apply


def _size(source: Layers) -> Float[Array, " batch"]:
    """The largest number of each sample's source, or 1."""
    size = largest(source)
    return jnp.where(size > 0, size, 1)


def _left(apply: Callable[[Layers], Layers], right: Layers, v: Layers) -> Float[Array, " batch"]:
    """The largest number that is left of each sample's equation."""
    return largest(tuple(r - a for r, a in zip(right, apply(v), strict=True)))
