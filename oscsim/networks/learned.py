"""What of a network is learned: its parameters, their names, other numbers in their place, and how all that prints."""

import abc
import functools
import operator
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeAlias, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from oscsim.core.arrays import is_key, is_traced
from oscsim.core.checks import (
    Given,
    as_array,
    as_native,
    checked,
    instance,
    is_numeric,
    require_instance,
    shown,
    untraced,
)
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import Row, as_html, as_text
from oscsim.networks.activations import AbstractActivation
from oscsim.networks.costs import AbstractCost
from oscsim.networks.pooling import AbstractPooling

Gradient: TypeAlias = PyTree[Array | np.ndarray]
"""Arrays as in a network's parameters, on the device or on the host."""

Network = TypeVar("Network", bound=eqx.Module)

SETTINGS = ("activation", "cost", "time_constant", "imperfection", "fixed_feedback", "filter_time")
"""Fields whose numbers are settings, as those of every activation, cost and pooling are: they are never learned.

Of a network, or of one that it wraps.
"""


def is_setting(part: object) -> bool:
    """Whether all numbers in a part of a network are settings."""
    return isinstance(part, (AbstractActivation, AbstractCost, AbstractPooling))


def in_setting(path: tuple) -> bool:
    """Whether the part of a network at this path stands in a field of settings."""
    return any(getattr(entry, "name", None) in SETTINGS for entry in path)


def split_parameters(network: eqx.Module) -> tuple[Gradient, PyTree]:
    """The network as (parameters, the rest), each with None in the other's places; `eqx.combine` joins them."""

    def is_parameter(path, part):
        return eqx.is_inexact_array(part) and not in_setting(path) and not is_setting(part)

    return eqx.partition(network, jax.tree_util.tree_map_with_path(is_parameter, network, is_leaf=is_setting))


@checked(network=instance(eqx.Module, "use a network, an instance such as LayeredNetwork(...)"))
def parameters(network: eqx.Module) -> Gradient:
    """The parameters, which are learned: the network with None in place of everything else.

    Example:
        >>> [leaf.shape for leaf in jax.tree.leaves(osc.parameters(net))]
        [(5, 6), (4, 5), (5,), (4,)]
    """
    return split_parameters(network)[0]


def parameter_name(path: tuple) -> str:
    """The name of a parameter array by its path in the network, such as `weights[0]`."""
    return jax.tree_util.keystr(path).lstrip(".")


def named(tree: PyTree) -> list[tuple[str, Array]]:
    """The arrays of a pytree like `parameters(net)`, with their names."""
    return [(parameter_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def plain_name(name: str) -> str:
    """A name that every kind of file takes as that of a variable: `cosine/weights[0]` is `cosine_weights_0`."""
    return re.sub(r"\W+", "_", name).strip("_")


@checked(gradient=lambda name, value: as_known_gradient(name, value))
def to_dict(gradient: Gradient) -> dict[str, np.ndarray]:
    """The arrays of a gradient, or of `parameters(net)`, by names that every kind of file takes.

    `weights[0]` is called `weights_0`: `np.savez(path, **to_dict(gradient))` and
    `scipy.io.savemat(path, to_dict(gradient))` write them.

    Example:
        >>> sorted(osc.to_dict(osc.parameters(net)))
        ['biases_0', 'biases_1', 'weights_0', 'weights_1']
    """
    return {plain_name(name): np.asarray(leaf) for name, leaf in named(gradient)}


# Kinds of arguments.


def as_trainable(name: str, network: Given) -> Given:
    """A network of either kind, or an error that names what is none, such as a gradient."""
    require_instance(name, network, AbstractLearned, "use an instance of a network, such as LayeredNetwork(...)")
    match network:
        case object(activation=None) | object(time_constant=None | (None, *_)):
            raise BadType(f"{name} is a gradient, or what `parameters` gives: use the network itself")
    return network


def require_steady(network: "AbstractLearned", what: str) -> None:
    """Refuse a network that is settled for each input, where inputs or weights change from step to step."""
    if network.settles:
        raise BadType(
            f"net is a {type(network).__name__}, which is settled once for each input, and {what}: use "
            "MeasuredCorrection, whose anchor follows"
        )


def as_gradient(name: str, gradient: Given) -> Gradient:
    """A pytree of arrays of numbers, in this machine's order of bytes, or an error that names what is none."""
    try:
        leaves = jax.tree.leaves(gradient)
    except (RecursionError, TypeError, ValueError):  # what holds itself, or names that cannot be sorted
        leaves = [None]
    if not all(map(_is_numeric, leaves)):
        raise BadType(f"{name}={shown(gradient)}: give a gradient, a pytree of arrays")
    return jax.tree.map(functools.partial(_as_leaf, name), gradient)


def _as_leaf(name: str, leaf: Given) -> Array | np.ndarray:
    """One array of a gradient; whole numbers of the host, which may be too large for jax, with a fraction."""
    leaf = as_native(name, leaf)
    match leaf:
        case int() | np.bool_() | np.integer() | np.ndarray() if np.asarray(leaf).dtype.kind in "biuO":
            try:
                return np.asarray(leaf, float)
            except OverflowError as error:
                raise BadType(f"{name}={shown(leaf)}: give numbers that a float holds") from error
    return leaf


def as_known_gradient(name: str, gradient: Given) -> Gradient:
    """The same, and not traced, since it is looked at."""
    return untraced(name, as_gradient(name, gradient))


def _is_numeric(leaf: object) -> bool:
    """Whether a leaf holds numbers, real or complex."""
    match leaf:
        case np.ndarray() | np.generic():
            return is_numeric(leaf.dtype)
    return eqx.is_array_like(leaf) and not is_key(leaf)


# Numbers of the user's own.


def as_layers(name: str, given: Given, shapes: Sequence[tuple[int, ...]]) -> list[Array | None]:
    """One array per layer, checked; None where none is given.

    Raises:
        TypeError: not a sequence, or arrays that are not real.
        ValueError: another number of them, other shapes, numbers that are not finite.
    """
    expected = ", ".join(map(str, shapes))
    match given:
        case None:
            return [None] * len(shapes)
        case tuple() | list() if len(given) == len(shapes):
            pairs = enumerate(zip(given, shapes, strict=True))
            return [None if a is None else as_array(f"{name}[{i}]", a, shape) for i, (a, shape) in pairs]
        case tuple() | list():
            raise BadValue(f"{name} has {len(given)} entries: give {len(shapes)} arrays, of shapes {expected}")
    raise BadType(f"{name} is a {type(given).__name__}: give a list of {len(shapes)} arrays, of shapes {expected}")


def _in_place_of(name: str, old: PyTree, new: Given) -> PyTree:
    """New numbers of the structure and shapes of the old ones; None leaves those as they are."""
    match old:
        case jax.Array() | np.ndarray():
            return old if new is None else as_array(name, new, old.shape).astype(old.dtype)
        case tuple() if all(map(eqx.is_array, old)):
            layers = as_layers(name, new, [a.shape for a in old])
            return tuple(a if b is None else b.astype(a.dtype) for a, b in zip(old, layers, strict=True))
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise BadType(f"{name} is a {type(new).__name__}: give arrays in a {type(old).__name__}, as in parameters(net)")
    return jax.tree.map(lambda a, b: as_array(name, b, a.shape).astype(a.dtype), old, new)


# How it prints.


def summary(network: eqx.Module, about: Iterable[Row]) -> list[Row]:
    """What a network says of itself, a title and then rows of words: what it is (`about`), and its parameters."""
    found = named(parameters(network))
    layers: dict[str, list[tuple[str, Array]]] = {}
    for name, a in found:  # what has the same number belongs to one layer
        number = name[name.rfind("[") + 1 : -1] if name.endswith("]") else ""
        layers.setdefault(f"layer {number}" if number.isdecimal() else "", []).append((name, a))
    alone = [(name, str(a.shape), f"{a.size:,}") for name, a in layers.pop("", [])]
    rows = [
        (layer, ", ".join(f"{name} {a.shape}" for name, a in some), f"{sum(a.size for _, a in some):,}")
        for layer, some in layers.items()
    ]
    total = sum(a.size for _, a in found)
    return [(f"{type(network).__name__}, {total:,} parameters of {found[0][1].dtype}",), *about, *alone, *rows]


def gradient_summary(gradient: eqx.Module) -> list[Row]:
    """What a gradient says of itself: a title, then name, shape and norm of each of its arrays."""
    found, title = named(parameters(gradient)), f"Gradient of a {type(gradient).__name__}, or its parameters"
    if is_traced(gradient):
        return [(title,), *((name, str(a.shape)) for name, a in found)]
    norms = [float(np.linalg.norm(np.ravel(a))) for _, a in found]
    rows = [(name, str(a.shape), f"norm {norm:.3g}") for (name, a), norm in zip(found, norms, strict=True)]
    return [(f"{title}, norm {np.linalg.norm(norms):.3g}",), *rows]


def is_gradient(network: eqx.Module) -> bool:
    """Whether settings are missing, as in what `parameters` gives."""
    parts = jax.tree_util.tree_leaves_with_path(network, is_leaf=lambda part: part is None)
    return any(part is None and in_setting(path) for path, part in parts)


class AbstractLearned(eqx.Module):
    """A network of either kind: it prints as a summary, and takes other numbers for what is learned.

    Attributes:
        settles: whether each input is settled for before anything moves; once, so that inputs may not move.
    """

    settles: ClassVar[bool] = False

    @abc.abstractmethod
    def _about(self) -> Iterable[Row]:
        """What it is, beside its parameters: rows of words."""

    def replace(self: Network, **given: Given) -> Network:
        """The same network with other numbers for some of its parameters, by their names.

        Where a field holds one array per layer, give a list with one entry per layer; None leaves that layer as it is.
        A field that holds a module or a dict takes another one of the same structure. Numbers become arrays of the
        network's precision.

        Raises:
            ValueError: a name that is no parameter, a shape that is not that of the old numbers, numbers that are not
                finite.
            TypeError: no real numbers.

        Example:
            >>> quiet = net.replace(biases=[np.full(5, -1.0), None])
            >>> print(quiet.biases[0])
            [-1. -1. -1. -1. -1.]
        """
        learned, fixed = split_parameters(self)
        own = {name: part for name, part in vars(learned).items() if any(map(eqx.is_array, jax.tree.leaves(part)))}
        for name, value in given.items():
            if name not in own:
                raise BadValue(
                    f"{name} is no parameter of this {type(self).__name__}: its parameters are {', '.join(own)}; make "
                    "another network to change anything else"
                )
            learned = eqx.tree_at(operator.attrgetter(name), learned, _in_place_of(name, own[name], value))
        return eqx.combine(learned, fixed)

    def __repr__(self) -> str:
        return as_text(self._summary()) if jax.tree.leaves(parameters(self)) else eqx.tree_pformat(self)

    def _repr_html_(self) -> str:
        return as_html(self._summary())

    def _summary(self) -> list[Row]:
        return gradient_summary(self) if is_gradient(self) else summary(self, self._about())
