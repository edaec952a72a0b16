"""oscsim under jax's own tools: derivatives, batches, strict promotion, keys; counts and arrays of NumPy."""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from tests.helpers import toy
from tests.marks import slow_except

ALL, FORWARD = diffrax.DirectAdjoint(), diffrax.ForwardMode()
POINT, ALONG = np.array([0.3, 1.1]), np.array([0.4, -0.7])


def steps(adjoint=None):
    return osc.Integration(diffrax.Euler(), steps_per_cycle=160, ticks=8, adjoint=adjoint)


def small(scale=1.0):
    """A network of six neurons with its weights times a number, and two samples."""
    net = osc.LayeredNetwork((4, 3, 3, 2), key=jax.random.key(2), scale=0.5)
    net = eqx.tree_at(lambda n: n.weights, net, tuple(scale * w for w in net.weights))
    return net, jax.random.uniform(jax.random.key(3), (2, 4)), jnp.array([0, 1])


def size(tree):
    return sum(jnp.sum(jnp.abs(a) ** 2) for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact))


# Each a function of (amplitude, or beta or the inputs' size; the weights' scale).


def advanced(adjoint):
    def function(p):
        net, x, y = small(p[1])
        inputs = osc.Inputs.of(net, x, y)
        system = osc.System.of(net, osc.Rotating(p[0], 100.0), integration=steps(adjoint))
        return size(osc.advance(system, osc.begin(system, inputs), inputs)[1].reading[1])

    return function


def simulated(adjoint):
    def function(p):
        run = osc.simulate(*small(p[1]), osc.Rotating(p[0], 100.0), cycles=2, integration=steps(adjoint))
        return size(run.gradient(1)) + size(run.phasors[0])

    return function


def locked_in(adjoint):
    def function(p):
        estimate = osc.LockIn(osc.Rotating(p[0], 100.0), integration=steps(adjoint))(*small(p[1]))
        return size(estimate.gradient) + estimate.loss

    return function


def settled(_):
    return lambda p: size(osc.settle(*small(p[1]), p[0] * jnp.exp(1j)).activities)


def followed(_):
    return lambda p: size(osc.settle(*small(p[1]), p[0], method="flow").activities)


def exact(_):
    def function(p):
        net, x, y = small(p[1])
        return size(osc.exact_gradient(net, p[0] * x, y))

    return function


FUNCTIONS = {
    "advance": advanced,
    "simulate": simulated,
    "LockIn": locked_in,
    "settle at a complex beta": settled,
    "settle by the flow": followed,
    "exact_gradient": exact,
}
functions = pytest.mark.parametrize("function", slow_except({"advance", "exact_gradient"}, FUNCTIONS))


def differences(function, width=1e-4):
    """The derivative at POINT by central differences."""
    moves = width * np.eye(2)
    return np.stack([(function(POINT + m) - function(POINT - m)) / (2 * width) for m in moves])


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.slow
@functions
@pytest.mark.usefixtures("x64")
def test_derivatives_in_reverse_and_forward_are_those_of_finite_differences(function):
    function = FUNCTIONS[function]
    expected = differences(function(None))
    assert_close(jax.grad(function(None))(POINT), expected)
    assert_close(jax.jvp(function(FORWARD), (POINT,), (ALONG,))[1], expected @ ALONG)


@functions
@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_second_derivatives_are_finite_differences_of_the_first(function):
    function = FUNCTIONS[function]
    first = jax.grad(function(ALL))
    assert_close(jax.hessian(function(ALL))(POINT), differences(first))


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_settled_loss_is_the_exact_gradient():
    net, x, y = toy()
    learned = osc.parameters(net)

    def loss(learned):
        moved = eqx.combine(learned, net)
        found = osc.settle(moved, x, y)
        return jnp.mean(moved.loss(osc.Inputs.of(moved, x, y).clamped, found.activities, y))

    assert osc.relative_error(jax.grad(loss)(learned), osc.exact_gradient(net, x, y)) < 1e-9


@pytest.mark.slow
def test_cycles_that_depend_on_what_is_read_say_that_they_have_no_reverse_derivative():
    net, x, y = small()

    def loss(amplitude):
        return osc.LockIn(osc.Rotating(amplitude, 100.0), accuracy=0.5, integration=steps())(net, x, y).loss

    with pytest.raises(Exception, match=r"no derivative in reverse mode: use jax.jvp"):
        jax.grad(loss)(0.3)


def test_an_adjoint_is_one_that_differentiates_the_steps():
    with pytest.raises(osc.BadType, match=r"adjoint=BacksolveAdjoint.*use one of diffrax.RecursiveCheckpointAdjoint"):
        osc.Integration(adjoint=diffrax.BacksolveAdjoint())


AMPLITUDES = np.array([0.1, 0.3], np.float32)


def run_at(amplitude, **settings):
    return osc.simulate(*small(), osc.Rotating(amplitude, 100.0), cycles=2, integration=steps(), **settings)


def ensemble_at(amplitude):
    lock_in = osc.LockIn(osc.Rotating(amplitude, 100.0), noise=osc.WhiteNoise(0.1), integration=steps())
    found = osc.ensemble(lock_in, *small(), realisations=2, key=jax.random.key(1))
    return found.gradients, found.mean, found.spread


def estimated_by(estimator):
    return lambda amplitude: estimator(amplitude)(*small()).gradient


def simulated_at(amplitude):
    run = run_at(amplitude)
    return run.phasors, run.lock_residual, run.gradient(1), run.gradient()


BATCHES = {
    "simulate": simulated_at,
    "a mean": lambda a: run_at(a, record=osc.Mean(1)).gradient(),
    "ensemble": ensemble_at,
    "LockIn": estimated_by(lambda a: osc.LockIn(osc.Rotating(a, 100.0), integration=steps())),
    "Adaptive": estimated_by(lambda a: osc.LockIn(osc.Adaptive(100.0, a), integration=steps())),
    "AlwaysOn": estimated_by(lambda a: osc.AlwaysOn(osc.LockIn(osc.Rotating(a, 100.0), integration=steps()))),
    "Phases in steps": estimated_by(lambda a: osc.Phases(a, 4, steps=(20, 20))),
    "Phases": estimated_by(lambda a: osc.Phases(a, 4)),
    "Classic": estimated_by(osc.Classic),
}


@pytest.mark.parametrize("function", slow_except({"LockIn"}, BATCHES))
@pytest.mark.filterwarnings("ignore::oscsim.InexactGradientWarning")
def test_vmap_over_amplitudes_is_one_after_the_other(function):
    function = BATCHES[function]
    together = jax.vmap(function)(AMPLITUDES)
    for i, amplitude in enumerate(AMPLITUDES):
        alone = function(amplitude)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-3, atol=2e-4 * max(np.max(np.abs(b)), 1e-3))


def test_what_is_decided_cycle_by_cycle_is_refused_under_vmap():
    with pytest.raises(osc.BadValue, match=r"until=Accuracy\(error=0.1\).*leave it out, or call simulate once"):
        jax.vmap(lambda a: run_at(a, until=0.1).gradient(1))(AMPLITUDES)
    with pytest.raises(osc.BadValue, match=r"progress=True under a transformation"):
        jax.vmap(lambda a: run_at(a, progress=True).gradient(1))(AMPLITUDES)


@pytest.mark.slow
def test_strict_promotion_changes_nothing():
    net, x, y = small()
    noisy = osc.LockIn(osc.Rotating(0.3, 100.0), noise=osc.WhiteNoise(0.1), integration=steps())
    calls = (
        lambda: run_at(0.3).gradient(1),
        lambda: osc.LockIn(osc.Rotating(0.3, 100.0), integration=steps())(net, x, y, throw=False).gradient,
        lambda: osc.Phases(0.3, 4)(net, x, y).gradient,
        lambda: osc.Exact()(net, x, y).gradient,
        lambda: osc.settle(net, x, y, 0.1 + 0.1j).activities,
        lambda: osc.ensemble(noisy, net, x, y, realisations=2, key=jax.random.key(0)).gradients,
        lambda: osc.parameters(trained(net, x, y)),
    )
    for call in calls:
        expected = call()
        with jax.numpy_dtype_promotion("strict"):
            found = call()
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def trained(net, x, y):
    data = np.asarray(x), np.asarray(y)
    return osc.train(net, data, osc.Exact(), optax.sgd(0.1), epochs=1, batch_size=2, key=jax.random.key(0)).network


@pytest.mark.parametrize("kind", [np.int64, np.asarray, jnp.asarray], ids=["int64", "0-d", "jax"])
def test_counts_from_numpy_become_counts_of_python(kind, unchecked):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = (
            osc.Integration(steps_per_cycle=kind(160)).steps_per_cycle,
            osc.Integration(ticks=kind(8)).ticks,
            osc.Integration(max_steps=kind(8)).max_steps,
            osc.Staircase(0.4, 100.0, kind(4)).points,
            osc.Hann(kind(4)).cycles,
            osc.PerCycle(kind(4)).neurons,
            osc.Mean(kind(1)).discard,
            osc.Phases(0.1, kind(4), tolerance=np.float64(1e-5)).points,
            osc.LockIn(osc.Rotating(0.4, 100.0), cycles=kind(3), discard=kind(1)).discard,
            osc.SoftmaxPooling(kind(2)).size,
            osc.equilibrium.Sweeps(kind(4)).memory,
        )
    assert {type(n) for n in counts} == {int}


def test_counts_from_numpy_compile_nothing_anew(unchecked):
    from oscsim.dynamics.simulation import _run_chunk

    def run(kind):
        integration = osc.Integration(diffrax.Euler(), steps_per_cycle=kind(160), ticks=kind(8))
        osc.simulate(*small(), osc.Rotating(0.3, 100.0), cycles=kind(1), integration=integration)

    run(int)
    before = _run_chunk._cached._cache_size()
    run(np.int64)
    assert _run_chunk._cached._cache_size() == before


@pytest.mark.filterwarnings("error")
def test_arrays_of_another_byte_order_are_the_same_data():
    net, x, y = toy()
    x, y = np.asarray(x), np.asarray(y)
    expected = osc.Exact()(net, x, y).loss
    assert osc.Exact()(net, x.astype(">f4"), y.astype(">i4")).loss == expected
    start = osc.settle(net, x, y).potentials
    foreign = tuple(np.asarray(u).astype(">f4") for u in start)
    np.testing.assert_array_equal(
        osc.settle(net, x, y, start=foreign).potentials[0], osc.settle(net, x, y, start=start).potentials[0]
    )


def test_weights_of_another_byte_order_are_refused(unchecked):
    net, x, y = toy()
    moved = eqx.tree_at(lambda n: n.weights[0], net, np.asarray(net.weights[0]).astype(">f4"))
    with pytest.raises(osc.BadType, match=r"weights\[0\] has the byte order of another machine: use jnp.asarray"):
        osc.Exact()(moved, x, y)


def test_masked_arrays_are_refused(unchecked):
    net, x, y = toy()
    x, y = np.asarray(x), np.asarray(y)
    masked = np.ma.masked_greater(x, 0.5)
    refused = r"is a masked array, whose mask would be lost: use {}.filled"
    with pytest.raises(osc.BadType, match="x " + refused.format("x")):
        osc.Exact()(net, masked, y)
    with pytest.raises(osc.BadType, match="x " + refused.format("x")):
        osc.Exact()(net, list(masked), y)
    with pytest.raises(osc.BadType, match="y " + refused.format("y")):
        osc.settle(net, x, np.ma.masked_equal(y, 0))
    with pytest.raises(osc.BadType, match="x " + refused.format("x")):
        osc.train(net, (masked, y), osc.Exact(), optax.sgd(0.1), epochs=1, batch_size=2, key=jax.random.key(0))
    with pytest.raises(osc.BadType, match="time_constant " + refused.format("time_constant")):
        toy(time_constant=(np.ma.masked_less(np.ones(4), 0), 1.0))
    with pytest.raises(osc.BadType, match=r"weights\[0\] " + refused.format(r"weights\[0\]")):
        osc.Exact()(eqx.tree_at(lambda n: n.weights[0], net, np.ma.masked_less(np.asarray(net.weights[0]), 0)), x, y)


CAPPED = {"a slow signal": (1.0, osc.Rotating(0.4, 3e4)), "a fast layer": ((3e-3, 1.0), osc.Rotating(0.4, 100.0))}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_except({"a fast layer"}, CAPPED))
def test_a_cap_on_steps_is_called_that(name):
    time_constant, signal = CAPPED[name]
    net, x, y = toy(time_constant=time_constant)
    few = osc.Integration(max_steps=128)
    said = r"max_steps=128 within one of the 64 ticks of cycle 1, under Rotating.*use Integration\(max_steps=1024\)"
    with pytest.raises(osc.MaxStepsError, match=said):
        osc.simulate(net, x, y, signal, cycles=2, integration=few)
    with pytest.raises(osc.MaxStepsError, match=said):
        osc.LockIn(signal, cycles=2, integration=few)(net, x, y)
    run = osc.simulate(net, x, y, signal, cycles=2, integration=few, throw=False)
    assert bool(run.result == osc.RESULTS.max_steps_reached)
    assert "NOT INTEGRATED: the solver reached max_steps=128" in str(run)
    # What is asked for helps, either way.
    for more in (osc.Integration(max_steps=1024), osc.Integration(max_steps=128, ticks=512)):
        assert not osc.simulate(net, x, y, signal, cycles=1, integration=more).diverged


def test_what_runs_away_within_its_steps_has_diverged_all_the_same():
    net = osc.LayeredNetwork((3, 4, 4, 2), activation=osc.RaisedCosine(), key=jax.random.key(0))
    with pytest.raises(osc.DivergenceError, match=r"the neurons diverged in cycle 1"):
        osc.simulate(net, np.ones((1, 3)), np.array([1]), osc.Rotating(300.0, 100.0), cycles=1)


def test_a_cap_goes_with_steps_that_adapt():
    with pytest.raises(osc.BadValue, match=r"max_steps=10 with steps_per_cycle=64: equal steps have no cap"):
        osc.Integration(steps_per_cycle=64, max_steps=10)
    noisy = osc.LockIn(osc.Rotating(0.4, 100.0), noise=osc.WhiteNoise(0.1), integration=osc.Integration(max_steps=9))
    with pytest.raises(osc.BadValue, match="max_steps=9 with noise"):
        noisy(*toy(), key=jax.random.key(0))


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_whose_numbers_depend_on_their_batch_are_refused_for_noise(kind):
    net, x, y = toy()
    noisy = osc.LockIn(osc.Rotating(0.3, 100.0), noise=osc.WhiteNoise(0.1), integration=steps())
    key = jax.random.key(3, impl=kind)
    with pytest.raises(osc.BadValue, match=rf"key is of the kind {kind}.*impl=\"threefry2x32\""):
        osc.ensemble(noisy, net, x, y, realisations=3, key=key)
    with pytest.raises(osc.BadValue, match=f"key is of the kind {kind}"):
        noisy(net, x, y, key)
    osc.LayeredNetwork((2, 3, 2), key=key)  # drawn one by one: every kind serves


def test_keys_of_the_old_style_are_refused(unchecked):
    net, x, y = toy()
    with pytest.raises(osc.BadType, match=r"key is an array of uint32\[2\].*jax.random.wrap_key_data"):
        osc.LayeredNetwork((2, 3, 2), key=jax.random.PRNGKey(0))
    with pytest.raises(osc.BadType, match=r"key is an array of uint32\[2\].*jax.random.wrap_key_data"):
        osc.simulate(
            net, x, y, osc.Rotating(0.3, 100.0), cycles=1, noise=osc.WhiteNoise(0.1), key=jax.random.PRNGKey(0)
        )


def test_inputs_by_cycle_may_be_written_for_numpy():
    net, x, y = toy()
    shown, signal = np.stack([x, x[::-1]]), osc.Rotating(0.3, 100.0)
    inside = jnp.asarray(shown)
    own = osc.simulate(net, lambda n: inside[n % 2], y, signal, cycles=2, integration=steps())
    for function in (lambda n: shown[n % 2], lambda n: [*shown][n % 2]):
        run = osc.simulate(net, function, y, signal, cycles=2, integration=steps())
        np.testing.assert_array_equal(run.inputs_in(1).x, shown[1])
        np.testing.assert_array_equal(run.phasors[1][0], own.phasors[1][0])
    with pytest.raises(osc.BadType, match="x is a function that cannot be called with the number of a cycle"):
        osc.simulate(net, lambda n: "abc" + n, y, signal, cycles=2)
