"""Which state: settling against the neurons' own equation through scipy, and oracles at the state they are asked about.

In float64.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.integrate import solve_ivp

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.equilibrium import state_at
from oscsim.equilibrium.flow import is_stable
from oscsim.equilibrium.stable import decays, dies_out
from oscsim.equilibrium.vectors import as_layers
from oscsim.response import (
    convergence_radius,
    optimal_amplitude,
    predict_bias,
    predict_gradient,
    predict_spread,
    stability_map,
    susceptibility,
)
from tests.helpers import toy
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")


class Oscillators(osc.AbstractNetwork):
    r"""Phase oscillators, $\dot\phi_i = w_i - \sum_j J_{ij} \sin(\phi_i - \phi_j) - h \sin(\phi_i - x_i)$."""

    coupling: jax.Array
    detuning: jax.Array
    field: jax.Array
    activation = osc.Identity()

    @property
    def shapes(self):
        return (self.detuning.shape,)

    def clamp(self, x):
        return x

    def phi(self, clamped, s, y, beta):
        (phase,) = s
        pairs = jnp.sum((self.coupling + self.coupling.T) * jnp.cos(phase[:, None] - phase[None])) / 4
        energy = jnp.sum(phase**2) / 2 + pairs + jnp.sum(self.field * jnp.cos(phase - clamped))
        return energy + jnp.sum(self.detuning * phase) - beta * (1 - jnp.cos(phase[0] - y))


def oscillators(seed=1, strength=1.0, detuning=0.1, neurons=8):
    """Coupled all to all, with signs; and two inputs."""
    keys = jax.random.split(jax.random.key(seed), 3)
    net = Oscillators(
        strength * jax.random.normal(keys[0], (neurons, neurons)),
        detuning * jax.random.normal(keys[1], (neurons,)),
        0.8 * jnp.ones(neurons),
    )
    return net, 2 * jax.random.normal(keys[2], (2, neurons)), jnp.array([0.3, 1.0])


def several():
    """Two stable states for each of four inputs, and unstable ones that sweeps find too."""
    net = osc.LayeredNetwork(
        (9, 7, 5, 6, 3),
        activation=osc.Logistic(slope=3.0, centre=0.4),
        cost=osc.SquaredError(),
        key=jax.random.key(7),
    )
    return net, jax.random.uniform(jax.random.key(1), (4, 9)), jnp.array([0, 2, 1, 1])


@eqx.filter_jit
def motion(net, inputs, u):
    """The right side of the neurons' equation with tau = 1, for vectors (batch, neurons)."""
    force = net.force(inputs.clamped, net.activities(as_layers(net, u)), inputs.y, jnp.zeros(()))
    return jnp.concatenate([f.reshape(len(u), -1) for f in force], axis=1) - u


@eqx.filter_jit
def jacobian(net, inputs, u):
    """Its derivative in one sample."""
    return jax.jacfwd(lambda u: motion(net, inputs, u[None])[0])(u)


def sample(inputs, i):
    return jax.tree.map(lambda a: a[i : i + 1], inputs)


def vectors(layers):
    return np.concatenate([np.asarray(a).reshape(len(a), -1) for a in layers], axis=1)


def growth(net, inputs, potentials):
    """The largest growth rate of small disturbances of each sample, by numpy."""
    return np.array(
        [
            np.linalg.eigvals(np.asarray(jacobian(net, sample(inputs, i), jnp.asarray(u)))).real.max()
            for i, u in enumerate(vectors(potentials))
        ]
    )


def end_of_the_ode(net, inputs, start):
    """Where scipy's stiff solver brings one sample: (neurons,)."""

    def velocity(_, u):
        return np.asarray(motion(net, inputs, u[None])[0])

    def slope(_, u):
        return np.asarray(jacobian(net, inputs, u))

    u = start
    for span in (60.0, 200.0, 1000.0, 5000.0, 20000.0):
        u = solve_ivp(velocity, (0, span), u, method="LSODA", jac=slope, rtol=1e-9, atol=1e-11).y[:, -1]
        if np.abs(velocity(0, u)).max() < 1e-7:
            break
    for _ in range(4):
        u = u - np.linalg.solve(slope(0, u), velocity(0, u))
    return u


# What settling finds.


def test_the_flow_ends_where_the_ode_does():
    for net, x, y in (several(), oscillators()):
        inputs = osc.Inputs.of(net, x, y)
        found = osc.settle(net, x, y, method="flow")
        assert bool(jnp.all(found.by_flow))
        rest = vectors(net.rest(len(x)))
        ends = [end_of_the_ode(net, sample(inputs, i), u) for i, u in enumerate(rest)]
        np.testing.assert_allclose(vectors(found.potentials), np.stack(ends), atol=1e-8)
        assert f"{len(x)} found by following the neurons" in str(found)


def test_sweeps_that_fail_are_followed_by_the_flow():
    net, x, y = oscillators()
    inputs = osc.Inputs.of(net, x, y)
    with pytest.raises(osc.NotSettledError, match="did not settle at beta=0"):
        osc.settle(net, x, y, method="sweeps")
    found = osc.settle(net, x, y)
    assert bool(jnp.all(found.by_flow))
    assert float(found.residual.max()) < 1e-12
    assert growth(net, inputs, found.potentials).max() < 0
    nudged = osc.settle(net, x, y, jnp.array([0.1, 0.2]), start=found.potentials)
    assert growth(net, inputs, nudged.potentials).max() < 0

    # Where they do not, nothing is.
    net, x, y = toy()
    assert not bool(jnp.any(osc.settle(net, x, y).by_flow))


def test_settling_ends_in_stable_states_where_sweeps_end_in_others():
    net, x, y = several()
    many, labels = jnp.repeat(x, 60, axis=0), jnp.repeat(y, 60)
    inputs = osc.Inputs.of(net, many, labels)
    keys = jax.random.split(jax.random.key(0), len(net.shapes))
    start = tuple(2 * jax.random.normal(k, a.shape) for k, a in zip(keys, net.rest(240), strict=True))
    swept = osc.settle(net, many, labels, start=start, method="sweeps", throw=False)
    unstable = (growth(net, inputs, swept.potentials) > 0) & np.asarray(swept.residual <= 1e-12)
    assert 0 < unstable.sum() < 30
    found = osc.settle(net, many, labels, start=start)
    assert growth(net, inputs, found.potentials).max() < 0
    assert np.all(np.asarray(found.by_flow)[unstable])
    assert np.sum(np.asarray(found.by_flow)) < 2 * unstable.sum() + 5
    # Neurons that are in balance in an unstable state leave it.
    start = tuple(a[np.flatnonzero(unstable)[:1]] for a in swept.potentials)
    there = {"start": start, "method": "flow"}
    left = osc.settle(net, many[unstable][:1], labels[unstable][:1], **there)
    assert np.abs(vectors(left.potentials) - vectors(start)).max() > 0.1


def test_no_stable_state_is_said_where_the_neurons_never_rest():
    net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=9.0, activation=osc.Identity())
    with pytest.raises(osc.NotSettledError, match=r"sample 0 did not settle at beta=0 .*smaller scale"):
        osc.settle(net, *toy()[1:])  # runs off
    drifting = Oscillators(jnp.zeros((2, 2)), jnp.array([0.1, 1.0]), jnp.array([0.8, 0.8]))
    for method in (None, "flow"):
        with pytest.raises(osc.NotSettledError, match="did not settle"):
            osc.settle(drifting, jnp.zeros((1, 2)), jnp.zeros(1), method=method)
    with pytest.raises(ValueError, match="method='flow' at beta="):
        osc.settle(*toy(), 0.1j, method="flow")


class Ghost(osc.AbstractNetwork):
    r"""One neuron, $\dot u = -u + 3 \tanh u + x$: just past the input at which its lower state vanishes."""

    activation = osc.Tanh()
    cost = osc.SquaredError()
    shapes = ((1,),)
    outputs = 1

    def clamp(self, x):
        return x

    def phi(self, clamped, s, y, beta):
        return jnp.sum(clamped * s[0] + 1.5 * s[0] ** 2) - beta * self.cost(s[0], y)


def test_neurons_that_pass_the_ghost_of_a_state_are_followed_beyond_it():
    """They look settled to a residual of 1e-4 for hundreds of time constants."""
    fold = -math.acosh(math.sqrt(3))
    x, y, start = np.array([[fold - 3 * math.tanh(fold) + 5e-5]]), np.zeros((1, 1)), (jnp.array([[-3.0]]),)
    (end,) = osc.settle(Ghost(), x, y, start=start, method="flow", tolerance=1e-4).potentials
    assert end > 2
    (expected,) = osc.settle(Ghost(), x, y, start=start, method="flow").potentials
    np.testing.assert_allclose(end, expected, atol=1e-4)


@pytest.mark.parametrize("activation", [osc.Logistic(), osc.ReLU(), osc.Tanh()])
def test_stability_by_energy_is_that_of_the_eigenvalues(activation):
    tau = (0.3, jnp.array([1.0, 2.0, 5.0, 1.0]))
    net = osc.LayeredNetwork((6, 5, 4, 3), activation=activation, key=jax.random.key(0), scale=0.8, time_constant=tau)
    x, keys = jax.random.normal(jax.random.key(1), (60, 6)), jax.random.split(jax.random.key(2), 2)
    y, inputs = np.zeros(60, int), osc.Inputs.of(net, x, np.zeros(60, int))
    u = tuple(2 * jax.random.normal(k, (60, *shape)) for k, shape in zip(keys, net.shapes, strict=False))
    eigenvalues = growth(net, inputs, u)
    stable = eqx.filter_jit(lambda clamped, y, u: is_stable(net, (clamped, y, jnp.zeros(())), u))
    found = [bool(stable(*one)) for one in zip(inputs.clamped, inputs.y, jnp.asarray(vectors(u)), strict=True)]
    assert found == list(eigenvalues < 0)
    assert 0 < sum(found) < len(y)


def test_settling_is_traceable():
    net, x, y = oscillators()
    eager = osc.settle(net, x, y)
    jitted = eqx.filter_jit(lambda net: osc.settle(net, x, y))(net)
    stronger = jax.vmap(lambda c: osc.settle(eqx.tree_at(lambda n: n.coupling, net, c * net.coupling), x, y))(
        jnp.array([1.0, 0.5])
    )
    for found in (jitted.potentials[0], stronger.potentials[0][0]):
        np.testing.assert_allclose(found, eager.potentials[0], atol=1e-10)
    assert stronger.by_flow.shape == (2, 2)


def test_stability_of_matrices():
    rng = np.random.default_rng(0)
    for shift in (-1e-3, 1e-3):
        for symmetric in (True, False):
            matrix = rng.normal(size=(20, 20))
            matrix = matrix + matrix.T if symmetric else matrix
            matrix -= (np.linalg.eigvals(matrix).real.max() - shift) * np.eye(20)
            assert bool(decays(jnp.asarray(matrix))) == (shift < 0)
            assert bool(dies_out(lambda v, m=matrix: m @ v, 20, jnp.float64, 60_000)) == (shift < 0)


def test_samples_that_sweeps_do_not_settle_are_judged_where_the_neurons_rest():
    net = osc.HopfieldNetwork((6, 10, 3), key=jax.random.key(0))
    net = eqx.tree_at(lambda n: n.coupling, net, -jnp.ones((10, 10)))
    x, y = jax.random.normal(jax.random.key(1), (20, 6)), np.zeros(20, int)
    swept = osc.settle(net, x, y, method="sweeps", max_steps=200, tolerance=1e-10, throw=False)
    assert float(swept.residual.max()) > 1e-10
    free = osc.settle(net, x, y)
    expected = net.readout(osc.Inputs.of(net, x, y).clamped, free.activities)
    np.testing.assert_allclose(osc.scores(net, x), expected, atol=1e-8)
    assert osc.evaluate(net, x, y)["settle_residual"] < 1e-10


# The states of an input.


@pytest.mark.slow
def test_equilibria_counts_states_and_says_where_rest_leads():
    net, x, y = several()
    inputs = osc.Inputs.of(net, x, y)
    found = osc.equilibria(net, x, y, starts=30, key=jax.random.key(0))
    assert found.counts == (2, 2, 2, 2)
    rest = vectors(osc.settle(net, x, y, method="flow").potentials)
    for i, states in enumerate(found):
        assert states.share.sum() == pytest.approx(1)
        assert states.share[0] >= states.share[1] > 0
        np.testing.assert_allclose(vectors(states.potentials)[states.from_rest], rest[i], atol=1e-8)
    for number in range(2):
        u = found.at(number)
        assert growth(net, inputs, u).max() < 0
        losses = net.loss(inputs.clamped, net.activities(u), inputs.y)
        np.testing.assert_allclose([states.losses[number] for states in found], losses)
    assert "sample 3: 2 stable states: loss" in str(found)
    assert "% of starts, and rest)" in str(found)
    with pytest.raises(ValueError, match="choice=2 for sample 1, which has 2 stable states: use 0 to 1"):
        found.at([0, 2, 0, 0])

    alone = osc.equilibria(*toy()[:2], starts=3, key=jax.random.key(0), scale=2.0)
    assert alone.counts == (1, 1, 1)
    assert np.isnan(alone[0].losses[0])
    with pytest.raises(ValueError, match="scale=0"):
        osc.equilibria(*toy(), key=jax.random.key(0), scale=0.0)


@pytest.mark.slow
def test_gradients_at_each_state_against_finite_differences_there():
    net, x, y = several()
    states = osc.equilibria(net, x, y, starts=8, key=jax.random.key(0))
    gradients = []
    for choice in (0, 1):
        u = states.at(choice)
        gradients.append(exact := osc.exact_gradient(net, x, y, at=u))
        assert osc.relative_error(osc.exact_gradient(net, x, y, "bptt", at=u), exact) < 1e-9
        assert abs(slope_along(net, x, y, u, exact)) < 1e-6 * float(norm(exact))
    assert osc.relative_error(*gradients) > 0.1
    # Without a state, backpropagation is through the one that is settled to, where plain steps from rest go round.
    assert osc.relative_error(osc.exact_gradient(net, x, y, "bptt"), osc.exact_gradient(net, x, y)) < 1e-9


def slope_along(net, x, y, u, exact):
    """How far the slope of the loss at a state, along a direction, is from the one that a gradient says."""
    leaves, structure = jax.tree.flatten(osc.parameters(net))
    directions = [jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]

    def loss(step):
        moved = jax.tree.unflatten(structure, [a + step * d for a, d in zip(leaves, directions, strict=True)])
        moved = eqx.combine(moved, net)
        inputs = osc.Inputs.of(moved, x, y)
        followed = state_at(moved, inputs, u)
        return float(jnp.mean(moved.loss(inputs.clamped, followed.activities, inputs.y)))

    slope = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(exact), directions, strict=True))
    return (loss(1e-5) - loss(-1e-5)) / 2e-5 - float(slope)


def test_gradients_where_the_adjoint_does_not_settle_by_sweeps():
    net, x, y = oscillators(1, strength=2.0)
    found = osc.settle(net, x, y)
    exact = osc.exact_gradient(net, x, y)
    assert abs(slope_along(net, x, y, found, exact)) < 1e-6 * float(norm(exact))
    assert osc.relative_error(osc.exact_gradient(net, x, y, "bptt", max_steps=4000), exact) < 1e-9
    with pytest.raises(osc.NotSettledError, match=r"did not settle in 10 steps.*use more max_steps"):
        osc.exact_gradient(net, x, y, "bptt", max_steps=10)
    assert bool(osc.Exact()(net, x, y).valid)


# Oracles and predictions at a state.


class OfARun(eqx.Module):
    """What has an equilibrium, as a run has."""

    equilibrium: osc.Equilibrium


ORACLES = ("susceptibility", "gradient", "bias", "spread", "amplitude", "radius", "map")


@pytest.mark.parametrize("name", slow_except(("susceptibility", "bias"), ORACLES))
def test_oracles_take_the_state_they_are_asked_about(name):
    net, x, y = several()
    states = osc.equilibria(net, x, y, starts=8, key=jax.random.key(0))
    noise, teaching = osc.WhiteNoise(0.05), osc.Rotating(0.05, 300.0)
    questions = {
        "susceptibility": lambda at: susceptibility(net, x, y, 0.05, at=at),
        "gradient": lambda at: predict_gradient(net, x, y, 300.0, at=at),
        "bias": lambda at: predict_bias(net, x, y, 300.0, at=at),
        "spread": lambda at: predict_spread(net, x, y, teaching, noise, 5, at=at),
        "amplitude": lambda at: optimal_amplitude(net, x, y, 300.0, noise, 5, at=at).spread,
        "radius": lambda at: convergence_radius(net, x, y, at=at),
        "map": lambda at: stability_map(net, x, y, [0.01], at=at, steps=2).activities,
    }
    default = osc.settle(net, x, y)
    other = states.at([1 - s.from_rest for s in states])
    ask = questions[name]
    usual = ask(None)
    difference = float(norm(jax.tree.map(jnp.subtract, ask(OfARun(default)), usual)))
    assert difference <= 1e-7 * float(norm(usual))
    assert float(norm(jax.tree.map(jnp.subtract, ask(other), usual))) > 1e-3 * float(norm(usual))


def test_a_state_is_what_is_near_a_fixed_point():
    net, x, y = several()
    default = osc.settle(net, x, y)
    # Potentials near a state are that state; elsewhere there is none.
    near = tuple(a + 1e-4 for a in default.potentials)
    inputs = osc.Inputs.of(net, x, y)
    np.testing.assert_allclose(vectors(state_at(net, inputs, near).potentials), vectors(default.potentials), atol=1e-10)
    with pytest.raises(osc.NotSettledError, match="at: sample 0 is at no free equilibrium"):
        osc.exact_gradient(net, x, y, at=net.rest(4))
    with pytest.raises(ValueError, match="at has potentials of shape"):
        osc.exact_gradient(net, x, y, at=net.rest(3))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_key_and_what_is_no_state_is_named():
    with pytest.raises(TypeError, match="key=0"):
        osc.equilibria(*toy(), key=0)
    with pytest.raises(TypeError, match="at=str: use an Equilibrium"):
        osc.exact_gradient(*toy(), at="settled")


@pytest.mark.slow
def test_a_suggestion_warns_of_several_states():
    with pytest.warns(UserWarning, match=r"of 4 inputs have several stable states \(sample .*use start='settled'"):
        osc.suggest(*several())
    osc.suggest(*toy())  # where there is one, without a warning


@pytest.mark.slow
def test_a_suggestion_meets_an_accuracy_by_theory_and_says_what_limits_it():
    net, x, y = toy()
    scale = float(norm(osc.exact_gradient(net, x, y)))
    noise = osc.WhiteNoise(0.05)
    for accuracy in (0.003,):
        quiet = osc.suggest(net, x, y, accuracy=accuracy)
        bias = float(norm(predict_bias(net, x, y, quiet.period))) / scale
        assert quiet.cycles == 1
        assert quiet.error == pytest.approx(bias, rel=1e-6)
        assert bias <= accuracy
        assert bias > 0.8 * accuracy or quiet.period == 50.0  # no longer than it has to be

        noisy = osc.suggest(net, x, y, accuracy=accuracy, noise=noise)
        bias = float(norm(predict_bias(net, x, y, noisy.period))) / scale
        spread = float(norm(predict_spread(net, x, y, noisy.teaching, noise, noisy.cycles))) / scale
        assert noisy.error == pytest.approx(math.hypot(bias, spread), rel=1e-6)
        assert noisy.error <= accuracy
        assert f"cycles={noisy.cycles} to keep" in str(noisy)
    assert "the lag limits" in quiet.limit
    assert "the radius limits" in noisy.limit
    assert "nothing limits" in osc.suggest(net, x, y, accuracy=0.5).limit
    estimate = osc.LockIn(quiet.teaching, cycles=quiet.discard + quiet.cycles, discard=quiet.discard)(net, x, y)
    assert osc.relative_error(estimate.gradient, osc.exact_gradient(net, x, y)) < 1.1 * 0.003
    with pytest.raises(ValueError, match=r"accuracy=1\.5: use a fraction"):
        osc.suggest(net, x, y, accuracy=1.5)
    with pytest.raises(ValueError, match=r"accuracy=1e-30 is finer than the digits of float64, 2e-16: use a larger"):
        osc.suggest(net, x, y, accuracy=1e-30)
    with pytest.raises(ValueError, match="noise without an accuracy"):
        osc.suggest(net, x, y, noise=noise)


def test_a_knee_beyond_what_is_safe_is_explained():
    net, x, y = several()
    best = optimal_amplitude(net, x, y, 300.0, osc.WhiteNoise(0.05), 5)
    assert best.knee > best.amplitude
    assert "the knee lies beyond 0.5 of the radius" in str(best)
    assert "knee lies" not in str(optimal_amplitude(net, x, y, 300.0, osc.WhiteNoise(1e-5), 5))


# The whole of it.


def drawn(seed):
    """A random network with couplings up to five times the usual, and four inputs."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    strength = float(rng.uniform(0.5, 5.0))
    logistic = osc.Logistic(slope=float(rng.uniform(1, 4)), centre=float(rng.uniform(0, 0.5)))
    parts = {
        "activation": logistic if (seed // 5) % 3 else osc.Tanh(),
        "cost": (osc.SquaredError(), osc.CrossEntropy())[(seed // 5) % 2],
        "key": key,
    }
    x, y = jax.random.normal(jax.random.fold_in(key, 1), (4, 6)), jnp.array([0, 1, 2, 1])
    if seed % 5 == 3:
        return osc.HopfieldNetwork((6, 10, 3), scale=strength / math.sqrt(10), **parts), x, y
    if seed % 5 == 4:
        net, _, _ = oscillators(seed, strength / math.sqrt(8))
        return net, 2 * jax.random.normal(jax.random.fold_in(key, 1), (4, 8)), jnp.zeros(4)
    net = osc.LayeredNetwork((6, *(8, 7, 6)[: seed % 5 + 1], 3), **parts)
    return eqx.tree_at(lambda n: n.weights, net, tuple(strength * w for w in net.weights)), x, y


@pytest.mark.slow
def test_five_hundred_random_networks():
    """The flow ends where the ODE does, and by default every state is stable, unless the neurons never rest."""
    counts = dict.fromkeys(("decided", "other", "unstable", "followed", "restless", "elsewhere"), 0)
    for seed in range(500):
        net, x, y = drawn(seed)
        inputs = osc.Inputs.of(net, x, y)
        flow, usual = (osc.settle(net, x, y, method=method, throw=False) for method in ("flow", None))
        counts["followed"] += int(np.sum(usual.by_flow))
        stable = growth(net, inputs, usual.potentials) < 0
        rng = np.random.default_rng(10**6 + seed)
        for i, u in enumerate(vectors(flow.potentials)):
            shifts = [0.0, *(1e-3 * rng.normal(size=u.shape) for _ in range(2))]
            ends = [end_of_the_ode(net, sample(inputs, i), np.zeros(u.shape) + shift) for shift in shifts]
            moves = np.abs(np.asarray(motion(net, sample(inputs, i), ends[0][None]))).max()
            if not moves < 1e-8:
                counts["restless"] += 1
                assert not float(flow.residual[i]) <= 1e-12
                continue
            counts["unstable"] += not (stable[i] and float(usual.residual[i]) <= 1e-12)
            if max(np.abs(end - ends[0]).max() for end in ends) < 1e-6:
                counts["decided"] += 1
                counts["other"] += not np.abs(u - ends[0]).max() < 1e-8
                counts["elsewhere"] += not np.abs(vectors(usual.potentials)[i] - ends[0]).max() < 1e-6
        if seed % 50 == 49:
            jax.clear_caches()
    print(counts)
    assert counts["decided"] > 1900
    assert counts["other"] == 0
    assert counts["unstable"] == 0
    assert counts["restless"] < 20


def test_the_flow_leaves_settled_batches_alone():
    """No iteration where nothing is to be followed: the loops are in the program, and do not run."""
    net, x, y = toy()
    inputs = osc.Inputs.of(net, x, y)

    def followed(net):
        found = osc.settle(net, x, y)
        return lax.stop_gradient(found.residual), found.by_flow

    residual, by_flow = eqx.filter_jit(followed)(net)
    assert float(residual.max()) <= 1e-12
    assert not bool(jnp.any(by_flow))
    assert growth(net, inputs, osc.settle(net, x, y).potentials).max() < 0
