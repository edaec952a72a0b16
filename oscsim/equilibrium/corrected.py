r"""The exact oscillation of networks without symmetry: the mean goes the one way, and the oscillation the other."""

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, PyTree, Real

from oscsim.core.arrays import is_traced, per_sample, to_complex
from oscsim.core.checks import positive
from oscsim.core.errors import BadType
from oscsim.equilibrium.settling import free_equilibrium, settle_inputs
from oscsim.equilibrium.states import default_tolerance, is_settled
from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant, as_network
from oscsim.networks.inputs import Inputs
from oscsim.networks.wrapped import AbstractWrappedNetwork


class AbstractCorrection(AbstractWrappedNetwork[AbstractNetwork]):
    r"""A network whose oscillation runs through the transpose of its couplings.

    Beside the force $F$ of the network within, each neuron receives $(K^\top - K)(s - \bar s)$, where $K = \partial
    F/\partial s$ and $\bar s$, the anchor, is the free equilibrium; and the cost acts as $-\beta\,\partial C/\partial
    s$ alone. The correction vanishes at the free equilibrium, which stays where it is. Around it the response is that
    of $K^\top$: $(1 + i\omega\tau - K^\top \sigma')\, v = -\partial C/\partial s$, so $\chi$ tends to the exact
    adjoint, $-\lambda$, as the period grows, at any amplitude within the radius of the corrected network.

    $\Psi$, and with it plasticity and loss, is that of the network within. The correction costs one product with $K$
    and one with $K^\top$ for each force, and no matrix.
    """

    @property
    def symmetric(self) -> bool:
        """No: the Jacobian of the force is that of the other direction."""
        return False

    def corrected(
        self, clamped: PyTree[Array], s: Layers, anchor: Layers, y: Real[Array, "batch ..."], beta: ArrayLike
    ) -> Layers:
        r"""$F(s) + (K^\top - K)(s - \bar s) - \beta\,\partial C/\partial s$ of a batch, with $K$ at $\bar s$."""
        net, at = self.network, jnp.asarray(beta)
        if any(jnp.iscomplexobj(a) for a in (*s, *anchor, at)):
            s, anchor, at = to_complex((s, anchor, at))
        free: Callable[[Layers], Layers] = lambda s: net.force(clamped, s, y, jnp.zeros((), s[0].dtype))  # noqa: E731
        away = jax.tree.map(jnp.subtract, s, anchor)
        _, forward = jax.linearize(free, anchor)
        (back,) = jax.linear_transpose(forward, anchor)(away)
        return jax.tree.map(
            lambda f, b, k, c: f + (b - k) + c, free(s), back, forward(away), self._taught(clamped, s, y, at)
        )

    def _taught(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "batch ..."], beta: Array) -> Layers:
        r"""$-\beta\,\partial C/\partial s$ of a batch, where $C = -\partial\Psi/\partial\beta$."""
        net = self.network

        def cost(s, clamped, y, beta):
            return jax.jvp(lambda b: net.psi(clamped, s, s, y, b), (jnp.zeros_like(beta),), (beta,))[1]

        slope = jax.grad(cost, holomorphic=jnp.iscomplexobj(beta))
        return jax.vmap(slope, in_axes=(0, 0, 0, 0 if beta.ndim else None))(s, clamped, y, beta.astype(s[0].dtype))


class CorrectedNetwork(AbstractCorrection):
    r"""A network without symmetry, read exactly: its oscillation runs through the transpose of its couplings.

    Force and plasticity are those of `AbstractCorrection`. The anchor $\bar s$ is the free equilibrium of each input,
    settled once per batch.

    Attributes:
        network: any network. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.

    Raises:
        TypeError: not a network; when used, inputs that move within a cycle, or `learn`: see `MeasuredCorrection`.
        NotSettledError: the network has no stable free state for one of its inputs.

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> own = osc.OwnFeedback(deep, angle=60.0, key=jax.random.key(1))
        >>> estimator = osc.LockIn(osc.Rotating(0.05, 400.0), extrapolate=True)
        >>> for network in (own, osc.CorrectedNetwork(own)):
        ...     read = estimator(network, x, y, tolerance=np.inf).gradient
        ...     print(f"{osc.relative_error(read, osc.exact_gradient(network, x, y)):.2f}")
        0.63
        0.00
    """

    network: AbstractNetwork
    settles = True

    def __init__(self, network: AbstractNetwork):
        self.network = as_inner(network)

    def clamped(self, x: Real[Array, "batch ..."]) -> PyTree[Array]:
        """What the inputs contribute within, and the anchor of each."""
        net, level = self.network, default_tolerance(self.network.dtype)
        inner = net.clamped(x)
        shown = Inputs(x, _some_targets(net, x, inner), inner)
        if is_traced(net, x):  # following neurons in time would be most of the program
            free = settle_inputs(net, shown, jnp.zeros(()), np.asarray(level), method="sweeps")
        else:
            free = free_equilibrium(net, shown)
        at_rest = is_settled(free, level)
        return inner, tuple(jnp.where(per_sample(at_rest, s), s, jnp.nan) for s in free.activities)

    def begun(self, inputs: Inputs) -> Layers:
        """The anchor's potentials, which of several states is the one that counts; rest where it was not found."""
        inner, anchor = inputs.clamped
        held = self.network.force(inner, anchor, inputs.y, jnp.zeros((), self.dtype))
        return tuple(jnp.where(jnp.isfinite(u), u, 0) for u in held)

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        """That of the network within."""
        return self.network.phi(clamped[0], s, y, beta)

    @property
    def directed(self) -> Callable | None:
        """What the network within has without a potential; None if it has nothing."""
        inner = self.network.directed
        return None if inner is None else lambda clamped, *rest: inner(clamped[0], *rest)

    def force(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "batch ..."], beta: ArrayLike) -> Layers:
        r"""$F(s) + (K^\top - K)(s - \bar s) - \beta\,\partial C/\partial s$ for a batch."""
        inner, anchor = clamped
        return self.corrected(inner, s, anchor, y, beta)


def _some_targets(net: AbstractNetwork, x: Array, clamped: PyTree[Array]) -> Array:
    """Targets that the cost takes: what settles freely does not depend on them."""
    outputs, s = 1 if net.outputs is None else net.outputs, net.activities(net.rest(x.shape[0]))
    some = jnp.zeros((x.shape[0], outputs), net.dtype), jnp.zeros(x.shape[0], jnp.int32)
    for y in some:
        with contextlib.suppress(TypeError, ValueError, IndexError):
            jax.eval_shape(net.loss, clamped, s, y)
            return y
    raise BadType(
        f"network={type(net).__name__} has a cost that takes neither labels nor vectors of `outputs` numbers, "
        "which its free state is settled with: give it outputs"
    )


def uncorrected(network: AbstractNetwork) -> AbstractNetwork:
    """The network whose couplings count: that within a correction, or itself."""
    return network.network if isinstance(network, AbstractCorrection) else network


def as_inner(network: AbstractNetwork) -> AbstractNetwork:
    """A network to correct, or an error that names what is none, or is corrected already."""
    return require_uncorrected("network", as_network("network", network))


def require_uncorrected(name: str, network: AbstractNetwork) -> AbstractNetwork:
    """Refuse a corrected network: it answers otherwise than its scalar says, which other wrappers start from.

    Raises:
        TypeError: a corrected network.
    """
    if isinstance(network, AbstractCorrection):
        raise BadType(f"{name} is a {type(network).__name__}: correct last, after what else is put around a network")
    return network


def require_frozen(name: str, network: AbstractNetwork, what: str) -> None:
    """Refuse a network whose anchor is measured where nothing turns: it would follow, and correct nothing.

    Raises:
        TypeError: such a network.
    """
    if isinstance(network, MeasuredCorrection):
        raise BadType(
            f"{name} is a MeasuredCorrection, whose anchor follows {what}: use CorrectedNetwork, whose anchor stays"
        )


class MeasuredCorrection(AbstractCorrection):
    r"""A network without symmetry, read exactly, whose anchor is measured by a slow filter in the same equation.

    Force and plasticity are those of `AbstractCorrection`, with $\kappa\, \dot{\bar s} = s - \bar s$: for each layer of
    neurons there is one more layer, of filters, whose activity is its potential. Nothing is settled beforehand. The
    reading is off by $O((\omega\kappa)^{-2}) + O(\tau/\kappa)$. Where nothing turns, the anchor follows and corrects
    nothing: estimators that settle refuse it. With $P = \sigma'^{-1} - K$ the anchor follows
    $\kappa\, \dot{\bar s} = -P^{-\top} P\, (\bar s - s^*)$: it runs away where an eigenvalue of $P^{-\top} P$ has a
    negative real part, which `osc.response.anchor_rates` tells beforehand.

    Attributes:
        network: any network. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        filter_time: $\kappa$, in the unit of the neurons' time constants; much longer than them and than the period.

    Raises:
        TypeError: not a network.
        ValueError: a time that is not positive.

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> own = osc.OwnFeedback(deep, angle=60.0, key=jax.random.key(1))
        >>> osc.MeasuredCorrection(own, filter_time=1000.0).shapes  # neurons, then filters
        ((5,), (4,), (5,), (4,))
    """

    network: AbstractNetwork
    filter_time: Array

    def __init__(self, network: AbstractNetwork, filter_time: ArrayLike):
        self.network = as_inner(network)
        self.filter_time = positive("filter_time")(filter_time)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers of neurons, then those of their filters."""
        return 2 * self.network.shapes

    @property
    def time_constant(self) -> TimeConstant:
        """Of each layer of neurons, then of each layer of filters."""
        own = [tau[0] if tau.ndim else tau for tau in self.network.time_constants]
        return (*own, *(jnp.asarray(self.filter_time, self.dtype),) * len(own))

    @property
    def following(self) -> tuple[Array, ...]:
        """The time constants of the neurons: the filters are meant to be slower than the signal."""
        return self.network.following

    def activities(self, u: Layers) -> Layers:
        """Those of the neurons; that of a filter is its potential."""
        neurons, filters = self._split(u)
        return (*self.network.activities(neurons), *filters)

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        """That of the network within."""
        return self.network.phi(clamped, self._split(s)[0], y, beta)

    @property
    def directed(self) -> Callable | None:
        """What the network within has without a potential; None if it has nothing."""
        inner = self.network.directed
        if inner is None:
            return None
        return lambda clamped, s, r, y, beta: inner(clamped, self._split(s)[0], self._split(r)[0], y, beta)

    def force(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "batch ..."], beta: ArrayLike) -> Layers:
        r"""$F(s) + (K^\top - K)(s - \bar s) - \beta\,\partial C/\partial s$ for a batch; and $s$, for the filters."""
        neurons, anchor = self._split(s)
        moved = self.corrected(clamped, neurons, anchor, y, beta)
        return (*moved, *(a.astype(f.dtype) for a, f in zip(neurons, moved, strict=True)))

    def anchored(self, clamped: PyTree[Array], s: Layers) -> tuple[AbstractNetwork, PyTree[Array], Layers]:
        """The network with its anchor held at the neurons' activities."""
        neurons, _ = self._split(s)
        return CorrectedNetwork(self.network), (clamped, tuple(a.real for a in neurons)), neurons

    def begun(self, inputs: Inputs) -> Layers:
        """The free equilibrium within, and its activities: the filters need not be waited for."""
        level = np.asarray(default_tolerance(self.dtype))
        method = "sweeps" if is_traced(self.network, inputs) else None
        free = settle_inputs(self.network, inputs, jnp.zeros(()), level, method=method)
        found = (*free.potentials, *free.activities)
        return tuple(jnp.where(jnp.isfinite(a), a, 0) for a in found)

    def _split(self, layers: Layers) -> tuple[Layers, Layers]:
        """(Of the neurons, of the filters)."""
        count = len(self.network.shapes)
        return tuple(layers[:count]), tuple(layers[count:])
