r"""Readings: what was read off the activities, and the gradient in it.

`Phasors` are Fourier coefficients of the activities, `Points` their values at points of the teaching circle. Both come
from a demodulator, once per cycle, or are averages of such; both turn into a gradient by a formula of their own.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from oscsim._arrays import describe, norm
from oscsim.networks.base import AbstractNetwork, Layers, gradient_of
from oscsim.networks.inputs import Inputs
from oscsim.teaching import fourier_coefficient


def response_gradient(
    network: AbstractNetwork, inputs: Inputs, c_0: Layers, direction: Layers, direct: float = 1.0
) -> Any:
    r"""What the gradient formula makes of a response, or of an error of it.

    $$-\nabla_\theta \frac{d}{d\epsilon} \mathrm{Re}\, \Psi(\theta; x, c_0 + \epsilon v, c_0, y, \epsilon d)$$

    at $\epsilon = 0$, the mean over the batch. With the response $v = \chi$ and $d = 1$ it is the gradient of the mean
    loss. With $d = 0$ it is what an error $v$ of the response does to it.

    Args:
        network: the neurons.
        inputs: what they are shown.
        c_0: the free activities, one complex (batch, neurons) array per layer; what neurons hear stays there.
        direction: $v$, likewise.
        direct: $d$, how much of the cost's own derivative enters.

    Returns:
        A pytree like `parameters(network)`.
    """

    def slope(network, clamped):
        def along(c_0, v, clamped, y):
            zero = jnp.zeros((), c_0[0].dtype)
            psi = lambda s, beta: network.psi(clamped, s, c_0, y, beta)  # noqa: E731
            return jax.jvp(psi, (c_0, zero), (v, jnp.full_like(zero, direct)))[1].real

        return -jnp.mean(jax.vmap(along)(c_0, direction, clamped, inputs.y))

    return gradient_of(slope, network, inputs.x)


class Phasors(eqx.Module):
    r"""Fourier coefficients $c_n = \langle s(t)\, e^{-i n \omega t} \rangle$ of neurons and teaching signal.

    `phasors[n]` is $c_n$, one complex array (..., batch, neurons) per layer.

    Attributes:
        activities: for each harmonic, one array per layer.
        teaching: for each harmonic, the coefficient of $\beta$ itself, read the same way.
        harmonics: which $n$ are held.
    """

    activities: tuple[Layers, ...]
    teaching: tuple[Inexact[Array, "..."], ...]
    harmonics: tuple[int, ...] = eqx.field(static=True)

    def __getitem__(self, n: int) -> tuple[Any, ...]:
        return self.activities[self._place(n)]

    def _place(self, n: int) -> int:
        if n not in self.harmonics:
            raise ValueError(f"harmonic {n} was not read, only {self.harmonics}: ask the demodulator for it")
        return self.harmonics.index(n)

    @property
    def mean(self) -> tuple[Any, ...]:
        """$c_0$, the free equilibrium where the signal stays below the convergence radius."""
        return self[0]

    @property
    def has_image(self) -> bool:
        """Whether harmonic -1 was read: what stands there measures the error (see `oscsim.error`)."""
        return -1 in self.harmonics

    def response(self, n: int = 1) -> Layers:
        r"""$c_n / a_1$, one complex array per layer: at $n = 1$ the susceptibility $\chi$."""
        a_1 = jnp.asarray(self.teaching[self._place(1)])
        return tuple(jnp.asarray(c) / per_sample(a_1, c) for c in self[n])

    def image_ratio(self) -> Float[Array, "..."]:
        r"""$\|c_{-1}\| / \|c_1\|$ of each sample: how much of its response is contamination."""
        sizes = sample_norm(self[1])
        return sample_norm(self[-1]) / jnp.maximum(sizes, jnp.finfo(sizes.dtype).tiny)

    def over_samples(self) -> "Phasors":
        """The same, with the teaching signal's coefficients one per sample."""
        batch = self[0][0].shape[0]
        teaching = tuple(jnp.broadcast_to(a, (batch,)) for a in self.teaching)
        return Phasors(self.activities, teaching, self.harmonics)

    def map_samples(self, function: Callable[..., Any], *others: Any) -> "Phasors":
        """`function` of each array and those of `others`, whose leading axis is the sample in each of them."""
        return jax.tree.map(function, self, *others)

    @property
    def strength(self) -> Array:
        """$|a_1|$ relative to the largest coefficient that was read of the teaching signal: how much of it turns."""
        sizes = jnp.abs(jnp.stack(self.teaching))
        return sizes[self._place(1)] / jnp.maximum(jnp.max(sizes, axis=0), jnp.finfo(sizes.dtype).tiny)

    def change(self, before: "Phasors") -> Array:
        """The relative change since another reading, the largest of harmonic 0 and of those that the signal holds."""
        largest = jnp.max(jnp.abs(jnp.stack(self.teaching)))
        changes = [
            jnp.where(
                (n == 0) | (jnp.max(jnp.abs(a)) > 1e-4 * largest),
                _relative(norm(jax.tree.map(jnp.subtract, now, then)), norm(now)),
                0.0,
            )
            for n, a, now, then in zip(self.harmonics, self.teaching, self.activities, before.activities, strict=True)
        ]
        return jnp.max(jnp.stack(changes))

    def gradient(self, network: AbstractNetwork, inputs: Inputs) -> Any:
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
    """

    activities: Layers
    teaching: Inexact[Array, "..."]
    by_sample: bool = eqx.field(static=True, default=False)

    @property
    def _axis(self) -> int:
        """The axis of the points."""
        return self.teaching.ndim - 1 - self.by_sample

    @property
    def mean(self) -> tuple[Any, ...]:
        """The mean over the circle: the free equilibrium, up to $O(A^N)$."""
        axis = self._axis
        return tuple(jnp.mean(layer, axis=axis) for layer in self.activities)

    @property
    def strength(self) -> Array:
        """The smallest of the radii relative to the largest."""
        sizes = jnp.abs(self.teaching)
        axis = self._axis
        return jnp.min(sizes, axis=axis) / jnp.maximum(jnp.max(sizes, axis=axis), jnp.finfo(sizes.dtype).tiny)

    @property
    def has_image(self) -> bool:
        """Points hold no harmonic of their own that could measure the error."""
        return False

    def over_samples(self) -> "Points":
        """The same, with the teaching signal's values one per sample."""
        points, batch = self.activities[0].shape[:2]
        teaching = jnp.broadcast_to(self.teaching.reshape(points, -1), (points, batch))
        return Points(self.activities, teaching, by_sample=True)

    def map_samples(self, function: Callable[..., Any], *others: Any) -> "Points":
        """`function` of each array and those of `others`, whose leading axis is the sample in each of them."""

        def at_front(*arrays):
            return jnp.moveaxis(function(*(jnp.moveaxis(a, 1, 0) for a in arrays)), 0, 1)

        return jax.tree.map(at_front, self, *others)

    def change(self, before: "Points") -> Array:
        """The relative change since another reading."""
        return _relative(norm(jax.tree.map(jnp.subtract, self.activities, before.activities)), norm(self.activities))

    def gradient(
        self, network: AbstractNetwork, inputs: Inputs, weights: Any = None, free: Layers | None = None
    ) -> Any:
        r"""The gradient of the mean loss, from $N$ points.

        $g = -\frac1N \mathrm{Re} \sum_k \frac{\partial\Psi}{\partial\theta}(s_k, s_0, \beta_k) / \beta_k$. Its error is
        $O(A^N)$ at settled points. `weights` replaces the $1/N$ of each point, where one stands for two; `free` is
        $s_0$, by default the mean of the points.
        Source: Laborieux & Zenke (2022), eq. (7).
        """
        if weights is None:
            weights = jnp.full(len(self.teaching), 1 / len(self.teaching), network.dtype)
        heard = self.mean if free is None else free
        heard = tuple(a.astype(s.dtype) for a, s in zip(heard, self.activities, strict=True))

        def mean(network, clamped):
            def at_point(s, beta):
                psi = jax.vmap(network.psi, in_axes=(0, 0, 0, 0, 0 if beta.ndim else None))
                return jnp.mean((psi(clamped, s, heard, inputs.y, beta) / beta).real)

            return -jnp.sum(weights * jax.vmap(at_point)(self.activities, self.teaching))

        return gradient_of(mean, network, inputs.x)


def per_sample(values: Array, like: Array) -> Array:
    """Numbers per sample, or one for all, in a shape that multiplies an array with the same leading axes."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def sample_norm(layers: Layers) -> Float[Array, "..."]:
    """The Euclidean norm over all neurons of each sample; layers are (batch, neurons...)."""
    squares = [jnp.sum(jnp.abs(a.reshape(len(a), -1)) ** 2, axis=1) for a in layers]
    return jnp.sqrt(sum(squares[1:], squares[0]))


@eqx.filter_jit
def signal_phasors(teaching: Any, dtype: Any) -> Phasors:
    """Coefficients 0 and 1 of the teaching signal itself; there are no neurons in them."""
    return Phasors(((), ()), tuple(fourier_coefficient(teaching, n, dtype) for n in (0, 1)), (0, 1))


def require_turning(teaching: Any, reading: "Phasors | Points") -> None:
    """Refuse to read a gradient off a signal that does not turn.

    Raises:
        ValueError: the signal's own first coefficient is lost in its mean.
    """
    if not bool(jnp.all(reading.strength > 1e-4)):
        raise ValueError(
            f"{describe(teaching)} has no first harmonic at its period, so there is no gradient in the response: use "
            "Rotating, or Classic for a constant nudge"
        )


def turning_coefficient(teaching: Any, dtype: Any) -> complex:
    """The first Fourier coefficient of a signal, which must not vanish beside its mean.

    Raises:
        ValueError: the signal does not turn.
    """
    phasors = signal_phasors(teaching, dtype)
    require_turning(teaching, phasors)
    return complex(phasors.teaching[1])


def _relative(change: Array, size: Array) -> Array:
    return change / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
