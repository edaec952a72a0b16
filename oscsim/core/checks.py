"""Checks and conversions of arguments, one for each kind. An error names the argument, its value and the remedy."""

import functools
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from oscsim.core.arrays import is_key, is_traced
from oscsim.core.errors import BadType, BadValue

Given: TypeAlias = Any
"""What a user gives: anything, until it is checked."""

Kind: TypeAlias = Callable[[str, Given], Given]
"""From the name of an argument and what was given for it to what it is, or an error that names it."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MOST = 2**31 - 1
"""The largest count: those of compiled programs have 32 bits."""


def checked(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The function with these of its arguments checked, each as one of its kind, before anything else is done.

    What is left out, or given as its default, goes unchecked.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        call: Callable[..., R] = function
        known = inspect.signature(function).parameters
        places = [(name, list(known).index(name), known[name].default, kind) for name, kind in kinds.items()]

        @functools.wraps(function)
        def with_checks(*args: P.args, **kwargs: P.kwargs) -> R:
            given: list[Given] = list(args)
            named: dict[str, Given] = dict(kwargs)
            for name, place, default, kind in places:
                if name in named and named[name] is not default:
                    named[name] = kind(name, named[name])
                elif place < len(given) and given[place] is not default:
                    given[place] = kind(name, given[place])
            return call(*given, **named)

        return with_checks

    return decorated


def shown(value: object) -> str:
    """A value in an error: on one line, and short."""
    try:
        text = repr(value)
    except Exception:  # of a user's own class
        return type(value).__name__
    match value:
        case np.ndarray() | jax.Array() if "\n" in text:
            return f"{value.dtype}{list(value.shape)}"
    if "\n" in text:  # a summary or a table
        return type(value).__name__
    return text if len(text) <= 120 else f"{text[:100]}..."


UNITS = 'give a number in the units of your model, such as units("10 mV") with units = oscsim.Units("ms", "mV")'
"""The remedy for quantities."""


def as_native(name: str, value: Given) -> Given:
    """Arrays of NumPy, one or several, in this machine's order of bytes; what would lose a mask or unit is refused.

    Raises:
        TypeError: a masked array; a quantity with a unit, of whatever library.
    """
    if type(value).__name__ == "Quantity":
        raise BadType(f"{name}={shown(value)} has a unit, which would be lost: {UNITS}")
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
        if type(value) in (str, bytes, np.datetime64, np.timedelta64) or np.iscomplexobj(value) or is_key(value):
            raise BadType("not real")
        match value:
            case np.ndarray() if value.dtype.kind in "mM":
                raise BadType("times of the calendar")
        if is_traced(value):
            return jnp.asarray(value, dtype=float)
        with jax.ensure_compile_time_eval():  # inside a compiled function too: a plain number can be looked at there
            return jnp.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        with_unit = isinstance(value, str) and value[:1].isdigit()
        raise BadType(f"{name}={shown(value)}: {UNITS if with_unit else 'use real numbers'}") from error


def as_scalar(name: str, value: Given) -> Array:
    """One finite real number as an array, or an error that names it."""
    value = as_real(name, value)
    if value.ndim:
        raise BadValue(f"{name} has shape {value.shape}: use one number, and jax.vmap over several")
    if not is_traced(value) and not np.isfinite(value):
        raise BadValue(f"{name}={float(value):g}: use a finite number")
    return value


def is_numeric(dtype: np.dtype) -> bool:
    """Whether arrays of this type hold numbers, real or complex, or truth values; keys and `float0` hold none."""
    return jnp.issubdtype(dtype, jnp.bool_) or (jnp.issubdtype(dtype, jnp.number) and dtype.kind not in "mM")


def as_numbers(name: str, value: Given, remedy: str = "give an array of numbers") -> Given:
    """Numbers of any shape and type, real or complex, traced or not, or an error that names them."""
    match value:
        case jax.Array() if value.dtype == bool or jnp.issubdtype(value.dtype, jnp.number):
            return value
    value = as_native(name, value)
    try:
        if type(value) in (str, bytes) or is_key(value) or not is_numeric(np.asarray(value).dtype):
            raise BadType("no numbers")
        with jax.ensure_compile_time_eval():
            return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadType(f"{name}={shown(value)}: {remedy}") from error


def as_inexact(name: str, value: Given) -> Array:
    """Real or complex numbers with a fraction, traced or not, or an error that names what is none."""
    value = as_numbers(name, value)
    return value if jnp.issubdtype(value.dtype, jnp.inexact) else jnp.asarray(value, float)


def as_host(name: str, value: Given) -> np.ndarray:
    """An array of NumPy of anything, or an error that names what makes none."""
    value = as_native(name, untraced(name, value))
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadType(f"{name}={shown(value)} is no array, or its rows differ in length: {error}") from error


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
    return functools.partial(as_scalar, name)


def positive(name: str) -> Callable[[Given], Array]:
    """The converter of a field of that name that holds one positive, finite number."""

    def converted(value: Given) -> Array:
        require_positive(name, value)
        return as_scalar(name, value)

    return converted


def not_negative(name: str) -> Callable[[Given], Array]:
    """The converter of a field of that name that holds one finite number of 0 or more."""

    def converted(value: Given) -> Array:
        value = as_scalar(name, value)
        if not is_traced(value) and not np.asarray(value) >= 0:
            raise BadValue(f"{name}={float(value):g}: use a finite number that is not negative")
        return value

    return converted


def untraced(name: str, value: Given) -> Given:
    """What is no part of a program that jax traces, since it is looked at, or an error that names it."""
    if is_traced(value):
        raise BadType(f"{name} is traced by jax: call this outside of the compiled function")
    return value


def both(*kinds: Kind) -> Kind:
    """The kind of arguments that are of each of these kinds."""
    return lambda name, value: functools.reduce(lambda found, kind: kind(name, found), kinds, value)


def as_plain(name: str, value: Given) -> Given:
    """A value that is not traced, since it is looked at."""
    if is_traced(value):
        raise BadType(f"{name}={shown(value)} is traced by jax: give a plain number")
    as_scalar(name, value)
    return value


def as_positive(name: str, value: Given) -> float:
    """One positive, finite number that shapes a program, and so is not traced, or an error that names it."""
    require_positive(name, untraced(name, value))
    return float(np.asarray(value))


def require_positive(name: str, value: Given) -> None:
    """Refuse what is not one positive, finite number (a traced one cannot be looked at)."""
    value = as_real(name, value)
    if value.ndim == 0 and not is_traced(value) and not (np.isfinite(value) and np.asarray(value) > 0):
        raise BadValue(f"{name}={float(value):g}: use a positive, finite number")
    as_scalar(name, value)


def as_count(name: str, value: Given, least: int = 1, remedy: str | None = None) -> int:
    """An integer of `least` or more, as one of Python, or an error that names it."""
    match value:
        case jax.Array() | np.ndarray() if value.ndim == 0 and not is_traced(value) and not is_key(value):
            value = np.asarray(value)[()]
    match value:
        case np.timedelta64():  # an integer to NumPy
            kind = BadType
        case int() | np.integer() if type(value) is not bool and least <= value <= MOST:
            return int(value)
        case int() | float() | np.number():
            kind = BadValue
        case _:
            kind = BadType
    if kind is BadValue and MOST < value < float("inf"):
        raise BadValue(f"{name}={shown(value)}: counts end at {MOST}, that of 32 bits; use a smaller one")
    usual = {0: "use 0 or a positive integer", 1: "use a positive integer"}
    raise kind(f"{name}={shown(value)}: {remedy or usual.get(least, f'use an integer of {least} or more')}")


as_index = functools.partial(as_count, least=0)
"""The kind of arguments that count from 0."""


def as_place(name: str, value: Given) -> str | os.PathLike[str]:
    """A path as it was given, or an error that names what is none."""
    as_path(name, value)
    return value


def as_share(name: str, value: Given) -> float:
    """A number between 0 and 1, or an error that names it."""
    share = as_scalar(name, value)
    if is_traced(share) or not 0 < float(share) < 1:
        raise BadValue(f"{name}={shown(value)}: use a fraction between 0 and 1")
    return float(np.asarray(value))


def as_path(name: str, value: Given) -> Path:
    """A place on this machine, with `~` written out, or an error that names what lies elsewhere."""
    match value:
        case str() | os.PathLike():
            text = os.fspath(value)
        case _:
            raise BadType(f"{name}={shown(value)}: give a path, a string or a pathlib.Path")
    if re.match(r"\w[\w+.-]+:/", text):  # one letter is a drive; Path makes one slash of two
        raise BadValue(f"{name}={text}: only folders and files of this machine are read and written")
    if not text:
        raise BadValue(f"{name}='': give a path; use '.' for the folder that Python runs in")
    if "\0" in text:
        raise BadValue(f"{name}={text!r}: no path of this machine holds the character of number 0")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # the home of nobody
        raise BadValue(f"{name}={text}: {error}") from error


def as_flag(name: str, value: Given) -> bool:
    """True or False, or an error that names what is neither."""
    match value:
        case bool() | np.bool_():
            return bool(value)
        case int() if value in (0, 1):
            return bool(value)
    raise BadType(f"{name}={shown(value)}: use True or False")


def as_function(name: str, value: Given) -> Callable:
    """Something to be called, and no class, or an error that names it."""
    if not callable(value) or inspect.isclass(value):
        raise BadType(f"{name}={shown(value)}: use a function, or an instance that can be called")
    return value


def asked(
    name: str, function: Callable[..., T], *given: object, errors: tuple[type[Exception], ...] = (TypeError, ValueError)
) -> T:
    """What a function of the user's own gives, or an error that names it where it does not take what it is given."""
    try:
        return function(*given)
    except errors as error:
        what = ", ".join(map(shown, given))
        raise BadType(f"{name}={shown(function)} cannot be called with {what}: {error}") from error


def as_builder(name: str, value: Given) -> Callable:
    """Something that makes an object when it is called, a function or a class, or an error that names it."""
    if not callable(value):
        raise BadType(f"{name}={shown(value)}: use a function or a class that makes one")
    return value


def as_pair(name: str, value: Given) -> tuple:
    """Two things, such as inputs and targets, or an error that names what they are not."""
    match value:
        case (_, _):
            return tuple(value)
    raise BadType(f"{name} is a {type(value).__name__}: give a pair (x, y) of inputs and targets")


def as_text(name: str, value: Given) -> str:
    """A string, or an error that names what is none."""
    match value:
        case str():
            return str(value)
    raise BadType(f"{name}={shown(value)}: use a string")


def as_names(name: str, value: Given) -> tuple[str, ...]:
    """Strings in order, or an error that names what is none."""
    return tuple(as_text(f"{name}[{i}]", one) for i, one in enumerate(as_sequence(name, value)))


def as_counts(name: str, value: Given) -> tuple[int, ...]:
    """Positive integers in order, or an error that names what is none."""
    return tuple(as_count(f"{name}[{i}]", one) for i, one in enumerate(as_sequence(name, value)))


def as_shape(name: str, value: Given) -> tuple[int, ...]:
    """The lengths of the axes of an array, or an error that names what is none."""
    return tuple(as_index(f"{name}[{i}]", one) for i, one in enumerate(as_sequence(name, value)))


def as_sequence(name: str, value: Given) -> tuple:
    """Several things in order as a tuple, or an error that names what is none."""
    match value:
        case tuple() | list() | range():
            return tuple(value)
        case np.ndarray() | jax.Array() if value.ndim and not is_traced(value):
            return tuple(value)
    raise BadType(f"{name}={shown(value)}: give a tuple or a list")


def count(name: str, least: int = 1, remedy: str | None = None) -> Callable[[Given], int]:
    """The converter of a field of that name that holds an integer of `least` or more."""
    return functools.partial(as_count, name, least=least, remedy=remedy)


def flag(name: str) -> Callable[[Given], bool]:
    """The converter of a field of that name that is True or False."""
    return functools.partial(as_flag, name)


def optional(convert: Callable[[Given], T]) -> Callable[[Given], T | None]:
    """The same converter where None says that nothing is asked for."""
    return lambda value: None if value is None else convert(value)


def require_instance(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Refuse what is no instance of a class, or of one of several."""
    if not isinstance(value, kind):
        raise BadType(f"{name}={shown(value)}: {remedy}")


def instance(kind: type[T], remedy: str) -> Callable[[str, Given], T]:
    """The kind of arguments that are instances of a class."""

    def found(name: str, value: Given) -> T:
        require_instance(name, value, kind, remedy)
        return value

    return found


def choice(*options: str, otherwise: str = "") -> Kind:
    """The kind of arguments that are one of these strings; `otherwise` names what else there is."""
    *others, last = map(repr, options)
    known = f"{', '.join(others)} or {last}" if otherwise == "" else f"{', '.join([*others, last])}, {otherwise}"

    def chosen(name: str, value: Given) -> str:
        match value:
            case str() if value in options:
                return value
        raise BadValue(f"{name}={shown(value)}: use {known}")

    return chosen


def as_key(name: str, key: Given) -> Given:
    """One random key of jax, or an error that names a bare seed, or one of the old style, without a type."""
    require_instance(name, key, jax.Array, "use jax.random.key(0), with a seed of your choice")
    if not is_key(key):
        remedy = "use jax.random.key(seed), or jax.random.wrap_key_data(key) of an old one"
        raise BadType(f"{name} is an array of {key.dtype}{list(key.shape)}, not a random key: {remedy}")
    if key.ndim:
        raise BadValue(f"{name} holds keys of shape {key.shape}: give one of them, and use jax.vmap over several")
    return key
