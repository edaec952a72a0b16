"""Small helpers on arrays, numbers and pytrees that every room of the house uses."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
"""A real number held as an array, so that changing it does not recompile."""


def as_real(name: str, value: Any) -> Array:
    """Real numbers as an array of jax's default float type (arrays keep theirs), or an error that names them."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value, value.dtype)  # no weak type: it would compile again
    try:
        if isinstance(value, str) or np.iscomplexobj(value):
            raise TypeError("not real")
        if is_traced(value):
            return jnp.asarray(value, dtype=float)
        with jax.ensure_compile_time_eval():  # inside a compiled function too: a plain number can be looked at there
            return jnp.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={value!r}: use real numbers") from error


def as_scalar(value: Any, name: str = "value") -> Array:
    """One finite real number as an array, or an error that names it."""
    value = as_real(name, value)
    if value.ndim:
        raise ValueError(f"{name} has shape {value.shape}: use one number, and jax.vmap over several")
    if not is_traced(value) and not np.isfinite(value):
        raise ValueError(f"{name}={float(value):g}: use a finite number")
    return value


def scalar_named(name: str) -> Callable[[Any], Array]:
    """`as_scalar` as the converter of the field of that name."""
    return functools.partial(as_scalar, name=name)


def require_positive(name: str, value: Any) -> None:
    """Refuse what is not one positive, finite number (a traced one cannot be looked at)."""
    value = as_real(name, value)
    if value.ndim == 0 and not is_traced(value) and not (np.isfinite(value) and np.asarray(value) > 0):
        raise ValueError(f"{name}={float(value):g}: use a positive, finite number")
    as_scalar(value, name)


def as_count(name: str, value: Any, least: int = 1, remedy: str | None = None) -> int:
    """An integer of `least` or more, or an error that names it."""
    right = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least
    if not right:
        remedy = remedy or {0: "use 0 or a positive integer", 1: "use a positive integer"}.get(
            least, f"use an integer of {least} or more"
        )
        kind = ValueError if isinstance(value, (bool, int, float, np.number)) else TypeError
        raise kind(f"{name}={value!r}: {remedy}")
    return int(value)


def require_key(key: Any) -> None:
    """Refuse what is not a random key of jax, such as a bare seed."""
    if not isinstance(key, jax.Array):
        raise TypeError(f"key={key!r}: use jax.random.key(0), with a seed of your choice")


def is_traced(*values: Any) -> bool:
    """Whether any of the values is being traced by jax, and so cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def complex_of(dtype: Any) -> np.dtype:
    """The complex type of the same precision as the real one."""
    return np.dtype(jnp.promote_types(dtype, jnp.complex64))


def to_complex(tree: Any) -> Any:
    """Every array of the tree as a complex one of the same precision."""
    return jax.tree.map(lambda a: a.astype(complex_of(a.dtype)), tree)


def norm(tree: Any) -> Array:
    """The Euclidean norm of all numbers in a pytree taken together."""
    squares = [jnp.sum(jnp.real(a) ** 2 + jnp.imag(a) ** 2) for a in jax.tree.leaves(tree)]
    return jnp.sqrt(functools.reduce(jnp.add, squares)) if squares else jnp.zeros(())


def all_finite(tree: Any) -> Array:
    """Whether every number in a pytree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def describe(value: Any) -> str:
    """A module on one line with its numbers in full, as one would type it."""
    if isinstance(value, eqx.Module):
        fields = (
            f"{name}={describe(v)}" for name, v in vars(value).items() if v is not None and not name.startswith("_")
        )
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple) and any(isinstance(v, eqx.Module) for v in value):
        return f"({', '.join(describe(v) for v in value)})"
    if isinstance(value, (jax.Array, np.ndarray)) and not is_traced(value):
        return f"{value.item():.6g}" if value.size == 1 else f"{value.dtype}{list(value.shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return repr(value)


def interactive() -> bool:
    """Whether somebody is looking: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
