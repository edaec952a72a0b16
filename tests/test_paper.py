"""Figs. 2d, 3a and 3c of Laborieux & Zenke (2022): the same shape, from other random numbers."""

import importlib.util
from pathlib import Path

import diffrax
import jax
import numpy as np
import pytest

import oscsim as osc

ROOT = Path(__file__).resolve().parents[1]


def test_fig_2d_cosine_against_amplitude(paper):
    """6-4-4-4: N = 30 exact to float precision until the radius, N = 1 falling all the way."""
    reference = paper["fig2d"]
    net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5)
    x, y = jax.random.uniform(jax.random.key(1), (1, 6)), np.array([1])
    exact = osc.exact_gradient(net, x, y)
    radius = osc.suggest(net, x, y).radius
    amplitudes = np.array(reference["beta"])

    def cosines(estimator):
        return np.array([float(osc.cosine(estimator(float(a))(net, x, y).gradient, exact)) for a in amplitudes])

    one_sided = cosines(osc.Classic)
    many = cosines(lambda a: osc.Phases(a, 30, steps=(100, 100)))
    theirs = {name: np.array(values) for name, values in reference["cosine"].items()}

    inside = amplitudes < 0.8 * radius
    assert inside.sum() >= 10  # the radius is of the same size as the authors' 0.6
    assert np.all(np.abs(1 - many[inside]) < 2e-6)
    assert np.all(np.abs(1 - theirs["N=30"][amplitudes < 0.55]) < 2e-6)
    assert many[-1] < 1 - 1e-4  # beyond the radius it is no longer exact
    for curve in (one_sided, theirs["N=1"]):
        assert np.all(np.diff(curve[:20]) < 0)
        assert curve[0] > 0.999
        assert curve[-1] < 0.96


@pytest.mark.parametrize("plateau", [*(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10)), 20, 30, 40])
def test_fig_3a_distance_falls_as_one_over_cycles(paper, mnist, plateau):
    """784-256-256-10, batch 10, A = 0.5, from rest, nothing discarded, dPhi/dtheta read per plateau."""
    (reference,) = [run for run in paper["fig3ab"]["runs"] if run["settings"]["T2"] == plateau]
    images, labels = mnist.train.images[:10], mnist.train.labels[:10]
    net = osc.LayeredNetwork((784, 256, 256, 10), key=jax.random.key(2), scale=0.05)
    run = osc.simulate(
        net, images, labels, osc.Staircase(0.5, 10.0 * plateau, 10), cycles=40, solver=diffrax.Euler(),
        steps_per_cycle=10 * plateau, record=osc.PerCycle(neurons=0),
    )  # fmt: skip
    exact = osc.exact_gradient(net, images, labels)
    running = run.gradient(cumulative=True)
    against = jax.vmap(osc.relative_error, in_axes=(0, None))
    ours = np.asarray(against(running, exact))
    theirs = np.array(reference["distance_after_period"][1:]) / 1.655
    ratio = ours / theirs
    assert np.all((ratio > 1 / 3) & (ratio < 3))
    if plateau <= 20:  # at longer ones the transient sinks into float32's rounding within a few cycles
        # What is left of the start is one part in M after M cycles, on top of what the finite plateau leaves for good.
        final = jax.tree.map(lambda a: 40 * a[-1] - 39 * a[-2], running)
        transient = jax.tree.map(lambda a, b: a - b[None], running, final)
        sizes = np.asarray(jax.vmap(osc.metrics.norm)(transient))
        slope = np.polyfit(np.log(np.arange(2, 21)), np.log(sizes[1:20]), 1)[0]
        assert -1.1 < slope < -0.9
    cosine = np.asarray(jax.vmap(osc.cosine, in_axes=(0, None))(running, exact))
    assert np.all(np.diff(cosine) > -1e-5)
    assert 1 - cosine[-1] < 3 * (1 - reference["cosine_after_period"][-1]) + 1e-6


@pytest.mark.slow
def test_fig3c_noise(paper, mnist):
    """Finite amplitudes survive noise: the script that draws the figure, against both of the authors' runs."""
    spec = importlib.util.spec_from_file_location("fig3c", ROOT / "docs" / "results" / "fig3c.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    amplitudes = [0.42, 1.03, 1.44, 2.05, 2.86, 3.88]
    images, labels = (a[:2000] for a in mnist.train)
    found = script.fig3c(images, labels, amplitudes, seeds=8).cosine.mean("seed")
    for run in paper["fig3c"]["runs"]:
        theirs = {n: np.interp(amplitudes, run["beta"], run["cosine"][f"N={n}"]) for n in (1, 15)}
        assert np.max(abs(found.sel(points=15) - theirs[15])) < 0.03
        assert np.max(abs(found.sel(points=1) - theirs[1])[1:]) < 0.06
    assert (found.sel(points=15) > found.sel(points=1)).all()
