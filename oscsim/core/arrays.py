"""Helpers for arrays, numbers and pytrees."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

Scalar = Float[Array, ""]
"""A real number held as an array, so that changing it does not recompile."""


Count: TypeAlias = Int[Array, ""] | np.int32
"""A number of cycles or steps that may change without compiling anew."""


compiled = functools.partial(jax.jit, inline=True)
"""For short functions of arrays: one program where they are called alone, part of the caller's where that is traced."""


P = ParamSpec("P")
R = TypeVar("R")


def promoting(function: Callable[P, R]) -> Callable[P, R]:
    """The function under jax's usual rules of promotion, also where the caller has set stricter ones.

    Real weights meet complex activities all over the package, which `numpy_dtype_promotion("strict")` forbids.
    """

    @functools.wraps(function)
    def promoted(*args: P.args, **kwargs: P.kwargs) -> R:
        if jax.config.jax_numpy_dtype_promotion == "standard":  # pyright: ignore[reportAttributeAccessIssue]
            return function(*args, **kwargs)
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoted


def is_traced(*values: PyTree) -> bool:
    """Whether any of the values is being traced by jax, and so cannot be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def constant(tree: PyTree) -> PyTree:
    """The same, which derivatives taken by jax leave alone; itself where nothing is traced."""
    if not is_traced(tree):
        return tree
    return jax.tree.map(lambda a: lax.stop_gradient(a) if eqx.is_inexact_array(a) else a, tree)


def is_key(value: object) -> bool:
    """Whether a value is an array of random keys of jax."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def complex_of(dtype: Any) -> np.dtype:
    """The complex type of the same precision as the real one."""
    return np.dtype(jnp.promote_types(dtype, jnp.complex64))


def to_complex(tree: PyTree) -> PyTree:
    """Every array of the tree as a complex one of the same precision."""
    return jax.tree.map(lambda a: a.astype(complex_of(a.dtype)), tree)


def ratio(a: Array | float, b: Array | float) -> Array:
    """$a / b$ for b of 0 or more, where a zero is taken for the smallest number: 0 / 0 is 0."""
    b = jnp.asarray(b)
    return a / jnp.maximum(b, jnp.finfo(b.dtype).tiny)


@compiled
def norm(tree: PyTree) -> Array:
    """The Euclidean norm of all numbers in a pytree taken together."""
    squares = [jnp.sum(jnp.real(a) ** 2 + jnp.imag(a) ** 2) for a in jax.tree.leaves(tree)]
    return jnp.sqrt(functools.reduce(jnp.add, squares)) if squares else jnp.zeros(())


def per_sample(values: Array, like: Array) -> Array:
    """Numbers per sample, or one for all, in a shape that multiplies an array with the same leading axes.

    So it is with numbers per point, harmonic or cycle where those come first.
    """
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def repeated(tree: R, count: int) -> R:
    """Arrays (batch, ...) repeated along the batch, all samples in turn: (count * batch, ...)."""
    return jax.tree.map(lambda a: jnp.tile(a, (count, *(1,) * (a.ndim - 1))), tree)


def sample_norm(layers: Sequence[Array]) -> Float[Array, "..."]:
    """The Euclidean norm over all neurons of each sample; layers are (batch, neurons...)."""
    squares = [jnp.sum(jnp.abs(a.reshape(len(a), -1)) ** 2, axis=1) for a in layers]
    return jnp.sqrt(sum(squares[1:], squares[0]))


@compiled
def all_finite(tree: PyTree) -> Array:
    """Whether every number in a pytree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)]))


def described(module: eqx.Module) -> list[tuple[str, str]]:
    """The fields of a module that say something, by name, as one would type them."""
    return [(name, describe(v)) for name, v in vars(module).items() if v is not None and not name.startswith("_")]


def describe(value: object) -> str:
    """A module on one line with its numbers in full, as one would type it."""
    match value:
        case eqx.Module():
            shown = ", ".join(f"{name}={text}" for name, text in described(value))
            return f"{type(value).__name__}({shown})"
        case tuple() if any(isinstance(v, eqx.Module) for v in value):
            return describe(value[0]) if len(value) == 1 else f"({', '.join(map(describe, value))})"
        case jax.Array() | np.ndarray() if not is_traced(value):
            return f"{value.item():.6g}" if value.size == 1 else f"{value.dtype}{list(value.shape)}"
        case object(__name__=name) if callable(value):
            return name
    return repr(value)
