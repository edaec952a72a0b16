"""Estimates from points know their own error: truncation, points that have not settled, noise, rounding."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.networks.inputs import Inputs
from oscsim.response.radius import convergence_radius
from tests.test_exactness import Ring

CLASSES, INPUTS, BATCH = 4, 6, 4


def ring(key):
    a, b, c = jax.random.split(key, 3)
    return Ring(0.3 * jax.random.normal(a, (5,)), jax.random.normal(b, (5, INPUTS)), jax.random.normal(c, (CLASSES, 5)))


class Wide(Ring):
    """The ring with the inputs and classes of the others."""

    input_shape = (INPUTS,)
    outputs = CLASSES


def wide(key):
    net = ring(key)
    return Wide(net.coupling, net.drive, net.readout_weights)


def layered(*hidden, scale=1.0, activation=osc.Logistic):
    return lambda key: osc.LayeredNetwork(
        (INPUTS, *hidden, CLASSES), key=key, scale=scale, activation=activation(), cost=osc.CrossEntropy()
    )


NETWORKS = {
    "one layer": layered(5, scale=0.8),
    "two layers": layered(5, 5, scale=1.0),
    "three layers": layered(5, 4, 4, activation=osc.Tanh, scale=0.7),
    "Hopfield": lambda key: osc.HopfieldNetwork((INPUTS, 8, CLASSES), key=key),
    "own": wide,
}


RADII = {0: 0.0714, 1: 0.366}
"""Convergence radii of the network with two layers, by seed."""


@dataclasses.dataclass
class Row:
    """One estimate: what it is, its measured error, and its bar."""

    name: str
    points: int
    reach: float
    tolerance: float
    cause: str
    error: float
    bar: float
    valid: bool
    coarse: bool
    """Whether the tolerance lies beyond the nudge: points start nearer to rest than it asks, which no bar can know."""


def cause(error):
    """What the bar says is wrong, in the sample where most is."""
    worst = int(np.argmax(np.nan_to_num(np.asarray(error.per_sample), posinf=1e30)))
    parts = {"unsettled": float(error.change[worst]), "rounding": float(error.rounding[worst])}
    image = float(error.per_sample[worst])
    parts["truncation"] = np.sqrt(max(image**2 - parts["unsettled"] ** 2 - parts["rounding"] ** 2, 0))
    return "noise" if error.noisy else max(parts, key=parts.get)


def estimator(points, amplitude, tolerance=None, **kwargs):
    if points == 1:
        return osc.Classic(amplitude, **kwargs)
    return osc.Phases(amplitude, points, tolerance=tolerance, **kwargs)


@functools.cache
def problem(name, seed, double):
    with jax.enable_x64(True):
        net = NETWORKS[name](jax.random.key(seed))
        x, y = (
            jax.random.uniform(jax.random.key(100 + seed), (BATCH, INPUTS)),
            np.arange(BATCH, dtype=np.int32) % CLASSES,
        )
        exact = osc.exact_gradient(net, x, y)
        radius = RADII[seed] if name == "two layers" and seed in RADII else float(convergence_radius(net, x, y))
    if not double:
        single = lambda tree: jax.tree.map(  # noqa: E731
            lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, tree
        )
        net, x, exact = single(net), single(x), single(exact)
    return net, x, y, exact, radius


def measured(name, seed, points, reach, tolerance=None, key=None, **kwargs):
    double = bool(jax.config.jax_enable_x64)
    net, x, y, exact, radius = problem(name, seed, double)
    made = estimator(points, reach * radius, tolerance, **kwargs)
    found = made(net, x, y, key, tolerance=1e30)
    error = float(osc.relative_error(found.gradient, exact))
    about = cause(found.error), error, float(found.error.total), bool(found.valid)
    return Row(name, points, reach, tolerance or 0, *about, (tolerance or 0) > reach * radius)


def table(rows, title):
    """Quantiles of error / bar."""
    print(f"\n{title}: N, cause, runs, error / bar at 0, 5, 50, 95, 100 %")
    for points in sorted({row.points for row in rows}):
        for what in sorted({row.cause for row in rows}):
            ratios = [row.error / row.bar for row in rows if (row.points, row.cause) == (points, what)]
            if ratios:
                quantiles = np.round(np.quantile(ratios, [0, 0.05, 0.5, 0.95, 1]), 3)
                print(f"{points:3d} {what:10} {len(ratios):4d}  {quantiles}")


def within(row, factor, floor):
    """Whether the bar is right, where the error can be told from rounding and is not all there is."""
    if row.error > 0.5:
        return row.bar > 0.3
    return row.error < floor or 1 / factor < row.error / row.bar < factor


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 4])
def test_bar_in_float32(points):
    for reach in (1e-3, 0.05, 0.3, 0.8):
        for tolerance in (None, 1e-4) if points > 1 else (None,):
            row = measured("two layers", 0, points, reach, tolerance)
            assert within(row, 4, 1e-3), row


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("points", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_bar_in_float64(points):
    for seed in range(2):
        for reach in (1e-3, 0.05, 0.3, 0.8):
            for tolerance in (None, 1e-7, 1e-3):
                row = measured("two layers", seed, points, reach, tolerance)
                assert row.error < 4 * row.bar < 1e-2 if row.coarse else within(row, 4, 1e-9), row


@pytest.mark.slow
def test_training_advises_what_the_estimator_has():
    net = osc.LayeredNetwork((INPUTS, 5, CLASSES), scale=1.0, key=jax.random.key(0))
    x, y = jax.random.uniform(jax.random.key(1), (8, INPUTS)), jnp.arange(8) % CLASSES
    rotating = osc.LockIn(osc.Rotating(3.0, 60.0), cycles=2)
    advice = [(osc.Phases(3.0, 2), "more points or adaptive"), (osc.Classic(3.0), "Phases with more points")]
    for estimator, remedy in (*advice, (rotating, "a longer period"), (osc.AlwaysOn(rotating), "a longer period")):
        with pytest.warns(osc.InexactGradientWarning, match=f"epoch 1.*{remedy}"):
            osc.train(
                net,
                (x, y),
                estimator,
                optax.sgd(0.01),
                epochs=1,
                batch_size=8,
                key=jax.random.key(2),
                monitor=osc.Monitor(probe=0, progress=False),
            )


def test_nudge_below_the_tolerance_is_not_valid():
    net, x, y, exact, radius = problem("two layers", 0, False)
    for points, amplitude in ((1, 1e-6), (2, 1e-7), (4, 1e-7)):
        small, reason = estimator(points, amplitude), "(hardly further than they are settled to|rounding swallows)"
        with pytest.warns(osc.InexactGradientWarning, match=f"{reason}.*use a larger amplitude"):
            found = small(net, x, y)
        assert not found.valid
        assert 0.15 < osc.relative_error(found.gradient, exact) / found.error.total < 4
        assert estimator(points, 0.05 * radius)(net, x, y).valid


@pytest.mark.slow
def test_too_large_an_amplitude_says_so_and_adaptive_lowers_it():
    net, x, y, exact, radius = problem("two layers", 0, False)
    with pytest.warns(osc.InexactGradientWarning, match="amplitude is too large.*adaptive=True"):
        fixed = osc.Phases(4 * radius, 4)(net, x, y)
    assert fixed.error.outside.any()
    assert osc.relative_error(fixed.gradient, exact) > 0.1
    adaptive = osc.Phases(4 * radius, 4, adaptive=True)
    inputs = Inputs.of(net, x, y)
    start = adaptive.init(net, inputs)
    following, found = adaptive.estimate(start, net, inputs)
    assert found.valid
    assert osc.relative_error(found.gradient, exact) < 0.05
    halved = np.log2(float(start) / np.asarray(found.error.amplitude))
    np.testing.assert_allclose(halved, np.round(halved), atol=1e-3)
    assert halved.max() >= 1
    assert following == pytest.approx(0.8 * float(start))
    calm, _ = adaptive.estimate(start / 10, net, inputs)
    assert calm == pytest.approx(float(start) / 10)
    assert fixed.error.amplitude == pytest.approx(4 * radius)
    assert osc.Phases(0.1, 4).init(net, inputs) is None
    with pytest.raises(ValueError, match="adaptive=True exclude"):
        osc.Phases(0.1, 4, steps=(5, 5), adaptive=True)


@pytest.mark.slow
def test_steps_that_are_too_few_and_noise():
    for count in (2, 4, 60):
        row = measured("two layers", 0, 4, 0.1, steps=(100, count))
        assert within(row, 3, 1e-4), row
        assert row.cause == "unsettled" or count == 60
    for points in (1, 4):
        noisy = {"steps": (60, 30), "noise": osc.StepNoise(1e-3)}
        rows = [measured("two layers", 0, points, 0.3, key=jax.random.key(k), **noisy) for k in range(5)]
        assert {row.cause for row in rows} == {"noise"}
        assert 0.5 < np.median([row.error / row.bar for row in rows]) < 2
    net, x, y, _, _ = problem("two layers", 0, False)
    several = osc.Classic(0.1, steps=(60, 30), noise=osc.StepNoise(1e-3), readings=3)(net, x, y, jax.random.key(0))
    assert np.isnan(several.error.total)
    assert "mean over readings" in str(several.error)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_sided_reading_of_couplings_without_symmetry():
    net, x, y, _, _ = problem("two layers", 0, True)
    net = osc.hardware.mismatch(net, jax.random.key(1), deviation=0.2)
    exact = osc.exact_gradient(net, x, y)
    read = osc.Phases(0.02, 6)(net, x, y, tolerance=1e30)
    classic = osc.Classic(1e-4)(net, x, y, tolerance=1e30)
    assert osc.relative_error(classic.gradient, read.gradient) < 1e-3
    for found in (read, classic):
        assert found.error.asymmetry == pytest.approx(float(osc.relative_error(found.gradient, exact)), rel=0.3)
        assert found.error.contamination < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_calibration(name, precision):
    """Over amplitudes from rounding to the radius, and tolerances from the smallest to far too large."""
    rows, tolerances = [], (None, 1e-9, 1e-6, 1e-4, 1e-3) if precision == "float64" else (None, 1e-4, 1e-3)
    for points in (1, 2, 3, 4, 5, 8, 12):
        for seed in range(3):
            for reach in (1e-4, 0.02, 0.1, 0.3, 0.6, 0.9):
                for tolerance in tolerances if points > 1 else (None,):
                    rows.append(measured(name, seed, points, reach, tolerance))
    floor = 1e-11 if precision == "float64" else 1e-4
    seen = [row for row in rows if floor < row.error < 0.5 and not row.coarse]
    table(seen, f"{name}, {precision}")
    for row in rows:
        assert row.error <= 0.5 or row.bar > 0.3, row
        assert row.error < floor or row.error < 5 * row.bar, row
    for what, factor in {"truncation": 5, "unsettled": 3}.items():
        ratios = np.array([row.error / row.bar for row in seen if row.cause == what])
        if len(ratios) < 20:  # from where its points start one layer settles at once: few are unsettled, and hardly so
            continue
        assert 0.8 < np.median(ratios) < 1.25
        assert np.mean((ratios > 1 / factor) & (ratios < factor)) > 0.95
