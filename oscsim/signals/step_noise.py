"""Noise in discrete time, as in the paper."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key, Real

from oscsim.core.arrays import Scalar, is_traced
from oscsim.core.checks import as_key, checked, flag, not_negative
from oscsim.core.errors import BadValue
from oscsim.networks.base import Layers, as_potentials
from oscsim.signals.noise import AbstractForcing, Draw, Increment, normals, scaled


class StepNoise(AbstractForcing):
    r"""The paper's noise in discrete time: $u \leftarrow \partial\Phi/\partial s + \sigma \xi$ at every step of $\tau$.

    $\xi$ is a fresh normal number: real, independent per neuron and step. Given to `Phases(steps=...)`, whose iteration
    it disturbs, or to `simulate` and `LockIn` with `diffrax.Euler()` and steps of exactly $\tau$, which are that very
    iteration.

    The continuous noise behind it: an Euler-Maruyama step of length $h$ of $\tau\, du = (-u + \partial\Phi/\partial
    s)\, dt + q\, dW$ is $u' = u + \frac{h}{\tau} (-u + \partial\Phi/\partial s) + \frac{q \sqrt h}{\tau} \xi$. At $h =
    \tau$ the old potential drops out, and $\sigma = q / \sqrt\tau$. So `StepNoise(sigma)` acts as
    `WhiteNoise(q)` with $q = \sigma \sqrt\tau$ at low frequencies: both have the spectrum $q^2$ far below $1/\tau$,
    where the first coefficient is read. The variance of one lone potential is $\sigma^2$ here and $q^2 / 2\tau =
    \sigma^2 / 2$ there.

    Attributes:
        standard_deviation: $\sigma \ge 0$, in the units of the potentials.
        shared_over_batch: one noise vector for all samples of a batch, as in the paper's runs; else independent ones.

    Raises:
        ValueError: a negative or infinite standard deviation; when run, another solver than Euler, or other steps.

    Source: Laborieux & Zenke (2022), section 5.

    Example:
        >>> noise = osc.StepNoise(0.01)
        >>> estimator = osc.Phases(0.2, points=6, steps=(20, 10), noise=noise)  # the noise acts at each step
        >>> u = (jnp.zeros((3, 5)),)  # one layer of potentials
        >>> noise(u, jax.random.key(0))[0].shape
        (3, 5)
    """

    discrete = True

    standard_deviation: Scalar = eqx.field(converter=not_negative("standard_deviation"))
    shared_over_batch: bool = eqx.field(static=True, default=False, converter=flag("shared_over_batch"))

    @checked(u=as_potentials, key=as_key)
    def __call__(self, u: Layers, key: Key[Array, ""]) -> Layers:
        """The potentials after one step's noise."""
        keys = jax.random.split(key, len(u))
        sigma = self.standard_deviation

        def disturbed(layer, key):
            shape = (1, *layer.shape[1:]) if self.shared_over_batch else layer.shape
            return layer + (sigma * jax.random.normal(key, shape, layer.real.dtype)).astype(layer.real.dtype)

        return tuple(disturbed(layer, k) for layer, k in zip(u, keys, strict=True))

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse anything but Euler steps of one time constant, the same for every neuron."""
        if not isinstance(solver, diffrax.Euler):
            raise BadValue(f"solver={solver!r} with StepNoise, which is defined by Euler steps: use diffrax.Euler()")
        if is_traced(time_constants):
            return
        tau = np.concatenate([np.ravel(np.asarray(t)) for t in time_constants])
        if not np.allclose(tau, tau[0], rtol=1e-6, atol=0):
            raise BadValue(
                f"time_constant from {tau.min():g} to {tau.max():g} with StepNoise, whose step is one time constant: "
                "give all neurons the same, or use WhiteNoise"
            )
        if abs(step - tau[0]) > 1e-5 * tau[0]:
            raise BadValue(
                f"a step of {step:g} with StepNoise, whose step is the time constant {tau[0]:g}: use steps_per_cycle = "
                "period / time constant, and a period that is a whole number of them"
            )

    def init(self, key: Key[Array, ""], u: Layers) -> None:
        return None

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> Layers:
        return normals(key, u, 1, self.shared_over_batch)[0]

    def draw(self, state: None, random: Layers, step: Real[Array, ""], area: bool) -> Draw:
        # Over a step of one time constant the forcing adds increment / tau.
        return Draw(None, Increment(scaled(random, self.standard_deviation * step), None), None)

    def amplitude(self, s: Layers) -> None:
        return None

    def spectrum(self, omega: ArrayLike) -> Array:
        r"""$\sigma^2$: times $\tau$, which it does not know, that of the white noise behind it, far below $1/\tau$."""
        return jnp.ones(jnp.shape(omega)) * self.standard_deviation**2
