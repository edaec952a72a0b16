"""What an estimate says of its own error, against what it is off by."""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.dynamics.average import Average
from oscsim.dynamics.gradient import Phasors
from oscsim.dynamics.step_error import step_error
from tests.helpers import toy

STEPS = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=128, ticks=64)}
QUIET = pytest.mark.filterwarnings("ignore::oscsim.InexactGradientWarning")


def read(net, x, y, amplitude=0.2, period=64.0, cycles=3, key=None, **kwargs):
    lock_in = osc.LockIn(osc.Rotating(amplitude, period), cycles=cycles, **STEPS | kwargs)
    return lock_in(net, x, y, key)


@pytest.fixture(scope="module")
def quiet():
    """The toy network, and what the same lock-in reads without noise."""
    with jax.enable_x64(False):
        return toy(4), read(*toy(4), cycles=6, discard=4).gradient


# The parts.


@QUIET
@pytest.mark.parametrize(
    "noise",
    [
        osc.WhiteNoise(0.02),
        pytest.param(osc.WhiteNoise(0.02, quadratures="circular"), marks=pytest.mark.slow),
        pytest.param(osc.OrnsteinUhlenbeck(0.03, 6.0), marks=pytest.mark.slow),
        pytest.param(osc.ReadoutNoise(0.03), marks=pytest.mark.slow),
    ],
    ids=["white", "circular", "coloured", "readout"],
)
@pytest.mark.parametrize("cycles", [1, 4])
def test_noise_is_as_large_as_it_says(quiet, noise, cycles):
    case, right = quiet
    errors, bars = [], []
    for seed in range(6):
        found = read(*case, cycles=cycles, discard=0, start="settled", noise=noise, key=jax.random.key(seed))
        errors.append(float(osc.relative_error(found.gradient, right)))
        bars.append(float(found.error.contamination))
    ratios = np.array(errors) / np.array(bars)
    assert 0.6 < np.median(ratios) < 1.6
    assert np.all((ratios > 0.25) & (ratios < 4))


@QUIET
def test_the_readout_sees_the_error_of_the_mean(quiet):
    case, right = quiet
    noise, off, said = osc.WhiteNoise(0.05), [], []
    for seed in range(8):
        found = read(*case, cycles=4, discard=0, start="settled", noise=noise, key=jax.random.key(seed))
        off.append(float(osc.relative_error(found.gradient.weights[-1], right.weights[-1])))
        said.append(found.error.by_name()["weights[2]"]["contamination"])
    assert 0.4 < np.sqrt(np.mean(np.square(off))) / np.sqrt(np.mean(np.square(said))) < 2.5


@pytest.mark.slow
@QUIET
def test_what_averaging_does_not_reveal():
    """Strong noise shifts mean and response by its second power: after 400 cycles nothing else is left."""
    net, x, y = toy(4)
    run = osc.simulate(
        net,
        x,
        y,
        osc.Rotating(0.3, 64.0),
        cycles=400,
        noise=osc.WhiteNoise(0.15),
        start="settled",
        record=osc.Mean(0),
        key=jax.random.key(0),
        **STEPS,
    )
    off = float(osc.relative_error(run.gradient(), read(net, x, y, 0.3, cycles=6, discard=4).gradient))
    assert off > 0.02
    assert 0.4 < off / float(run.error().contamination) < 2.5


@pytest.mark.slow
@QUIET
def test_past_the_radius():
    net, x, y = toy(4)
    radius = osc.response.convergence_radius(net, x, y)
    inside, outside = (read(net, x, y, factor * radius, cycles=6, start="settled") for factor in (0.5, 1.5))
    assert inside.valid
    assert not outside.valid
    right = osc.response.predict_gradient(net, x, y, 64.0)
    assert float(osc.relative_error(outside.gradient, right)) > 0.2
    assert float(outside.error.contamination) > 0.1
    assert bool(jnp.any(outside.error.outside))
    assert not bool(jnp.any(inside.error.outside))
    assert float(inside.error.contamination) < 1e-4


@QUIET
def test_rounding_and_starts_are_named():
    case = toy(4)
    right = read(*case, cycles=6, discard=4).gradient
    lost = read(*case, amplitude=1e-7, cycles=6)
    off = float(osc.relative_error(lost.gradient, right))
    assert off > 0.2
    assert float(lost.error.contamination) > 0.2
    assert "rounding" in lost.error.reasons[0]
    started = read(*case, amplitude=0.3, cycles=1)
    off = float(osc.relative_error(started.gradient, right))
    assert 0.3 < off / float(started.error.contamination) < 4
    assert "only cycle" in started.error.reasons[0]
    late = read(*case, amplitude=0.002, cycles=2, discard=0)
    assert not late.valid
    assert "not locked" in late.error.reasons[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("period", [50.0, pytest.param(200.0, marks=pytest.mark.slow)])
def test_lag(period):
    net, x, y = toy(4)
    true = osc.response.predict_bias(net, x, y, period)
    exact = osc.exact_gradient(net, x, y)
    true = float(jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(true)))) / float(
        jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(exact)))
    )
    steps = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=int(2 * period), ticks=50)}
    run = osc.simulate(net, x, y, osc.Rotating(0.2, period), cycles=3, start="settled", **steps)
    assert 0.5 < float(run.error().lag) / true < 2
    quadrature = read(net, x, y, period=period, start="settled", **steps).error.lag
    assert 1 / 6 < float(quadrature) / true < 6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("solver", "steps"), [(diffrax.Euler(), 64), (diffrax.Heun(), 64)])
def test_steps(solver, steps):
    net, x, y = toy(4)
    integration = osc.Integration(solver, steps_per_cycle=steps, ticks=64)
    coarse = read(net, x, y, period=64.0, integration=integration, start="settled", cycles=4)
    fine = osc.response.predict_gradient(net, x, y, 64.0)
    off = float(osc.relative_error(coarse.gradient, fine))
    assert 1 / 4 < off / float(coarse.error.steps) < 4


@pytest.mark.filterwarnings("ignore:period=20 is below 50 tau")  # no gradient is read
def test_steps_of_a_lone_mode_are_exact(x64):
    """Of one linear neuron the closed form is what the solver does."""
    for solver in (diffrax.Euler(), diffrax.Heun(), diffrax.Tsit5()):
        period, steps, tau = 20.0, 40, 1.5
        integration = osc.Integration(solver, steps_per_cycle=steps, ticks=20)
        system = osc.System.of(toy(4)[0], osc.Rotating(1.0, period), integration=integration)
        omega, h = 2 * np.pi / period, period / steps
        term = diffrax.ODETerm(lambda t, u, args: (jnp.exp(1j * args[0] * t) - u) / args[1])
        u, arguments = jnp.zeros((), complex), (omega, tau)

        def step(carried, n, solver=solver, term=term, h=h, arguments=arguments):
            u, _, _, state, _ = solver.step(term, n * h, (n + 1) * h, carried[0], arguments, carried[1], False)
            return (u, state), u

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffrax on complex states
            start = u, solver.init(term, 0.0, h, u, arguments)
            _, path = jax.lax.scan(step, start, jnp.arange(8.0 * steps))
        last = np.arange(7 * steps, 8 * steps)
        coefficient = np.sum(path[7 * steps :] * np.exp(-1j * omega * (last + 1) * h)) / steps
        exact = 1 / (1 + 1j * omega * tau)
        off = abs(coefficient.real - exact.real) / exact.real
        assert np.isclose(off, step_error(system, jnp.asarray(omega * tau)), rtol=0.02, atol=1e-9)


@pytest.mark.slow
def test_asymmetry_is_said():
    net, x, y = toy(4)
    crossed = osc.hardware.mismatch(net, jax.random.key(1), deviation=0.5)
    with pytest.warns(osc.InexactGradientWarning, match="not symmetric"):
        found = read(crossed, x, y, cycles=4)
    off = float(osc.relative_error(found.gradient, osc.exact_gradient(crossed, x, y)))
    assert off > 0.1
    assert 0.7 < off / float(found.error.total) < 1.5
    assert not found.valid


@pytest.mark.slow
def test_two_sided_signals_say_what_they_can():
    case = toy(4)
    alone = read_with(case, osc.Cosine(0.2, 64.0), cycles=2, discard=1)
    assert np.isnan(float(alone.error.contamination))
    assert "unknown" in " ".join(alone.error.reasons)
    noise = osc.WhiteNoise(0.02)
    right = read_with(case, osc.Cosine(0.01, 64.0), cycles=6, discard=4).gradient
    errors, bars = [], []
    for seed in range(6):
        found = read_with(
            case, osc.Cosine(0.2, 64.0), cycles=6, discard=0, start="settled", noise=noise, key=jax.random.key(seed)
        )
        errors.append(float(osc.relative_error(found.gradient, right)))
        bars.append(float(found.error.contamination))
    assert 0.5 < np.median(np.array(errors) / np.array(bars)) < 2


class BothWays(osc.AbstractTeaching):
    """Turns forwards, and half as strongly backwards."""

    amplitude: jax.Array
    period: jax.Array

    def __call__(self, t, cycle=0):
        turn = jnp.exp(2j * jnp.pi * t / self.period)
        return self.amplitude * (turn + 0.5 / turn)


@pytest.mark.slow
@pytest.mark.parametrize("signal", [osc.Cosine, BothWays])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_what_harmonics_mix_is_in_the_bar(x64, signal, share):
    """Past the lag, a signal that turns both ways is off by the square of its amplitude: its equations tell."""
    net = osc.LayeredNetwork((6, 5, 4), key=jax.random.key(0), scale=1.0)
    x, y = jax.random.uniform(jax.random.key(1), (3, 6)), np.array([1, 0, 2])
    amplitude = jnp.asarray(share * osc.response.convergence_radius(net, x, y))
    small, found = (
        read_with((net, x, y), signal(a, jnp.asarray(200.0)), cycles=3, discard=1) for a in (amplitude / 100, amplitude)
    )
    assert 0.3 < osc.relative_error(found.gradient, small.gradient) / found.error.contamination < 4


def read_with(case, signal, key=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", osc.InexactGradientWarning)
        return osc.LockIn(signal, **STEPS | kwargs)(*case, key)


# The average.


def test_contrast_has_the_variance_of_the_mean(x64):
    """Of independent readings, for every number of cycles."""
    draws = 4000
    for cycles in (2, 3, 5):
        values = jax.random.normal(jax.random.key(cycles), (cycles, draws, 1))

        def reading(v):
            v = v.astype(complex)
            return Phasors(((v,), (v,), (v,)), (jnp.zeros((), complex),) * 3, (-1, 0, 1))

        average = Average.empty(reading(values[0]))
        for value in values:
            average = average.add(reading(value))
        mean, contrast = average.mean[0][0].real, average.contrast[0][0].real
        assert np.allclose(mean, jnp.mean(values, axis=0))
        assert np.isclose(jnp.var(contrast) * cycles, 1, atol=5 * np.sqrt(2 / draws))
        assert abs(float(jnp.mean(contrast * mean))) < 5 / cycles / np.sqrt(draws)  # it holds nothing of the mean


@pytest.mark.slow
def test_cycles_before_the_lock_are_left_out():
    net, x, y = toy(4)
    run = osc.simulate(net, x, y, osc.Rotating(0.05, 64.0), cycles=6, **STEPS)
    left_out = run.discarded()
    assert left_out >= 1
    assert f"{left_out} of 6 cycles left out" in str(run)
    right = read(net, x, y, cycles=8, discard=6).gradient
    assert osc.relative_error(run.gradient(), right) < 1e-4
    with pytest.warns(osc.InexactGradientWarning):
        literal = run.gradient(0)
    assert osc.relative_error(literal, right) > 0.05
    mean = osc.simulate(net, x, y, osc.Rotating(0.05, 64.0), cycles=6, record=osc.Mean(), **STEPS)
    assert mean.discarded() == left_out
    assert osc.relative_error(mean.gradient(), run.gradient()) < 1e-6


@pytest.mark.slow
def test_deviation_of_each_parameter():
    """Over many realisations each parameter scatters as its deviation says."""
    net, x, y = toy(4)
    noise, signal = osc.WhiteNoise(0.03), osc.Rotating(0.2, 64.0)
    how = {"noise": noise, "start": "settled"} | STEPS
    said = osc.simulate(net, x, y, signal, cycles=40, key=jax.random.key(0), **how).error(0).deviation
    lock_in = osc.LockIn(signal, cycles=(40, 40), discard=0, **how)
    many = osc.ensemble(lock_in, net, x, y, realisations=64, key=jax.random.key(1))
    found = jax.tree.map(lambda a: np.std(np.asarray(a), axis=0, ddof=1), many.gradients)
    ratios = np.concatenate([np.ravel(a / b) for a, b in zip(*map(jax.tree.leaves, (found, said)), strict=True)])
    assert 0.85 < np.median(ratios) < 1.15
    assert np.mean((ratios > 0.6) & (ratios < 1.6)) > 0.95


# What is done with it.


def test_a_wrong_gradient_warns_or_raises():
    net, x, y = toy(4)
    lock_in = osc.LockIn(osc.Rotating(1e-7, 64.0), cycles=3, **STEPS)
    with pytest.warns(osc.InexactGradientWarning, match="rounding"):
        assert not lock_in(net, x, y).valid
    with pytest.raises(osc.InexactGradientError, match="rounding"):
        lock_in(net, x, y, throw=True)
    lock_in(net, x, y, tolerance=1e9)
    inside = eqx.filter_jit(lambda net: lock_in(net, x, y))(net)  # nothing is raised: it is there to be read
    assert not inside.valid
    assert float(inside.error.total) > 0.1
    run = osc.simulate(net, x, y, osc.Rotating(1e-7, 64.0), cycles=3, **STEPS)
    with pytest.raises(osc.InexactGradientError):
        run.gradient(throw=True)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_run_knows_its_state():
    """Of several stable states: driven from rest, two samples lock around another one than rest leads to."""
    net = osc.LayeredNetwork(
        (9, 7, 5, 6, 3), activation=osc.Logistic(slope=3.0, centre=0.4), cost=osc.SquaredError(), key=jax.random.key(7)
    )
    x, y = jax.random.uniform(jax.random.key(1), (4, 9)), jnp.array([0, 2, 1, 1])
    run = osc.simulate(net, x, y, osc.Rotating(0.1, 300.0), cycles=4)
    assert run.elsewhere() == (0, 3)
    assert "samples 0, 3 rest in another state" in str(run)
    assert osc.relative_error(run.gradient(), osc.exact_gradient(net, x, y)) > 1
    found = run.compare()
    assert found.relative_error < 2 * float(found.error.total) < 0.1
    driven = osc.LockIn(osc.Rotating(0.1, 300.0))(net, x, y)
    with pytest.warns(UserWarning, match="sample 0 rests in another state"):
        osc.cosine(driven, osc.Exact()(net, x, y))


@pytest.mark.slow
def test_until_it_is_good_enough():
    net, x, y = toy(4)
    how = {"noise": osc.WhiteNoise(0.03), "start": "settled"} | STEPS
    signal = osc.Rotating(0.1, 64.0)
    run = osc.simulate(net, x, y, signal, cycles=200, until=0.05, key=jax.random.key(0), **how)
    assert 2 <= run.cycles < 200
    assert float(run.error(0).total) <= 0.05
    assert "asked for 5 %: reached" in str(run)
    short = osc.simulate(net, x, y, signal, cycles=3, until=1e-4, key=jax.random.key(0), **how)
    assert short.cycles == 3
    assert "not reached in 3 cycles" in str(short)
    lock_in = osc.LockIn(signal, cycles=2, accuracy=0.05, **how)
    assert float(lock_in(net, x, y, jax.random.key(0)).error.total) <= 0.05


@pytest.mark.slow
@QUIET
def test_amplitudes_tune_themselves():
    """Samples past their own radius are lowered, the others are not; the gradient is right where a fixed one is not."""
    net, x, y = toy(8)
    far = eqx.tree_at(lambda n: n.weights, net, tuple(2.2 * w for w in net.weights))
    radii = [osc.response.convergence_radius(far, x[i : i + 1], y[i : i + 1]) for i in range(8)]
    start = 0.9 * float(np.median(radii))
    right = osc.response.predict_gradient(far, x, y, 64.0)
    fixed = read(far, x, y, start, cycles=4, start="settled")
    signal = osc.Adaptive(64.0, start, highest=10.0)
    tuned = osc.LockIn(signal, cycles=(4, 24), start="settled", **STEPS)(far, x, y)
    assert float(osc.relative_error(fixed.gradient, right)) > 0.03
    assert float(osc.relative_error(tuned.gradient, right)) < 0.01
    amplitude = np.asarray(tuned.error.amplitude)
    assert np.any(amplitude < 0.6 * start)
    assert np.any(amplitude > 0.9 * start)


@QUIET
def test_amplitudes_rise_out_of_the_noise():
    net, x, y = toy(8)
    noise = osc.WhiteNoise(0.05)
    lock_in = osc.LockIn(osc.Adaptive(64.0, 0.01), cycles=12, noise=noise, start="settled", **STEPS)
    found = lock_in(net, x, y, jax.random.key(0))
    assert np.median(np.asarray(found.error.amplitude)) > 0.1
    inputs = osc.Inputs.of(net, x, y)
    carried = lock_in.init(net, inputs)
    after, _ = lock_in.estimate(carried, net, inputs, jax.random.key(0))
    assert float(after.amplitude) > float(carried.amplitude)


@pytest.mark.slow
def test_training_with_tuned_amplitudes_goes_on_bit_for_bit(tmp_path):
    x, y = osc.datasets.load("digits")
    data = x[:120], y[:120]
    net = osc.LayeredNetwork((64, 8, 10), key=jax.random.key(1))
    estimator = osc.LockIn(
        osc.Adaptive(64.0),
        cycles=2,
        integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=64),
        start="settled",
        noise=osc.StepNoise(0.02),
    )

    def trained(epochs, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return osc.train(
                net,
                data,
                estimator,
                optax.sgd(0.1),
                epochs=epochs,
                key=jax.random.key(0),
                batch_size=20,
                monitor=osc.Monitor(probe=20),
                **kwargs,
            )

    whole = trained(2)
    trained(1, checkpoints=osc.Checkpoints(tmp_path))
    rest = trained(2, checkpoints=osc.Checkpoints(tmp_path, resume=True))
    assert eqx.tree_equal(whole.network, rest.network)
    last = rest.history[-1]
    assert last["amplitude"] > 0.05  # under noise it rises, from batch to batch
    assert {"error_bar", "probe_error", "probe_error_bar", "outside", "amplitude_lowest"} <= set(last)


def test_steps_that_the_couplings_make_unstable():
    """Each neuron alone would follow steps of 1.5 tau; these, coupled, do not."""
    net, x, y = toy(4)
    with pytest.raises(ValueError, match=r"steps_per_cycle=48 .* is unstable there; use"):
        osc.simulate(
            net,
            x,
            y,
            osc.Rotating(0.05, 72.0),
            cycles=3,
            integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=48, ticks=48),
            start="settled",
        )


class Hidden(osc.AbstractNetwork):
    """A network of one's own, of whose force `stop_gradient` hides a part."""

    weight: jax.Array
    activation = osc.Tanh()
    shapes = ((3,),)
    input_shape = (3,)
    outputs = 3

    def clamp(self, x):
        return x

    def phi(self, clamped, s, y, beta):
        (s,) = s
        coupled = jnp.sum(s * jax.lax.stop_gradient(self.weight @ s))
        return jnp.sum(clamped * s) + coupled - beta * osc.SquaredError()(s, y)


def test_networks_that_were_not_seen_are_looked_at():
    net = Hidden(0.3 * jax.random.normal(jax.random.key(0), (3, 3)))
    x, y = jax.random.uniform(jax.random.key(1), (2, 3)), jnp.array([0, 1])
    with pytest.warns(osc.InexactGradientWarning, match="Cauchy-Riemann"):
        osc.simulate(net, x, y, osc.Rotating(0.1, 64.0), cycles=2, **STEPS)
    osc.simulate(net, x, y, osc.Rotating(0.1, 64.0), cycles=2, **STEPS)  # once


def test_reading_costs_no_memory_in_time():
    """What is carried from cycle to cycle is the mean and the contrast, whatever their number."""
    net, x, y = toy(4)
    lock_in = osc.LockIn(osc.Rotating(0.2, 64.0), **STEPS)
    state = osc.begin(lock_in.system(net), osc.Inputs.of(net, x, y))
    average = Average.empty(state.reading)
    held = sum(a.size for a in jax.tree.leaves(eqx.filter(average, eqx.is_array)))
    read_once = sum(a.size for a in jax.tree.leaves(state.reading.over_samples()))
    assert held <= 2 * read_once + 3 * len(x)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_lock_where_the_neurons_would_not_rest_is_seen():
    """Heun steps of a whole time constant have fixed points that the equation does not have; the image is silent."""
    net = osc.LayeredNetwork((6, 5, 5, 5, 4), activation=osc.Logistic(slope=4.0, centre=0.5), key=jax.random.key(7))
    net = eqx.combine(jax.tree.map(lambda w: 1.5 * w, osc.parameters(net)), net)
    x, y = jax.random.uniform(jax.random.key(107), (6, 6)), np.arange(6) % 4

    def run(steps):
        integration = osc.Integration(diffrax.Heun(), steps_per_cycle=steps)
        return osc.simulate(net, x, y, osc.Rotating(1e-3, 200.0), cycles=8, integration=integration)

    coarse, fine = run(200), run(800)
    assert coarse.lock_residual[-1] < 1e-6
    assert np.all(np.linalg.norm(coarse.phasors[-1][0][-1], axis=1) < 1e-9)  # nothing in the image
    assert coarse.equilibrium_residual > 0.1 > 1e-6 > fine.equilibrium_residual
    wrong = float(osc.relative_error(coarse.gradient(tolerance=np.inf), fine.gradient()))
    assert wrong > 0.3
    assert coarse.error().total > 0.3
    assert "steps_per_cycle" in str(coarse.error())
    assert fine.error().reasons == ()


@pytest.mark.slow
def test_what_went_wrong_is_a_value_under_jit():
    """Each cause in its turn: `RESULTS` is read where nothing can be raised, and is what the sentences say."""
    net, x, y = toy()
    settings = {"cycles": 3, "integration": osc.Integration(steps_per_cycle=128, solver=diffrax.Heun())}
    causes = {
        "successful": osc.LockIn(osc.Rotating(0.05, 100.0), discard=1, start="settled", **settings),
        "lag": osc.LockIn(osc.Rotating(0.05, 12.0), discard=1, start="settled", **settings),
        "not_locked": osc.LockIn(osc.Rotating(0.002, 12.0), discard=0, **settings),
        "rounding": osc.LockIn(osc.Rotating(1e-7, 100.0), discard=1, start="settled", **settings),
        "out_of_regime": osc.LockIn(osc.Rotating(4.0, 100.0), discard=1, start="settled", **settings),
    }
    for name, estimator in causes.items():
        estimate = eqx.filter_jit(lambda net, estimator=estimator: estimator(net, x, y))(net)
        assert bool(estimate.result == getattr(osc.RESULTS, name)), (name, estimate.error)
        assert bool(estimate.valid) == (name == "successful")
        sentence = osc.RESULTS[estimate.result]
        assert sentence.split(";")[0] in " ".join(estimate.error.reasons)
