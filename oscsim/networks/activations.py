r"""Activations: how a neuron's potential $u$ becomes its activity $s = \sigma(u)$.

A holomorphic activation is evaluated on complex potentials by its real and imaginary parts: XLA turns that into
one pass of real arithmetic, and the packed state of the solver never becomes a complex array in between.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_inexact, checked, positive, scalar
from oscsim.core.printing import AbstractSettings
from oscsim.core.registry import register

# sin r = r + r z S(z) and cos r = 1 - z / 2 + z^2 C(z) with z = r^2, |r| <= pi / 4, by bytes per number. And pi / 2 in
# three parts, the first two with so few digits that their product with a small integer is exact (Cody & Waite, 1980).
# Sources of the coefficients: Cephes (float32), fdlibm (float64).
_SINE = {
    4: (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4),
    8: (
        -1.66666666666666324348e-01,
        8.33333333332248946124e-03,
        -1.98412698298579493134e-04,
        2.75573137070700676789e-06,
        -2.50507602534068634195e-08,
        1.58969099521155010221e-10,
    ),
}
_COSINE = {
    4: (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5),
    8: (
        4.16666666666666019037e-02,
        -1.38888888888741095749e-03,
        2.48015872894767294178e-05,
        -2.75573143513906633035e-07,
        2.08757232129817482790e-09,
        -1.13596475577881948265e-11,
    ),
}
_HALF_PI = {
    4: (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8),
    8: (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21),
}


def tangent(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The tangent to rounding for |y| below 1e4, as one division of polynomials, which the compiler can vectorise."""
    size = 8 if y.dtype == jnp.float64 else 4
    quarter = jnp.round(y * (2 / jnp.pi))
    r = y
    for part in _HALF_PI[size]:
        r = r - quarter * part
    r = jnp.clip(r, -0.8, 0.8)  # far out, where the reduction has no digits left, r stays bounded
    z = r * r
    sine = r + r * z * _horner(_SINE[size], z)
    cosine = 1 - z / 2 + z * z * _horner(_COSINE[size], z)
    odd = quarter.astype(jnp.int32) & 1 == 1
    above, below = jnp.where(odd, -cosine, sine), jnp.where(odd, sine, cosine)
    return above / jnp.where(below == 0, jnp.finfo(y.dtype).tiny, below)


def _horner(coefficients: tuple[float, ...], z: Array) -> Array:
    value = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * z + coefficient
    return value


def logistic(u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""$1 / (1 + e^{-u})$ for real or complex `u`, without overflow anywhere off its poles, $u = i \pi (2k + 1)$."""
    return _complex_logistic(u) if jnp.iscomplexobj(u) else jax.nn.sigmoid(u)


@jax.custom_jvp
def _complex_logistic(u: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    r"""The logistic of $u = x + iy$ by $E = e^{-|x|}$ and $t = \tan(y/2)$.

    With $a = 1 + E$, $b = 1 - E$ and $D = a^2 + t^2 b^2$ the real part is $(a + t^2 b) / D$ for $x \ge 0$ and
    $E (a - t^2 b) / D$ for $x < 0$, the imaginary part $2 E t / D$.

    Only $E$, $t$ and the two quotients are worth a pass through memory. A compiler keeps divisions and exponentials but
    would compute a sine or a cosine, written as polynomials, anew for whatever uses them.
    """
    x = u.real
    e, t = jnp.exp(-jnp.abs(x)), tangent(u.imag / 2)
    a, b = 1 + e, t * t * (1 - e)
    below = a * a + b * (1 - e)
    real = jnp.where(x >= 0, a + b, e * (a - b)) / below
    return lax.complex(real, 2 * e * t / below)


@_complex_logistic.defjvp
def _complex_logistic_jvp(primals, tangents):
    value = _complex_logistic(*primals)
    return value, value * (1 - value) * tangents[0]


numeric = checked(u=as_inexact)
"""For what is called with potentials."""


class AbstractActivation(AbstractSettings):
    """A function applied to every potential on its own.

    Any callable serves as an activation; a class also says whether it is `holomorphic`.

    Example:
        >>> class Algebraic(osc.AbstractActivation):
        ...     def __call__(self, u):
        ...         return u / jnp.sqrt(1 + u**2)
        >>> osc.check_holomorphic(Algebraic())["Algebraic"] < 1e-3
        True
        >>> bent = osc.LayeredNetwork((6, 5, 4), activation=Algebraic(), key=jax.random.key(0))
    """

    holomorphic: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """The activity of every potential in `u`, real or complex."""


class Logistic(AbstractActivation):
    r"""$\sigma(u) = 1 / (1 + e^{-k (u - c)})$, with poles at $u = c + i \pi (2n + 1) / k$.

    The paper's `my_sigmoid(a=-4, b=2)` is `Logistic(slope=4.0, centre=0.5)`.

    Attributes:
        slope: $k$, the steepness; the derivative at the centre is $k / 4$.
        centre: $c$, the potential of half activity.

    Example:
        >>> print(np.array(osc.Logistic(slope=4.0, centre=0.5)(jnp.array([0.0, 0.5, 1.0]))).round(2))
        [0.12 0.5  0.88]
    """

    slope: Scalar = eqx.field(converter=scalar("slope"), default=4.0)
    centre: Scalar = eqx.field(converter=scalar("centre"), default=0.5)

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return logistic(self.slope * (u - self.centre))


class HoloTanh(AbstractActivation):
    r"""The paper's two-sided holomorphic stand-in for the hard tanh.

    $\sigma(u) = \frac{u/w}{1 + e^{-a u}} + \frac{1 - u/w}{1 + e^{-a (u - w)}}$: near 0 below 0, near $u/w$ between
    0 and $w$, near 1 above. The paper's two have width 1 and 2.

    Attributes:
        a: how sharp the two corners are.
        width: $w > 0$, the distance between them.

    Raises:
        ValueError: the width is not positive.

    Example:
        >>> print(np.array(osc.HoloTanh(a=4.0)(jnp.array([-1.0, 0.0, 0.5, 1.0]))).round(2))
        [-0.02  0.02  0.5   0.98]
    """

    a: Scalar = eqx.field(converter=scalar("a"), default=4.0)
    width: Scalar = eqx.field(converter=positive("width"), default=1.0)

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        v = u / self.width
        return v * logistic(self.a * u) + (1 - v) * logistic(self.a * (u - self.width))


class SiLU(AbstractActivation):
    r"""$\sigma(u) = u / (1 + e^{-u})$, the smooth rectifier, with poles at $i \pi (2n + 1)$.

    Example:
        >>> print(np.array(osc.SiLU()(jnp.array([-4.0, 0.0, 4.0]))).round(2))
        [-0.07  0.    3.93]
    """

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return u * logistic(u)


class Tanh(AbstractActivation):
    r"""$\sigma(u) = \tanh u$, with poles at $i \pi (n + 1/2)$.

    Example:
        >>> print(np.array(osc.Tanh()(jnp.array([-1.0, 0.0, 1.0]))).round(2))
        [-0.76  0.    0.76]
    """

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return 2 * logistic(2 * u) - 1


class RaisedCosine(AbstractActivation):
    r"""$\sigma(u) = (1 - \cos(a \pi u)) / 2$: entire, no poles; grows like $e^{a \pi |\mathrm{Im} u|}$.

    Attributes:
        a: half periods of the cosine per unit of potential.

    Example:
        >>> print(np.array(osc.RaisedCosine()(jnp.array([0.0, 0.5, 1.0]))).round(2))
        [0.  0.5 1. ]
    """

    a: Scalar = eqx.field(converter=scalar("a"), default=1.0)

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return (1 - jnp.cos(jnp.pi * (self.a * u))) / 2  # in the precision of u: a float32 `a` times pi would round


class Identity(AbstractActivation):
    r"""$\sigma(u) = u$: a linear network.

    Example:
        >>> print(osc.Identity()(jnp.array([0.5, -2.0])))
        [ 0.5 -2. ]
    """

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return u


def _on_real_part(function, u):
    """Apply a function of real numbers; of a complex `u` the real part alone is seen."""
    if not jnp.iscomplexobj(u):
        return function(u)
    return lax.complex(function(u.real), jnp.zeros_like(u.imag))


class HardTanh(AbstractActivation):
    r"""$\sigma(u) = \min(\max(u/w, 0), 1)$. Not holomorphic: for comparison under real teaching signals only.

    The paper's `my_hardtanh` has width 2.

    Attributes:
        width: $w > 0$, the length of the linear part.

    Raises:
        ValueError: the width is not positive.

    Example:
        >>> print(osc.HardTanh(width=2.0)(jnp.array([-1.0, 0.5, 1.0, 3.0])))
        [0.   0.25 0.5  1.  ]
    """

    width: Scalar = eqx.field(converter=positive("width"), default=1.0)
    holomorphic: ClassVar[bool] = False

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return _on_real_part(lambda x: jnp.clip(x / self.width, 0, 1), u)


class ReLU(AbstractActivation):
    r"""$\sigma(u) = \max(u, 0)$. Not holomorphic: for comparison under real teaching signals only.

    Example:
        >>> print(osc.ReLU()(jnp.array([-1.0, 2.0])), osc.ReLU().holomorphic)
        [0. 2.] False
    """

    holomorphic: ClassVar[bool] = False

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return _on_real_part(jax.nn.relu, u)


# Functions of jax that networks may be saved with.
for function in (
    *(jax.nn.celu, jax.nn.elu, jax.nn.gelu, jax.nn.hard_sigmoid, jax.nn.hard_silu, jax.nn.hard_tanh, jax.nn.identity),
    *(jax.nn.leaky_relu, jax.nn.log_sigmoid, jax.nn.mish, jax.nn.relu, jax.nn.relu6, jax.nn.selu, jax.nn.sigmoid),
    *(jax.nn.silu, jax.nn.soft_sign, jax.nn.softplus, jax.nn.sparse_plus, jax.nn.squareplus, jnp.arctan, jnp.arcsinh),
    *(jnp.cos, jnp.exp, jnp.sin, jnp.sinc, jnp.square, jnp.tanh),
):
    register(function)
