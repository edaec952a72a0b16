"""The test of holomorphy: the Cauchy-Riemann equations at random points."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from oscsim.core.arrays import is_traced, norm, ratio, to_complex
from oscsim.core.checks import as_count, as_key, as_positive, as_shape, both, checked, shown, untraced
from oscsim.core.errors import BadType, BadValue, InexactGradientWarning, NotHolomorphicError, warn
from oscsim.networks.base import AbstractNetwork, as_network, check_parameters
from oscsim.networks.inputs import Data, Inputs, as_inputs, as_targets


@checked(
    subject=untraced,
    x=untraced,
    y=untraced,
    shape=as_shape,
    points=as_count,
    spread=as_positive,
    key=both(as_key, untraced),
)
def check_holomorphic(
    subject: AbstractNetwork | Callable,
    x: Data = None,
    y: Data = None,
    *,
    shape: tuple[int, ...] = (16,),
    points: int = 8,
    spread: float = 0.2,
    key: Key[Array, ""] | None = None,
) -> dict[str, float]:
    r"""Test that a network, or a function of one array, is holomorphic, and name what is not.

    At random points $z$ and in random directions $v$, a holomorphic function has $Df(z)[iv] = i\,Df(z)[v]$ (the
    Cauchy-Riemann equations); one that is real on the real axis has $Df(\bar z)[\bar v] = \overline{Df(z)[v]}$ as well.
    Of a network the activation, and $\Phi$ in every layer of activities and in $\beta$, are tested one by one; where
    the force has no potential, $\Psi(s, r)$ in both of its arguments.

    Args:
        subject: a network, or a function from an array to an array (an activation, a cost with its target bound).
        x: inputs for a network of your own without `input_shape`; else random.
        y: targets for a network of your own without `outputs`; else random.
        shape: shape of the argument of a function.
        points: how many random points.
        spread: standard deviation of their imaginary parts (1 for the real ones); stay below the nearest pole.
        key: for the random points.

    Returns:
        The largest relative violation of each part, by name.

    Raises:
        NotHolomorphicError: a part breaks an equation by more than rounding; the message names each one.
        TypeError: the subject is neither a network nor a function.
        ValueError: `points` or `spread` are not positive; bad inputs (see `Inputs.of`).

    Example:
        >>> sorted(osc.check_holomorphic(net, x, y, points=1))
        ['activation on layer 1', 'phi in beta', 'phi in s[0]', 'phi real on the real axis']
        >>> osc.check_holomorphic(osc.Tanh())["Tanh"] < 1e-3
        True
    """
    if not callable(subject) and not isinstance(subject, AbstractNetwork):
        raise BadType(f"subject={subject!r}: use a network, or a function of one array")
    key = jax.random.key(0) if key is None else key
    if isinstance(subject, AbstractNetwork):
        violations = _network_violations(subject, x, y, points, spread, key)
    else:
        dtype = jnp.asarray(0.0).dtype
        _require_function_of_arrays(subject, _random(key, shape, dtype, spread))
        violations = {
            getattr(subject, "__name__", type(subject).__name__): max(
                _violation(subject, _random(k, shape, dtype, spread), k) for k in jax.random.split(key, points)
            )
        }
    dtype = subject.dtype if isinstance(subject, AbstractNetwork) else jnp.asarray(0.0).dtype
    tolerance = 1e4 * float(jnp.finfo(dtype).eps)
    broken = {name: v for name, v in violations.items() if not v <= tolerance}
    if broken:
        parts = "; ".join(f"{name} by {v:.2g}" for name, v in broken.items())
        raise NotHolomorphicError(
            f"the Cauchy-Riemann equations are broken by: {parts} (relative; rounding allows {tolerance:.1g}). Look "
            "there for abs, conj, real, imag, max, comparisons or weights cast to complex; nan or inf is a pole near "
            "the points: lower spread."
        )
    return violations


def _require_function_of_arrays(subject: Callable, z: Array) -> None:
    """Refuse what is no function from a complex array to an array."""
    try:
        value = jax.eval_shape(subject, z)
        if not jnp.issubdtype(jax.eval_shape(lambda a: a + 0, value).dtype, jnp.inexact):
            raise TypeError("it returns integers")
    except Exception as error:
        raise BadType(
            f"subject={shown(subject)} is no function from an array of {z.dtype}{list(z.shape)} to another: {error}"
        ) from error


def _network_violations(network, x, y, points, spread, key) -> dict[str, float]:
    check_parameters(as_network("subject", network))
    if (x is None and network.input_shape is None) or (y is None and network.outputs is None):
        raise BadValue("x or y is None: a network without `input_shape` and `outputs` needs a sample of both")
    k_x, k_y, key = jax.random.split(key, 3)
    if x is None:
        x = jax.random.uniform(k_x, (1, *network.input_shape), network.dtype)
    if y is None:
        y = jax.random.randint(k_y, (1,), 0, network.outputs)
    x, y = as_inputs(network, x)[:1], as_targets(network, y)[:1]
    clamped, y = jax.tree.map(lambda a: a[0], (Inputs.of(network, x, y).clamped, y))
    violations: dict[str, float] = {}
    name = "phi" if network.symmetric else "psi"

    def note(name, violation):
        violations[name] = max(violations.get(name, 0.0), violation)

    for k in jax.random.split(key, points):
        k_u, k_beta, k_direction = jax.random.split(k, 3)
        u, heard = (
            tuple(_random(jax.random.fold_in(k, i), a, network.dtype, spread) for i, a in enumerate(network.shapes))
            for k in (k_u, jax.random.fold_in(k_u, len(network.shapes)))
        )
        s, r = (to_complex(network.activities(a)) for a in (u, heard))
        beta = _random(k_beta, (), network.dtype, spread)
        for i, layer in enumerate(u):
            note(f"activation on layer {i + 1}", _violation(network.activation, layer, k_direction))

            def of_emitted(z, i=i, s=s, r=r, beta=beta):
                return network.psi(clamped, (*s[:i], z, *s[i + 1 :]), r, y, beta)

            def of_heard(z, i=i, s=s, r=r, beta=beta):
                return network.psi(clamped, s, (*r[:i], z, *r[i + 1 :]), y, beta)

            note(f"{name} in s[{i}]", _riemann_violation(of_emitted, s[i], k_direction))
            note(f"{name} in s[{i}]", _circle_violation(of_emitted, s[i], k_direction))
            if not network.symmetric:
                note(f"{name} in r[{i}]", _riemann_violation(of_heard, r[i], k_direction))
        note(
            f"{name} in beta",
            _riemann_violation(lambda z, s=s, r=r: network.psi(clamped, s, r, y, z), beta, k_direction),
        )
        joint = lambda z: network.psi(clamped, z[0], z[1], y, z[2])  # noqa: E731
        note(f"{name} real on the real axis", _reality_violation(joint, (s, r, beta), k_direction))
    return violations


def _random(key, shape, dtype, spread):
    real, imag = jax.random.normal(key, (2, *shape), dtype)
    return jax.lax.complex(real, spread * imag)


def _directions(key, z):
    leaves, structure = jax.tree.flatten(z)
    return jax.tree.unflatten(
        structure,
        [_random(jax.random.fold_in(key, i), a.shape, a.real.dtype, 1.0) for i, a in enumerate(leaves)],
    )


def _violation(function: Callable, z: PyTree[Array], key: Key[Array, ""]) -> float:
    return max(check(function, z, key) for check in (_riemann_violation, _reality_violation, _circle_violation))


def _riemann_violation(function: Callable, z: PyTree[Array], key: Key[Array, ""]) -> float:
    """$|Df(z)[iv] - i Df(z)[v]|$, relative, at one point in one direction."""
    v = _directions(key, z)
    value, along = jax.jvp(function, (z,), (v,))
    if not jnp.iscomplexobj(value):
        return 1.0  # a real value for a complex argument: no derivative at all
    _, across = jax.jvp(function, (z,), (jax.tree.map(lambda a: 1j * a, v),))
    return _relative(across - 1j * along, along)


def _reality_violation(function: Callable, z: PyTree[Array], key: Key[Array, ""]) -> float:
    r"""$|Df(\bar z)[\bar v] - \overline{Df(z)[v]}|$, relative: of the derivative, which has no branch cuts."""
    v = _directions(key, z)
    _, here = jax.jvp(function, (z,), (v,))
    _, mirrored = jax.jvp(function, (jax.tree.map(jnp.conj, z),), (jax.tree.map(jnp.conj, v),))
    return _relative(mirrored - jnp.conj(here), here)


def _circle_violation(function: Callable, z: PyTree[Array], key: Key[Array, ""]) -> float:
    r"""The mean of $f(z + r e^{i\vartheta} v)$ on a small circle against $f(z)$, and its slope against $Df(z)[v]$.

    What is holomorphic piece by piece fails on a circle across an edge; a derivative that `stop_gradient` hides fails
    everywhere. Differences of values are less precise than derivatives: what rounding explains counts as none.
    """
    v = _directions(key, z)
    value, along = jax.jvp(function, (z,), (v,))
    if not jnp.iscomplexobj(value):
        return 1.0
    double = value.dtype == jnp.complex128
    radius, allowed = (1e-3, 1e-6) if double else (0.03, 2e-2)
    turns = np.exp(2j * np.pi * np.arange(16) / 16)
    values = jnp.stack(
        [function(jax.tree.map(lambda a, b, t=t: a + (radius * t * b).astype(a.dtype), z, v)) for t in turns]
    )
    mean, first = (jnp.tensordot(jnp.asarray(w / 16, value.dtype), values, 1) for w in (np.ones(16), turns.conj()))
    scale = jnp.maximum(norm(along), norm(value))
    worst = max(_relative((mean - value) / radius, scale), _relative(first / radius - along, scale))
    return worst if worst > allowed else 0.0


SEEN: set[tuple[type, type]] = set()
"""Networks and activations that were looked at by `check_unseen`, by their classes."""


def check_unseen(network: AbstractNetwork, inputs: Callable[[], Inputs]) -> None:
    """Look once at each network of a user's own that a complex signal passes, and warn where it is not holomorphic.

    The package's own classes are held to the equations by its tests.
    """
    kinds = type(network), type(network.activation)
    if kinds in SEEN or is_traced(network):
        return
    SEEN.add(kinds)
    plain = not isinstance(network.activation, eqx.Module)
    if not plain and all(kind.__module__.startswith("oscsim.") for kind in kinds):
        return
    if plain:
        SEEN.discard(kinds)  # functions are all of one class
    shown = inputs()
    if is_traced(shown):
        return
    try:
        check_holomorphic(network, shown.x[:1], shown.y[:1], points=2)
    except NotHolomorphicError as error:
        warn(f"{error} Gradients read from a complex signal are wrong.", InexactGradientWarning)


def _relative(difference: Array, size: Array) -> float:
    worst = float(ratio(norm(difference), norm(size)))
    return worst if np.isfinite(worst) else np.inf
