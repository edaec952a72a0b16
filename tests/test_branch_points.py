"""Branch points: against closed forms, and against a continuation round circles that knows nothing of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim.equilibrium.vectors import flat, flat_force
from tests.helpers import COST, OneNeuron, Quadratic, toy
from tests.marks import slow_except

ZERO = jnp.zeros((1, 1))


class PhaseOscillator(OneNeuron):
    r"""Pulled to the direction $\psi$ with strength $h$, and detuned by $w$; $C = 1 - \cos(\varphi - y)$."""

    h: jax.Array
    w: jax.Array
    direction: jax.Array

    def phi(self, clamped, s, y, beta):
        (phase,) = s
        pulled = self.h * jnp.cos(phase - self.direction) + self.w * phase + phase**2 / 2
        return jnp.sum(pulled) - beta * jnp.sum(1 - jnp.cos(phase - y))


@pytest.mark.usefixtures("x64")
def test_two_roots_of_a_quadratic_neuron_meet():
    b, w = 0.3, 0.5
    found = osc.response.branch_points(Quadratic(jnp.array([b]), jnp.array(w)), ZERO, ZERO)
    assert found.beta[0] == pytest.approx((b - 1 / (4 * w)) / COST, rel=1e-8)
    assert found.potentials[0][0, 0] == pytest.approx(1 / (2 * w), rel=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("y", [0.9, 1.5])
def test_a_phase_oscillator_unlocks(y):
    r"""At $\sqrt{h^2 - w^2}$ for $|w| \le h |\sin\Delta|$, else $h |\cos\Delta| - \sqrt{w^2 - h^2 \sin^2\Delta}$."""
    h, w, psi = 0.8, 0.5, 0.5
    across = h * abs(np.sin(psi - y))
    expected = np.sqrt(h**2 - w**2) if w <= across else h * abs(np.cos(psi - y)) - np.sqrt(w**2 - across**2)
    net = PhaseOscillator(jnp.array(h), jnp.array(w), jnp.array(psi))
    found = osc.response.branch_points(net, ZERO, jnp.full((1, 1), y))
    assert found.radius[0] == pytest.approx(expected, rel=1e-8)


@eqx.filter_jit
def followed(net, inputs, u, betas):
    """Newton's method from point to point of a path, from its first; and whether it held at each."""
    force = flat_force(net, inputs.clamped[0], inputs.y[0])

    def step(u, beta):
        def once(_, v):
            jacobian = jnp.eye(len(v)) - jax.jacfwd(lambda v: force(v, beta), holomorphic=True)(v)
            return v - jnp.linalg.solve(jacobian, v - force(v, beta))

        new = jax.lax.fori_loop(0, 6, once, u)
        held = jnp.max(jnp.abs(new - force(new, beta))) < 1e-9
        return new, held & (jnp.linalg.norm(new - u) < 0.2)

    return jax.lax.scan(step, u, betas)


def comes_back(net, inputs, u, amplitude):
    """Whether the free state on the negative side is the same, by the axis and round the upper half of the circle."""
    out, turn = np.linspace(0, amplitude, 300), np.exp(1j * np.pi * np.linspace(0, 1, 1500))
    right, held = followed(net, inputs, u, out.astype(complex))
    left, also = followed(net, inputs, u, -out.astype(complex))
    round_, held_round = followed(net, inputs, right, amplitude * turn)
    return bool(jnp.all(held) & jnp.all(also) & jnp.all(held_round)) and jnp.linalg.norm(round_ - left) < 1e-6


def bisected(net, x, y):
    """The largest amplitude at which it does, to 1e-4."""
    inputs, free = osc.Inputs.of(net, x, y), osc.settle(net, x, y)
    u = flat(tuple(a[0] for a in free.potentials)).astype(complex)
    low, high = 0.0, 0.05
    while comes_back(net, inputs, u, high):
        low, high = high, 1.5 * high
        if high > 20:
            return np.inf
    while high - low > 1e-4 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if comes_back(net, inputs, u, middle) else (low, middle)
    return low


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", slow_except(range(2), range(50)))
def test_of_random_networks_against_bisection(seed):
    key, data, draw = jax.random.split(jax.random.key(seed), 3)
    scale = float(jax.random.uniform(draw, (), minval=0.3, maxval=0.9))
    net = osc.LayeredNetwork((6, 5, 4, 3), key=key, scale=scale)
    x, y = jax.random.uniform(data, (1, 6)), jnp.array([seed % 3])
    found = osc.response.branch_points(net, x, y)
    assert found.radius[0] == pytest.approx(bisected(net, x, y), rel=1e-3)
    assert found.residual[0] < 1e-10


@pytest.mark.slow
def test_in_float32_and_several_samples():
    net, x, y = toy()
    found = osc.response.branch_points(net, x, y)
    alone = [osc.response.branch_points(net, x[i : i + 1], y[i : i + 1]).beta[0] for i in range(len(y))]
    np.testing.assert_allclose(found.beta, alone, rtol=1e-3)
    assert found.beta.dtype == np.complex64


def test_what_has_none_says_so():
    linear = Quadratic(jnp.array([0.3]), jnp.array(0.0))
    assert np.isnan(osc.response.branch_points(linear, ZERO, ZERO).radius[0])
    with pytest.raises(osc.BadValue, match="directions=0"):
        osc.response.branch_points(linear, ZERO, ZERO, directions=0)
