"""`Inputs`: the inputs and targets that a network is shown, checked and clamped once."""

from collections.abc import Callable
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_native, checked, instance, is_numeric, shown
from oscsim.core.errors import BadType, BadValue
from oscsim.networks.learned import as_trainable, require_steady
from oscsim.networks.moving import AbstractMoving, Cycle, Period, check_moving

if TYPE_CHECKING:
    from oscsim.networks.base import AbstractNetwork
    from oscsim.networks.feedforward import AbstractFeedForwardNetwork

    Network: TypeAlias = AbstractNetwork | AbstractFeedForwardNetwork


class Inputs(eqx.Module):
    """A batch as the dynamics need it; `Inputs.of(net, x, y)` makes one.

    Attributes:
        x: inputs, (batch, ...).
        y: integer labels (batch,), or real targets (batch, outputs).
        clamped: the network's `clamp` of each input, computed once.
        moving: what moves within the cycle, if anything does; `x` and `clamped` are then of its mean.

    Example:
        >>> inputs = osc.Inputs.of(net, x, y)
        >>> net.loss(inputs.clamped, osc.settle(net, x, y).activities, inputs.y).shape
        (3,)
    """

    x: Real[Array, "batch ..."]
    y: Real[Array, "batch ..."]
    clamped: PyTree[Array]
    moving: AbstractMoving | None = None

    @staticmethod
    @checked(net=as_trainable)
    def of(net: "Network", x: "Data", y: "Data") -> "Inputs":
        """Check `x` and `y` against the network, bring them to its precision, and clamp them.

        Raises:
            ValueError: shapes that do not match, labels out of range, data that are not finite.
            TypeError: complex or non-numeric data, labels that are not integers.
        """
        x, y = as_inputs(net, x), as_targets(net, y)
        if x.shape[0] != y.shape[0]:
            raise BadValue(f"x holds {x.shape[0]} samples and y holds {y.shape[0]}: give one target per input")
        return Inputs(x, y, net.clamped(x))

    def at(self, net: "Network", t: Real[Array, ""], cycle: Cycle, period: Period) -> "Inputs":
        """What the neurons are shown at time `t` within the cycle of that number."""
        if self.moving is None:
            return self
        x = jnp.asarray(self.moving.at(t, cycle, period), net.dtype)
        return Inputs(x, self.y, net.clamped(x))


INPUTS = instance(Inputs, "use Inputs.of(net, x, y)")
"""The kind of arguments that are checked inputs."""

Data: TypeAlias = Any
"""Inputs or targets: an array, anything that makes one, or a function from a cycle's number to such."""


class Stream(eqx.Module):
    """What a network is shown, cycle after cycle: `at(net, cycle)`.

    Attributes:
        x: inputs, checked; or a function from the cycle's number (a traced integer) to such; or what moves in a cycle.
        y: targets, or a function from the cycle's number to such.
        clamped: what the inputs contribute, where nothing changes; else None.
        period: how long a cycle lasts, where inputs move in it; else None.
    """

    x: Data
    y: Data
    clamped: PyTree[Array] | None
    period: Period | None = None

    @staticmethod
    def of(net: "Network", x: Data, y: Data, period: Period, first: Cycle = 0) -> "Stream":
        """Check what is shown in the cycle of number `first`, and keep it where it does not change.

        Raises:
            ValueError, TypeError: as `Inputs.of`.
        """
        if isinstance(x, AbstractMoving):
            check_moving(x, period)
            require_steady(net, "x moves within the cycle")
            if not is_traced(period, first):
                x.check_lasts(int(first), 1, float(period))  # before its mean over the first cycle is looked at
        x, y = (traceable(name, data, first) if callable(data) else data for name, data in (("x", x), ("y", y)))
        shown = Stream(x, y, None, period)._shown(net, first)
        if not (_changes(x) or _changes(y)):
            return Stream(shown.x, shown.y, shown.clamped)
        lasting = period if isinstance(x, AbstractMoving) else None
        return Stream(x if _changes(x) else shown.x, y if _changes(y) else shown.y, None, lasting)

    @property
    def changing(self) -> bool:
        """Whether inputs or targets change, from cycle to cycle or within one."""
        return _changes(self.x) or _changes(self.y)

    def at(self, net: "Network", cycle: Cycle) -> Inputs:
        """What the network is shown in the cycle of that number."""
        if not self.changing:
            return Inputs(self.x, self.y, self.clamped)
        return self._shown(net, cycle)

    def check_lasts(self, first: int, cycles: int) -> None:
        """Refuse so many cycles, from the one of number `first` on, where a recorded series ends before them."""
        if isinstance(self.x, AbstractMoving) and self.period is not None and not is_traced(self.period):
            self.x.check_lasts(first, cycles, float(self.period))

    def _shown(self, net: "Network", cycle: Cycle) -> Inputs:
        x, y, moving = self.x, self.y, None
        if isinstance(x, AbstractMoving) and self.period is not None:
            moving, x = x, x.mean(cycle, self.period)
        shown = Inputs.of(net, x(cycle) if callable(x) else x, y(cycle) if callable(y) else y)
        return Inputs(shown.x, shown.y, shown.clamped, moving)


def _changes(data: Data) -> bool:
    return callable(data) or isinstance(data, AbstractMoving)


class OnHost(eqx.Module):
    """A function of the cycle's number that NumPy computes, outside of the compiled program.

    Attributes:
        function: from an integer to an array.
        shape, dtype: of what it returns.
    """

    function: Callable = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)

    def __call__(self, cycle: Cycle) -> Array:
        like = jax.ShapeDtypeStruct(self.shape, self.dtype)
        return jax.pure_callback(self._computed, like, cycle, vmap_method="sequential")

    def _computed(self, cycle: Array | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.function(int(cycle)), self.dtype), self.shape)


def traceable(name: str, function: Callable, first: Cycle) -> Callable:
    """The function of the cycle's number; `OnHost` where it cannot be called with a traced one, as those of NumPy.

    Raises:
        TypeError: it cannot be called with an integer either.
    """
    try:
        jax.eval_shape(function, jax.ShapeDtypeStruct((), jnp.int32))
        return function
    except TypeError as error:
        if is_traced(first):
            raise BadType(f"{name} cannot be called with a traced cycle: write it with jax.numpy") from error
    try:
        shown = as_data(name, function(int(first)))
    except TypeError as error:
        raise BadType(f"{name} is a function that cannot be called with the number of a cycle: {error}") from error
    shown = jnp.asarray(shown)  # the types that jax has
    return OnHost(function, shown.shape, shown.dtype)


def as_inputs(net: "Network", x: Data) -> Array:
    """The inputs as an array of the network's precision, or an error that says what is wrong with them."""
    x = as_data("x", x)
    if net.input_shape is not None and x.shape[1:] != tuple(net.input_shape):
        hint = "; batch axes come first: use x[None]" if x.shape == tuple(net.input_shape) else ""
        raise BadValue(
            f"x has shape {x.shape}, this network takes (batch, {', '.join(map(str, net.input_shape))}){hint}"
        )
    _check_batch("x", x, net.dtype)
    x = jnp.asarray(x, net.dtype)
    try:
        jax.eval_shape(net.clamp, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    except (TypeError, ValueError) as error:
        raise BadValue(f"x: one sample of shape {x.shape[1:]} does not fit this network's clamp: {error}") from error
    return x


def as_targets(net: "Network", y: Data) -> Array:
    """The targets as an array, integer labels or real vectors, or an error that says what is wrong with them."""
    y, classes = as_data("y", y), net.outputs
    _check_batch("y", y, net.dtype)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        if y.ndim == 1 and classes == 1:
            y = y[:, None]  # one real output
        if y.ndim == 1 and classes is not None:
            raise BadType(
                f"y holds {y.dtype} labels: use integers, or one-hot or real targets of shape (batch, {classes}); "
                "datasets.as_labels(y) makes integers of whole numbers"
            )
        y = jnp.asarray(y, net.dtype)
    elif not is_traced(y) and y.ndim == 1 and classes is not None:
        low, high = int(np.min(np.asarray(y))), int(np.max(np.asarray(y)))
        if low < 0 or high >= classes:
            remedy = "; datasets.as_labels(y) numbers them from 0" if low < 0 else ""
            remedy = "; give real targets as floats" if classes == 1 else remedy
            raise BadValue(f"y has labels from {low} to {high}, this network has classes 0 to {classes - 1}{remedy}")
    if y.ndim > 1 and classes is not None and y.shape[1:] != (classes,):
        column = "; a column of labels is y[:, 0]" if y.shape[1:] == (1,) else ""
        raise BadValue(
            f"y has shape {y.shape}: use labels (batch,), or one-hot or real targets (batch, {classes}){column}"
        )
    # jax counts classes in the type of the labels, where 8 bits end at 255
    narrow = jnp.issubdtype(y.dtype, jnp.integer) and y.dtype.itemsize < 4
    return jnp.asarray(y, jnp.int32) if narrow else jnp.asarray(y)


def are_classes(y: Array | np.ndarray) -> bool:
    """Whether targets stand for classes: integer labels, or shares of two classes or more, as one-hot targets are.

    Shares are not negative and sum to one. All other targets are real numbers, as in regression.
    """
    if y.ndim == 1:
        return bool(jnp.issubdtype(y.dtype, jnp.integer))
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    y = np.asarray(y)
    return bool(np.all(y >= 0) and np.all(np.abs(np.sum(y, axis=1, dtype=float) - 1) < 1e-3))


def as_data(name: str, value: Data) -> Array | np.ndarray:
    """Inputs or targets as real numbers in an array, of one batch, or an error that says what is wrong with them."""
    if _changes(value):
        raise BadType(f"{name}={value!r} changes in time, which simulate and learn take: give one batch, an array")
    match value:
        case object(toarray=_):
            raise BadType(f"{name} is sparse, of type {type(value).__name__}: use {name}.toarray()")
    names = "; datasets.as_labels(y) makes numbers of names" if name == "y" else ""
    try:
        value = value if isinstance(value, jax.Array) else np.asarray(as_native(name, value))
        if value.dtype == object:  # as pandas gives columns of several types
            value = _of_objects(name, value, names)
    except ValueError as error:
        raise BadValue(f"{name} is no array, its samples differ in shape: give one of shape (batch, ...)") from error
    except BadType:
        raise
    except (TypeError, RecursionError, OverflowError) as error:
        raise BadType(f"{name}={shown(value)} is no array: give one of shape (batch, ...)") from error
    if not is_numeric(value.dtype):
        raise BadType(f"{name} holds {value.dtype}: give numbers{names}")
    if jnp.iscomplexobj(value):
        raise BadType(f"{name} is {value.dtype}: inputs and targets are real; use {name}.real")
    return value


def _of_objects(name: str, value: np.ndarray, names: str) -> np.ndarray:
    """An array of the numbers that stand in an array of objects, or an error that names the first that is none."""
    for index, one in np.ndenumerate(value):
        if not isinstance(one, (Number, np.bool_, np.ndarray, list)):
            raise BadType(f"{name}{list(map(int, index)) or ''} is {repr(one)[:40]}: give numbers{names}")
    return np.array(value.tolist())


def _check_batch(name: str, value: Array | np.ndarray, dtype: DTypeLike) -> None:
    """Refuse a batch that is empty, or not finite in this precision."""
    if value.ndim == 0 or value.shape[0] == 0:
        raise BadValue(f"{name} has shape {value.shape}: batch axes come first, with one sample at least")
    if is_traced(value):
        return
    value = np.asarray(value)
    finite = np.isfinite(value)
    if np.issubdtype(value.dtype, np.floating) and value.dtype.itemsize > np.dtype(dtype).itemsize:
        finite &= np.abs(value) <= float(jnp.finfo(dtype).max)
    if not np.all(finite):
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise BadValue(f"{name}{list(index)} is {value[index]}, not finite in {dtype}: remove such samples")
