r"""The gradient in what was read off the activities: by `Phasors`, or by `Points`.

`Phasors` are Fourier coefficients of the activities, `Points` their values at points of the teaching circle. Both come
from a demodulator, once per cycle, or are averages of such; both turn into a gradient by a formula of their own.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PyTree

from oscsim.core.arrays import norm, per_sample, ratio, sample_norm
from oscsim.core.checks import shown
from oscsim.core.errors import BadValue
from oscsim.equilibrium.linear import response_gradient
from oscsim.networks.base import AbstractNetwork, Layers, gradient_of
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals.drive import check_turning
from oscsim.signals.teaching import AbstractTeaching

TWO_SIDED = 1e-2
"""A teaching signal with more than this in harmonic -1, relative to harmonic 1, has an image of its own."""


class Phasors(eqx.Module):
    r"""Fourier coefficients $c_n = \langle s(t)\, e^{-i n \omega t} \rangle$ of neurons and teaching signal.

    `phasors[n]` is $c_n$, one complex array (..., batch, neurons) per layer.

    Attributes:
        activities: for each harmonic, one array per layer.
        teaching: for each harmonic, the coefficient of $\beta$ itself, read the same way.
        harmonics: which $n$ are held.

    Example:
        >>> reading = run.state.reading  # of the last cycle
        >>> reading.harmonics, reading[1][0].shape  # (batch, neurons)
        ((-1, 0, 1), (3, 5))
        >>> print(reading.image_ratio() < 1e-4)  # of each sample
        [ True  True  True]
    """

    activities: tuple[Layers, ...]
    teaching: tuple[Inexact[Array, "..."], ...]
    harmonics: tuple[int, ...] = eqx.field(static=True)

    def __getitem__(self, n: int) -> Layers:
        return self.activities[self._place(n)]

    def _place(self, n: int) -> int:
        match n:
            case int() | np.integer() if n in self.harmonics:
                return self.harmonics.index(n)
        raise BadValue(
            f"n={shown(n)}: harmonic {shown(n)} was not read, only {self.harmonics}: ask the demodulator for it"
        )

    @property
    def mean(self) -> Layers:
        """$c_0$, the free equilibrium where the signal stays below the convergence radius."""
        return self[0]

    @property
    def has_image(self) -> bool:
        """Whether harmonic -1 was read: what stands there measures the error (see `GradientError`)."""
        return -1 in self.harmonics

    @property
    def one_way(self) -> Bool[Array, ""]:
        """Whether the teaching signal, as it was read, has next to nothing in harmonic -1."""
        backwards, forwards = (norm(self.teaching[self._place(n)]) for n in (-1, 1))
        return backwards <= TWO_SIDED * forwards

    def contamination(self, change: Float[Array, ""]) -> Float[Array, ""]:
        """The size of the image over the batch, per unit of signal; `change` where it says nothing.

        Not relative to the response, which may be all contamination itself.
        """
        if not self.has_image:
            return change
        return jnp.where(self.one_way, norm(self.response(-1)), change).astype(change.dtype)

    def response_change(self, before: "Reading") -> Float[Array, " batch"]:
        """How much the response of each sample changed since another reading, relative to it."""
        change, size = jax.tree.map(jnp.subtract, self, before), sample_norm(self[1])
        return ratio(sample_norm(change[1]), size)

    def response(self, n: int = 1) -> Layers:
        r"""$c_n / a_1$, one complex array per layer: at $n = 1$ the susceptibility $\chi$."""
        a_1 = jnp.asarray(self.teaching[self._place(1)])
        return tuple(jnp.asarray(c) / per_sample(a_1, c) for c in self[n])

    def image_ratio(self) -> Float[Array, "..."]:
        r"""$\|c_{-1}\| / \|c_1\|$ of each sample: how much of its response is contamination."""
        return ratio(sample_norm(self[-1]), sample_norm(self[1]))

    def over_samples(self) -> "Phasors":
        """The same, with the teaching signal's coefficients one per sample."""
        batch = self[0][0].shape[0]
        teaching = tuple(jnp.broadcast_to(a, (batch,)) for a in self.teaching)
        return Phasors(self.activities, teaching, self.harmonics)

    def map_samples(self, function: Callable[..., Array], *others: PyTree) -> "Phasors":
        """`function` of each array and those of `others`, whose leading axis is the sample in each of them."""
        return jax.tree.map(function, self, *others)

    @property
    def strength(self) -> Array:
        """$|a_1|$ relative to the largest coefficient that was read of the teaching signal: how much of it turns."""
        sizes = jnp.abs(jnp.stack(self.teaching))
        return ratio(sizes[self._place(1)], jnp.max(sizes, axis=0))

    def change(self, before: "Reading") -> Array:
        """The relative change since another reading, the largest of harmonic 0 and of those that the signal holds."""
        largest = jnp.max(jnp.abs(jnp.stack(self.teaching)))
        changes = [
            jnp.where(
                (n == 0) | (jnp.max(jnp.abs(a)) > 1e-4 * largest),
                ratio(norm(jax.tree.map(jnp.subtract, now, then)), norm(now)),
                0.0,
            )
            for n, a, now, then in zip(self.harmonics, self.teaching, self.activities, before.activities, strict=True)
        ]
        return jnp.max(jnp.stack(changes))

    def gradient(self, network: AbstractNetwork, inputs: Inputs) -> Gradient:
        r"""The gradient of the mean loss, from each neuron's $c_0$ and $c_1$ alone.

        $g = -\nabla_\theta\, \frac{d}{d\epsilon} \mathrm{Re}\, \Phi(\theta; x, c_0 + \epsilon \chi, y, \epsilon)$ at
        $\epsilon = 0$, with $\chi = c_1 / a_1$ and $a_1$ the teaching signal's own first coefficient: one forward-mode
        derivative, then one reverse-mode gradient. Equal to the demodulated $-\partial\Phi/\partial\theta(t)$.
        """
        return response_gradient(network, inputs, self[0], self.response())


class Points(eqx.Module):
    r"""Activities $s_k$ at $N$ points $\beta_k$ of the teaching circle.

    Attributes:
        activities: one complex array (..., points, batch, neurons) per layer.
        teaching: $\beta_k$, (..., points), or (..., points, batch) where each sample has its own.
        by_sample: whether each sample has its own.

    Example:
        >>> circle = 0.2 * 1j ** jnp.arange(4)
        >>> points = osc.Points((jnp.ones((4, 3, 5), complex),), circle)
        >>> points.mean[0].shape  # (batch, neurons)
        (3, 5)
    """

    activities: Layers
    teaching: Inexact[Array, "..."]
    by_sample: bool = eqx.field(static=True, default=False)

    @property
    def _axis(self) -> int:
        """The axis of the points."""
        return self.teaching.ndim - 1 - self.by_sample

    @property
    def mean(self) -> Layers:
        """The mean over the circle: the free equilibrium, up to $O(A^N)$."""
        axis = self._axis
        return tuple(jnp.mean(layer, axis=axis) for layer in self.activities)

    @property
    def strength(self) -> Array:
        """The smallest of the radii relative to the largest."""
        sizes = jnp.abs(self.teaching)
        return ratio(jnp.min(sizes, axis=self._axis), jnp.max(sizes, axis=self._axis))

    @property
    def has_image(self) -> bool:
        """Points hold no harmonic of their own that could measure the error."""
        return False

    @property
    def one_way(self) -> Bool[Array, ""]:
        """Whether the signal is known to turn one way: points do not tell."""
        return jnp.zeros((), bool)

    def contamination(self, change: Float[Array, ""]) -> Float[Array, ""]:
        """What `Phasors` read off the image; here the change since the cycle before."""
        return change

    def response_change(self, before: "Reading") -> Float[Array, " batch"]:
        """What `Phasors` know of the response of each sample; here nan."""
        return jnp.full(self.activities[0].shape[1], jnp.nan, self.activities[0].real.dtype)

    def over_samples(self) -> "Points":
        """The same, with the teaching signal's values one per sample."""
        points, batch = self.activities[0].shape[:2]
        teaching = jnp.broadcast_to(self.teaching.reshape(points, -1), (points, batch))
        return Points(self.activities, teaching, by_sample=True)

    def map_samples(self, function: Callable[..., Array], *others: PyTree) -> "Points":
        """`function` of each array and those of `others`, whose leading axis is the sample in each of them."""

        def at_front(*arrays):
            return jnp.moveaxis(function(*(jnp.moveaxis(a, 1, 0) for a in arrays)), 0, 1)

        return jax.tree.map(at_front, self, *others)

    def change(self, before: "Reading") -> Array:
        """The relative change since another reading."""
        return ratio(norm(jax.tree.map(jnp.subtract, self.activities, before.activities)), norm(self.activities))

    def gradient(
        self, network: AbstractNetwork, inputs: Inputs, weights: Array | None = None, free: Layers | None = None
    ) -> Gradient:
        r"""The gradient of the mean loss, from $N$ points.

        $g = -\frac1N \mathrm{Re} \sum_k \frac{\partial\Psi}{\partial\theta}(s_k, s_0, \beta_k) / \beta_k$. Its error is
        $O(A^N)$ at settled points. `weights` replaces the $1/N$ of each point, where one stands for two; `free` is
        $s_0$, by default the mean of the points.
        Source: Laborieux & Zenke (2022), eq. (7).
        """
        betas = self.over_samples().teaching
        if weights is None:
            weights = jnp.full(len(betas), 1 / len(betas), network.dtype)
        heard = self.mean if free is None else free
        heard = tuple(a.astype(s.dtype) for a, s in zip(heard, self.activities, strict=True))
        return read_points(network, inputs, self.activities, heard, betas, -weights[:, None] / betas)


Reading: TypeAlias = Phasors | Points
"""What a demodulator gives."""


def read_points(
    network: AbstractNetwork,
    inputs: Inputs,
    s: Layers,
    heard: Layers,
    betas: Inexact[Array, "points batch"],
    weights: Inexact[Array, "points batch"],
) -> Gradient:
    r"""$\mathrm{Re} \sum_k w_k\, \frac{\partial\Psi}{\partial\theta}(s_k, r, \beta_k)$, the mean over the batch."""

    def total(network, clamped):
        def at_point(s, beta, weight):
            return jnp.mean((weight * jax.vmap(network.psi)(clamped, s, heard, inputs.y, beta)).real)

        return jnp.sum(jax.vmap(at_point)(s, betas, weights))

    return gradient_of(total, network, inputs.x)


def require_turning(teaching: AbstractTeaching, reading: "Reading") -> None:
    """Refuse to read a gradient off a signal that does not turn.

    Raises:
        ValueError: the signal's own first coefficient is lost in its mean.
    """
    check_turning(teaching, reading.strength)
