r"""Costs: $C(\text{output}, y)$ of one sample, holomorphic in the output, with real targets."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Real

from oscsim.core.checks import Given, as_inexact, as_numbers, checked
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings


def as_output(name: str, value: Given) -> Array:
    """The output of one sample as an array, or an error that names what is none."""
    value = as_inexact(name, value)
    if jnp.ndim(value) != 1:
        raise BadValue(f"{name} has shape {jnp.shape(value)}: give the output of one sample, and jax.vmap over several")
    return value


costing = checked(output=as_output, y=as_numbers)
"""For what is called with an output and a target."""


def one_hot(y: Real[Array, "*classes"], classes: int, dtype) -> Array:
    """The target as a vector: integer labels become one-hot, vectors stay what they are."""
    y = jnp.asarray(y)
    if y.shape not in ((), (classes,)) or (y.ndim == 0 and not jnp.issubdtype(y.dtype, jnp.integer)):
        raise BadValue(f"y has shape {y.shape} and type {y.dtype}: give a label, an integer, or {classes} numbers")
    if jnp.iscomplexobj(y):
        raise BadType(f"y is {y.dtype}: targets are real; use y.real")
    if y.ndim == 0 and jnp.issubdtype(y.dtype, jnp.integer):
        return jax.nn.one_hot(y, classes, dtype=dtype)
    return y.astype(dtype)


class AbstractCost(AbstractSettings):
    """The cost of one sample, a holomorphic function of the network's output.

    `readout` says where the output comes from: a linear map outside the dynamics (True), or the last layer of
    neurons itself (False). `real` says whether the output is to be the target itself, real numbers, as in regression,
    rather than scores of classes.

    Example:
        >>> class Quartic(osc.AbstractCost):
        ...     readout = False  # the output is the last layer of neurons
        ...     def __call__(self, output, y):
        ...         return jnp.sum((output - jax.nn.one_hot(y, output.shape[-1])) ** 4)
        >>> print(Quartic()(jnp.array([0.5, 0.0]), jnp.array(0)))
        0.0625
        >>> quartic = osc.LayeredNetwork((6, 5, 4), cost=Quartic(), key=jax.random.key(0))
    """

    readout: eqx.AbstractClassVar[bool]
    real: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, output: Inexact[Array, " classes"], y: Real[Array, "*classes"]) -> Array:
        """The cost, a scalar, for an integer label or a real target vector `y`."""


class CrossEntropy(AbstractCost):
    r"""$C = \sum_k y_k \, (\log \sum_j e^{o_j} - o_k)$ of logits $o$, read out of the dynamics by a linear map.

    Example:
        >>> print(f"{osc.CrossEntropy()(jnp.zeros(4), jnp.array(0)):.3f}")  # log 4
        1.386
    """

    readout: ClassVar[bool] = True

    @costing
    def __call__(self, output: Inexact[Array, " classes"], y: Real[Array, "*classes"]) -> Array:
        if output.shape[-1] == 1:
            raise BadValue(
                "output has one number, outputs=1: the cross-entropy of one class is 0 whatever the network does; use "
                "two outputs or more, or cost=SquaredError() (--cost squarederror) for a real target"
            )
        target = one_hot(y, output.shape[-1], output.real.dtype)
        shifted = output - lax.stop_gradient(jnp.max(output.real))  # the shift cancels; it keeps exp in range
        return jnp.sum(target) * jnp.log(jnp.sum(jnp.exp(shifted))) - jnp.sum(target * shifted)


class SquaredError(AbstractCost):
    r"""$C = \frac12 \sum_k (s_k - y_k)^2$ of the last layer's activities $s$.

    For real targets, or for classes, as one-hot targets or labels.

    Example:
        >>> print(osc.SquaredError()(jnp.array([0.5, 0.5]), jnp.array(1)))
        0.25
    """

    readout: ClassVar[bool] = False
    real: ClassVar[bool] = True

    @costing
    def __call__(self, output: Inexact[Array, " classes"], y: Real[Array, "*classes"]) -> Array:
        return jnp.sum((output - one_hot(y, output.shape[-1], output.real.dtype)) ** 2) / 2
