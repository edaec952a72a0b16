"""Layers with two ways: forward through some weights, and back through others."""

import abc
import functools
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact, Key, Real

from oscsim.core.arrays import is_traced, norm
from oscsim.core.checks import Given, as_array, as_key, as_scalar, instance
from oscsim.core.errors import BadType, BadValue
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters
from oscsim.networks.layered import AbstractLayered
from oscsim.networks.wrapped import AbstractWrappedNetwork

LAYERED = instance(
    AbstractLayered, "use a LayeredNetwork or a ConvolutionalNetwork, whose forward and backward ways are known"
)
"""The kind of networks that have two ways to tell apart."""

Feedback = tuple[Real[Array, "..."] | None, ...]
"""Weights of the way back, as many as those of the way forward; None where they are the same."""


class AbstractFeedback(AbstractWrappedNetwork[AbstractLayered]):
    r"""Layers of which each gives $f_l(W_l, s_l)$ to the next, and hears of it through other weights, $B_l$.

    With dense layers $l + 1$ receives $W_l s_l + b_l$ and $l$ receives $B_l^\top s_{l+1}$; with convolutions the way
    back is the transpose of $s_l \mapsto f_l(B_l, s_l)$. The force is $\partial_1\Psi(s, r)$ at $r = s$ of

    $$\Psi(s, r) = s_1 \cdot f_0(x) + \sum_{l \ge 1} \left[ s_{l+1} \cdot f_l(W_l, r_l) + r_{l+1} \cdot (f_l(B_l, s_l) -
    f_l(B_l, r_l)) \right] - \beta\, C(s)$$

    which at $r = s$ is $\Phi$ of the way forward. So plasticity is local to each way: of dense layers $W_l$ gets
    $-\mathrm{Re}\, \chi_{l+1} c_{0,l}^\top$, and $B_l^\top$ gets $-\mathrm{Re}\, \chi_l c_{0,l+1}^\top$. A readout
    outside the dynamics sends the error $e = \partial C/\partial z$ back through its own weights, $-\beta W_{out}^\top
    e$; through $B_{out}$ instead where that is given, by one more term, $-\beta\, e(r) \cdot (f_{out}(B_{out}, s) -
    f_{out}(B_{out}, r) - f_{out}(W_{out}, s) + f_{out}(W_{out}, r))$, which leaves the loss and the plasticity of the
    readout as they are.
    """

    @property
    @abc.abstractmethod
    def returning(self) -> Feedback:
        """The weights of the way back, aligned with `network.weights`; None where they are the same."""

    @property
    def symmetric(self) -> bool:
        """No: even where the weights agree, each way learns by itself."""
        return False

    def phi(self, clamped: Array, s: Layers, y: Array, beta: Inexact[Array, ""]) -> Array:
        r"""What has a potential: the input's drive and the cost, $s_1 \cdot f_0(x) - \beta C$."""
        return jnp.sum(s[0] * clamped) - beta * self.network.cost(self.network.output(s), y)

    def directed(self, clamped: Array, s: Layers, r: Layers, y: Array, beta: Inexact[Array, ""]) -> Array:
        """Both ways between the layers, and the readout's own way back."""
        net, back, total = self.network, self.returning, jnp.zeros((), s[0].dtype)
        for place, ((s_below, s_above), (r_below, r_above)) in enumerate(zip(pairwise(s), pairwise(r), strict=True), 1):
            weight, way_back, bias = net.weights[place], back[place], net.biases[place]
            returned = functools.partial(net.onward, place, weight if way_back is None else way_back, bias)
            total += jnp.sum(s_above * net.onward(place, weight, bias, r_below))
            total += jnp.sum(r_above * (returned(s_below) - returned(r_below)))
        if net.cost.readout and (returned := back[-1]) is not None:
            output = net.output(r)
            error = jax.grad(net.cost, holomorphic=jnp.iscomplexobj(output))(output, y)
            read = functools.partial(net.onward, len(net.weights) - 1, bias=net.biases[-1])
            apart = read(returned, s=s[-1]) - read(returned, s=r[-1])
            apart -= read(net.weights[-1], s=s[-1]) - read(net.weights[-1], s=r[-1])
            total -= beta * jnp.sum(error * apart)
        return total

    @property
    def angles(self) -> dict[str, Float[Array, ""]]:
        """The angle between the two ways in degrees, by the name of the forward weights; those that differ by place."""
        ways = [(place, w, b) for place, (w, b) in enumerate(zip(self.network.weights, self.returning, strict=True))]
        return {f"weights[{place}]": _angle(w, b) for place, w, b in ways if b is not None}


def _angle(a: Array, b: Array) -> Float[Array, ""]:
    cosine = jnp.sum(a * b) / jnp.maximum(norm(a) * norm(b), jnp.finfo(a.dtype).tiny)
    return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))


class OwnFeedback(AbstractFeedback):
    r"""A layered or convolutional network with feedback weights of its own, which learn by the same local rule.

    $\Psi$, the force and what each way learns are those of `AbstractFeedback`. At $B = W$ the neurons move as those of
    `network` do, and the gradients of $W$ and of $B$ sum to its gradient.

    What a lock-in reads of it is not the exact gradient: `run.error()` tells how far it is off, `Homeostatic` brings
    the two ways together while they learn, a `CorrectedNetwork` is read exactly.

    Attributes:
        network: the way forward. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        feedback: $B$, one array for each of `network.weights` and of its shape; None where the same weights lead back,
            as they do from a readout unless its own way is given, and in the first place, from where nothing leads
            back.

    Args:
        feedback: your own, likewise; by default drawn at an angle.
        angle: between the two ways at the start, in degrees: $B = \cos(a)\, W + \sin(a)\, G$, with normal $G$ of the
            size of $W$.
        key: for $G$.

    Raises:
        TypeError: another network, which has no two ways to tell apart; an angle and no key.
        ValueError: arrays that do not fit, an angle that is not finite, an angle beside arrays of your own.

    Source: Laborieux & Zenke (2024).

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> own = osc.OwnFeedback(deep, angle=60.0, key=jax.random.key(1))
        >>> [None if b is None else b.shape for b in own.feedback]
        [None, (4, 5)]
    """

    network: AbstractLayered
    feedback: Feedback

    def __init__(
        self,
        network: AbstractNetwork,
        feedback: Given = None,
        *,
        angle: ArrayLike | None = None,
        key: Key[Array, ""] | None = None,
    ):
        self.network = LAYERED("network", network)
        self.feedback = _feedback(self.network, feedback, angle, key)

    @property
    def returning(self) -> Feedback:
        return self.feedback


class FixedFeedback(AbstractFeedback):
    r"""A layered or convolutional network with feedback weights that are never learned, as in feedback alignment.

    $\Psi$ and the force are those of `AbstractFeedback`. With $B = 0$ inference is feed-forward: then a
    `CorrectedNetwork` backpropagates by oscillating.

    Attributes:
        network: the way forward. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
        fixed_feedback: $B$, as in `OwnFeedback`.

    Args:
        feedback, angle, key: as in `OwnFeedback`.

    Raises:
        TypeError, ValueError: as `OwnFeedback`.

    Source: Lillicrap et al. (2016), for feed-forward networks.

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> feed_forward = osc.FixedFeedback(deep, [None, np.zeros((4, 5))])
        >>> len(jax.tree.leaves(osc.parameters(feed_forward))) == len(jax.tree.leaves(osc.parameters(deep)))
        True
    """

    network: AbstractLayered
    fixed_feedback: Feedback

    def __init__(
        self,
        network: AbstractNetwork,
        feedback: Given = None,
        *,
        angle: ArrayLike | None = None,
        key: Key[Array, ""] | None = None,
    ):
        self.network = LAYERED("network", network)
        self.fixed_feedback = _feedback(self.network, feedback, angle, key)

    @property
    def returning(self) -> Feedback:
        return self.fixed_feedback


def _feedback(net: AbstractLayered, given: Given, angle: ArrayLike | None, key: Key[Array, ""] | None) -> Feedback:
    """The way back: what is given, or what is drawn at an angle."""
    check_parameters(net)
    expected = (
        f"give {len(net.weights)} entries, the first of them None, each other None or of the shape of the weights"
    )
    match given:
        case None:
            return _at_angle(net, 0.0 if angle is None else angle, key)
        case (None, *others) if len(others) == len(net.weights) - 1:
            pass
        case tuple() | list():
            raise BadValue(f"feedback has {len(given)} entries, or something in the first place: {expected}")
        case _:
            raise BadType(f"feedback is a {type(given).__name__}: {expected}")
    if angle is not None:
        raise BadValue(f"angle={angle}: the feedback is given, none is drawn; leave it out")
    arrays = [
        None if b is None else as_array(f"feedback[{place}]", b, w.shape).astype(w.dtype)
        for place, (b, w) in enumerate(zip(others, net.weights[1:], strict=True), 1)
    ]
    return (None, *arrays)


def _at_angle(net: AbstractLayered, angle: ArrayLike, key: Key[Array, ""] | None) -> Feedback:
    turn = jnp.radians(as_scalar("angle", angle))
    between = net.weights[1:-1] if net.cost.readout else net.weights[1:]
    rest = (None,) * (len(net.weights) - 1 - len(between))
    if not is_traced(turn) and float(turn) == 0:
        return (None, *between, *rest)
    if key is None:
        raise BadType(f"key is None, and feedback at angle={angle} is to be drawn: give key=jax.random.key(0)")
    keys = jax.random.split(as_key("key", key), max(len(between), 1))
    drawn = [
        (jnp.cos(turn) * w + jnp.sin(turn) * jnp.sqrt(jnp.mean(w**2)) * jax.random.normal(k, w.shape, w.dtype)).astype(
            w.dtype
        )
        for k, w in zip(keys, between, strict=False)
    ]
    return (None, *drawn, *rest)
