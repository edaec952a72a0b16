"""Imperfect neurons: gains and time constants that differ, couplings that differ in the two directions."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, Key, PyTree, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_key, not_negative
from oscsim.core.errors import BadType, BadValue
from oscsim.equilibrium.corrected import require_uncorrected
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters
from oscsim.networks.feedback import LAYERED, AbstractFeedback, Feedback
from oscsim.networks.layered import AbstractLayered
from oscsim.networks.wrapped import AbstractWrappedNetwork


class UnequalGains(AbstractWrappedNetwork[AbstractNetwork]):
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

    network: AbstractNetwork
    imperfection: tuple[Array, ...]

    def __init__(self, network: AbstractNetwork, imperfection: tuple[Array, ...]):
        self.network, self.imperfection = require_uncorrected("network", network), imperfection

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
        if isinstance(net, AbstractWrappedNetwork):
            raise BadType(
                f"net is a {type(net).__name__}, around a network whose time constants are to be spread: spread that "
                "first, then put the others around it"
            )
        if "time_constant" not in vars(net):
            raise BadType(
                f"time_constant={time_constant} for {type(net).__name__}, whose time constant is no field: make it one"
            )
        net = eqx.tree_at(lambda n: n.time_constant, net, spread_out)
    if is_traced(of_gain) or float(of_gain) > 0:
        net = UnequalGains(net, tuple(factors("gain", of_gain, keys[1::2])))
    return net


class MismatchedNetwork(AbstractFeedback):
    r"""A network whose backward path differs from its forward path: $B_l = W_l + \delta_l$.

    Force and plasticity are those of `AbstractFeedback`, the readout's way back included. The forward path learns, and
    $\delta$ stays. With one layer of neurons and a readout the free state is that of the ideal network, and so is the
    exact gradient. With more of them the feedback between layers moves the free state: the exact gradient is then
    `exact_gradient` of this network, not of the ideal one. The gradient that is read is not exact any more, which is
    what there is to study. Made by `mismatch`.

    Attributes:
        network: the forward path. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        imperfection: $\delta$, one array per weight array but the first, which has no way back; never learned.

    Example:
        >>> uneven = osc.hardware.mismatch(net, jax.random.key(0), deviation=0.1)
        >>> uneven.symmetric, net.symmetric  # whether the force has a potential
        (False, True)
    """

    network: AbstractLayered
    imperfection: tuple[Array, ...]

    def __init__(self, network: AbstractLayered, imperfection: tuple[Array, ...]):
        self.network, self.imperfection = network, imperfection

    @property
    def returning(self) -> Feedback:
        r"""$W + \delta$."""
        return (None, *(w + delta for w, delta in zip(self.network.weights[1:], self.imperfection, strict=True)))


def mismatch(net: AbstractNetwork, key: Key[Array, ""], *, deviation: ArrayLike) -> MismatchedNetwork:
    r"""The network with a backward path that differs from the forward one (see `MismatchedNetwork`).

    Args:
        net: a `LayeredNetwork` or a `ConvolutionalNetwork`.
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
    return MismatchedNetwork(
        layered,
        tuple(
            deviation.astype(w.dtype) * jnp.sqrt(jnp.mean(w**2)) * jax.random.normal(k, w.shape, w.dtype)
            for w, k in zip(returning, keys, strict=True)
        ),
    )
