"""Imperfect neurons: gains and time constants that differ, couplings that differ in the two directions."""

from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, Key, PyTree, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_key, instance, not_negative
from oscsim.core.errors import BadType, BadValue
from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant, check_parameters, linear
from oscsim.networks.layered import LayeredNetwork

Wrapped = TypeVar("Wrapped", bound=AbstractNetwork)


class AbstractImperfectNetwork(AbstractNetwork, Generic[Wrapped]):
    r"""A network around another one, of which it is all but $\Phi$.

    Attributes:
        network: the ideal one. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: what is not ideal, as arrays; never learned.
    """

    network: Wrapped
    imperfection: tuple[Array, ...]

    def __init__(self, network: Wrapped, imperfection: tuple[Array, ...]):
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
    def time_constant(self) -> TimeConstant:
        """Of each layer or neuron."""
        return self.network.time_constant

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one input."""
        return self.network.input_shape

    @property
    def outputs(self) -> int | None:
        """The number of classes."""
        return self.network.outputs

    def clamp(self, x: Real[Array, "..."]) -> PyTree[Array]:
        return self.network.clamp(x)


class UnequalGains(AbstractImperfectNetwork[AbstractNetwork]):
    r"""A network whose neurons differ in gain: $\Phi'(s) = \Phi(g \odot s)$.

    Each neuron emits $g_j \sigma(u_j)$ and weighs what it receives by $g_j$, as a transconductance does in both
    directions; the coupling stays symmetric, and the gradient exact for the network as it is. Made by `spread`.

    Attributes:
        network: the ideal one. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: $g$, one array per layer.

    Example:
        >>> uneven = osc.hardware.UnequalGains(net, (jnp.array([0.9, 1.0, 1.1, 1.0, 0.8]),))
        >>> osc.settle(uneven, x, y).activities[0].shape, uneven.symmetric
        ((3, 5), True)
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


def spread(
    net: AbstractNetwork, key: Key[Array, ""], *, time_constant: ArrayLike = 0.0, gain: ArrayLike = 0.0
) -> AbstractNetwork:
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

    Example:
        >>> uneven = osc.hardware.spread(net, jax.random.key(0), time_constant=0.1, gain=0.1)
        >>> uneven.time_constant[0].shape, uneven.imperfection[0].shape
        ((5,), (5,))
    """
    check_parameters(net)
    as_key("key", key)
    of_tau, of_gain = not_negative("time_constant")(time_constant), not_negative("gain")(gain)
    keys = jax.random.split(key, 2 * len(net.shapes))

    def factors(name, deviation, keys):
        found = [
            jnp.exp(deviation.astype(net.dtype) * jax.random.normal(k, shape, net.dtype))
            for k, shape in zip(keys, net.shapes, strict=True)
        ]
        if not is_traced(found) and not all(np.all(np.isfinite(a) & (np.asarray(a) > 0)) for a in found):
            raise BadValue(f"{name}={float(deviation):g} leaves factors that are 0 or not finite: use a smaller one")
        return found

    taus = [tau[0] if tau.ndim else tau for tau in net.time_constants]
    spread_out = tuple(tau * f for tau, f in zip(taus, factors("time_constant", of_tau, keys[::2]), strict=True))
    if is_traced(of_tau) or float(of_tau) > 0:
        if "time_constant" not in vars(net):
            raise BadType(
                f"time_constant={time_constant} for {type(net).__name__}, whose time constant is no field: make it one"
            )
        net = eqx.tree_at(lambda n: n.time_constant, net, spread_out)
    if is_traced(of_gain) or float(of_gain) > 0:
        # pyright takes the dataclass's __init__ for the one that the class inherits, here and below
        net = UnequalGains(net, tuple(factors("gain", of_gain, keys[1::2])))  # pyright: ignore[reportCallIssue]
    return net


class MismatchedNetwork(AbstractImperfectNetwork[LayeredNetwork]):
    r"""A layered network whose backward path differs from its forward path: $B_l = W_l + \delta_l$.

    Layer $l + 1$ receives $W_l s_l + b_l$, layer $l$ receives $B_l^T s_{l+1}$ in return; with a readout the error
    $e = \partial C / \partial z$ comes back as $-\beta B_{out}^T e$. The force has no potential any more: it is
    $\partial_1\Psi(s, r)$ at $r = s$ of

    $$\Psi(s, r) = \Phi(s) + \sum_l r_{l+1} \cdot \delta_l (s_l - r_l)
    - \beta\, e(r) \cdot \delta_{out} (s_{last} - r_{last})$$

    What is added is 0 at $r = s$, and so are its derivatives by $\theta$ and $\beta$: as functions of the activities,
    the loss and what a synapse sees stay those of the forward path. With one layer of neurons and a readout the free
    state stays as well, and so the exact gradient. With more of them the feedback between layers moves the free state:
    the exact gradient is then `exact_gradient` of this network, not of the ideal one. The gradient that is read is not
    exact any more, which is what there is to study. $\delta$ is never learned. Made by `mismatch`.

    Attributes:
        network: the forward path. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: $\delta$, one (out, in) array per weight array but the first, which has no way back.

    Example:
        >>> uneven = osc.hardware.mismatch(net, jax.random.key(0), deviation=0.1)
        >>> uneven.symmetric, net.symmetric  # whether the force has a potential
        (False, True)
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


LAYERED = instance(LayeredNetwork, "use a LayeredNetwork, whose forward and backward path are known")


def mismatch(net: AbstractNetwork, key: Key[Array, ""], *, deviation: ArrayLike) -> MismatchedNetwork:
    r"""The network with a backward path that differs from the forward one (see `MismatchedNetwork`).

    Args:
        net: a `LayeredNetwork`.
        key: for the deviations.
        deviation: standard deviation of $\delta_l$, relative to the root mean square of $W_l$.

    Raises:
        TypeError: another network, which has no forward and backward path to tell apart.
        ValueError: a negative deviation.

    Example:
        >>> uneven = osc.hardware.mismatch(net, jax.random.key(0), deviation=0.1)
        >>> [delta.shape for delta in uneven.imperfection]
        [(4, 5)]
    """
    layered = LAYERED("net", net)
    check_parameters(layered)
    as_key("key", key)
    deviation = not_negative("deviation")(deviation)
    returning = layered.weights[1:]
    keys = jax.random.split(key, len(returning))
    return MismatchedNetwork(  # pyright: ignore[reportCallIssue]
        layered,
        tuple(
            deviation.astype(w.dtype) * jnp.sqrt(jnp.mean(w**2)) * jax.random.normal(k, w.shape, w.dtype)
            for w, k in zip(returning, keys, strict=True)
        ),
    )
