r"""A network is one holomorphic scalar, and everything else follows from it.

$\Phi(\theta; x, s, y, \beta) = \Phi_0(\theta; x, s) - \beta\, C(\theta; s, y)$, holomorphic in the activities $s$ and
in the teaching signal $\beta$, with real parameters $\theta$. Its derivatives are the force on the neurons
($\partial\Phi/\partial s$), the plasticity of the synapses ($\partial\Phi/\partial\theta$) and the cost
($-\partial\Phi/\partial\beta$); all are taken by autodiff here, for every network.

A force without a potential follows from a scalar of two arguments, $\Psi(s, r) = \Phi(s) + D(s, r)$: what a neuron
emits, $s$, and what it hears, $r$. The force is $\partial_1\Psi(s, r)$ at $r = s$. Every derivative of the force moves
both arguments; plasticity, $\partial\Psi/\partial\theta$ along a change of $s$, moves the first only.
"""

import abc
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, PyTree, Real

from oscsim.core.arrays import describe, is_traced, to_complex
from oscsim.core.checks import Given, as_count, as_native, as_numbers, checked, require_instance, shown
from oscsim.core.errors import BadType, BadValue, NotHolomorphicError
from oscsim.core.printing import Row
from oscsim.networks.learned import (
    SETTINGS,
    AbstractLearned,
    Gradient,
    as_trainable,
    is_setting,
    named,
    parameters,
    split_parameters,
)

if TYPE_CHECKING:  # what is read of a run may lie on the host, where it is used the same way
    Layers: TypeAlias = tuple[Array, ...]
else:
    Layers = tuple[Inexact[Array | np.ndarray, "..."], ...]
"""One array per layer of neurons; in a batch, the leading axis of each is the sample."""

TimeConstant: TypeAlias = ArrayLike | tuple[ArrayLike, ...]
"""One for all neurons, or one for each layer; an entry may be an array, one for each neuron."""


@checked(weight=as_numbers, s=as_numbers)
def linear(weight: Real[Array, "out in"], s: Inexact[Array, " in"]) -> Inexact[Array, " out"]:
    """The product of real weights with real or complex activities.

    Two real products instead of a complex one: four times cheaper than casting the weights, and just as fast under
    `jax.grad` and `jax.vmap`.

    Example:
        >>> print(osc.linear(jnp.array([[1.0, 2.0]]), jnp.array([1.0, 1.0j])))
        [1.+2.j]
    """
    if jnp.ndim(weight) != 2 or jnp.shape(weight)[1:] != jnp.shape(s):
        raise BadValue(
            f"weight has shape {jnp.shape(weight)} and s {jnp.shape(s)}: give a matrix (out, in), and (in,) activities"
        )
    if not jnp.iscomplexobj(s):
        return weight @ s
    return lax.complex(weight @ s.real, weight @ s.imag)


class AbstractNetwork(AbstractLearned):
    r"""Neurons with potentials $u$, activities $s = \sigma(u)$, and $\tau \dot u = -u + \partial\Phi/\partial s$.

    A network of your own gives four things, each for *one* sample; batching is done here:

    - `activation`: $\sigma$, an `AbstractActivation` or any callable on arrays;
    - `shapes`: the shape of each layer of neurons, a tuple of tuples;
    - `clamp(x)`: what the input contributes, computed once per input and not per time step;
    - `phi(clamped, s, y, beta)`: the scalar $\Phi$, with `s` one array per layer.

    and may give more, as fields or class attributes: `time_constant` ($\tau$, one number or a tuple with one
    per layer, each a number or an array over its neurons), `input_shape` and `outputs` (the shape of one input and
    the number of classes or of real outputs; `x` and `y` are checked against them before anything runs).

    One whose force has no potential also gives `directed(clamped, s, r, y, beta)`: the scalar $D$ in
    $\Psi(s, r) = \Phi(s) + D(s, r)$, of what neurons emit, $s$, and what they hear, $r$, one array per layer each. The
    force is then $\partial\Phi/\partial s + \partial_1 D(s, r)$ at $r = s$, where $\partial D/\partial\beta$ vanishes:
    the loss is in $\Phi$. With $D = s \cdot F(\theta; r)$ and $\Phi = -\beta C(s)$ it is any vector field $F$.

    Every real array of the network is a parameter, but for those in activations, costs, poolings, and in fields called
    `imperfection`, `time_constant`, `fixed_feedback` or `filter_time`. An activation that is a plain function cannot
    say whether it is holomorphic: ask `check_holomorphic`.

    Example:
        >>> class Single(osc.AbstractNetwork):  # one layer of neurons, which are the outputs
        ...     weights: jax.Array
        ...     activation = osc.Tanh()
        ...     shapes = ((4,),)
        ...     def clamp(self, x):
        ...         return osc.linear(self.weights, x)
        ...     def phi(self, clamped, s, y, beta):
        ...         return jnp.sum(clamped * s[0]) - beta * osc.SquaredError()(s[0], y)
        >>> single = Single(0.1 * jax.random.normal(jax.random.key(0), (4, 6)))
        >>> osc.exact_gradient(single, x, y).weights.shape
        (4, 6)
    """

    activation: eqx.AbstractVar[Callable]
    shapes: eqx.AbstractVar[tuple[tuple[int, ...], ...]]

    time_constant: ClassVar[TimeConstant] = 1.0
    input_shape: ClassVar[tuple[int, ...] | None] = None
    outputs: ClassVar[int | None] = None
    directed: ClassVar[Callable[..., Array] | None] = None

    @abc.abstractmethod
    def clamp(self, x: Real[Array, "..."]) -> PyTree[Array]:
        """What one input contributes to `phi`, as a pytree of arrays of your choice."""

    @abc.abstractmethod
    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        r"""$\Phi$ of one sample: a scalar, holomorphic in `s` and affine in `beta`."""

    @eqx.filter_jit
    def clamped(self, x: Real[Array, "batch ..."]) -> PyTree[Array]:
        """What each input of a batch contributes; `clamp` of each, unless a network has more to say of a batch."""
        return jax.vmap(self.clamp)(x)

    def psi(
        self, clamped: PyTree[Array], s: Layers, r: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]
    ) -> Array:
        r"""$\Psi(s, r) = \Phi(s) + D(s, r)$ of one sample: what neurons emit, $s$, and what they hear, $r$.

        Without `directed` this is $\Phi(s)$, and `r` does not matter.

        Source: Laborieux & Zenke (2024), for forces without a potential.
        """
        total = self.phi(clamped, s, y, beta)
        return total if self.directed is None else total + self.directed(clamped, s, r, y, beta)

    @property
    def symmetric(self) -> bool:
        r"""Whether the force has a potential, $\Phi$; if not, what a lock-in reads is not the exact gradient."""
        return self.directed is None

    # What follows from psi. All of it acts on batches: the leading axis of every array is the sample.

    def activities(self, u: Layers) -> Layers:
        r"""$s = \sigma(u)$, layer by layer."""
        return tuple(self.activation(layer).astype(layer.dtype) for layer in u)

    def force(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "batch ..."], beta: ArrayLike) -> Layers:
        r"""$\partial_1\Psi(s, r)$ at $r = s$ for a batch; `beta` is one number, or one per sample.

        Of a network with a potential this is $\partial\Phi/\partial s$. Its own derivatives move both arguments.
        Real activities and a real `beta` give the real derivative, anything else the complex one.
        """
        at = jnp.asarray(beta)
        is_complex = any(jnp.iscomplexobj(a) for a in (*s, at))
        if is_complex:
            s, at = to_complex((s, at))
        batch = s[0].shape[0]
        if at.ndim and at.shape != (batch,):
            raise BadValue(f"beta has shape {at.shape} for a batch of {batch}: use one number, or one per sample")

        def psi(*args):
            value = jnp.asarray(self.psi(*args))
            if value.shape != () or (is_complex and not jnp.iscomplexobj(value)):
                name = "phi" if self.symmetric else "phi or directed"
                raise BadType(
                    f"{name} of {type(self).__name__} returns {value.dtype}{list(value.shape)} for activities of "
                    f"{s[0].dtype}: return one scalar, complex for complex activities (no .real, no abs)"
                )
            return value

        gradient = jax.grad(psi, argnums=1, holomorphic=is_complex)
        return jax.vmap(gradient, in_axes=(0, 0, 0, 0, 0 if at.ndim else None))(clamped, s, s, y, at)

    def loss(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "batch ..."]) -> Real[Array, " batch"]:
        r"""The cost $C = -\partial\Psi/\partial\beta$ of each sample, at the real part of `s`."""
        real = tuple(layer.real for layer in s)

        def cost(clamped, s, y):
            zero = jnp.zeros((), s[0].dtype)
            return -jax.jvp(lambda beta: self.psi(clamped, s, s, y, beta), (zero,), (jnp.ones_like(zero),))[1]

        return jax.vmap(cost)(clamped, real, y)

    def readout(self, clamped: PyTree[Array], s: Layers) -> Real[Array, "batch classes"]:
        """The score of each class: minus the cost that it would have as the target.

        With `CrossEntropy` these are log-probabilities. Needs `outputs`, the number of classes.
        """
        if self.outputs is None:
            raise BadValue("outputs is None: a network needs its number of classes to be read out")
        batch = s[0].shape[0]
        labels = jnp.broadcast_to(jnp.arange(self.outputs)[:, None], (self.outputs, batch))
        return -jax.vmap(lambda y: self.loss(clamped, s, y))(labels).T

    def read_output(self, clamped: PyTree[Array], s: Layers) -> Real[Array, "batch outputs"]:
        r"""What the cost compares with real targets: $-\partial C/\partial y$ at $y = 0$, at the real part of `s`.

        With `SquaredError` these are the outputs themselves. Needs `outputs`, their number. A network with a cost of
        which this is not so gives its own.
        """
        if self.outputs is None:
            raise BadValue("outputs is None: a network needs its number of outputs to be read out")
        zero = jnp.zeros((s[0].shape[0], self.outputs), self.dtype)
        return -jax.grad(lambda y: jnp.sum(self.loss(clamped, s, y)))(zero)

    def plasticity(
        self, x: Array, s: Layers, y: Array, beta: ArrayLike, weight: ArrayLike = 1.0, heard: Layers | None = None
    ) -> "AbstractNetwork":
        r"""$\partial/\partial\theta$ of the mean of $\mathrm{Re}[w \Psi(s, r)]$ at fixed $s$, $r$: like `parameters`.

        Args:
            x: inputs; gradients pass through `clamp`.
            s: activities, one array per layer.
            y: targets.
            beta: teaching signal, one number or one per sample.
            weight: $w$, one number or one per sample.
            heard: $r$, what the neurons hear; by default `s`. With a potential it does not matter.
        """
        beta, weight = jnp.asarray(beta), jnp.asarray(weight)
        r = s if heard is None else heard

        def mean_psi(network, clamped):
            axes = (0, 0, 0, 0, 0 if beta.ndim else None)
            return jnp.mean((weight * jax.vmap(network.psi, in_axes=axes)(clamped, s, r, y, beta)).real)

        return gradient_of(mean_psi, self, x)

    def anchored(self, clamped: PyTree[Array], s: Layers) -> tuple["AbstractNetwork", PyTree[Array], Layers]:
        """The network as it answers to a signal that turns, with what follows slowly held at `s`: itself.

        Beside it what is clamped, and the activities, of that network.
        """
        return self, clamped, s

    def begun(self, inputs: Any) -> Layers:
        """Potentials that settling starts from, for checked inputs: rest."""
        return self.rest(inputs.x.shape[0])

    @checked(batch=as_count)
    def rest(self, batch: int) -> Layers:
        """Potentials of zero for a batch."""
        return tuple(jnp.zeros((batch, *shape), self.dtype) for shape in self.shapes)

    @property
    def dtype(self) -> np.dtype:
        """The real type that the network computes in: that of its parameters."""
        # As `parameters` has it, but without paths: asked for many times in every call, it has to be quick.
        parts = [part for name, part in vars(self).items() if name not in SETTINGS and not is_setting(part)]
        leaves = [leaf for leaf in jax.tree.leaves(parts, is_leaf=is_setting) if eqx.is_inexact_array(leaf)]
        return np.dtype(jnp.result_type(*leaves)) if leaves else np.dtype(jnp.asarray(0.0).dtype)

    def _about(self) -> list[Row]:
        about = {
            "input": "" if self.input_shape is None else "x".join(map(str, self.input_shape)),
            "neurons": sizes_in_short(self),
            "outputs": "" if self.outputs is None else str(self.outputs),
            "activation": describe(self.activation),
            "cost": describe(found) if (found := getattr(self, "cost", None)) is not None else "",
            "tau": ", ".join(dict.fromkeys(map(describe, self.time_constants))),
        }
        return [(name, text) for name, text in about.items() if text]

    @property
    def time_constants(self) -> tuple[Array, ...]:
        r"""$\tau$ of each layer: a number, or an array (1, neurons) that fits a batch."""
        tau = self.time_constant
        per_layer = [
            jnp.asarray(t, self.dtype) for t in (tau if isinstance(tau, (tuple, list)) else (tau,) * len(self.shapes))
        ]
        return tuple(t[None] if t.ndim else t for t in per_layer)

    @property
    def following(self) -> tuple[Array, ...]:
        """The time constants of the layers that have to follow the signal: of all, unless some are filters."""
        return self.time_constants


def sizes_in_short(network: AbstractNetwork) -> str:
    """The layers of neurons in a word, such as `5-4`, or `4x4x2-10` with images."""
    return "-".join("x".join(map(str, shape)) for shape in network.shapes)


def in_short(network: AbstractNetwork) -> str:
    """A network on one line: its class, its layers of neurons, its activation."""
    return f"{type(network).__name__}, neurons {sizes_in_short(network)}, {describe(network.activation)}"


def gradient_of(scalar: Callable[[Any, PyTree[Array]], Array], network: AbstractNetwork, x: Array) -> Gradient:
    r"""$\partial/\partial\theta$ of `scalar(network, clamped)`, a pytree like `parameters`; `clamped` is a batch."""
    learned, fixed = split_parameters(network)

    def of_parameters(learned):
        network = eqx.combine(learned, fixed)
        return scalar(network, network.clamped(x))

    return jax.grad(of_parameters)(learned)


def require_holomorphic(network: AbstractNetwork, what: str) -> None:
    """Refuse a network that declares itself non-holomorphic where a complex signal would pass through it.

    Raises:
        NotHolomorphicError: the activation, another part of the network or the network says `holomorphic = False`.
    """

    def declines(part):
        return part is not network and not getattr(part, "holomorphic", True)

    for part in (network.activation, network, *jax.tree.leaves(network, is_leaf=declines)):
        if not getattr(part, "holomorphic", True):
            raise NotHolomorphicError(
                f"{type(part).__name__} is not holomorphic, so {what} has no exact answer: a complex signal has no "
                "derivative through it. Use a holomorphic one (Logistic, HoloTanh, SoftmaxPooling, ...), or a real "
                "signal (Cosine, Classic, Phases with points=2)."
            )


def fastest_neuron(time_constants: Sequence[Array]) -> float:
    """The smallest of the neurons' own time constants."""
    return min(float(np.min(np.asarray(tau))) for tau in time_constants)


def time_unit(time_constants: Sequence[Array]) -> str:
    """What times are counted in: `"tau"` where each neuron has a time constant of 1, else the unit of theirs."""
    return "tau" if fastest_neuron(time_constants) == slowest_neuron(time_constants) == 1 else "time_constant"


def slowest_neuron(time_constants: Sequence[Array]) -> float:
    """The largest of the neurons' own time constants."""
    return max(float(np.max(np.asarray(tau))) for tau in time_constants)


def as_network(name: str, network: Given) -> "AbstractNetwork":
    """A network with dynamics, or an error that names what is none, such as a gradient."""
    require_instance(
        name, network, AbstractNetwork, "use an instance of a network with dynamics, such as LayeredNetwork(...)"
    )
    for field in fields(network):
        for kind in type(network).__mro__[1:]:
            method = vars(kind).get(field.name)
            if callable(method) and inspect.isfunction(inspect.unwrap(method)):  # compiled ones too
                raise BadType(
                    f"{name}: the field {field.name} of {type(network).__name__} hides {kind.__name__}.{field.name}, "
                    "which is needed: give it another name"
                )
    return as_trainable(name, network)


def as_potentials(name: str, layers: Given) -> Layers:
    """One array per layer, with a leading axis over samples, or an error that names what they are not."""
    match layers:
        case tuple() | list() if len(layers):
            found = tuple(as_numbers(f"{name}[{i}]", layer) for i, layer in enumerate(layers))
            if all(np.ndim(layer) > 1 for layer in found) and len({np.shape(layer)[0] for layer in found}) == 1:
                return found
    raise BadType(f"{name}={shown(layers)}: give one array per layer, (batch, neurons), in a tuple")


def check_parameters(network: AbstractNetwork) -> None:
    """Refuse parameters and time constants that no network can have.

    Raises:
        TypeError: not a network at all, an activation of the wrong kind, or a parameter that is complex or of half
            precision.
        ValueError: a parameter is not finite, a time constant is not positive or does not fit its layer.
    """
    as_network("net", network)
    if not callable(network.activation) or isinstance(network.activation, type):
        raise BadType(f"activation={network.activation!r}: use a function or an instance, such as Logistic()")
    if is_traced(network):
        return
    for name, leaf in named(parameters(network)):
        if as_native(name, leaf) is not leaf:
            raise BadType(f"{name} has the byte order of another machine: use jnp.asarray({name}.astype(float))")
        if jnp.iscomplexobj(leaf):
            raise BadType(
                f"{name} is {leaf.dtype}: parameters are real (activities are what turns complex); use {name}.real"
            )
        if leaf.dtype.itemsize < 4:
            raise BadType(
                f"{name} is {leaf.dtype}: the neurons are computed in float32 or float64; use "
                f"{name}.astype(jnp.float32), and oscsim.hardware.quantise for parameters of few digits"
            )
        if not np.all(np.isfinite(np.asarray(leaf))):
            raise BadValue(f"{name} holds values that are not finite: build the network anew, or clean its weights")
    tau = network.time_constant
    if isinstance(tau, (tuple, list)) and len(tau) != len(network.shapes):
        raise BadValue(
            f"time_constant has {len(tau)} entries for {len(network.shapes)} layers of neurons: give one number, or "
            "one entry per layer"
        )
    for number, (tau, shape) in enumerate(zip(network.time_constants, network.shapes, strict=True), start=1):
        values = np.asarray(tau)
        if not np.all(values > 0) or not np.all(np.isfinite(values)):
            raise BadValue(f"time_constant of layer {number} is {tau}: use positive finite numbers")
        if tau.ndim and tau.shape[1:] != shape:
            raise BadValue(
                f"time_constant of layer {number} has shape {tau.shape[1:]}, the layer has {shape}: give one number, "
                "or one per neuron"
            )
    _check_activation(network)


def _check_activation(network: AbstractNetwork) -> None:
    """Refuse an activation that makes no activities of potentials."""
    u = tuple(jax.ShapeDtypeStruct((1, *shape), network.dtype) for shape in network.shapes)
    given = f"activation={shown(network.activation)}"
    try:
        shapes = [s.shape for s in jax.eval_shape(network.activities, u)]
    except (TypeError, ValueError, AttributeError) as error:
        raise BadType(f"{given} makes no activities of potentials, an array that jax traces: {error}") from error
    if shapes != [layer.shape for layer in u]:
        raise BadValue(f"{given} changes the shape of potentials: give each its activity")
