"""The lab without its page: what it computes, how it is told, and that it never compiles for a number."""

import contextlib
import html
import io
import subprocess
import sys
import threading
import time
from collections import Counter

import diffrax
import jax
import numpy as np
import pytest

import oscsim as osc
from oscsim.cli.commands import main
from oscsim.lab.call import python_call
from oscsim.lab.engine import COMPILED, WINDOW, Engine
from oscsim.lab.forecast import forecast, frequencies, noise_floor
from oscsim.lab.programs import FIRST, LAST, LATER, compiles, first_time, rank_of_this_thread
from oscsim.lab.runner import Runner
from oscsim.lab.settings import PRESETS, Settings
from oscsim.lab.words import said

COMPILATIONS: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _counting():
    def listen(name, seconds, **kwargs):
        if name.endswith("backend_compile_duration"):
            COMPILATIONS["all"] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield
    jax.monitoring.clear_event_listeners()


def cycles(engine, count):
    return [engine.advance() for _ in range(count)][-1]


# What it is told.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"amplitude": 0.0}, "amplitude=0.0: use a positive"),
        ({"amplitude": float("nan")}, "amplitude=nan"),
        ({"period": 5.0}, "period=5.0: use 10 to 320"),
        ({"intensity": -0.1}, "intensity=-0.1"),
        ({"correlation_time": 0.1}, "correlation_time=0.1: use 0.5 or more"),
        ({"noise": "pink"}, "noise='pink': use one of 'none', 'white'"),
        ({"signal": "square"}, "signal='square'"),
        ({"realisations": 17}, "realisations=17: use an integer from 1 to 16"),
        ({"discard": -1}, "discard=-1"),
        ({"sample": 1.5}, "sample=1.5"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(wrong, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Settings(**wrong)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="amplitud=1: there is no such setting"):
        Settings().changed(amplitud=1)
    with pytest.raises(ValueError, match="network='7-7': use one of '6-4-4-4'"):
        Engine(Settings(network="7-7"))
    with pytest.raises(ValueError, match="sample=160: 6-4-4-4 has 160; use 0 to 159"):
        Engine(Settings(sample=160))
    with pytest.raises(AttributeError, match="no attribute 'NoisyLab'"):
        osc.lab.NoisyLab  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "mine.npz"), "data=mine.npz belongs to a checkpoint"),
        (("--checkpoint", "mine", "--network", "digits"), "network=digits and checkpoint=mine exclude each other"),
    ],
)
def test_the_command_line_refuses_options_that_it_would_ignore(capsys, options, message):
    with pytest.raises(SystemExit):
        main(["lab", *options, "--no-browser"])
    assert message in capsys.readouterr().err


def test_oscsim_alone_does_not_import_the_page_and_says_what_is_missing():
    code = """if True:
        import sys
        import oscsim
        assert not {"panel", "bokeh", "oscsim.lab"} & set(sys.modules)
        sys.modules["panel"] = None  # as if it were not installed
        from oscsim.cli.commands import main
        main(["lab", "--no-browser", "--port", "0"])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        "oscsim: error: the lab needs panel, which is not installed: pip install '.[lab]' in a clone of oscsim"
    ]


# What it computes.


@pytest.fixture(scope="module")
def engine():
    """One engine for all tests: they share its compiled programs."""
    return Engine(Settings())


def test_a_number_never_compiles(engine):
    engine.change(**PRESETS["finite"].changes)
    for changes in ({"sample": 1}, {"seed": 5}):  # arrays of a few numbers are made the first time
        engine.change(**changes)
        engine.advance()
    compiled, programs = COMPILATIONS["all"], COMPILED.copy()
    assert compiled > 0
    for changes in (
        {"amplitude": 0.123},
        {"amplitude": 0.3, "period": 37.5},
        {"period": 250.0},
        {"intensity": 0.0},
        {"intensity": 0.3},
        {"correlation_time": 2.0},
        {"discard": 3},
        {"realisations": 16},
        {"realisations": 1},
        {"sample": 7},
        {"seed": 6},
        {"learning_rate": 1.0},
        PRESETS["too-large"].changes,
        PRESETS["lag"].changes,
    ):
        engine.change(**changes)
        frame = cycles(engine, 2)
        assert np.isfinite(frame.samples).all()
    engine.reset()
    engine.advance()
    assert programs == COMPILED
    assert COMPILATIONS["all"] == compiled


def test_neurons_run_on_when_a_knob_is_turned_and_the_average_starts_anew(engine):
    engine.change(**PRESETS["finite"].changes)
    engine.reset()
    before = cycles(engine, 5)
    assert (before.number, before.averaged) == (5, 4)
    engine.change(amplitude=0.4)
    after = engine.advance()
    assert (after.number, after.averaged) == (6, 0)
    assert np.isnan(after.errors["all"]).all()
    assert engine.advance().averaged == 1
    # a start from rest moves the activities by much more than a step of the amplitude does
    jump = np.abs(after.window[-1][:, 0] - before.window[-1][:, -1]).max()
    assert jump < 0.2 * np.abs(before.window[0][:, 0] - before.window[0][:, -1]).max()


def test_captions_follow_what_is_measured(engine):
    preset = PRESETS["finite"]
    engine.change(**preset.changes)
    engine.reset()
    frame = cycles(engine, 5)
    _, text = said(frame, engine.settings, preset, 1.07)
    assert html.escape(preset.explanation) in text
    assert f"<b>Measured:</b> {100 * np.mean(frame.errors['all']):.2g} % off" in text
    engine.change(amplitude=3.0)
    frame = cycles(engine, 4)
    assert np.mean(frame.errors["all"]) > 0.1
    _, text = said(frame, engine.settings, preset, 1.07)
    assert preset.explanation[:20] not in text
    assert "past the convergence radius" in text
    assert said(frame, engine.settings, preset, 1.07, busy=True)[0] == "busy"
    kind, text = said(frame, engine.settings, preset, 1.07, refused="<b>no</b>")
    assert (kind, text) == ("problem", "<b>Refused:</b> &lt;b&gt;no&lt;/b&gt;")


def test_weights_and_restarts_tell_frames_apart(engine):
    engine.change(**PRESETS["finite"].changes)
    engine.reset()
    before = engine.advance()
    engine.change(amplitude=0.3)
    same = engine.advance()
    assert (same.era, same.weights) == (before.era, before.weights)
    engine.change(sample=1)
    assert engine.advance().weights != before.weights
    engine.reset()
    assert engine.advance().era == before.era + 1


def test_a_visitor_compiles_before_what_is_compiled_ahead():
    order, held, queued = [], threading.Event(), threading.Event()

    def compile_as(rank, name):
        rank_of_this_thread(rank)
        with first_time("test", name):
            order.append(name)
            held.set()
            queued.wait(60)

    threads = [threading.Thread(target=compile_as, args=(LAST, "first come"))]
    threads[0].start()
    assert held.wait(60)
    for rank, name in ((LAST, "ahead"), (LATER, "prediction"), (FIRST, "cycle")):
        threads.append(threading.Thread(target=compile_as, args=(rank, name)))
        threads[-1].start()
        while not compiles(threads[-1].ident):
            time.sleep(0.001)
    queued.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first come", "cycle", "prediction", "ahead"]
    assert not any(compiles(thread.ident) for thread in threads)


def test_knobs_without_effect_are_known():
    knobs = pytest.importorskip("oscsim.lab.knobs", reason="the lab needs the extra `lab`")
    assert knobs.without_effect(Settings()) == {"learning_rate", "correlation_time"}
    assert knobs.without_effect(Settings(noise="none")) == {
        "learning_rate",
        "correlation_time",
        "intensity",
        "realisations",
    }
    assert knobs.without_effect(Settings(learning=True, noise="teaching")) == {"sample", "realisations"}
    assert "demodulator" in knobs.without_effect(Settings(signal="two-phase"))


def printed(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "call.py", "exec"), {})
    return np.array([[float(word) for word in line.split()] for line in out.getvalue().splitlines()])


@pytest.mark.parametrize(
    "changes",
    [
        {"realisations": 3, "sample": 2, "seed": 4},
        pytest.param({"signal": "two-phase", "amplitude": 0.05, "realisations": 2}, marks=pytest.mark.slow),
        pytest.param({"noise": "none"}, marks=pytest.mark.slow),
        pytest.param({"noise": "ornstein-uhlenbeck", "correlation_time": 7.5}, marks=pytest.mark.slow),
        pytest.param({"noise": "multiplicative"}, marks=pytest.mark.slow),
        pytest.param({"noise": "teaching", "realisations": 2}, marks=pytest.mark.slow),
        pytest.param({"noise": "readout", "demodulator": "exponential"}, marks=pytest.mark.slow),
        pytest.param({"demodulator": "hann", "discard": 0}, marks=pytest.mark.slow),
        pytest.param({"network": "digits", "sample": 11, "period": 60.0}, marks=pytest.mark.slow),
        pytest.param({"signal": "adaptive", "amplitude": 3.0, "realisations": 2}, marks=pytest.mark.slow),
        pytest.param({"signal": "adaptive", "amplitude": 3.0, "noise": "none"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_copied_call_gives_the_numbers_that_the_lab_shows(engine, changes):
    engine.change(**{**PRESETS["finite"].changes, **changes})
    engine.reset()
    frame = cycles(engine, 8)
    rows = printed(python_call(engine.settings, 8))
    assert len(rows) == (1 if engine.settings.noise == "none" else engine.settings.realisations)
    for column, shown in ((1, frame.cosines), (2, frame.errors)):
        np.testing.assert_allclose(rows[:, column], shown["all"][: len(rows)], rtol=2e-3, atol=2e-5)
    assert np.all(rows[:, 2] > 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sample": 2, "seed": 4},
        pytest.param({"noise": "none", "period": 60.0}, marks=pytest.mark.slow),
        pytest.param({"amplitude": 3.0, "intensity": 0.02}, marks=pytest.mark.slow),
        pytest.param({"noise": "readout"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_bar_is_that_of_the_same_run(engine, changes):
    engine.change(**{**PRESETS["finite"].changes, "realisations": 1, **changes})
    engine.reset()
    frame = cycles(engine, 7)
    settings, example = engine.settings, osc.lab.example("6-4-4-4")
    net, x, y = example[0], *(a[settings.sample : settings.sample + 1] for a in example[1:])
    noise, key = settings.disturbance, jax.random.fold_in(jax.random.key(settings.seed), 0)
    run = osc.simulate(
        net,
        x,
        y,
        settings.teaching,
        cycles=7,
        noise=noise,
        key=None if noise is None else key,
        demodulator=settings.reader,
        integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=640, ticks=320),
    )
    error = run.error(discard=1)
    for part in ("contamination", "lag", "steps"):
        np.testing.assert_allclose(getattr(frame.error, part), getattr(error, part), rtol=5e-3, atol=2e-6)
    np.testing.assert_allclose(frame.bars[0], error.total, rtol=5e-3)
    assert frame.errors["all"][0] < 5 * frame.bars[0]


def test_an_amplitude_past_the_radius_tunes_itself_back(engine):
    engine.change(**{**PRESETS["finite"].changes, "signal": "adaptive", "amplitude": 3.0, "noise": "none"})
    engine.reset()
    first = cycles(engine, 2)
    assert first.amplitude == 3.0
    assert first.bars.max() > 0.1
    last = cycles(engine, 10)
    assert last.amplitude < 1.07  # the radius
    assert last.errors["all"].max() < 0.03
    np.testing.assert_array_less(last.errors["all"], 3 * last.bars)


@pytest.mark.slow
def test_classic_ep_knows_how_it_scatters(engine):
    engine.change(**{**PRESETS["classic"].changes, "realisations": 16})
    engine.reset()
    frame = cycles(engine, 2)
    assert np.isnan(frame.bars).all()  # one cycle alone says nothing
    frame = cycles(engine, 20)
    ratio = np.median(frame.errors["all"]) / np.median(frame.bars)
    assert 0.5 < ratio < 2


def test_the_running_gradient_is_the_better_the_longer_it_runs(engine):
    engine.change(**PRESETS["finite"].changes, seed=1)
    engine.reset()
    first, last = cycles(engine, 2).errors["all"], cycles(engine, 20).errors["all"]
    assert np.mean(last) < 0.6 * np.mean(first)


@pytest.mark.slow
def test_classic_ep_drowns_in_the_noise_that_a_finite_amplitude_survives(engine):
    errors = []
    for preset in ("finite", "classic"):
        engine.change(**PRESETS[preset].changes, seed=0)
        engine.reset()
        frame = cycles(engine, 22)
        errors.append(np.mean(frame.errors["all"]))
    assert errors[1] > 20 * errors[0]
    assert np.min(frame.cosines["all"]) < 0.6


@pytest.mark.slow
def test_two_phases_without_noise_are_the_classic_estimate():
    net, x, y = osc.lab.example("6-4-4-4")
    x, y = x[:2], y[:2]
    run = osc.simulate(
        net,
        x,
        y,
        osc.lab.TwoPhase(0.2, 400.0),
        cycles=2,
        demodulator=osc.lab.PhaseMeans(),
        integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=640, ticks=320),
        key=None,
    )
    exact = osc.Classic(0.2)(net, x, y).gradient
    assert osc.relative_error(osc.lab.classic_gradient(run, discard=1), exact) < 1e-4
    with pytest.raises(ValueError, match="discard=2: 2 cycle"):
        osc.lab.classic_gradient(run, discard=2)


def test_the_noise_floor_is_where_it_is_predicted(engine):
    # small enough for all neurons to answer linearly: some are close to saturation
    engine.change(**{**PRESETS["finite"].changes, "seed": 3, "amplitude": 0.01, "intensity": 0.01})
    engine.reset()
    cycles(engine, 2)
    predicted = noise_floor(*engine.predicted_from(), engine.settings)
    assert predicted is not None
    powers = []
    for _ in range(8):
        window = cycles(engine, WINDOW).window
        assert len(window) == WINDOW
        joined = window.transpose(1, 0, 2).reshape(window.shape[1], -1)
        spectrum = np.fft.fft(joined, axis=1) / joined.shape[1]
        powers.append(np.abs(spectrum[:, np.round(frequencies() * WINDOW).astype(int)]) ** 2)
    between = np.abs(frequencies() - np.round(frequencies())) > 1e-9
    ratio = np.mean(powers, axis=0)[:, between].mean(axis=1) / (predicted[:, between] ** 2).mean(axis=1)
    # 8 spectra of 112 frequencies, which come in pairs: 5 per cent
    np.testing.assert_allclose(ratio, 1, atol=0.15)


@pytest.mark.slow
def test_divergence_is_said_and_a_turned_knob_starts_from_rest(engine):
    engine.change(**PRESETS["diverges"].changes)
    frame = cycles(engine, 12)
    assert "the neurons diverged in cycle" in frame.diverged
    assert np.isnan(frame.errors["all"]).all()
    assert engine.advance().number == frame.number  # it stands
    engine.change(amplitude=0.39)
    frame = cycles(engine, 4)
    assert frame.diverged == ""
    assert frame.number == 4
    assert frame.errors["all"].max() < 0.1


@pytest.mark.slow
def test_weights_learn_while_the_neurons_run_on(engine):
    engine.change(**{**PRESETS["finite"].changes, "network": "digits", "amplitude": 0.2, "intensity": 0.01})
    engine.change(seed=0, learning=True, learning_rate=0.5)
    frames = [engine.advance() for _ in range(240)]
    assert frames[-1].updates == 119
    assert frames[-1].number == 240
    assert np.mean([f.loss for f in frames[-40:]]) < 0.3 * np.mean([f.loss for f in frames[:20]])
    assert np.mean([f.accuracy for f in frames[-40:]]) > 85
    engine.reset()
    assert engine.advance().updates == 0
    assert "osc.AlwaysOn(lock_in), optax.sgd(0.5)" in python_call(engine.settings, 10)
    engine.change(learning=False)


@pytest.mark.slow
def test_the_bar_is_there_while_weights_learn():
    pytest.importorskip("bokeh", reason="pictures need the extra `lab`")
    from oscsim.lab.figures import Pictures

    engine = Engine(Settings(**PRESETS["learns"].changes))
    frames = [engine.advance() for _ in range(60)]
    read = [frame for frame in frames if frame.averaged]
    assert frames[-1].updates > 20
    ratio = [frame.errors["all"][0] / frame.bars[0] for frame in read]
    assert 0.3 < np.median(ratio) < 2
    assert np.mean([frame.loss for frame in read[-5:]]) < np.mean([frame.loss for frame in read[:5]])
    pictures = Pictures()
    pictures.name(frames[0].names, tuple(frames[-1].cosines))
    pictures.chosen = frames[0].names[:2]
    pictures.add(frames, None, {})
    pictures.draw(None, None)
    for name, expected in (("error_bar", [f.bars[0] for f in read]), ("error/all", [f.errors["all"][0] for f in read])):
        np.testing.assert_array_equal(pictures.sources[name].data["y"], expected)  # no gaps


# The threads beside the page.


def test_a_runner_runs_pauses_and_leaves_nothing_behind():
    before = threading.active_count()
    arrived = threading.Event()

    class Seen(Engine):
        def advance(self):
            frame = super().advance()
            arrived.set()
            return frame

    runner = Runner(Seen(Settings(**PRESETS["finite"].changes)), pace=0.0, predict=False)
    assert not arrived.is_set()  # it waits until it is told
    runner.single()
    assert arrived.wait(60)
    runner.run()
    for _ in range(3):
        arrived.clear()
        assert arrived.wait(60)
    runner.change(amplitude=-1.0)
    runner.close(wait=True)
    assert not runner.alive
    assert threading.active_count() == before
    frames = runner.frames()
    assert len(frames) >= 4
    assert [f.number for f in frames] == list(range(1, len(frames) + 1))


@pytest.mark.slow
def test_the_error_stays_where_the_forecast_has_it(engine):
    engine.change(**{**PRESETS["finite"].changes, "realisations": 16, "intensity": 0.02})
    engine.reset()
    expected = forecast(*engine.predicted_from(), engine.settings)
    frame = cycles(engine, 21)
    for name, measured in frame.errors.items():
        bias, error, _ = expected.band(name, frame.averaged)
        assert 0.6 * error < np.sqrt(np.mean(measured**2)) < 1.6 * error, name
        assert bias < error
    at = expected.error(engine.settings.amplitude, frame.averaged)
    np.testing.assert_allclose(at, expected.band("all", frame.averaged)[1], rtol=0.02)
    assert 0 < expected.optimum.amplitude <= expected.radius
