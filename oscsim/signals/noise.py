r"""Base classes of noise: where it acts, what it draws in a step, and which solvers it may be given to.

There are three places to disturb. A forcing acts on the potentials, $\tau\, du = (-u + \partial\Phi/\partial s)\, dt +
g(s)\, dX$; a teaching noise acts on $\beta(t)$; a readout noise acts on what the demodulator sees. Each has a base
class here, and a noise of your own derives from one of them. Several act together as a tuple.

Randomness comes from one key, folded with the cycle's index, the noise's place in the tuple, the step's number and the
sample's index. So a run that is resumed goes on with the same noise bit for bit, and neither the size of the batch nor
the noises that follow in the tuple change what a sample receives; but for `StepNoise` in the iterations of `Phases` and
`Classic`, which is drawn for a batch as a whole.
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact, Key, PyTree, Real

from oscsim.core.checks import as_key, choice, require_instance
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractSettings
from oscsim.networks.base import Layers

Quadratures: TypeAlias = Literal["real", "both", "circular"]

SOLVERS = (diffrax.Euler, diffrax.Heun, diffrax.ShARK, diffrax.SRA1)
"""Those whose order under noise is proven, and measured in the tests.

| solver | strong order | weak order | forces per step | multiplicative noise |
|---|---|---|---|---|
| `Euler` (Euler-Maruyama) | 1 | 1 | 1 | Ito, strong order 1/2 |
| `Heun` | 1 | 2 | 2 | Stratonovich, strong order 1/2; 1 where each noise drives its own neuron alone |
| `ShARK`, `SRA1` | 3/2 | 2 | 2 | refused |

for additive white noise. Sources: Kloeden & Platen (1992), sections 10.2 and 14.1; Rössler, SIAM J. Numer. Anal. 48,
922 (2010); Foster, dos Reis & Strange, arXiv 2210.17543; `citation` of a solver has them in full.
"""


class Increment(NamedTuple):
    r"""What a forcing adds over one step: $\Delta X = \int dX$, for each layer an array that fits (batch, neurons).

    Attributes:
        real: the real part, which drives the real part of the potentials.
        imag: the imaginary part, or None where there is none.
    """

    real: Layers
    imag: Layers | None


class Draw(NamedTuple):
    r"""A step of a forcing: its own state at the end of the step, and what it did meanwhile.

    Attributes:
        state: the forcing's state at the end of the step.
        increment: $\Delta X$.
        area: $H = \frac1h \int (X_t - X_{t_0} - \frac{t - t_0}{h} \Delta X)\, dt$, the space-time Lévy area, where it
            was asked for.
    """

    state: PyTree
    increment: Increment
    area: Increment | None


class AbstractNoise(AbstractSettings):
    """A disturbance of a run: of the potentials, of the teaching signal, or of the reading, each with a class below.

    By default, `signal` returns the teaching signal and `reading` the activities unchanged.

    Example:
        >>> noise = osc.WhiteNoise(0.1)  # on the potentials: it leaves the teaching signal as it is
        >>> signal, t = osc.Rotating(0.2, 100.0), jnp.array(25.0)
        >>> print(noise.signal(None, signal, t, signal.period) == signal(t))
        True
    """

    quadratures = "real"
    """Whether it is real, or complex: in both quadratures with full intensity, or with half the power each."""

    each_tick: ClassVar[bool] = False
    """Whether it is drawn anew at each tick of the demodulator; else at each step of the solver."""

    discrete: ClassVar[bool] = False
    """Whether it is defined in discrete time, by steps of one time constant."""

    shared_over_batch: eqx.AbstractVar[bool]
    """Whether all samples of a batch see the same."""

    @abc.abstractmethod
    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse a solver or a step (in units of time) with which the noise would not be what it says.

        Raises:
            ValueError: names the argument, its value and the remedy.
        """

    def check_lasts(self, cycles: int, period: float) -> None:
        """Refuse so many cycles in all, where the noise is recorded and ends before them."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], u: Layers) -> PyTree:
        """The noise's own state at the start, in its stationary distribution; None where it has none."""

    @abc.abstractmethod
    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> PyTree:
        """All random numbers of one step (of one tick, for a readout noise), as a pytree of arrays.

        Those of many steps are drawn in one go, which is several times faster than one by one. `u` shows the shapes;
        `area` says whether the solver needs space-time Lévy areas.
        """

    def advance(
        self, state: PyTree, random: PyTree, step: Real[Array, ""], area: bool
    ) -> "tuple[PyTree, tuple[AbstractForcing, Draw] | None]":
        """The noise's state in the next step; and, of a forcing, itself with what it does to the potentials there."""
        return state, None

    def signal(
        self, state: PyTree, teaching: Callable, t: Real[Array, ""], period: Real[Array, ""]
    ) -> Inexact[Array, "..."]:
        r"""$\beta(t)$ as disturbed, from the undisturbed function of time `teaching`."""
        return teaching(t)

    def reading(self, random: PyTree, s: Layers) -> Layers:
        """The activities as the demodulator sees them at one tick, from that tick's random numbers."""
        return s


class AbstractForcing(AbstractNoise):
    r"""A noise on the potentials: $\tau\, du = (-u + \partial\Phi/\partial s)\, dt + g(s)\, dX$.

    Example:
        >>> from oscsim.signals import Draw, Increment, normals
        >>> class Kicks(osc.AbstractForcing):  # of one size, up or down
        ...     size: float
        ...     shared_over_batch = False
        ...     def check(self, solver, step, time_constants):
        ...         pass  # every step will do
        ...     def init(self, key, u):
        ...         return None  # no memory
        ...     def random(self, key, u, area):
        ...         return normals(key, u, 1, self.shared_over_batch)[0]
        ...     def draw(self, state, random, step, area):
        ...         kicks = tuple((self.size * jnp.sqrt(step) * jnp.sign(z)).astype(z.dtype) for z in random)
        ...         return Draw(None, Increment(kicks, None), None)
        ...     def amplitude(self, s):
        ...         return None  # additive
        ...     def spectrum(self, omega):
        ...         return jnp.full(jnp.shape(omega), self.size**2)
        >>> signal, noise = osc.Rotating(0.2, 64.0), Kicks(0.1)
        >>> kicked = osc.simulate(net, x, y, signal, cycles=3, noise=noise, key=jax.random.key(0))
        >>> bool(kicked.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    @abc.abstractmethod
    def draw(self, state: PyTree, random: PyTree, step: Real[Array, ""], area: bool) -> Draw:
        """What the noise does in the next step, from that step's random numbers."""

    def advance(
        self, state: PyTree, random: PyTree, step: Real[Array, ""], area: bool
    ) -> "tuple[PyTree, tuple[AbstractForcing, Draw]]":
        drawn = self.draw(state, random, step, area)
        return drawn.state, (self, drawn)

    @abc.abstractmethod
    def amplitude(self, s: Layers) -> Layers | None:
        """$g(s)$, one complex array per layer; None for additive noise, where it is 1."""

    @abc.abstractmethod
    def spectrum(self, omega: ArrayLike) -> Array:
        r"""The two-sided power spectral density of $dX/dt$ at the angular frequency `omega`, at $g = 1$.

        $S(\omega) = \int E[\xi(t) \overline{\xi(0)}]\, e^{-i\omega t}\, dt$ of the forcing $\xi = dX/dt$ on one neuron,
        in (units of the potential)² times time.
        """


class AbstractTeachingNoise(AbstractNoise):
    r"""A noise on the teaching signal, the same for all samples.

    Example:
        >>> class Flicker(osc.AbstractTeachingNoise):
        ...     shared_over_batch = True
        ...     def check(self, solver, step, time_constants):
        ...         pass  # every step will do
        ...     def init(self, key, u):
        ...         return jnp.ones(())
        ...     def random(self, key, u, area):
        ...         return jax.random.uniform(key, (), minval=0.9, maxval=1.1)
        ...     def draw(self, state, random, step):
        ...         return random
        ...     def signal(self, state, teaching, t, period):
        ...         return state * teaching(t)
        >>> lit = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=3, noise=Flicker(), key=jax.random.key(0))
        >>> bool(lit.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    @abc.abstractmethod
    def draw(self, state: PyTree, random: PyTree, step: Real[Array, ""]) -> PyTree:
        """The state during the next step, from that step's random numbers."""

    def advance(self, state: PyTree, random: PyTree, step: Real[Array, ""], area: bool) -> tuple[PyTree, None]:
        return self.draw(state, random, step), None

    @abc.abstractmethod
    def signal(
        self, state: PyTree, teaching: Callable, t: Real[Array, ""], period: Real[Array, ""]
    ) -> Inexact[Array, "..."]: ...


class AbstractReadoutNoise(AbstractNoise):
    """A noise on what the demodulator sees; the neurons feel nothing of it.

    Example:
        >>> class Uniform(osc.AbstractReadoutNoise):
        ...     reach: float
        ...     shared_over_batch = False
        ...     def check(self, solver, step, time_constants):
        ...         pass  # every step will do
        ...     def init(self, key, u):
        ...         return None  # no memory
        ...     def random(self, key, u, area):
        ...         return [jax.random.uniform(key, a.shape, minval=-self.reach, maxval=self.reach) for a in u]
        ...     def reading(self, random, s):
        ...         return tuple(a + r for a, r in zip(s, random, strict=True))
        >>> signal, noise = osc.Rotating(0.2, 64.0), Uniform(0.1)
        >>> blurred = osc.simulate(net, x, y, signal, cycles=3, noise=noise, key=jax.random.key(0))
        >>> bool(blurred.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    each_tick = True

    @abc.abstractmethod
    def reading(self, random: PyTree, s: Layers) -> Layers: ...


Noise: TypeAlias = AbstractNoise | tuple[AbstractNoise, ...] | None
"""One noise, several of them that act together, or nothing."""


def as_noises(noise: Noise) -> tuple[AbstractNoise, ...]:
    """One noise, several of them, or None, as a tuple.

    Raises:
        TypeError: something in it is no noise.
    """
    noises = () if noise is None else tuple(noise) if isinstance(noise, (tuple, list)) else (noise,)
    for one in noises:
        remedy = "use an instance of a noise, such as WhiteNoise(0.1), or a tuple of them"
        require_instance("noise", one, AbstractNoise, remedy)
    return noises


def noise_key(key: Key[Array, ""] | None) -> Key[Array, ""]:
    """The key for noise, or an error that asks for it.

    Raises:
        ValueError: there is no key, or it is of a kind whose numbers depend on what is drawn beside them.
        TypeError: the key is none, such as a bare seed.
    """
    if key is None:
        raise BadValue("key is None: noise needs a random key, such as jax.random.key(0)")
    as_key("key", key)
    kind = str(jax.random.key_impl(key))
    if "rbg" in kind:  # under jax.vmap all of a batch is drawn from its first key
        raise BadValue(
            f"key is of the kind {kind}, whose numbers depend on the batch around them, so that no run could be "
            'repeated alone: use jax.random.key(seed, impl="threefry2x32")'
        )
    return key


def require_noise_key(noises: tuple[AbstractNoise, ...], key: Key[Array, ""] | None) -> None:
    """Refuse noise without a key, and a key that is none: see `noise_key`."""
    if noises or key is not None:
        noise_key(key)


def is_srk(solver: object) -> bool:
    """Whether the solver is a stochastic Runge-Kutta one, which needs space-time Lévy areas and additive noise."""
    return isinstance(solver, diffrax.AbstractSRK)


def check_noises(
    noises: tuple[AbstractNoise, ...],
    solver: diffrax.AbstractSolver,
    step: float | None,
    time_constants: tuple[Array, ...],
) -> None:
    """Refuse a solver without a proven order under these noises, and what each of them refuses.

    A traced step (None) goes unchecked.

    Raises:
        ValueError: names the argument, its value and the remedy.
    """
    forced = any(isinstance(noise, AbstractForcing) for noise in noises)
    if is_srk(solver) and not forced:
        raise BadValue(f"solver={solver!r} is for noise on the potentials, and there is none: use diffrax.Heun()")
    if forced and not isinstance(solver, SOLVERS):
        names = ", ".join(f"diffrax.{kind.__name__}()" for kind in SOLVERS)
        raise BadValue(f"solver={solver!r} has no proven order under noise: use one of {names}")
    for noise in noises:
        noise.check(solver, math.nan if step is None else step, time_constants)


check_quadratures = functools.partial(choice("real", "both", "circular"), "quadratures")
"""One of them: `"both"` are each of full intensity, `"circular"` each of half the power."""


def normals(key: Key[Array, ""], u: Layers, count: int, shared: bool) -> list[Layers]:
    """`count` independent sets of standard normal numbers, one (batch, neurons) array per layer; (1, ...) if shared.

    Each sample has a key of its own, folded with its index: its numbers do not depend on the batch around it.
    """
    shapes = [layer.shape[1:] for layer in u]
    sizes = [math.prod(shape) for shape in shapes]
    batch = 1 if shared else u[0].shape[0]

    def of_sample(index):
        return jax.random.normal(jax.random.fold_in(key, index), (count, sum(sizes)), u[0].real.dtype)

    flat = jax.vmap(of_sample)(jnp.arange(batch, dtype=jnp.uint32))
    ends = np.cumsum(sizes)[:-1]
    return [
        tuple(
            part.reshape(batch, *shape) for part, shape in zip(jnp.split(flat[:, i], ends, axis=1), shapes, strict=True)
        )
        for i in range(count)
    ]


def scaled(layers: Layers, factor: Float[Array, ""]) -> Layers:
    """Every layer times a number, in the layer's precision."""
    return tuple(layer * factor.astype(layer.dtype) for layer in layers)


def quadrature_share(quadratures: Quadratures) -> tuple[int, float]:
    """How many quadratures are driven, and the part of the power in each of them."""
    return {"real": (1, 1.0), "both": (2, 1.0), "circular": (2, 0.5)}[quadratures]
