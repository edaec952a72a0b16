"""Imperfect hardware: networks, signals and demodulators as they would be built, wrapped around ideal ones.

Everything at zero strength is the ideal, bit for bit. Deviations are drawn once, from a key: a device keeps its faults.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Int, Key, PyTree, Real

from oscsim._arrays import Scalar, is_traced, require_key, scalar_named
from oscsim.demodulation import AbstractDemodulator, Reading
from oscsim.networks.activations import AbstractActivation
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, linear, split_parameters
from oscsim.networks.layered import LayeredNetwork
from oscsim.noise.base import not_negative
from oscsim.teaching import AbstractTeaching, signal_during


def _not_negative(name: str) -> Callable[[Any], Array]:
    return lambda value: not_negative(value, name)


def rounded(a: Array, resolution: Array) -> Array:
    """Real and imaginary part to the nearest multiple of the resolution; as they are where that is 0.

    The derivative passes straight through, as that of the ideal would.
    """
    if jnp.iscomplexobj(a):
        return lax.complex(rounded(a.real, resolution), rounded(a.imag, resolution))
    resolution = resolution.astype(a.dtype)
    step = jnp.where(resolution > 0, resolution, 1)
    return a + lax.stop_gradient(jnp.where(resolution > 0, jnp.round(a / step) * step - a, 0))


# Neurons that are not all alike.


class AbstractImperfectNetwork(AbstractNetwork):
    r"""A network around another one, of which it is all but $\Phi$.

    Attributes:
        network: the ideal one. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: what is not ideal, as arrays; never learned.
    """

    network: Any
    imperfection: tuple[Array, ...]

    def __init__(self, network: Any, imperfection: tuple[Array, ...]):
        self.network, self.imperfection = network, imperfection

    @property
    def activation(self) -> Callable:
        """That of the ideal network, as all that follows."""
        return self.network.activation

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers of neurons."""
        return self.network.shapes

    @property
    def time_constant(self) -> Any:
        """Of each layer or neuron."""
        return self.network.time_constant

    @property
    def input_shape(self) -> Any:
        """The shape of one input."""
        return self.network.input_shape

    @property
    def outputs(self) -> Any:
        """The number of classes."""
        return self.network.outputs

    def clamp(self, x: Real[Array, "..."]) -> PyTree[Array]:
        return self.network.clamp(x)


class UnequalGains(AbstractImperfectNetwork):
    r"""A network whose neurons differ in gain: $\Phi'(s) = \Phi(g \odot s)$.

    Each neuron emits $g_j \sigma(u_j)$ and weighs what it receives by $g_j$, as a transconductance does in both
    directions; the coupling stays symmetric, and the gradient exact for the network as it is. Made by `spread`.

    Attributes:
        network: the ideal one. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: $g$, one array per layer.
    """

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        return self.network.phi(clamped, self._scaled(s), y, beta)

    @property
    def directed(self) -> Callable | None:
        """What the network has without a potential, of the scaled activities; None if it has nothing."""
        inner = self.network.directed
        if inner is None:
            return None
        return lambda clamped, s, r, y, beta: inner(clamped, self._scaled(s), self._scaled(r), y, beta)

    def _scaled(self, s: Layers) -> Layers:
        return tuple(g * a for g, a in zip(self.imperfection, s, strict=True))


def spread(net: Any, key: Key[Array, ""], *, time_constant: Any = 0.0, gain: Any = 0.0) -> Any:
    r"""The network with time constants and gains that differ from neuron to neuron.

    $\tau_j = \tau e^{d_\tau \xi_j}$ and $g_j = e^{d_g \xi'_j}$ with normal $\xi$: log-normal, so positive, with the
    ideal value as the median.

    Args:
        net: the ideal network, with `time_constant` as a field.
        key: for the deviations.
        time_constant: $d_\tau \ge 0$, the relative deviation of the time constants, in natural logarithms.
        gain: $d_g \ge 0$, that of the gains (see `UnequalGains`); at a plain 0 the network is not wrapped.

    Raises:
        TypeError: not a network, or one whose time constant is no field.
        ValueError: a negative deviation.
    """
    check_parameters(net)
    require_key(key)
    of_tau, of_gain = not_negative(time_constant, "time_constant"), not_negative(gain, "gain")
    keys = jax.random.split(key, 2 * len(net.shapes))

    def factors(deviation, keys):
        return [
            jnp.exp(deviation.astype(net.dtype) * jax.random.normal(k, shape, net.dtype))
            for k, shape in zip(keys, net.shapes, strict=True)
        ]

    taus = [tau[0] if tau.ndim else tau for tau in net.time_constants]
    spread_out = tuple(tau * f for tau, f in zip(taus, factors(of_tau, keys[::2]), strict=True))
    if is_traced(of_tau) or float(of_tau) > 0:
        if "time_constant" not in vars(net):
            raise TypeError(
                f"time_constant={time_constant} for {type(net).__name__}, whose time constant is no field: make it one"
            )
        net = eqx.tree_at(lambda n: n.time_constant, net, spread_out)
    if is_traced(of_gain) or float(of_gain) > 0:
        # pyright takes the dataclass's __init__ for the one that the class inherits, here and below
        net = UnequalGains(net, tuple(factors(of_gain, keys[1::2])))  # pyright: ignore[reportCallIssue]
    return net


class MismatchedNetwork(AbstractImperfectNetwork):
    r"""A layered network whose backward path is another than its forward path: $B_l = W_l + \delta_l$.

    Layer $l + 1$ receives $W_l s_l + b_l$, layer $l$ receives $B_l^T s_{l+1}$ in return; with a readout the error
    $e = \partial C / \partial z$ comes back as $-\beta B_{out}^T e$. The force has no potential any more: it is
    $\partial_1\Psi(s, r)$ at $r = s$ of

    $$\Psi(s, r) = \Phi(s) + \sum_l r_{l+1} \cdot \delta_l (s_l - r_l)
    - \beta\, e(r) \cdot \delta_{out} (s_{last} - r_{last})$$

    What is added is 0 at $r = s$, and so are its derivatives by $\theta$ and $\beta$: the loss, and what a synapse
    sees, stay those of the forward path. The gradient that is read is not exact any more, which is what there is to
    study. $\delta$ is never learned. Made by `mismatch`.

    Attributes:
        network: the forward path. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: $\delta$, one (out, in) array per weight array but the first, which has no way back.
    """

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        """The forward path's."""
        return self.network.phi(clamped, s, y, beta)

    def directed(
        self, clamped: PyTree[Array], s: Layers, r: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]
    ) -> Array:
        r"""What comes back through $\delta$ to the layer below, from the layer above as it is heard."""
        net = self.network
        heard = list(r[1:])
        if net.cost.readout:
            output = linear(net.weights[-1], r[-1]) + net.biases[-1]
            heard.append(-beta * jax.grad(net.cost, holomorphic=jnp.iscomplexobj(output))(output, y))
        returned = [linear(delta, a - b) for delta, a, b in zip(self.imperfection, s, r, strict=False)]
        return sum((jnp.sum(a * b) for a, b in zip(heard, returned, strict=True)), jnp.zeros((), s[0].dtype))


def mismatch(net: Any, key: Key[Array, ""], *, deviation: Any) -> MismatchedNetwork:
    r"""The network with a backward path that differs from the forward one (see `MismatchedNetwork`).

    Args:
        net: a `LayeredNetwork`.
        key: for the deviations.
        deviation: standard deviation of $\delta_l$, relative to the root mean square of $W_l$.

    Raises:
        TypeError: another network, which has no forward and backward path to tell apart.
        ValueError: a negative deviation.
    """
    if not isinstance(net, LayeredNetwork):
        raise TypeError(f"net={type(net).__name__}: use a LayeredNetwork, whose forward and backward path are known")
    require_key(key)
    deviation = not_negative(deviation, "deviation")
    returning = net.weights[1:]
    keys = jax.random.split(key, len(returning))
    return MismatchedNetwork(  # pyright: ignore[reportCallIssue]
        net,
        tuple(
            deviation.astype(w.dtype) * jnp.sqrt(jnp.mean(w**2)) * jax.random.normal(k, w.shape, w.dtype)
            for w, k in zip(returning, keys, strict=True)
        ),
    )


# Limited precision.


def quantise(net: Any, resolution: Any) -> Any:
    """The network with every parameter at the nearest multiple of `resolution`, in units of the weights.

    Raises:
        TypeError: not a network.
        ValueError: a negative resolution.
    """
    check_parameters(net)
    resolution = not_negative(resolution, "resolution")
    learned, fixed = split_parameters(net)
    return eqx.combine(jax.tree.map(lambda w: rounded(w, resolution), learned), fixed)


class Quantised(AbstractActivation):
    r"""Activities in steps: real and imaginary part of $\sigma(u)$ at the nearest multiple of a resolution.

    No such function is holomorphic. It counts as holomorphic where the ideal is, because it stands for the ideal: how
    far the estimate is off is what there is to study. Its derivative is that of the ideal.

    Attributes:
        function: $\sigma$, the ideal.
        resolution: the step, in units of the activity.

    Raises:
        ValueError: a negative resolution.
    """

    function: Callable
    resolution: Scalar = eqx.field(converter=_not_negative("resolution"))

    @property
    def holomorphic(self) -> bool:
        """Whether the ideal is."""
        return getattr(self.function, "holomorphic", True)

    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return rounded(self.function(u), self.resolution)


# The teaching signal and its reader.


class DistortedTeaching(AbstractTeaching):
    r"""A teaching signal with harmonic distortion, a phase error, and a leak of one quadrature into the other.

    $\beta'(t) = e^{i\varphi} \left(\beta(t) + \sum_{n \ge 2} d_n\, \beta(n t) + \epsilon\, \overline{\beta(t)}
    \right)$. Harmonics leave the estimate exact to first order in the amplitude; the image $\epsilon$, a negative
    frequency as quadratures of unequal gain make it, biases it by $O(A^2)$ as `Cosine` does. The phase is harmless
    where the demodulator reads the signal itself; for a phase that it does not know see `ImperfectDemodulator`. A real
    signal stays real: the phase shifts its time, and it has no image.

    Attributes:
        teaching: the ideal.
        harmonics: $(d_2, d_3, ...)$, relative to the signal.
        phase: $\varphi$, in radians.
        image: $\epsilon$, relative.

    Raises:
        ValueError: numbers that are not finite.
    """

    teaching: Callable
    harmonics: tuple[Scalar, ...] = eqx.field(
        default=(), converter=lambda values: tuple(scalar_named("harmonics")(v) for v in values)
    )
    phase: Scalar = eqx.field(converter=scalar_named("phase"), default=0.0)
    image: Scalar = eqx.field(converter=scalar_named("image"), default=0.0)

    @property
    def period(self) -> Scalar:
        """The period of the signal itself."""
        return self.teaching.period  # type: ignore[attr-defined]

    @property
    def points(self) -> int | None:
        """The plateaus of the signal itself."""
        return getattr(self.teaching, "points", None)

    def __call__(self, t: Real[Array, ""]) -> Inexact[Array, "..."]:
        return self._distorted(self.teaching, t)

    def during(self, cycle: Any) -> Callable:
        """The signal within the cycle of that number, counted from 0."""
        signal = signal_during(self.teaching, cycle)
        return lambda t: self._distorted(signal, t)

    def _distorted(self, signal: Callable, t: Array) -> Array:
        is_complex = jnp.iscomplexobj(signal(t))
        t = t if is_complex else t + self.phase * self.period / (2 * math.pi)
        beta = signal(t)
        image = self.image * jnp.conj(beta) if is_complex else 0.0
        for n, part in enumerate(self.harmonics, start=2):
            beta += part * signal(jnp.mod(n * t, self.period))
        return (beta + image) * jnp.exp(1j * self.phase) if is_complex else beta


class ImperfectDemodulator(AbstractDemodulator):
    r"""A demodulator with a converter of finite resolution, and a reference that is out of phase.

    It sees real and imaginary part of the activities at the nearest multiple of `resolution`, and takes the teaching
    signal for $\beta e^{i\varphi}$: the response $c_1 / a_1$ is turned by $-\varphi$, and the gradient, its real part,
    comes out as $\cos\varphi$ of itself plus $\sin\varphi$ of the quadrature component.

    Attributes:
        demodulator: the ideal.
        resolution: the step, in units of the activity; 0 for none.
        phase: $\varphi$, in radians.

    Raises:
        ValueError: a negative resolution, a phase that is not finite.
    """

    demodulator: AbstractDemodulator
    resolution: Scalar = eqx.field(converter=_not_negative("resolution"), default=0.0)
    phase: Scalar = eqx.field(converter=scalar_named("phase"), default=0.0)

    @property
    def fewest_ticks(self) -> int:
        """As the ideal needs them."""
        return self.demodulator.fewest_ticks

    @property
    def warm_up(self) -> int:
        """As the ideal needs it."""
        return self.demodulator.warm_up

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> Any:
        return self.demodulator.init(s, beta, ticks)

    def begin(self, state: Any, cycle: Int[Array, ""]) -> Any:
        return self.demodulator.begin(state, cycle)

    def update(self, state: Any, s: Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int) -> Any:
        seen = tuple(rounded(layer, self.resolution) for layer in s)
        reference = beta * jnp.exp(1j * self.phase).astype(beta.dtype)
        return self.demodulator.update(state, seen, reference, tick, ticks)

    def read(self, state: Any) -> Reading:
        return self.demodulator.read(state)
