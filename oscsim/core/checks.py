"""Checks and conversions of arguments, one for each kind. An error names the argument, its value and the remedy."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from oscsim.core.arrays import is_key, is_traced
from oscsim.core.errors import BadType, BadValue

Given: TypeAlias = Any
"""What a user gives: anything, until it is checked."""


def as_native(name: str, value: Given) -> Given:
    """Arrays of NumPy, one or several, in this machine's order of bytes; masked ones are refused.

    Raises:
        TypeError: a masked array.
    """
    match value:
        case np.ma.MaskedArray():
            raise BadType(
                f"{name} is a masked array, whose mask would be lost: use {name}.filled(value), with a value of "
                "your choice, or leave the masked samples out"
            )
        case np.ndarray() | np.generic() if not value.dtype.isnative:
            return value.astype(value.dtype.newbyteorder("="))
        case tuple():
            return tuple(as_native(name, v) for v in value)
        case [np.ndarray(), *_]:
            return [as_native(name, v) for v in value]
    return value


def as_real(name: str, value: Given) -> Array:
    """Real numbers as an array of jax's default float type (arrays keep theirs), or an error that names them."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value, value.dtype)  # no weak type: it would compile again
    value = as_native(name, value)
    try:
        if type(value) is str or np.iscomplexobj(value):
            raise BadType("not real")
        if is_traced(value):
            return jnp.asarray(value, dtype=float)
        with jax.ensure_compile_time_eval():  # inside a compiled function too: a plain number can be looked at there
            return jnp.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise BadType(f"{name}={value!r}: use real numbers") from error


def as_scalar(value: Given, name: str = "value") -> Array:
    """One finite real number as an array, or an error that names it."""
    value = as_real(name, value)
    if value.ndim:
        raise BadValue(f"{name} has shape {value.shape}: use one number, and jax.vmap over several")
    if not is_traced(value) and not np.isfinite(value):
        raise BadValue(f"{name}={float(value):g}: use a finite number")
    return value


def as_array(name: str, value: Given, shape: tuple[int, ...]) -> Array:
    """Finite real numbers as an array of this shape, or an error that names it."""
    value = as_finite(name, value)
    if value.shape != shape:
        hint = "; it fits transposed: use .T" if value.ndim == 2 and value.shape[::-1] == shape else ""
        raise BadValue(f"{name} has shape {value.shape}: give one of shape {shape}{hint}")
    return value


def as_finite(name: str, value: Given) -> Array:
    """Finite real numbers as an array of any shape, or an error that names it."""
    value = as_real(name, value)
    if not is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
        raise BadValue(f"{name} holds values that are not finite: give finite numbers")
    return value


def scalar(name: str) -> Callable[[Given], Array]:
    """The converter of a field of that name that holds one finite real number."""
    return functools.partial(as_scalar, name=name)


def positive(name: str) -> Callable[[Given], Array]:
    """The converter of a field of that name that holds one positive, finite number."""

    def converted(value: Given) -> Array:
        require_positive(name, value)
        return as_scalar(value, name)

    return converted


def not_negative(name: str) -> Callable[[Given], Array]:
    """The converter of a field of that name that holds one finite number of 0 or more."""

    def converted(value: Given) -> Array:
        value = as_scalar(value, name)
        if not is_traced(value) and not np.asarray(value) >= 0:
            raise BadValue(f"{name}={float(value):g}: use a finite number that is not negative")
        return value

    return converted


def require_positive(name: str, value: Given) -> None:
    """Refuse what is not one positive, finite number (a traced one cannot be looked at)."""
    value = as_real(name, value)
    if value.ndim == 0 and not is_traced(value) and not (np.isfinite(value) and np.asarray(value) > 0):
        raise BadValue(f"{name}={float(value):g}: use a positive, finite number")
    as_scalar(value, name)


def as_count(name: str, value: Given, least: int = 1, remedy: str | None = None) -> int:
    """An integer of `least` or more, as one of Python, or an error that names it."""
    match value:
        case jax.Array() | np.ndarray() if value.ndim == 0 and not is_traced(value) and not is_key(value):
            value = np.asarray(value)[()]
    match value:
        case int() | np.integer() if type(value) is not bool and value >= least:
            return int(value)
        case int() | float() | np.number():
            kind = BadValue
        case _:
            kind = BadType
    usual = {0: "use 0 or a positive integer", 1: "use a positive integer"}
    raise kind(f"{name}={value!r}: {remedy or usual.get(least, f'use an integer of {least} or more')}")


def as_path(name: str, value: str | os.PathLike[str]) -> Path:
    """A place on this machine, with `~` written out, or an error that names what lies elsewhere."""
    if re.match(r"\w[\w+.-]+:/", os.fspath(value)):  # one letter is a drive; Path makes one slash of two
        raise BadValue(f"{name}={os.fspath(value)}: only folders and files of this machine are read and written")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # the home of nobody
        raise BadValue(f"{name}={os.fspath(value)}: {error}") from error


def count(name: str, least: int = 1, remedy: str | None = None) -> Callable[[Given], int]:
    """The converter of a field of that name that holds an integer of `least` or more."""
    return functools.partial(as_count, name, least=least, remedy=remedy)


def optional_count(name: str, least: int = 1) -> Callable[[Given], int | None]:
    """The same where None says that nothing is asked for."""
    return lambda value: None if value is None else as_count(name, value, least)


def require_instance(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Refuse what is no instance of a class, or of one of several."""
    if not isinstance(value, kind):
        raise BadType(f"{name}={value!r}: {remedy}")


def require_key(key: Given) -> None:
    """Refuse what is not one random key of jax, such as a bare seed, or one of the old style, without a type."""
    require_instance("key", key, jax.Array, "use jax.random.key(0), with a seed of your choice")
    if not is_key(key):
        remedy = "use jax.random.key(seed), or jax.random.wrap_key_data(key) of an old one"
        raise BadType(f"key is an array of {key.dtype}{list(key.shape)}, not a random key: {remedy}")
    if key.ndim:
        raise BadValue(f"key holds random keys of shape {key.shape}: give one of them, and use jax.vmap over several")
