"""The spread of the gradient that a lock-in reads under noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from oscsim.core.arrays import describe
from oscsim.core.checks import as_count, checked, untraced
from oscsim.core.errors import BadValue
from oscsim.dynamics.demodulation import FEWEST_TICKS
from oscsim.dynamics.integration import Integration, Plan
from oscsim.equilibrium import Equilibrium
from oscsim.equilibrium.linear import free_state, response_gradient
from oscsim.equilibrium.states import At
from oscsim.equilibrium.vectors import as_layers
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient, parameters
from oscsim.response.expansion import Expansion, noise_columns, tail_columns
from oscsim.response.spectra import Spectra
from oscsim.signals import WhiteNoise
from oscsim.signals.drive import check_drive, turning_coefficient
from oscsim.signals.noise import AbstractForcing
from oscsim.signals.teaching import AbstractTeaching, Rotating


@checked(net=untraced, x=untraced, y=untraced, teaching=untraced, noise=untraced, at=untraced)
def predict_spread(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    teaching: AbstractTeaching,
    noise: AbstractForcing,
    cycles: int,
    *,
    ticks: int | None = None,
    at: At = None,
) -> Gradient:
    r"""The standard deviation of each parameter's estimate under weak additive noise on the potentials.

    The neurons obey $\tau\, du = (-u + \partial\Phi/\partial s)\, dt + q\, dW$ (white noise; any other of two-sided
    spectral density $S$ in place of $q^2$): real, independent for each neuron. The estimate is `Phasors.gradient` of
    the phasors averaged over $M$ locked cycles, read at $K$ ticks a cycle. With $R(\nu) = (i\nu\tau + 1 -
    \partial F/\partial u)^{-1}$ and $g$ the gradient that the lock-in reads, to first order in the noise,

    $$\mathrm{var}\, g = \frac{1}{MT} \sum_j \Bigl[ \frac{S(\omega)}{2} \Bigl| \frac{X_j}{A} + A \bar Z_j \Bigr|^2
    + S(0) \Bigl( \frac{\partial g}{\partial I_j} \Bigr)^2 \Bigr]$$

    - $X_j = -\partial^2\Phi/\partial\theta\partial s \cdot \sigma' R(\omega) e_j$: noise at $\omega$ on the phasor;
    - $I_j$, a static current into neuron $j$: slow noise moves the equilibrium, and $\chi$ with it;
    - $Z_j$: noise at $-\omega$, which the drive carries up to $0$ and $\omega$. With $X_j$ it leaves a term that is
      free of the amplitude like the one before, of either sign.

    Complex noise, in both quadratures alike, is independent at $\omega$ and $-\omega$: $|X_j/A|^2 + |A Z_j|^2$ stands
    in the first term, and $\frac12 S(0) |Y_j|^2$ in place of the second, with the complex $Y_j$ that has
    $\partial g/\partial I_j$ as its real part.

    Left out are terms of $O(A^4)$, of higher order in the noise (they also bias the mean), and those smaller by the
    slowest time constant over $MT$. Sampling folds noise at $\nu + kK\omega$ onto $\nu$: each term is summed over $k$.
    Of a real signal, such as `Cosine`, only the first term is complete.

    Costs four gradients per neuron and sample and holds a few (neurons, neurons) matrices; with noise that is shared
    over the batch, six per neuron and folded frequency, and those matrices for all samples at once.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        teaching: the signal; $A$ is the size of its first Fourier coefficient, half the amplitude for `Cosine`.
        noise: additive, such as `WhiteNoise` or `OrnsteinUhlenbeck`. Has `spectrum(omega)`, $S$ at an angular
            frequency, and `shared_over_batch`: whether all samples see one noise, which adds up, or each its own,
            which averages; and `quadratures`, unless it is real.
        cycles: $M$, how many are averaged.
        ticks: $K$, how often the demodulator reads in each; by default as often as `simulate` has it read under noise.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Returns:
        A pytree like `parameters(net)` of standard deviations.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: `noise` has no spectrum, is not additive, or acts in discrete time.
        ValueError: bad inputs or counts, a spectrum that is negative or not finite, a signal that does not turn, is
            read as points, or whose period the neurons cannot follow.

    Example:
        >>> signal, noise = osc.Rotating(0.2, 100.0), osc.WhiteNoise(0.1)
        >>> once, often = (osc.response.predict_spread(net, x, y, signal, noise, cycles=m) for m in (1, 4))
        >>> print(f"{osc.norm_ratio(once, often):.1f}")  # half at four times the cycles
        2.0
    """
    check_drive(net, teaching, lag_is_known=True)
    cycles, ticks = as_count("cycles", cycles), ticks_of(net, teaching.period, ticks)
    amplitude = _first_coefficient(net, teaching)
    spectra = Spectra.of(net, noise, float(teaching.period), ticks)
    inputs, free = free_state(net, x, y, at)
    weights = jnp.array([1 / amplitude, 1.0, amplitude], net.dtype)
    variance = unit_variance(net, inputs, free, spectra, weights, noise.shared_over_batch)
    return jax.tree.map(lambda v: jnp.sqrt(v / (cycles * teaching.period)).astype(v.dtype), variance)


def _first_coefficient(net: AbstractNetwork, teaching: AbstractTeaching) -> float:
    """The modulus of the signal's own first Fourier coefficient."""
    if teaching.points is not None:
        raise BadValue(
            f"{describe(teaching)} is read as points on its plateaus, not as phasors: use Rotating or Cosine"
        )
    return abs(turning_coefficient(teaching, net.dtype))


def ticks_of(net: AbstractNetwork, period: ArrayLike, ticks: int | None) -> int:
    """The ticks given, or those of a run under noise."""
    if ticks is not None:
        return as_count("ticks", ticks, FEWEST_TICKS)
    return Plan.of(Integration(), None, net, Rotating(1.0, period), (WhiteNoise(1.0),)).ticks


@eqx.filter_jit
def unit_variance(
    net: AbstractNetwork, inputs: Inputs, free: Equilibrium, spectra: Spectra, weights: Float[Array, "3"], shared: bool
) -> Gradient:
    r"""The variance of each parameter's estimate over one unit of time: $MT$ times that over $M$ cycles.

    `weights` are those of noise on the phasor, on the mean and from $-\omega$: $(1/A, 1, A)$.
    """
    batch = inputs.x.shape[0]
    nothing = jax.tree.map(jnp.zeros_like, parameters(net))

    def expansion_of(sample):
        inputs, u = sample
        return Expansion.of(net, inputs.clamped, inputs.y, u, spectra.omega.astype(net.dtype))

    def squares(inputs, expansion, columns):
        """The sum over columns (columns, batch, parts) of the squared gradients."""

        def one(column):
            half = column.shape[-1] // 2
            mean, phasor = jnp.split(lax.complex(column[:, :half], column[:, half:]), 2, axis=1)
            return _read_change(net, inputs, expansion, mean, phasor)

        def add(total, group):
            changes = jax.vmap(one)(group)
            return jax.tree.map(lambda t, c: t + jnp.sum(c**2, axis=0), total, changes), None

        neurons = expansion.c_0.shape[-1]
        return lax.scan(add, nothing, columns.reshape(neurons, -1, *columns.shape[1:]))[0]

    if shared:
        expansions = lax.map(expansion_of, (inputs, free.potentials))

        def add_fold(fold, total):
            columns = lax.map(lambda expansion: noise_columns(net, expansion, spectra, fold, weights), expansions)
            return jax.tree.map(jnp.add, total, squares(inputs, expansions, jnp.moveaxis(columns, 2, 0)))

        tail = lax.map(lambda expansion: tail_columns(net, expansion, spectra, weights), expansions)
        return lax.fori_loop(0, spectra.folds + 1, add_fold, squares(inputs, expansions, jnp.moveaxis(tail, 2, 0)))

    def of_sample(total, sample):
        expansion = expansion_of(sample)
        tail = tail_columns(net, expansion, spectra, weights)

        def add_fold(fold, covariance):
            columns = noise_columns(net, expansion, spectra, fold, weights)
            return covariance + columns @ columns.T

        covariance = lax.fori_loop(0, spectra.folds + 1, add_fold, tail @ tail.T)
        values, vectors = jnp.linalg.eigh(covariance)  # four columns per neuron stand for those of all frequencies
        columns = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]).T
        inputs, expansion = jax.tree.map(lambda a: a[None], (sample[0], expansion))
        return jax.tree.map(jnp.add, total, squares(inputs, expansion, columns[:, None])), None

    total = lax.scan(of_sample, nothing, (inputs, free.potentials))[0]
    return jax.tree.map(lambda t: t / batch**2, total)


def _read_change(net: AbstractNetwork, inputs: Inputs, expansion: Expansion, mean: Array, phasor: Array) -> Gradient:
    r"""The derivative of the gradient that is read along a change of $c_0$ and of $\chi$, (batch, neurons) each.

    Of $g(c_0, \chi) = -\nabla_\theta \frac{d}{d\epsilon} \mathrm{Re}\, \Psi(c_0 + \epsilon \chi, c_0, \epsilon)$:
    what neurons hear is $c_0$ too, and moves with it.
    """
    at, along = ((as_layers(net, a), as_layers(net, b)) for a, b in ((expansion.c_0, expansion.chi), (mean, phasor)))
    return jax.jvp(lambda c_0, chi: response_gradient(net, inputs, c_0, chi), at, along)[1]
