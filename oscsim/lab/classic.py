"""Classic equilibrium propagation in time: a free phase, then a nudged one, for comparison with a turning signal."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int, Real

import oscsim as osc
from oscsim.core import norm, positive
from oscsim.dynamics import Average, relative_parts
from oscsim.estimators import one_sided
from oscsim.networks import Gradient


class TwoPhase(osc.AbstractTeaching):
    r"""The signal of classic equilibrium propagation: $\beta = 0$ for half a period, then $\beta = A$.

    Attributes:
        amplitude: $A > 0$, the nudge, dimensionless.
        period: $T$, both phases together, in units of the neurons' time constant.

    Raises:
        ValueError: amplitude or period are not positive.

    Source: Scellier & Bengio (2017).

    Example:
        >>> signal = osc.lab.TwoPhase(amplitude=0.25, period=100.0)
        >>> print(jax.vmap(signal)(jnp.array([0.0, 40.0, 60.0])))
        [0.   0.   0.25]
    """

    amplitude: Float[Array, ""] = eqx.field(converter=positive("amplitude"))
    period: Float[Array, ""] = eqx.field(converter=positive("period"))

    def __call__(self, t: Real[Array, ""], cycle: int | Int[Array, ""] = 0) -> Inexact[Array, ""]:
        # the tick at the very end of the free phase still belongs to it, whatever the rounding
        return jnp.where(2 * t < self.period * (1 + 1e-6), 0.0, self.amplitude)


class PhaseMeans(osc.AbstractDemodulator):
    """The mean activities over the second half of either phase of a `TwoPhase`, once the neurons have settled.

    Read as two `Points`, the free one first; `classic_gradient` makes a gradient of them. A mean over a quarter of the
    period, not one instant: under noise the comparison with a lock-in is then a fair one.

    Example:
        >>> signal, reader = osc.lab.TwoPhase(0.1, period=100.0), osc.lab.PhaseMeans()
        >>> phases = osc.simulate(net, x, y, signal, cycles=2, demodulator=reader)
        >>> print(phases.phasors.teaching[-1].real.round(2))  # free, nudged
        [0.  0.1]
    """

    fewest_ticks = 8

    def init(self, s: osc.Layers, beta: Inexact[Array, "..."], ticks: int) -> osc.Points:
        return osc.Points(
            activities=tuple(jnp.zeros((2, *layer.shape), layer.dtype) for layer in s),
            teaching=jnp.zeros((2, *beta.shape), beta.dtype),
        )

    def begin(self, state: osc.Points, cycle: Int[Array, ""]) -> osc.Points:
        return jax.tree.map(jnp.zeros_like, state)

    def update(
        self, state: osc.Points, s: osc.Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int
    ) -> osc.Points:
        half = ticks // 2
        phase, within = tick // half, tick % half
        count = half - half // 2
        share = jnp.where((within >= half // 2) & (phase < 2), 1 / count, 0.0)
        return jax.tree.map(
            lambda old, a: old.at[jnp.minimum(phase, 1)].add(share.astype(a.real.dtype) * a), state, osc.Points(s, beta)
        )

    def read(self, state: osc.Points) -> osc.Points:
        return state


def classic_gradient(run: osc.Run, discard: int = 0) -> Gradient:
    """The classic one-sided gradient in a run under `TwoPhase`, read by `PhaseMeans`.

    Args:
        run: from `simulate(net, x, y, TwoPhase(...), demodulator=PhaseMeans(), ...)`.
        discard: how many cycles at the start to leave out.

    Returns:
        A pytree like the network's parameters; biased by $O(A)$.

    Raises:
        TypeError: a run that was read in another way.
        ValueError: `discard` is negative or leaves no cycle.

    Example:
        >>> signal, reader = osc.lab.TwoPhase(0.1, period=100.0), osc.lab.PhaseMeans()
        >>> phases = osc.simulate(net, x, y, signal, cycles=2, demodulator=reader)
        >>> print(osc.cosine(osc.lab.classic_gradient(phases), osc.exact_gradient(net, x, y)) > 0.9)
        True
    """
    if not isinstance(run.phasors, osc.Points) or np.shape(run.phasors.teaching)[1:] != (2,):
        raise osc.BadType("run was not read as two phases: use TwoPhase(...) and demodulator=PhaseMeans()")
    if not 0 <= discard < run.cycles:
        raise osc.BadValue(f"discard={discard}: {run.cycles} cycle(s) were run, use 0 to {run.cycles - 1}")
    mean = jax.tree.map(lambda a: jnp.mean(jnp.asarray(a[discard:]), axis=0), run.phasors)
    return _one_sided(mean, run.network, run.inputs)


_one_sided = eqx.filter_jit(one_sided)


def two_phase_error(
    system: osc.System, inputs: osc.Inputs, average: Average, change: Float[Array, " batch"]
) -> tuple[Gradient, osc.GradientError]:
    """The classic gradient in an average of two phases, and how it scatters from cycle to cycle.

    Its bias is in no reading: lag, steps and asymmetry are nan. All samples are nudged alike.
    """
    net, dtype = system.network, system.network.dtype

    def gradient_in(reading):
        return one_sided(osc.Points(reading.activities, reading.teaching[:, 0]), net, inputs)

    gradient, moved = jax.jvp(gradient_in, (average.mean,), (average.contrast,))
    sizes, known = jax.tree.map(norm, gradient), jnp.all(average.count > 1)
    scatter = jax.tree.map(lambda a: jnp.where(known, norm(a), jnp.nan), moved)
    unknown = jax.tree.map(lambda size: jnp.full_like(size, jnp.nan), sizes)
    blank = jnp.full(len(inputs.x), jnp.nan, dtype)
    return gradient, osc.GradientError(
        **relative_parts(sizes, scatter, unknown, unknown, unknown),
        per_sample=blank,
        rounding=blank,
        change=change,
        kept=average.count,
        skipped=average.skipped,
        amplitude=jnp.max(jnp.abs(jnp.asarray(average.mean.teaching)), axis=0).astype(dtype),
        noisy=bool(system.noises),
    )
