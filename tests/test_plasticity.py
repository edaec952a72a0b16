"""Weights in the equation: against lock-in, the exact gradient, an independent solver; time scales; a toy task."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.dynamics.cycles import averaged
from oscsim.estimators.lock_in import estimate_in
from oscsim.networks.inputs import Stream
from oscsim.signals.teaching import fourier_coefficient
from oscsim.training.plasticity import CHUNK, _cycles_per_input, _learn_chunk
from tests.helpers import order, toy

EQUAL_STEPS = {"integration": osc.Integration(steps_per_cycle=256)}  # of Tsit5
COARSE = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=128)}

advance_plastic = eqx.filter_jit(osc.advance_plastic)


# The toy task: exclusive or, one input after the other.

CORNERS = 2 * jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]]) - 1
ODD = jnp.array([0, 1, 1, 0])
TURNING = osc.Rotating(0.5, 50.0)
XOR_STEPS = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=128, ticks=16)}


def corner(cycle):
    return CORNERS[cycle // 4 % 4][None].astype(float)


def parity(cycle):
    return ODD[cycle // 4 % 4][None]


def xor_network(seed):
    return osc.LayeredNetwork((2, 8, 2), key=jax.random.key(seed), scale=1.5)


def xor_score(net):
    """Mean loss and how many of the four are right, at the free equilibrium."""

    @eqx.filter_jit
    def score(net, s):
        return jnp.mean(net.loss(inputs.clamped, s, ODD)), jnp.argmax(net.readout(inputs.clamped, s), axis=1)

    inputs = osc.Inputs.of(net, CORNERS, ODD)
    loss, answers = score(net, osc.settle(net, CORNERS, ODD).activities)
    return float(loss), int(jnp.sum(answers == ODD))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_exclusive_or_is_learned_one_input_after_the_other(seed):
    net = xor_network(seed)
    loss, right = xor_score(net)
    assert loss > 0.5
    assert right < 4
    learned = osc.learn(net, (corner, parity), TURNING, rate=3e-3, cycles=1200, **XOR_STEPS)
    loss, right = xor_score(learned.network)
    assert right == 4
    assert loss < 0.05
    assert learned.loss.shape == learned.drift.shape == (1200,)
    assert np.mean(learned.loss[-100:]) < 0.05
    assert np.mean(learned.drift[-100:]) < np.mean(learned.drift[:100])
    assert learned.time_scales.presentation == 4 * 50


def test_what_the_warning_is_about_does_happen():
    net = xor_network(0)
    with pytest.warns(UserWarning, match="is below") as caught:
        learned = osc.learn(net, (corner, parity), TURNING, rate=0.5, cycles=1200, **XOR_STEPS)
    assert any("swing / period" in str(warning.message) for warning in caught)
    assert xor_score(learned.network)[1] < 4


# What a cycle does to the weights.


@eqx.filter_jit
def locked(net, inputs, teaching):
    """The state after three cycles, and the gradient that lock-in reads in the last two."""
    lock_in = osc.LockIn(teaching, cycles=3, discard=1, **EQUAL_STEPS)
    system = lock_in.system(net)
    found = averaged(system, lock_in.begin(system, inputs), inputs, lock_in.counts(net.dtype), key=None)
    return found.state, estimate_in(system, inputs, found).gradient


def drifts(case, teaching, rates):
    """Minus the drift per rate and time, of a cycle that starts locked, at each rate; and what lock-in reads."""
    net, inputs, found = case[0], osc.Inputs.of(*case), []
    state, gradient = locked(net, inputs, teaching)
    system = osc.System.of(net, teaching, **EQUAL_STEPS)
    for rate in rates:
        _, moved, _ = advance_plastic(system, state, inputs, jnp.asarray(rate))
        found.append(jax.tree.map(lambda a, rate=rate: -a / (rate * teaching.period), moved))
    return found, gradient


@pytest.mark.usefixtures("x64")
def test_only_ratios_of_times_count():
    """Everything ten times as slow, in the same number of steps, is the same equation."""
    learned = []
    for slower in (1.0, 10.0):
        net, x, y = toy(time_constant=slower)
        steps = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=64), "cycles": 1, "throw": False}
        learned.append(osc.learn(net, (x, y), osc.Rotating(0.2, 50.0 * slower), rate=1e-3 / slower, **steps).network)
    np.testing.assert_allclose(learned[1].weights[0], learned[0].weights[0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("phase", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_drift_is_minus_rate_times_gradient_to_second_order_in_the_rate(phase):
    rates = np.array([1e-6, 3e-6, 1e-5])
    (limit, *found), lock_in = drifts(toy(), osc.Rotating(0.2, 100.0, phase), [1e-10, *rates])
    assert 0.97 < order([osc.relative_error(g, lock_in) for g in found], rates) < 1.03
    assert osc.relative_error(limit, lock_in) < 1e-6


@pytest.mark.usefixtures("x64")
def test_drift_is_the_exact_gradient_to_second_order_in_the_frequency():
    case = toy()
    exact = osc.exact_gradient(*case)
    periods = np.array([100.0, 200.0, 400.0])
    errors = [osc.relative_error(drifts(case, osc.Rotating(0.2, t), [1e-10])[0][0], exact) for t in periods]
    assert 1.9 < order(errors, 1 / periods) < 2.1
    assert errors[-1] < 2e-3


@pytest.mark.usefixtures("x64")
def test_the_first_coefficient_of_a_signal():
    def first(teaching):
        return complex(fourier_coefficient(teaching, 1, jnp.float64))

    assert first(osc.Rotating(0.3, 100.0, 1.0)) == pytest.approx(0.3 * np.exp(1j), abs=1e-14)
    assert first(osc.Cosine(0.3, 100.0)) == pytest.approx(0.15, abs=1e-14)
    assert first(osc.Onset(osc.Rotating(0.3, 100.0), 2.0)) == pytest.approx(0.3, abs=1e-14)
    assert first(osc.Constant(0.3, 100.0)) == pytest.approx(0, abs=1e-14)
    for points in (2, 3, 8):
        plateaus = 0.3 * np.exp(2j * np.pi * np.arange(points) / points)
        ends = np.exp(-2j * np.pi * np.arange(points + 1) / points)
        whole = np.sum(plateaus * np.diff(ends)) / (-2j * np.pi)
        assert first(osc.Staircase(0.3, 100.0, points)) == pytest.approx(whole, abs=1e-14)


@pytest.mark.usefixtures("x64")
def test_most_of_the_second_order_is_the_neurons_answer_to_the_swing():
    net, x, y = case = toy()
    teaching, rate = osc.Rotating(0.2, 100.0), 1e-5

    def product(at):
        moved = eqx.combine(at, net)
        return moved.plasticity(x, osc.settle(moved, x, y).activities, y, 0.0)

    at, h = osc.parameters(net), 1e-5
    height = product(at)
    above, below = (product(jax.tree.map(lambda a, b, h=h: a + h * b, at, height)) for h in (h, -h))
    half_slope_of_square = jax.tree.map(lambda a, b: (a - b) / (2 * h), above, below)
    (slow, fast), _ = drifts(case, teaching, [1e-10, rate])
    extra = jax.tree.map(jnp.subtract, fast, slow)
    assert osc.cosine(extra, half_slope_of_square) > 0.95
    size = float(norm(extra)) / (rate / (2 * 0.2**2) * float(norm(half_slope_of_square)))
    slowest = osc.check_time_scales(net, x, y, teaching, None).neurons
    assert 1 < size < slowest  # between the neurons' own time constant and that of the slowest mode


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_kick_of_a_new_input_and_the_quarter_turn_that_takes_it_away():
    net, x, y = toy()
    old, new = osc.Inputs.of(net, jax.random.uniform(jax.random.key(9), x.shape), y), osc.Inputs.of(net, x, y)
    before, after = (osc.settle(net, i.x, i.y).activities for i in (old, new))
    products = [net.plasticity(new.x, s, new.y, 0.0) for s in (before, after)]
    change = float(norm(jax.tree.map(jnp.subtract, *products)))
    rate, period, kicks = jnp.asarray(1e-10), 200.0, {}
    for phase in (0.0, math.pi / 2):
        teaching = osc.Rotating(0.01, period, phase)
        (state, _), (_, gradient) = locked(net, old, teaching), locked(net, new, teaching)
        _, moved, _ = advance_plastic(osc.System.of(net, teaching, **EQUAL_STEPS), state, new, rate)
        kicks[phase] = float(norm(jax.tree.map(lambda a, g: a / rate + period * g, moved, gradient)))
    slowest = osc.check_time_scales(net, old.x, old.y, osc.Rotating(0.4, period), 2).neurons
    assert 0.5 < kicks[0.0] / (change / 0.01) < slowest
    assert kicks[math.pi / 2] < 0.2 * kicks[0.0]
    assert kicks[math.pi / 2] < 2 * math.pi / period * slowest * kicks[0.0] + 1.0  # beside what does not go with 1 / A


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_same_equation_through_scipy():
    """A network of two layers of neurons, written by hand, complex and at a rate where nothing is small."""
    sizes, rate, period, amplitude, phase = (2, 3, 2), 3e-3, 60.0, 0.3, 0.7
    tau = (1.0, 0.5)
    net = osc.LayeredNetwork(
        sizes, key=jax.random.key(4), activation=osc.Tanh(), cost=osc.SquaredError(), time_constant=tau
    )
    x, y = np.array([[0.5, -1.0], [1.0, 0.3]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    shapes = [(2, 3), (2, 2), (3, 2), (2, 3), (3,), (2,)]  # potentials of the batch, then W0, W1, b0, b1
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def unpacked(flat):
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]

    def velocity(t, flat):
        u1, u2, w0, w1, b0, b1 = unpacked(flat)
        s1, s2 = np.tanh(u1), np.tanh(u2)
        reference = np.exp(1j * (2 * np.pi * t / period + phase))
        du1 = (-u1 + x @ w0.T + b0 + s2 @ w1) / tau[0]
        du2 = (-u2 + s1 @ w1.T + b1 - amplitude * reference * (s2 - y)) / tau[1]
        products = s1.T @ x, s2.T @ s1, s1.sum(0), s2.sum(0)
        turned = [rate * (p / len(x) / (amplitude * reference)).real for p in products]
        return np.concatenate([np.ravel(part) for part in (du1, du2, *turned)])

    start = [np.zeros(shapes[0]), np.zeros(shapes[1]), *net.weights, *net.biases]
    flat = np.concatenate([np.ravel(part) for part in start]).astype(complex)
    reference = scipy.integrate.solve_ivp(velocity, (0, 2 * period), flat, method="DOP853", rtol=1e-11, atol=1e-12)
    u1, u2, *learned = unpacked(reference.y[:, -1])

    teaching = osc.Rotating(amplitude, period, phase)
    ours = osc.learn(net, (x, y), teaching, rate=rate, cycles=2)
    for a, b in zip((*ours.network.weights, *ours.network.biases), learned, strict=True):
        np.testing.assert_allclose(a, b.real, atol=1e-7)
    for a, b in zip(ours.state.potentials, (u1, u2), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(norm(jax.tree.map(jnp.subtract, osc.parameters(ours.network), osc.parameters(net)))) > 0.05


def changing(case):
    """Inputs that change every three cycles."""
    _, x, y = case
    return lambda cycle: x[cycle // 3 % 3][None], lambda cycle: y[cycle // 3 % 3][None]


@pytest.mark.parametrize("steps", [pytest.param({}, marks=pytest.mark.slow), COARSE], ids=["adaptive", "equal"])
def test_five_and_five_cycles_are_ten_bit_for_bit(steps):
    net, *_ = case = toy()
    x, y = changing(case)
    settings = {"teaching": osc.Rotating(0.2, 50.0), "rate": 1e-4, **steps}
    whole = osc.learn(net, (x, y), cycles=10, **settings)
    first = osc.learn(net, (x, y), cycles=5, **settings)
    second = osc.learn(first.network, (x, y), cycles=5, start=first, **settings)
    assert second.first_cycle == 5
    for a, b in zip(jax.tree.leaves(whole.network), jax.tree.leaves(second.network), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(second.state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(whole.loss, np.concatenate([first.loss, second.loss]))
    np.testing.assert_array_equal(whole.drift, np.concatenate([first.drift, second.drift]))


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_without_a_rate_it_is_simulate():
    net, *_ = case = toy()
    x, y = changing(case)
    teaching = osc.Rotating(0.2, 50.0)
    learned = osc.learn(net, (x, y), teaching, rate=1e-14, cycles=5, **COARSE)
    run = osc.simulate(net, x, y, teaching, cycles=5, **COARSE)
    for a, b in zip(learned.state.potentials, run.state.potentials, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for n in (0, 1):
        for a, b in zip(learned.state.reading[n], run.phasors[n], strict=True):
            np.testing.assert_allclose(a, b[-1], atol=1e-12)
    inputs = run.inputs
    mean = tuple(jnp.asarray(layer[-1].real) for layer in run.phasors[0])
    assert learned.loss[-1] == pytest.approx(float(jnp.mean(net.loss(inputs.clamped, mean, inputs.y))), abs=1e-12)
    # The drift of a slow rate keeps its digits, far below those of the weights.
    faster = osc.learn(net, (x, y), teaching, rate=1e-12, cycles=5, **COARSE)
    np.testing.assert_allclose(faster.drift, 100 * learned.drift, rtol=1e-8)


@pytest.mark.slow
def test_another_rate_or_number_of_cycles_does_not_compile_again():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 50.0)
    osc.learn(net, (x, y), teaching, rate=1e-4, cycles=2, **COARSE)
    before = _learn_chunk._cached._cache_size()
    learned = osc.learn(net, (x, y), osc.Rotating(0.1, 60.0), rate=1e-5, cycles=CHUNK + 3, **COARSE)
    assert _learn_chunk._cached._cache_size() == before
    assert learned.cycles == CHUNK + 3 == int(learned.state.cycle)
    assert np.all(np.isfinite(learned.loss))
    assert learned.loss[-1] < learned.loss[0]


@pytest.mark.slow
def test_a_locked_response_teaches_from_its_first_cycle_on():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 100.0)
    gradient = osc.exact_gradient(net, x, y)

    def distance(start):
        learned = osc.learn(net, (x, y), teaching, rate=1e-6, cycles=1, start=start, **COARSE)
        return abs(float(learned.drift[0]) / (1e-6 * 100.0 * float(norm(gradient))) - 1)

    run = osc.simulate(net, x, y, teaching, cycles=3, **COARSE)
    assert distance(run) < 0.01
    assert distance(run.state) == distance(run)
    assert distance("rest") > 3 * distance(run)


@pytest.mark.slow  # tracing the reverse mode through diffrax takes longer than any other test
@pytest.mark.usefixtures("x64")
def test_a_cycle_passes_through_vmap_and_grad():
    net, x, y = toy()
    inputs, integration = osc.Inputs.of(net, x, y), osc.Integration(diffrax.Heun(), steps_per_cycle=64, ticks=16)
    system = osc.System.of(net, osc.Rotating(0.2, 50.0), integration=integration)
    state = osc.begin(system, inputs)

    def length(rate):
        return norm(osc.advance_plastic(system, state, inputs, rate)[1])

    lengths = jax.jit(jax.vmap(length))(jnp.array([1e-3 + 1e-6, 1e-3 - 1e-6]))
    slope = jax.jit(jax.grad(length))(jnp.asarray(1e-3))
    assert float(slope) == pytest.approx(float(lengths[0] - lengths[1]) / 2e-6, rel=1e-5)


# Time scales.


@pytest.mark.usefixtures("x64")
def test_time_scales_are_what_they_say():
    net, x, y = toy()
    scales = osc.check_time_scales(net, x, y, osc.Rotating(0.2, 100.0), 5, 1e-4)  # no warning: that would be an error
    size, slope = norm(osc.parameters(net)), norm(osc.exact_gradient(net, x, y))
    height = norm(net.plasticity(x, osc.settle(net, x, y).activities, y, 0.0))
    assert scales.period == 100
    assert scales.presentation == 500
    assert scales.weights == pytest.approx(float(size / (1e-4 * slope)), rel=1e-9)
    assert scales.swing == pytest.approx(float(0.2 * size / (1e-4 * height)), rel=1e-9)
    assert scales.too_close == ()
    for name in ("neurons", "period 100", "presentation 500", "weights", "swing", "rate  0.0001"):
        assert name in str(scales)
    assert osc.check_time_scales(net, x, y, osc.Cosine(0.4, 100.0), None, 1e-4).swing == pytest.approx(scales.swing)


@pytest.mark.usefixtures("x64")
def test_the_slowest_mode_of_two_coupled_linear_neurons():
    net = osc.LayeredNetwork((1, 1, 1), key=jax.random.key(0), activation=osc.Identity(), cost=osc.SquaredError())
    net = eqx.tree_at(lambda n: n.weights[1], net, jnp.array([[0.95]]))
    x, y = jnp.ones((1, 1)), jnp.ones((1, 1))
    assert osc.check_time_scales(net, x, y, osc.Rotating(0.1, 200.0), 2).neurons == pytest.approx(20, rel=1e-6)
    with pytest.warns(UserWarning, match=r"period / neurons = 100 / 20 = 5 is below 2 pi.*period of 126 or more"):
        osc.check_time_scales(net, x, y, osc.Rotating(0.1, 100.0), 2)


def test_every_pair_that_is_too_close_is_named_with_a_remedy_that_helps():
    net, x, y = toy()
    teaching = osc.Rotating(0.2, 100.0)
    with pytest.warns(UserWarning, match=r"presentation / period = 100 / 100 = 1 is below 2.*2 cycles or more"):
        osc.check_time_scales(net, x, y, teaching, 1)
    free = osc.check_time_scales(net, x, y, teaching, 5)
    assert free.weights is None
    assert free.swing is None
    with pytest.warns(UserWarning, match="is below") as caught:
        scales = osc.check_time_scales(net, x, y, teaching, 5, 0.1)
    messages = [str(warning.message) for warning in caught]
    assert [message.split(" = ")[0] for message in messages] == ["weights / presentation", "swing / period"]
    assert all(f"rate of {free.fastest_rate:.2g} or less" in message for message in messages)
    assert all(message in str(scales) for message in messages)
    osc.check_time_scales(net, x, y, teaching, 5, 0.99 * scales.fastest_rate)  # no warning
    with pytest.warns(UserWarning, match=r"swing / period"):
        osc.check_time_scales(net, x, y, teaching, 5, 1.01 * scales.fastest_rate)


def test_demodulated_gradients_do_not_swing():
    net, x, y = toy()
    teaching = osc.Rotating(0.01, 100.0)
    with pytest.warns(UserWarning, match="swing / period"):
        continuous = osc.check_time_scales(net, x, y, teaching, 5, 1e-3)
    demodulated = osc.check_time_scales(net, x, y, teaching, 5, 1e-3, demodulated=True)
    assert demodulated.swing is None
    assert demodulated.weights == continuous.weights
    assert demodulated.fastest_rate > continuous.fastest_rate


def test_learn_sees_how_long_an_input_stays():
    net, x, y = toy()

    def threes(cycle):
        return x * (1 + jnp.asarray(cycle) // 3 % 5)

    def stay(x, y, first, cycles):
        return _cycles_per_input(net, Stream(x, y, None), first, cycles)

    assert [stay(threes, y, first, 10) for first in (0, 1, 2, 3, 7)] == [3] * 5  # within one as well
    assert stay(threes, lambda cycle: (y + cycle // 2) % 2, 1, 10) == 2  # whichever changes first
    assert stay(threes, y, 3, 3) == math.inf  # no change to come
    assert stay(x, y, 0, 10) == math.inf


def test_learn_warns_unless_told_not_to():
    net, x, y = toy()
    settings = {"teaching": osc.Rotating(0.2, 50.0), "rate": 1e-5, "cycles": 2, **COARSE}

    def hasty(cycle):
        return x[cycle % 3][None]

    with pytest.warns(UserWarning, match="presentation / period"):
        osc.learn(net, (hasty, y[:1]), **settings)
    assert osc.learn(net, (hasty, y[:1]), throw=False, **settings).time_scales is None


# What cannot be.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rate": 0.0}, ValueError, r"rate=0: use a positive"),
        ({"rate": -1e-3}, ValueError, r"rate=-0.001: use a positive"),
        ({"rate": math.nan}, ValueError, r"rate=nan: use a positive"),
        ({"rate": "fast"}, TypeError, r"rate='fast': use real numbers"),
        ({"cycles": 0}, ValueError, r"cycles=0: use a positive integer"),
        ({"teaching": osc.Constant(0.1, 100.0)}, ValueError, r"Constant\(.*no first harmonic.*use Rotating"),
        ({"start": "warm"}, ValueError, r"start='warm': use"),
        ({"data": (jnp.ones((3, 5)), jnp.zeros(3, int))}, ValueError, r"x has shape \(3, 5\)"),
    ],
)
def test_bad_arguments(changes, error, message):
    net, x, y = toy()
    arguments = {"data": (x, y), "teaching": osc.Rotating(0.2, 100.0), "rate": 1e-4, "cycles": 2, **changes}
    with pytest.raises(error, match=message):
        osc.learn(net, **arguments)


def test_bad_arguments_of_the_check():
    net, x, y = toy()
    with pytest.raises(ValueError, match="cycles_per_input=0: use a positive"):
        osc.check_time_scales(net, x, y, osc.Rotating(0.2, 100.0), 0)
    with pytest.raises(ValueError, match="rate=-1: use a positive"):
        osc.check_time_scales(net, x, y, osc.Rotating(0.2, 100.0), 2, -1)
    with pytest.raises(ValueError, match="no first harmonic"):
        osc.check_time_scales(net, x, y, osc.Constant(0.2, 100.0), 2)


@pytest.mark.slow
def test_a_complex_signal_needs_a_holomorphic_network():
    net, x, y = toy(activation=osc.HardTanh(2.0))
    with pytest.raises(osc.NotHolomorphicError, match="HardTanh is not holomorphic"):
        osc.learn(net, (x, y), osc.Rotating(0.2, 100.0), rate=1e-4, cycles=1)
    # A real signal serves: between its corners this network is linear.
    settings = {"rate": 1e-6, "cycles": 2, "start": "settled", **COARSE}
    learned = osc.learn(net, (x, y), osc.Cosine(0.05, 100.0), **settings)
    expected = 1e-6 * 100.0 * float(norm(osc.exact_gradient(net, x, y)))
    assert learned.drift[1] == pytest.approx(expected, rel=0.05)


def test_divergence_names_cycle_layer_and_rate():
    net, x, y = toy()
    settings = {"teaching": osc.Rotating(0.2, 50.0), "rate": 1e7, "cycles": 3, **COARSE}
    with (
        pytest.warns(UserWarning, match=r"weights / period.*in a cycle; use a rate|swing / period"),
        pytest.raises(osc.DivergenceError, match=r"in cycle 1: layer \d of 2.*amplitude=0.2.*or lower rate=1e\+07"),
    ):
        osc.learn(net, (x, y), **settings)
    flagged = osc.learn(net, (x, y), throw=False, **settings)
    assert flagged.diverged
    assert "DIVERGED" in str(flagged)
    assert flagged.cycles == 1
    assert np.isnan(flagged.loss[-1])
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(osc.parameters(flagged.network)))
    with pytest.raises(ValueError, match="start is a state that diverged"):
        osc.learn(net, (x, y), start=flagged, **settings | {"rate": 1e-4})


def test_printing():
    net, x, y = toy()
    learned = osc.learn(net, (x, y), osc.Rotating(0.2, 100.0), rate=1e-4, cycles=3, **COARSE)
    for part in ("Learned in 3 cycles", "LayeredNetwork, neurons 4-4", "amplitude=0.2", "rate 0.0001", "loss", "drift"):
        assert part in str(learned)
    assert repr(learned) == str(learned)
