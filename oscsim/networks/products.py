"""Products of matrices in mixed precision: operands split into bfloat16 numbers, added up in float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Real

from oscsim.core.checks import choice
from oscsim.core.errors import BadValue

PRODUCTS = {"bfloat16": 1, "bfloat16x3": 2}
"""Into how many bfloat16 numbers a product splits each operand."""


as_products = choice(*PRODUCTS, otherwise="or None, for float32")
"""A way to multiply."""


def _split_product(
    a: Real[Array, "matrices rows inner"], b: Real[Array, "matrices inner columns"], *, parts: int
) -> Real[Array, "matrices rows columns"]:
    """Products of matrices split into bfloat16 parts, added up in float32; with two, low times low is left out."""

    def split(a):
        found = []
        for _ in range(parts):
            # Not `astype` alone: the compiler may take a cast there and back for none at all.
            found.append(lax.reduce_precision(a, exponent_bits=8, mantissa_bits=7))
            a = a - found[-1]
        return [part.astype(jnp.bfloat16) for part in found]

    def product(a, b):
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)

    (high_a, *low_a), (high_b, *low_b) = split(a), split(b)
    terms = [product(low, high_b) for low in low_a] + [product(high_a, low) for low in low_b]
    return sum(terms, product(high_a, high_b))


# A primitive, since the derivatives of a product are to be such products again, of any order and in either direction:
# the force on the neurons is one. Autodiff of the casts would round what has been added up, and `jax.custom_vjp` has no
# forward mode. XLA's own (`lax.DotAlgorithmPreset`) are plain float32 products on a CPU, where nothing could be tested.
_product_p = Primitive("split_product")
_product_p.def_impl(jax.jit(_split_product, static_argnames="parts"))
_product_p.def_abstract_eval(lambda a, b, *, parts: a.update(shape=(*a.shape[:2], b.shape[2])))
mlir.register_lowering(_product_p, mlir.lower_fun(_split_product, multiple_results=False))
ad.defbilinear(
    _product_p,
    lambda g, a, b, *, parts: _product_p.bind(g, b.swapaxes(1, 2), parts=parts),
    lambda g, a, b, *, parts: _product_p.bind(a.swapaxes(1, 2), g, parts=parts),
)


def _batch_product(operands: Sequence[Array], axes: Sequence[int | None], *, parts: int) -> tuple[Array, int]:
    size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    a, b = (x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True))
    if axes[1] is None and b.shape[0] == 1:  # all samples share a kernel: one product with more rows
        return _product_p.bind(a.reshape(1, -1, a.shape[-1]), b, parts=parts).reshape(*a.shape[:-1], -1), 0
    a, b = (jnp.broadcast_to(x, (size, *x.shape)) if axis is None else x for x, axis in zip((a, b), axes, strict=True))
    z = _product_p.bind(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:]), parts=parts)
    return z.reshape(size, -1, *z.shape[1:]), 0


batching.primitive_batchers[_product_p] = _batch_product


def multiply(
    s: Real[Array, "... in"], weight: Real[Array, "in out"], products: str | None = None
) -> Real[Array, "... out"]:
    """`s @ weight`, with `products` as in `ConvolutionalNetwork`."""
    if products is None:
        return s @ weight
    if not s.dtype == weight.dtype == jnp.float32:
        raise BadValue(
            f"products={products!r} adds up in float32, for activities of {s.dtype} and weights of {weight.dtype}: use "
            "a float32 network, or products=None"
        )
    flat = s.reshape(1, -1, s.shape[-1])
    return _product_p.bind(flat, weight[None], parts=PRODUCTS[products]).reshape(*s.shape[:-1], -1)
