"""`simulate` and `advance`: going on, stopping, recording, saving; the same numbers whichever way one takes."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim.dynamics.record import announce
from oscsim.dynamics.simulation import _run_chunk
from tests.helpers import toy

STEPS = {"integration": osc.Integration(diffrax.Euler(), steps_per_cycle=128)}
ROTATING = osc.Rotating(0.3, 128.0)


@pytest.fixture(scope="module")
def digits():
    x, y = osc.datasets.load("digits")
    net = osc.LayeredNetwork((64, 12, 8, 10), key=jax.random.key(0))
    return net, x[:5], y[:5]


def assert_equal(a, b):
    """Equal bit for bit, and of the same structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def readings(run):
    return run.phasors, run.lock_residual, run.state


def concatenated(a, b):
    return jax.tree.map(lambda x, y: np.concatenate([x, y]), a, b)


@pytest.mark.slow
def test_the_script_of_the_readme(digits):
    net, x, y = digits
    run = osc.simulate(net, x, y, osc.Rotating(amplitude=0.4, period=200.0), cycles=6)
    estimate = run.gradient(discard=2)
    assert jax.tree.structure(estimate) == jax.tree.structure(osc.parameters(net))
    assert osc.cosine(estimate, osc.exact_gradient(net, x, y)) > 0.999
    text = str(run)
    for word in ("6 cycles", "LayeredNetwork", "Rotating(amplitude=0.4, period=200", "Tsit5", "lock"):
        assert word in text
    assert "64 ticks" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "demodulator",
    [
        osc.Boxcar(),
        pytest.param(osc.Exponential(3.0), marks=pytest.mark.slow),
        pytest.param(osc.Hann(3), marks=pytest.mark.slow),
    ],
    ids=lambda d: type(d).__name__,
)
def test_five_cycles_and_five_more_are_ten_bit_for_bit(digits, demodulator):
    net, x, y = digits
    whole = osc.simulate(net, x, y, ROTATING, cycles=10, demodulator=demodulator, **STEPS)
    first = osc.simulate(net, x, y, ROTATING, cycles=5, demodulator=demodulator, **STEPS)
    second = osc.simulate(net, x, y, ROTATING, cycles=5, start=first, demodulator=demodulator, **STEPS)
    assert_equal(whole.state, second.state)
    assert_equal(whole.phasors, concatenated(first.phasors, second.phasors))
    assert_equal(whole.lock_residual, np.concatenate([first.lock_residual, second.lock_residual]))
    assert second.first_cycle == 5
    assert "from cycle 6" in str(second)


@pytest.mark.slow
def test_going_on_with_adaptive_steps_an_onset_and_a_staircase(digits):
    net, x, y = digits
    for teaching, steps in (
        (osc.Rotating(0.3, 100.0), {}),
        (osc.Onset(osc.Rotating(0.3, 128.0), cycles=2.5), STEPS),
        (osc.Staircase(0.3, 128.0, 8), STEPS),
    ):
        whole = osc.simulate(net, x, y, teaching, cycles=4, **steps)
        half = osc.simulate(net, x, y, teaching, cycles=2, **steps)
        assert_equal(whole.state, osc.simulate(net, x, y, teaching, cycles=2, start=half, **steps).state)


def test_advance_is_what_simulate_does(digits):
    net, x, y = digits
    run = osc.simulate(net, x, y, ROTATING, cycles=3, **STEPS)
    inputs = osc.Inputs.of(net, x, y)
    system = osc.System.of(net, ROTATING, **STEPS)
    state = osc.begin(system, inputs)
    advance = eqx.filter_jit(osc.advance)
    for number in range(3):
        state, cycle = advance(system, state, inputs)
        for ours, theirs in zip(cycle.reading[1], run.phasors[1], strict=True):
            np.testing.assert_allclose(ours, theirs[number], rtol=1e-4, atol=1e-7)
    assert int(state.cycle) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_advance_under_vmap_and_grad():
    net = osc.LayeredNetwork((6, 4, 3), key=jax.random.key(1))
    inputs = osc.Inputs.of(net, np.ones((2, 6)), np.array([0, 2]))
    integration = osc.Integration(diffrax.Heun(), steps_per_cycle=128)

    def response(amplitude):
        system = osc.System.of(net, osc.Rotating(amplitude, 64.0), integration=integration)
        _state, cycle = osc.advance(system, osc.begin(system, inputs), inputs)
        return jnp.sum(cycle.reading[1][0].real)

    amplitudes = jnp.array([0.1, 0.2, 0.3])
    together = jax.jit(jax.vmap(response))(amplitudes)
    one = jax.jit(response)
    np.testing.assert_allclose(together, [one(a) for a in amplitudes], rtol=1e-10)
    slope = float(jax.jit(jax.grad(response))(0.2))
    assert slope == pytest.approx(float(one(0.2 + 1e-5) - one(0.2 - 1e-5)) / 2e-5, rel=1e-6)


def test_another_number_does_not_compile_again(digits):
    net, x, y = digits
    osc.simulate(net, x, y, ROTATING, cycles=2, **STEPS)
    osc.simulate(net, x, y, ROTATING, cycles=2, until=osc.Locked(1e-3), **STEPS)
    before = _run_chunk._cached._cache_size()
    osc.simulate(net, x, y, osc.Rotating(0.2, 100.0, 0.5), cycles=7, **STEPS)
    osc.simulate(net, x, y, osc.Rotating(0.2, 100.0, 0.5), cycles=7, until=osc.Locked(1e-9), **STEPS)
    scaled = eqx.tree_at(lambda n: n.activation.slope, net, osc.Logistic(3.0).slope)
    osc.simulate(scaled, x, y, ROTATING, cycles=1, **STEPS)
    assert _run_chunk._cached._cache_size() == before


def test_starts(digits):
    net, x, y = digits
    rest = osc.simulate(net, x, y, ROTATING, cycles=4, **STEPS)
    settled = osc.simulate(net, x, y, ROTATING, cycles=4, start="settled", **STEPS)
    assert settled.lock_residual[1] < rest.lock_residual[1]
    for a, b in zip(rest.phasors[1], settled.phasors[1], strict=True):
        np.testing.assert_allclose(a[-1], b[-1], atol=1e-5)


def test_early_stop_at_a_tolerance(digits):
    net, x, y = digits
    whole = osc.simulate(net, x, y, ROTATING, cycles=8, **STEPS)
    run = osc.simulate(net, x, y, ROTATING, cycles=100, until=osc.Locked(1e-3), **STEPS)
    expected = int(np.argmax(whole.lock_residual <= 1e-3)) + 1
    assert run.cycles == expected < 8
    np.testing.assert_array_equal(run.lock_residual, whole.lock_residual[:expected])


def test_mean_is_the_mean_of_what_per_cycle_keeps(digits):
    net, x, y = digits
    kept = osc.simulate(net, x, y, ROTATING, cycles=70, **STEPS)  # more than one chunk
    mean = osc.simulate(net, x, y, ROTATING, cycles=70, record=osc.Mean(discard=3), **STEPS)
    np.testing.assert_array_equal(mean.lock_residual, kept.lock_residual)
    expected = jax.tree.map(lambda a: a[3:].mean(axis=0), kept.phasors)
    for a, b in zip(jax.tree.leaves(mean.phasors), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-6)
    assert osc.relative_error(mean.gradient(), kept.gradient(discard=3)) < 1e-4
    assert mean.watched is None


def test_watched_neurons(digits):
    net, x, y = digits
    last = osc.simulate(net, x, y, ROTATING, cycles=3, **STEPS)
    every = osc.simulate(net, x, y, ROTATING, cycles=3, record=osc.PerCycle(neurons=8, every_cycle=True), **STEPS)
    none = osc.simulate(net, x, y, ROTATING, cycles=3, record=osc.PerCycle(neurons=0), **STEPS)
    assert none.watched is None
    assert [a.shape for a in last.watched.activities] == [(1, 64, 1, 4), (1, 64, 1, 4)]
    assert [a.shape for a in every.watched.activities] == [(3, 64, 1, 4), (3, 64, 1, 4)]
    assert_equal(jax.tree.map(lambda a: a[-1:], every.watched), last.watched)
    # Their own Fourier coefficient is the one that was read
    turn = np.exp(-2j * np.pi * (np.arange(64) + 1) / 64)
    for samples, index, phasor in zip(last.watched.activities, last.watch.neurons, last.phasors[1], strict=True):
        read = np.mean(samples[0, :, 0] * turn[:, None], axis=0)
        np.testing.assert_allclose(read, np.asarray(phasor)[-1, 0, index], atol=1e-6)


def test_chosen_neurons_of_chosen_samples_with_their_potentials(digits):
    """Their own Fourier coefficient is what was read, the activation of a potential the activity; labelled in time."""
    net, x, y = digits
    record = osc.PerCycle(neurons={1: [3, 0], 2: "all"}, samples=[4, 1], potentials=True, every_cycle=True)
    run = osc.simulate(net, x, y, osc.Adaptive(128.0), cycles=3, record=record, **STEPS)
    turn = np.exp(-2j * np.pi * (np.arange(64) + 1) / 64)
    for samples, potentials, index, phasor in zip(
        run.watched.activities, run.watched.potentials, run.watch.neurons, run.phasors[1], strict=True
    ):
        assert samples.shape == (3, 64, 2, len(index))
        np.testing.assert_allclose(
            np.mean(samples * turn[:, None, None], axis=1), np.asarray(phasor)[:, [4, 1]][:, :, index], atol=1e-6
        )
        np.testing.assert_allclose(net.activation(jnp.asarray(potentials)), samples, atol=1e-6)
    np.testing.assert_allclose(
        np.mean(run.watched.teaching * turn[:, None], axis=1), np.asarray(run.phasors.teaching[2])[:, [4, 1]], atol=1e-6
    )
    data = run.to_xarray()
    one = data.potential_1.sel(watched_sample=1, watched_neuron_1=0, time=slice(128.1, 256))
    np.testing.assert_array_equal(one, run.watched.potentials[0][1, :, 1, 1])
    assert data.time.attrs == {"units": "tau"}
    assert float(data.time[-1]) == 384.0


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (osc.PerCycle({3: [0]}), "neurons of layer 3: layers are counted from 1, to 2 here"),
        (osc.PerCycle({2: [10]}), r"neurons\[2\]=10: there are 8 neurons"),
        (osc.PerCycle(samples=[5]), "samples=5: there are 5 samples"),
    ],
)
def test_what_is_not_there_cannot_be_watched(digits, record, said):
    net, x, y = digits
    with pytest.raises(osc.BadValue, match=said):
        osc.simulate(net, x, y, ROTATING, cycles=1, record=record, **STEPS)


def test_samples_in_files_are_those_in_memory(digits, tmp_path):
    net, x, y = digits
    every = functools.partial(
        osc.PerCycle, neurons={1: "all"}, samples="all", potentials=True, noise=True, every_cycle=True
    )
    folder = tmp_path / "new" / "samples"
    run = functools.partial(
        osc.simulate, net, x, y, ROTATING, cycles=150, noise=osc.WhiteNoise(0.1), key=jax.random.key(1)
    )
    kept, written = run(record=every()), run(record=every(folder=folder))  # several chunks
    assert isinstance(written.watched.potentials[0], np.memmap)
    assert written.to_xarray().drop_attrs().equals(kept.to_xarray().drop_attrs())
    for name in ("activity_1", "potential_1", "noise_1", "signal"):
        found = np.load(folder / f"{name}.npy")
        expected = kept.to_xarray()[name].values
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    with pytest.raises(ValueError, match=r"folder=.* holds activity_1.npy already: give another one"):
        run(record=every(folder=folder))
    np.testing.assert_array_equal(np.load(folder / "signal.npy"), kept.watched.teaching)
    again = run(record=every(folder=tmp_path / "shorter"), until=osc.Locked(1e9))
    assert len(np.load(tmp_path / "shorter" / "signal.npy")) == again.cycles < 150


def test_what_cannot_be_written_to_files_is_refused(digits, tmp_path):
    net, x, y = digits
    with pytest.raises(ValueError, match=r"folder=.* is for samples of every cycle: give every_cycle=True"):
        osc.simulate(net, x, y, ROTATING, cycles=2, record=osc.PerCycle(folder=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"folder=.*file is a file: give the name of a folder"):
        osc.simulate(net, x, y, ROTATING, cycles=2, record=osc.PerCycle(every_cycle=True, folder=tmp_path / "file"))
    (tmp_path / "file").unlink()
    record = osc.PerCycle(every_cycle=True, folder=tmp_path)
    with pytest.raises(ValueError, match="GB are free on the disk of"):
        announce(record.watch(net, 5), 10**12, 64, 8, record.folder)
    with pytest.raises(ValueError, match=r"folder=.* under a transformation of jax"):
        jax.jit(lambda a: osc.simulate(net, x, y, osc.Rotating(a, 100.0), cycles=2, record=record).loss)(0.1)
    assert not list(tmp_path.iterdir())


def test_much_memory_is_announced():
    watch = osc.PerCycle("all", samples="all").watch(osc.LayeredNetwork((2, 1000, 10), key=jax.random.key(0)), 100)
    with pytest.warns(UserWarning, match=r"record keeps 1\.2 GB"):
        announce(watch, 25, 64, 8)
    with pytest.raises(osc.BadValue, match=r"record: samples of 1000000 cycles of 64 ticks takes .* GB of memory"):
        announce(watch, 10**6, 64, 8)


def test_more_readings_than_fit_are_refused(digits):
    net, x, y = digits
    with pytest.raises(osc.BadValue, match=r"1000000000 readings takes .* GB of memory.*record=Mean"):
        osc.simulate(net, x, y, ROTATING, cycles=10**9, **STEPS)


def test_cumulative_gradient_ends_in_the_gradient(digits):
    net, x, y = digits
    run = osc.simulate(net, x, y, ROTATING, cycles=5, **STEPS)
    running = run.gradient(discard=1, cumulative=True)
    assert all(len(a) == 4 for a in jax.tree.leaves(running))
    last = jax.tree.map(lambda a: a[-1], running)
    assert osc.relative_error(last, run.gradient(discard=1)) < 1e-5


def test_inputs_that_change_from_cycle_to_cycle(digits):
    net, x, y = digits
    data, labels = jnp.asarray(x), jnp.asarray(y)

    def x_of(cycle):
        return data + 0.1 * cycle

    def y_of(cycle):
        return jnp.roll(labels, cycle)

    moving = osc.simulate(net, x_of, y_of, ROTATING, cycles=2, **STEPS)
    first = osc.simulate(net, x, y, ROTATING, cycles=1, **STEPS)
    second = osc.simulate(net, data + 0.1, jnp.roll(labels, 1), ROTATING, cycles=1, start=first, **STEPS)
    for a, b in zip(jax.tree.leaves(moving.state), jax.tree.leaves(second.state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first.gradient(), second.gradient())
    assert osc.relative_error(moving.gradient(), mean) < 1e-4
    assert osc.relative_error(jax.tree.map(lambda a: a[1], moving.gradient(cumulative=True)), mean) < 1e-4


@pytest.mark.slow
def test_save_and_load(digits, tmp_path):
    net, x, y = digits
    for teaching, steps in (
        (osc.Onset(osc.Rotating(0.3, 128.0), 1.0), {**STEPS, "demodulator": osc.Hann(2)}),
        (
            osc.Staircase(0.3, 128.0, 8),
            {"integration": osc.Integration(stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3))},
        ),
    ):
        run = osc.simulate(net, x, y, teaching, cycles=2, **steps)
        path = run.save(tmp_path / "run.osc")
        again = osc.Run.load(path)
        assert_equal(readings(run), readings(again))
        assert_equal(run.gradient(discard=1), again.gradient(discard=1))
        assert str(again) == str(run)
        more = {"cycles": 1, **steps}
        assert_equal(
            osc.simulate(again.network, again.x, again.y, again.teaching, start=again, **more).state,
            osc.simulate(net, x, y, teaching, start=run, **more).state,
        )
        assert [p.name for p in tmp_path.iterdir()] == ["run.osc"]


def test_to_xarray(digits):
    net, x, y = digits
    run = osc.simulate(net, x, y, ROTATING, cycles=3, **STEPS)
    data = run.to_xarray()
    assert data.layer_2.dims == ("cycle", "harmonic", "sample", "neuron_2")
    np.testing.assert_array_equal(data.layer_2.sel(harmonic=1, cycle=3), run.phasors[1][1][2])
    np.testing.assert_array_equal(data.lock_residual, run.lock_residual)
    assert data.attrs["period"] == 128.0
    points = osc.simulate(net, x, y, osc.Staircase(0.3, 128.0, 8), cycles=2, **STEPS).to_xarray()
    assert points.layer_1.dims == ("cycle", "point", "sample", "neuron_1")
    mean = osc.simulate(net, x, y, ROTATING, cycles=3, record=osc.Mean(), **STEPS).to_xarray()
    assert mean.sizes["cycle"] == 1
    assert mean.sizes["cycle_run"] == 3


def test_float32_keeps_its_phase_over_ten_thousand_cycles():
    net = osc.LayeredNetwork((6, 4, 4), key=jax.random.key(2), scale=0.5)
    x, y = np.full((1, 6), 0.5), np.array([1])
    steps = {"integration": osc.Integration(diffrax.Euler(), steps_per_cycle=60, ticks=20)}
    short = osc.simulate(net, x, y, osc.Rotating(0.3, 60.3), cycles=10, **steps)
    long = osc.simulate(net, x, y, osc.Rotating(0.3, 60.3), cycles=10_000, record=osc.Mean(discard=9_999), **steps)
    assert short.phasors[1][0].dtype == np.complex64
    for n in (0, 1):
        for a, b in zip(short.phasors[n], long.phasors[n], strict=True):
            np.testing.assert_allclose(b[0], a[-1], atol=1e-5)


@pytest.mark.slow
def test_mnist_network_in_float32(mnist):
    """784-256-256-10, batch 20, A = 0.4, T = 300 tau, from rest, cycles 2 and 3."""
    images, labels = mnist.train.images[:20], mnist.train.labels[:20]
    net = osc.LayeredNetwork((784, 256, 256, 10), key=jax.random.key(0), scale=0.05)
    run = osc.simulate(net, images, labels, osc.Rotating(0.4, 300.0), cycles=3)
    exact = osc.exact_gradient(net, images, labels)
    assert osc.cosine(run.gradient(discard=1), exact) > 0.99
    assert all(value > 0.98 for value in osc.per_layer(osc.cosine, run.gradient(discard=1), exact).values())


def test_onset_starts_at_nothing_and_ends_at_the_signal():
    signal = osc.Rotating(0.3, 100.0)
    onset = osc.Onset(signal, cycles=2.0)
    assert abs(onset(jnp.array(0.0), 0)) == 0
    np.testing.assert_allclose(onset(jnp.array(0.0), 1), signal(jnp.array(0.0)) / 2, rtol=1e-6)
    for t in (0.0, 30.0, 99.0):
        np.testing.assert_allclose(onset(jnp.array(t), 2), signal(jnp.array(t)), rtol=1e-6)


def test_suggestion_locks_and_is_nearly_exact(digits):
    net, x, y = digits
    suggestion = osc.suggest(net, x, y)
    run = osc.simulate(net, x, y, suggestion.teaching, cycles=suggestion.discard + 2)
    exact = osc.exact_gradient(net, x, y)
    assert run.lock_residual[-1] < 1e-3
    assert osc.relative_error(run.gradient(discard=suggestion.discard), exact) < 0.03
    assert "amplitude" in str(suggestion)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_suggested_radius_is_where_the_points_part():
    """Below the suggested radius the N-point estimate converges, above it does not."""
    net, x, y = toy(1)
    radius = osc.suggest(net, x, y).radius
    exact = osc.exact_gradient(net, x, y)
    # The error of N points falls as N^-1.5 (A/R)^N: the R in it, read from far inside, is what was suggested.
    amplitude = 0.6 * radius
    few, many = (float(osc.relative_error(osc.Phases(amplitude, n)(net, x, y).gradient, exact)) for n in (12, 24))
    assert amplitude / (2**1.5 * many / few) ** (1 / 12) == pytest.approx(radius, rel=0.1)
    try:
        off = osc.relative_error(osc.Phases(1.3 * radius, 24)(net, x, y).gradient, exact)
    except osc.NotSettledError:
        off = np.inf
    assert off > 1e-3


@pytest.mark.usefixtures("x64")
def test_suggested_slowest_time_is_the_slowest_eigenvalue():
    net, x, y = toy(1)
    inputs = osc.Inputs.of(net, x, y)
    u = jnp.concatenate(osc.settle(net, x, y).potentials, axis=1)[0]

    def force(u):
        s = net.activities((u[None, :4], u[None, 4:]))
        return jnp.concatenate(net.force(inputs.clamped, s, inputs.y, 0.0), axis=1)[0]

    gain = np.max(np.linalg.eigvals(jax.jacobian(force)(u)).real)
    assert osc.suggest(net, x, y).slowest_time == pytest.approx(1 / (1 - gain), rel=1e-3)
