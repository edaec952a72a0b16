"""Estimates from points know their own error: truncation, points that have not settled, noise, rounding."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
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
        x, y = jax.random.uniform(jax.random.key(100 + seed), (BATCH, INPUTS)), jnp.arange(BATCH) % CLASSES
        exact, radius = osc.exact_gradient(net, x, y), float(convergence_radius(net, x, y))
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
    return Row(
        name, points, reach, tolerance or 0, cause(found.error), error, float(found.error.total), bool(found.valid)
    )


def table(rows, title):
    """Quantiles of error / bar."""
    print(f"\n{title}: N, cause, runs, error / bar at 0, 5, 50, 95, 100 %")
    for points in sorted({row.points for row in rows}):
        for what in sorted({row.cause for row in rows}):
            ratios = [row.error / row.bar for row in rows if (row.points, row.cause) == (points, what)]
            if ratios:
                quantiles = np.round(np.quantile(ratios, [0, 0.05, 0.5, 0.95, 1]), 3)
                print(f"{points:3d} {what:10} {len(ratios):4d}  {quantiles}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_calibration(name, precision):
    rows, tolerances = [], (None, 1e-9, 1e-6, 1e-4, 1e-3) if precision == "float64" else (None, 1e-5, 1e-4, 1e-3)
    for points in (1, 2, 3, 4, 5, 6, 8, 12):
        for seed in range(4):
            for reach in (1e-4, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
                for tolerance in tolerances if points > 1 else (None,):
                    rows.append(measured(name, seed, points, reach, tolerance))
    floor = 1e-11 if precision == "float64" else 1e-4
    seen = [row for row in rows if floor < row.error < 0.5]
    table(seen, f"{name}, {precision}")
    for row in rows:
        if row.error > 0.5:
            assert row.bar > 0.3, row
        if not (floor < row.error < 0.5):
            continue
        low, high = (1 / 3, 3) if row.cause == "unsettled" else (1 / 5, 5)
        if not low < row.error / row.bar < high:
            print("OFF", row)
