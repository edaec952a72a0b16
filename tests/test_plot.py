"""Figures: they draw what the run holds, into the axes given, and say what is missing where they cannot."""

import diffrax
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import oscsim as osc

STEPS = {"integration": osc.Integration(solver=diffrax.Euler(), steps_per_cycle=128)}


@pytest.fixture(scope="module")
def case():
    x, y = osc.datasets.load("digits")
    net = osc.LayeredNetwork((64, 12, 8, 10), key=jax.random.key(0))
    x, y = x[:5], y[:5]
    run = osc.simulate(net, x, y, osc.Rotating(0.3, 128.0), cycles=3, **STEPS)
    return run, osc.exact_gradient(net, x, y)


def lines(ax):
    return [np.column_stack(line.get_data()) for line in ax.lines]


@pytest.mark.slow
def test_orbits_are_the_watched_activities_about_their_mean(case):
    run, _ = case
    ax = osc.plot.orbits(run)
    samples = run.watched.activities[0][-1][:, 0, 0]
    drawn = lines(ax)[0]
    centred = samples - samples.mean()
    np.testing.assert_allclose(drawn[: len(samples)], np.column_stack([centred.real, centred.imag]), rtol=1e-6)
    np.testing.assert_array_equal(drawn[0], drawn[-1])  # locked: a closed curve
    assert "Re" in ax.get_xlabel()
    assert "Im" in ax.get_ylabel()
    second = osc.plot.orbits(run, neurons={2: [int(run.watch.neurons[1][0])]}).lines
    np.testing.assert_allclose(
        second[0].get_xdata()[0],
        run.watched.activities[1][-1][:, 0, 0].real[0] - float(np.mean(run.watched.activities[1][-1][:, 0, 0].real)),
        rtol=1e-5,
    )
    with pytest.raises(osc.BadValue, match="neuron 99 of layer 1 was not watched"):
        osc.plot.traces(run, neurons={1: [99]})
    with pytest.raises(osc.BadValue, match="sample=2 was not watched"):
        osc.plot.spectrum(run, sample=2)


def test_an_orbit_is_drawn_as_a_run_that_stays_on_it(case):
    net, inputs = case[0].network, case[0].inputs
    signal = osc.Cosine(0.3, 128.0)
    run = osc.simulate(net, inputs.x, inputs.y, signal, cycles=1, start="locked")
    orbit = osc.periodic_orbit(net, inputs.x, inputs.y, signal)
    for draw in (osc.plot.orbits, osc.plot.traces):
        stepped, solved = draw(run), draw(orbit)
        assert [line.get_label() for line in stepped.lines] == [line.get_label() for line in solved.lines]
        for expected, found in zip(lines(stepped), lines(solved), strict=True):
            found = found[: len(expected)]  # a run of one cycle does not know that it is closed
            np.testing.assert_allclose(found, expected, atol=2e-4 * max(1, np.abs(expected[:, 0]).max()))
    sizes = [lines(osc.plot.spectrum(drawn, harmonics=2, sample=0, neurons={1: [0]}))[0] for drawn in (run, orbit)]
    np.testing.assert_allclose(*(size[:, 1] for size in sizes), rtol=1e-2)
    assert len(osc.plot.orbits(orbit, sample=3, neurons={2: [1, 4]}).lines) == 4
    with pytest.raises(osc.BadValue, match="sample"):
        osc.plot.orbits(orbit, sample=9)


def test_traces_run_over_the_last_cycle(case):
    run, _ = case
    ax = osc.plot.traces(run)
    time = lines(ax)[0][:, 0]
    np.testing.assert_allclose([time[0], time[-1]], [2 * 128 + 128 / 64, 3 * 128], rtol=1e-6)


def test_spectrum_falls_to_the_right_and_is_empty_to_the_left(case):
    run, _ = case
    ax = osc.plot.spectrum(run, harmonics=4)
    n, size = lines(ax)[0].T
    np.testing.assert_array_equal(n, np.arange(-4, 5))
    assert size[n == -1] < 1e-3 * size[n == 1]
    assert ax.get_yscale() == "log"


def test_gradient_error_falls_with_the_cycles(case):
    run, exact = case
    error, distance, bar = lines(osc.plot.gradient_error(run, exact))
    np.testing.assert_array_equal(error[:, 0], [1, 2, 3])
    expected = osc.relative_error(run.gradient(discard=0), exact)
    np.testing.assert_allclose(error[-1, 1], expected, rtol=1e-4)
    np.testing.assert_allclose(bar[-1, 1], run.error(discard=0).total, rtol=1e-4)
    assert error[-1, 1] < error[0, 1]
    assert distance[-1, 1] < error[-1, 1]


@pytest.mark.slow
def test_the_band_of_the_running_error_is_the_bar_of_each_shorter_run(case):
    run, exact = case
    noise, key = osc.WhiteNoise(0.02), jax.random.key(3)
    settings = {"noise": noise, "key": key, "integration": osc.Integration(steps_per_cycle=256)}
    runs = [osc.simulate(run.network, run.x, run.y, run.teaching, cycles=n, **settings) for n in (2, 3, 5)]
    bars = osc.plot.running_bars(runs[-1], 1)
    assert len(bars) == 4
    for shorter in runs:
        of_all = [np.asarray(e.contamination) for e in (shorter.error(1), runs[-1].error(1))]
        rest = np.sqrt(np.asarray(runs[-1].error(1).total) ** 2 - of_all[1] ** 2)
        np.testing.assert_allclose(bars[shorter.cycles - 2], np.hypot(of_all[0], rest), rtol=1e-3)
    ax = osc.plot.gradient_error(runs[-1], exact, discard=1)
    (band,) = ax.collections
    np.testing.assert_allclose(band.get_datalim(ax.transData).ymax, bars.max(), rtol=1e-6)
    error, _, bar = lines(ax)
    np.testing.assert_allclose(bar[:, 1], bars)
    assert 0.2 < np.median(error[:, 1] / bars) < 3
    assert "its own bar" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_layers_hold_a_bar_for_each_parameter_array_of_each_estimate(case):
    run, exact = case
    ax = osc.plot.layers({"all": run.gradient(discard=0), "late": run.gradient(discard=2)}, exact)
    values = [[bar.get_width() for bar in group] for group in ax.containers]
    expected = osc.per_layer(osc.relative_error, run.gradient(discard=2), exact)
    np.testing.assert_allclose(values[1], [float(v) for v in expected.values()], rtol=1e-5)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(expected)


def test_components_lie_on_the_diagonal(case):
    run, exact = case
    _diagonal, points = lines(osc.plot.components(run.gradient(discard=2), exact))
    assert np.corrcoef(points.T)[0, 1] > 0.999
    estimate = osc.Estimate(
        exact, jax.numpy.zeros(()), (jax.numpy.zeros((1, 3)),), jax.numpy.zeros(()), osc.RESULTS.successful
    )
    _diagonal, others = lines(osc.plot.components(run.gradient(discard=2), estimate))
    np.testing.assert_array_equal(others, points)


def test_axes_given_are_the_axes_drawn_into(case):
    run, exact = case
    for draw in (osc.plot.orbits, osc.plot.traces, osc.plot.spectrum):
        _, ax = plt.subplots()
        assert draw(run, ax) is ax
    for draw in (osc.plot.gradient_error, osc.plot.layers, osc.plot.components):
        _, ax = plt.subplots()
        assert draw(run if draw is osc.plot.gradient_error else run.gradient(), exact, ax) is ax


def test_what_a_run_does_not_hold_is_named(case):
    run, exact = case
    blind = osc.simulate(run.network, run.x, run.y, run.teaching, cycles=2, record=osc.Mean(), **STEPS)
    for draw in (osc.plot.orbits, osc.plot.traces, osc.plot.spectrum):
        with pytest.raises(ValueError, match=r"no samples of neurons.*record=PerCycle\(neurons=8\)"):
            draw(blind)
    with pytest.raises(ValueError, match=r"mean reading only.*record=PerCycle\(\)"):
        osc.plot.gradient_error(blind, exact)
    with pytest.raises(ValueError, match="harmonics=0: use a positive integer"):
        osc.plot.spectrum(run, harmonics=0)


def history(*errors, seconds=1.0):
    return [
        {"epoch": i, "seconds": seconds * i, "loss": e, "validation_error": e, "cosine/weights[0]": 1 - e / 100}
        for i, e in enumerate(errors, start=1)
    ]


def test_learning_curves_have_a_band_over_seeds():
    results = {"ours": [history(9.0, 5.0, 3.0), history(7.0, 5.0, 1.0)], "theirs": history(8.0, 6.0)}
    ax = osc.plot.learning_curves(results)
    np.testing.assert_allclose(lines(ax)[0], [[1, 8], [2, 5], [3, 2]])
    (band,) = ax.collections
    assert band.get_datalim(ax.transData).ymin == 1
    assert band.get_datalim(ax.transData).ymax == 9
    assert ax.get_ylabel() == "validation error (%)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "theirs"]
    timed = osc.plot.learning_curves(results, against="seconds")
    np.testing.assert_allclose(lines(timed)[1], [[1, 7], [2, 5], [3, 1]])
    with pytest.raises(ValueError, match=r"metric='top5'.*choose among these"):
        osc.plot.learning_curves(results, "top5")
    with pytest.raises(ValueError, match="a history is empty"):
        osc.plot.learning_curves({"ours": [[]]})


def test_cosines_and_weights(case):
    run, _ = case
    ax = osc.plot.gradient_cosines(history(8.0, 2.0))
    np.testing.assert_allclose(lines(ax)[0], [[1, 0.08], [2, 0.02]])
    rows = [
        {**row, "probe_error": 0.1, "probe_error_bar": bar}
        for row, bar in zip(history(8.0, 2.0), (0.3, 0.2), strict=True)
    ]
    _, error, bar = lines(osc.plot.gradient_cosines(rows))
    np.testing.assert_allclose(error, [[1, 0.1], [2, 0.1]])
    np.testing.assert_allclose(bar, [[1, 0.3], [2, 0.2]])
    with pytest.raises(ValueError, match="holds no cosines"):
        osc.plot.gradient_cosines([{"epoch": 1}])
    image = osc.plot.weights(run.network, neurons=4).images[0].get_array()
    np.testing.assert_array_equal(image[:8, :8], np.asarray(run.network.weights[0][0]).reshape(8, 8))
    with pytest.raises(ValueError, match=r"shape=\(7, 7\): an input has 64 numbers"):
        osc.plot.weights(run.network, shape=(7, 7))


def test_a_moving_picture_ends_with_the_coefficients_of_the_run(case, tmp_path):
    run, exact = case
    first, last = {1: [int(run.watch.neurons[0][0])]}, run.phasors
    movie = osc.plot.animate(run, neurons=first, frames=3)
    movie.save(tmp_path / "run.gif")
    with Image.open(tmp_path / "run.gif") as picture:
        assert picture.n_frames == 3  # one cycle was watched
    signal, paths, read = plt.gcf().axes
    np.testing.assert_allclose(lines(signal)[1], [[0, 0], [0.3, 0]], atol=1e-6)  # where it began
    assert len(lines(paths)[0]) == run.plan.ticks
    coefficient = np.asarray(last[1][0][-1, 0])[run.watch.neurons[0][0]] / 0.3
    np.testing.assert_allclose(lines(read)[0][-1], [run.time[-1], coefficient.real], rtol=1e-4)

    movie = osc.plot.animate(run, exact, discard=1, frames=1, hold=1)
    movie.save(tmp_path / "errors.gif")
    cycle, errors, _ = osc.plot.running_errors(run, exact, discard=1)
    np.testing.assert_allclose(lines(plt.gcf().axes[2])[0], np.column_stack([128 * cycle, 100 * errors]), rtol=1e-6)
    with pytest.raises(osc.BadValue, match="discard=3 leaves none of 3 cycles"):
        osc.plot.animate(run, discard=3)


def test_the_style_is_that_of_all_figures():
    with plt.rc_context():
        osc.plot.use_style()
        _, ax = plt.subplots()
        assert [ax.plot([i])[0].get_color() for i in range(6)] == list(osc.plot.style.COLOURS)
        assert not ax.spines["top"].get_visible()
