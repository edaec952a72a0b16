r"""The harmonics of a driven network's orbit, $u(t) = \sum_n u_n e^{in\omega t}$, without stepping in time.

They solve $(1 + in\omega\tau)\, u_n = \langle F(u(t), \beta(t))\, e^{-in\omega t} \rangle$. Where the signal has
positive frequencies only, $u_0$ is the free state and harmonic $n$ follows from those below it, by one linear system.
Any other signal couples them all: they are found together, at points of the period.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Inexact

from oscsim.core.arrays import complex_of, is_traced, per_sample, ratio, repeated, to_complex
from oscsim.equilibrium.acceleration import anderson
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.vectors import even_and_odd
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.signals.teaching import AbstractTeaching

MEMORY = 10
"""How many sweeps over all points of the period are mixed."""

ONE_WAY = 1e-6
"""A signal with less than this in frequencies that are not positive, relative to the rest, turns one way."""


class Harmonics(NamedTuple):
    r"""The harmonics $u_n$ of the potentials, and what they leave of the equation.

    Attributes:
        numbers: which $n$, ascending.
        values: $u_n$, one complex (harmonics, batch, ...) array per layer.
        residual: of each sample, $\tau \dot u + u - F(u, \beta)$ along the period, relative to $u - u_0$, in the mean
            square.
    """

    numbers: tuple[int, ...]
    values: Layers
    residual: Float[Array, " batch"]


def sampled(teaching: AbstractTeaching, points: int, dtype: DTypeLike) -> Inexact[Array, "points ..."]:
    r"""$\beta$ at equal steps of the period; (points, batch) where each sample has its own."""
    times = jnp.asarray(np.arange(points) / points, dtype) * teaching.period
    beta = jnp.stack([jnp.asarray(teaching(t)) for t in times]) if points == 1 else jax.vmap(teaching)(times)
    return beta.astype(complex_of(dtype) if jnp.iscomplexobj(beta) else dtype)


def is_one_way(teaching: AbstractTeaching, dtype: DTypeLike) -> bool:
    """Whether a signal is known to have positive frequencies only: by its class, or by its samples."""
    if teaching.one_way is not None:
        return teaching.one_way
    beta = sampled(teaching, 256, dtype)
    if is_traced(beta):
        return False
    spectrum = np.abs(np.fft.fft(np.asarray(beta)))
    return bool(max(spectrum[0], spectrum[128:].max()) <= ONE_WAY * spectrum.max())


def power_series(
    net: AbstractNetwork, inputs: Inputs, u: Layers, teaching: AbstractTeaching, highest: int, tolerance: ArrayLike
) -> Harmonics:
    r"""The harmonics 0 to `highest` under a signal with positive frequencies only, at the free potentials `u`.

    Each is exact by itself: what is left out changes none of them. For every one $F$ is looked at in four times as many
    points as there are harmonics.
    """
    points = max(16, 4 * highest)
    beta, omega = sampled(teaching, points, net.dtype), frequency(teaching, net.dtype)
    u = _rested(net, inputs, u, tolerance)
    base = to_complex(u)

    def one(values, n):
        turn = jnp.exp(2j * jnp.pi * n * jnp.arange(points) / points).astype(base[0].dtype)
        force = _along(net, inputs, values, beta)
        source = tuple(jnp.tensordot(turn.conj(), f, axes=1) / points for f in force)
        found, left = Resolvent(net, inputs, u, n * omega)(source, tolerance)
        values = tuple(v + per_sample(turn, a[None]) * a[None] for v, a in zip(values, found, strict=True))
        return values, (found, left)

    still = tuple(jnp.broadcast_to(a[None], (points, *a.shape)) for a in base)
    _, (rest, left) = lax.scan(one, still, jnp.arange(1, highest + 1))
    values = tuple(jnp.concatenate([a[None], b]) for a, b in zip(base, rest, strict=True))
    numbers = tuple(range(highest + 1))
    residual = _residual(net, inputs, numbers, values, teaching)
    return Harmonics(numbers, values, jnp.where(jnp.all(jnp.isfinite(left), axis=0), residual, jnp.inf))


def _rested(net: AbstractNetwork, inputs: Inputs, u: Layers, tolerance: ArrayLike) -> Layers:
    """One step of Newton's method: every harmonic is of the state that it is taken at, and settling leaves a rest."""
    force = net.force(inputs.clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))
    moved, _ = Resolvent(net, inputs, u)(jax.tree.map(jnp.subtract, force, u), tolerance)
    return jax.tree.map(jnp.add, u, moved)


def balanced(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    teaching: AbstractTeaching,
    highest: int,
    tolerance: ArrayLike,
    max_sweeps: ArrayLike,
) -> Harmonics:
    r"""The harmonics `-highest` to `highest` under any signal, by harmonic balance from the free potentials `u`.

    $u \leftarrow \mathcal{F}^{-1}[\mathcal{F}[F(u, \beta)] / (1 + in\omega\tau)]$ at points of the period, over the
    even layers and then the odd ones, mixed by Anderson acceleration.
    """
    points, omega = 2 * highest + 1, frequency(teaching, net.dtype)
    beta = sampled(teaching, points, net.dtype)
    real = not jnp.iscomplexobj(beta)
    n = jnp.asarray(np.fft.fftfreq(points, 1 / points), net.dtype)
    start = u if real else to_complex(u)
    layers, taus = range(len(u)), _time_constants(net)

    def answered(force, tau):
        inertia = 1 + 1j * omega * per_sample(n, force) * tau
        found = jnp.fft.ifft(jnp.fft.fft(force, axis=0) / inertia, axis=0)
        return (found.real if real else found).astype(force.dtype)

    def sweep(by_sample):
        values = tuple(jnp.moveaxis(a, 1, 0) for a in by_sample)
        for block in even_and_odd(u):
            force = _along(net, inputs, values, beta)
            values = tuple(answered(force[i], taus[i]) if i in block else values[i] for i in layers)
        return tuple(jnp.moveaxis(a, 0, 1) for a in values)

    still = tuple(jnp.repeat(a[:, None], points, axis=1) for a in start)
    found = anderson(sweep, still, tolerance, max_sweeps, MEMORY).value
    order = np.argsort(np.fft.fftfreq(points))
    values = tuple((jnp.fft.fft(jnp.moveaxis(a, 1, 0), axis=0) / points)[order] for a in to_complex(found))
    numbers = tuple(range(-highest, highest + 1))
    return Harmonics(numbers, values, _residual(net, inputs, numbers, values, teaching))


def at_times(numbers: tuple[int, ...], values: Layers, turns: Array) -> Layers:
    """The potentials at fractions of the period, (times, batch, ...) per layer."""
    turn = jnp.exp(2j * jnp.pi * turns[:, None] * jnp.asarray(numbers)[None]).astype(values[0].dtype)
    return tuple(jnp.tensordot(turn, a, axes=1) for a in values)


def frequency(teaching: AbstractTeaching, dtype: DTypeLike) -> Float[Array, ""]:
    r"""$\omega = 2\pi/T$."""
    return 2 * jnp.pi / jnp.asarray(teaching.period, dtype)


def _time_constants(net: AbstractNetwork) -> tuple[Array, ...]:
    """Those of each layer, in a shape that fits (points, batch, ...)."""
    taus = zip(net.time_constants, net.shapes, strict=True)
    return tuple(tau.reshape(1, 1, *shape) if tau.ndim else tau for tau, shape in taus)


def _along(net: AbstractNetwork, inputs: Inputs, values: Layers, beta: Array) -> Layers:
    r"""$F(u, \beta)$ at points of the period, (points, batch, ...) per layer."""
    points, batch = values[0].shape[:2]
    clamped, y = repeated((inputs.clamped, inputs.y), points)
    flat = net.activities(tuple(a.reshape(points * batch, *a.shape[2:]) for a in values))
    betas = jnp.broadcast_to(beta.reshape(points, -1), (points, batch)).reshape(-1)
    force = net.force(clamped, flat, y, betas)
    return tuple(f.reshape(a.shape) for f, a in zip(force, values, strict=True))


def _residual(
    net: AbstractNetwork, inputs: Inputs, numbers: tuple[int, ...], values: Layers, teaching: AbstractTeaching
) -> Float[Array, " batch"]:
    """What is left of the equation between the points that it was solved at, relative to the motion, per sample."""
    points = 4 * max(numbers) + 2
    beta = sampled(teaching, points, net.dtype)
    omega = frequency(teaching, net.dtype)
    turns, n = jnp.arange(points) / points, jnp.asarray(numbers)
    velocity = tuple((1j * omega * per_sample(n, a) * a).astype(a.dtype) for a in values)
    u, moved = at_times(numbers, values, turns), at_times(numbers, velocity, turns)
    force = _along(net, inputs, u, beta)
    left = tuple(tau * v + a - f for tau, v, a, f in zip(_time_constants(net), moved, u, force, strict=True))
    swing = tuple(a - b[numbers.index(0)][None] for a, b in zip(u, values, strict=True))
    return ratio(_size(left), _size(swing))


def _size(along: Layers) -> Float[Array, " batch"]:
    """The root of the sum of squares over neurons and points, per sample."""
    squares = [jnp.sum(jnp.abs(a) ** 2, axis=(0, *range(2, a.ndim))) for a in along]
    return jnp.sqrt(sum(squares[1:], squares[0]))
