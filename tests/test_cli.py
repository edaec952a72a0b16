"""The command line as a user meets it: on real data, in an empty folder."""

import io
import json
import subprocess
import sys
import time

import diffrax
import equinox as eqx
import jax
import matplotlib.image
import numpy as np
import pytest

import oscsim as osc
from oscsim.cli.commands import main
from oscsim.cli.reports import print_table
from oscsim.core.progress import Progress, say


def figure(path):
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 500
    assert image.shape[1] > 800
    assert image[..., :3].std() > 0.05  # something is drawn on it
    return image


def test_demo(oscsim, tmp_path):
    done = oscsim("demo")
    assert done.err == ""
    assert max(map(len, done.out.splitlines())) <= 110  # the printed run and a path; tables have 80
    for word in ("LayeredNetwork", "residual", "relative", "weights", "lock-in", "10 points", "classic"):
        assert word in done.out
    rows = [line.split() for line in done.out.splitlines()]
    (lock_in,) = [row for row in rows if row[:1] == ["lock-in"]]
    (classic,) = [row for row in rows if row[:1] == ["classic"]]
    assert float(lock_in[1]) < 1e-3 < float(classic[1])
    assert len([row for row in rows if len(row) == 9 and row[0].isdigit()]) == 6  # a row for each cycle
    figure(tmp_path / "oscsim-demo.png")
    assert [path.name for path in tmp_path.iterdir()] == ["oscsim-demo.png"]


@pytest.mark.slow
def test_simulate_on_a_file_of_ones_own(oscsim, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.random((12, 5)), y=rng.integers(0, 3, 12))
    settings = ("--data", "own.npz", "--sizes", 5, 6, 3, "--batch", 10, "--cycles", 3, "--discard", 1)
    more = ("--amplitude", 0.2, "--period", 100, "--steps-per-cycle", 128, "--solver", "heun", "--precision", "float64")
    oscsim("simulate", "--out", "out", *settings, *more)
    figure(tmp_path / "out" / "run.png")
    with np.load(tmp_path / "own.npz") as file:
        x, y = file["x"][:10], file["y"][:10]
    import jax

    with jax.enable_x64(True):
        run = osc.Run.load(tmp_path / "out" / "run.osc")
        assert (run.cycles, run.plan.steps_per_cycle, run.network.sizes) == (3, 128, (5, 6, 3))
        np.testing.assert_array_equal(run.x, x)
        exact = osc.exact_gradient(run.network, x, y)
        assert osc.relative_error(run.gradient(discard=1), exact) < 0.02
    with pytest.raises(SystemExit):
        main(list(map(str, ("simulate", "--out", tmp_path / "out", *settings[2:]))))
    assert "run.osc exists" in capsys.readouterr().err


@pytest.mark.slow
def test_tolerances_are_those_of_python(oscsim, tmp_path):
    settings = ("--sizes", 64, 6, 10, "--batch", 3, "--cycles", 2, "--period", 60)
    oscsim("simulate", "--out", "tight", *settings, "--rtol", 1e-6, "--atol", 1e-5)
    oscsim("simulate", "--out", "half", *settings, "--rtol", 1e-6)
    oscsim("simulate", "--out", "usual", *settings)
    tight, half, usual = (osc.Run.load(tmp_path / name / "run.osc") for name in ("tight", "half", "usual"))
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-5)
    assert eqx.tree_equal(tight.plan.steps.controller, controller)
    assert eqx.tree_equal(half.plan.steps.controller, diffrax.PIDController(rtol=1e-6, atol=1e-4))
    assert tight.effort.accepted.sum() > usual.effort.accepted.sum()
    integration = osc.Integration(stepsize_controller=controller)
    signal = osc.Rotating(0.4, 60.0)
    same = osc.simulate(tight.network, tight.x, tight.y, signal, cycles=2, integration=integration)
    np.testing.assert_array_equal(same.effort.accepted, tight.effort.accepted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "none.npz"), "data=none.npz: no such file"),
        (("--batch", 0), "batch=0: use a positive integer"),
        (("--cycles", 3, "--discard", 3), "discard=3 leaves nothing of cycles=3"),
        (("--period", 3), "period=3 is shorter than 2 pi tau"),
        (("--amplitude", -1), "amplitude=-1: use a positive"),
        (("--activation", "relu"), "ReLU is not holomorphic"),
        (("--rtol", 0), "rtol=0: use a small positive number"),
        (("--atol", 1e-6, "--steps-per-cycle", 64), "steps_per_cycle=64 and atol=1e-06 exclude each other"),
        (("--rtol", 1e-6, "--noise", "white", "--intensity", 0.1), "rtol=1e-06 with noise, under which steps are"),
        (("--rtol", 1e-6, "--solver", "euler"), "estimates no error, so its steps cannot adapt"),
        (("--points", 4), "points=4 belongs to the staircase"),
        (("--out", f"{sys.executable}/out"), "cannot be written"),
    ],
    ids=lambda value: str(value[0]).lstrip("-") if isinstance(value, tuple) else "",
)
def test_what_the_user_can_mend_is_said_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["simulate", *(() if "--out" in arguments else ("--out", "out")), *map(str, arguments)])
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("oscsim: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_help(capsys):
    command = [sys.executable, "-W", "error", "-m", "oscsim.cli", "--help"]
    general = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "demo" in general.stdout
    assert "simulate" in general.stdout
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    assert "Amplitude of the teaching signal" in capsys.readouterr().out


def test_only_errors_of_input_are_said_in_one_line(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--period", "3", "--out", str(tmp_path / "short")])
    assert ended.value.code == 2
    assert "period=3 is shorter than 2 pi tau" in capsys.readouterr().err

    def broken(*_args, **_kwargs):
        raise ValueError("a defect of ours")

    monkeypatch.setattr(osc, "exact_gradient", broken)
    with pytest.raises(ValueError, match="a defect of ours"):  # with its traceback
        main(["simulate", "--out", str(tmp_path / "broken")])


@pytest.mark.parametrize("kind", [ValueError, TypeError, ImportError, KeyError])
def test_a_defect_within_a_study_of_ours_keeps_its_traceback(monkeypatch, tmp_path, kind):
    def broken(*_args, **_kwargs):
        raise kind("a defect of ours")

    (tmp_path / "study.toml").write_text('estimator = "classic"\nbatch = 2\nhidden = [4]\n[axes]\namplitude = 0.1\n')
    monkeypatch.setattr("oscsim.sweeps.studies.all_finite", broken)
    with pytest.raises(kind, match="a defect of ours"):
        main(["sweep", str(tmp_path / "study.toml"), "--store", str(tmp_path / "store")])


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"oscsim {osc.__version__}\n"


def test_a_suggestion_is_that_of_the_library(oscsim):
    printed = oscsim("suggest", "digits", "--batch", 5, "--sizes", 64, 8, 10, "--seed", 3).out
    x, y = osc.datasets.load("digits")
    net = osc.LayeredNetwork((64, 8, 10), activation=osc.Logistic(4.0, 0.5), key=jax.random.key(3))
    assert printed == f"{osc.suggest(net, x[:5], y[:5])}\n"


def test_what_a_file_holds(oscsim, tmp_path, capsys):
    net = osc.LayeredNetwork((6, 5, 4), key=jax.random.key(0))
    osc.core.checkpoint.save(net, tmp_path / "net.osc")
    assert oscsim("info", tmp_path / "net.osc").out == f"{net}\n"
    oscsim("train", "--estimator", "exact", "--samples", 40, "--epochs", 1, "--probe", 0, "--out", tmp_path / "run")
    said = oscsim("info", tmp_path / "run").out
    assert "after epoch 1:\n  epoch                    1\n" in said
    assert str(osc.load(tmp_path / "run")) in said
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "nothing")])
    assert "there is no such file or folder" in capsys.readouterr().err


def table(printed):
    """The cells of a printed table, by row."""
    return [line.split() for line in printed.splitlines()]


def test_a_table_that_is_too_wide_is_continued_with_its_first_columns(capsys):
    heads = ["amplitude", "noise\n(Hz)", *(f"result\n{i}" for i in range(12))]
    rows = [[f"{i}", f"{i}0", *(f"{i}.123{j}" for j in range(12))] for i in range(3)]
    print_table(heads, rows, fixed=2)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    parts = [table(part) for part in printed.split("\n\n")]
    assert [part[3][:2] for part in parts] == [["0", "00"]] * len(parts)
    assert [cell for part in parts for cell in part[-1][2:]] == rows[-1][2:]  # each number once, in order
    print_table(["one"], [["1"]])
    assert capsys.readouterr().out == "  one\n  ---\n  1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "--data", "none.npz", "--out", "FILE/run"),
        ("train", "none.npz", "--out", "FILE/run"),
        ("reproduce", "fig3", "--data-dir", "none", "--out", "FILE/run"),
        ("sweep", "study.toml", "--store", "FILE/store"),
        ("sweep", "study.toml", "--store", "store", "--figure", "FILE/figure.png"),
        ("sweep", "study.toml", "--store", "store", "--figure", "figure.doc"),
        ("sweep", "study.toml", "--store", "store", "--figure", "folder.png"),
        ("predict", "net.osc", "none.npy", "--scores", "FILE/scores.npy"),
        ("predict", "net.osc", "none.npy", "--scores", "scores.csv"),
        ("plot", "study.toml", "--out", "FILE/figure.svg"),
        ("plot", "study.toml", "--out", "figure"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_is_refused_before_any_work(monkeypatch, capsys, tmp_path, arguments):
    """What else is wrong with these calls would be said later."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "study.toml").write_text('data = "none.npz"\n[axes]\namplitude = 0.1\n')
    osc.core.checkpoint.save(osc.LayeredNetwork((6, 5, 4), key=jax.random.key(0)), tmp_path / "net.osc")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert arguments[-1] in line
    assert "cannot be written" in line or "give a name that ends in" in line or "is a folder" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_plot_draws_what_the_commands_wrote(oscsim, tmp_path):
    small = ("--estimator", "exact", "--samples", 40, "--hidden", 6)
    said = oscsim("train", *small, "--epochs", 2, "--probe", 20, "--out", "run").out
    assert said.endswith("Figure: run/learning.png\n")
    assert max(map(len, said.splitlines())) <= 80
    drawn = figure(tmp_path / "run" / "learning.png")
    (tmp_path / "run" / "learning.png").unlink()
    assert oscsim("plot", "run").out == "Figure: run/learning.png\n"
    np.testing.assert_array_equal(drawn, figure(tmp_path / "run" / "learning.png"))
    oscsim("plot", "run", "--out", "new/learning.svg")
    assert (tmp_path / "new" / "learning.svg").read_text().startswith("<?xml")
    assert oscsim("plot", next((tmp_path / "run").glob("*.osc"))).out.endswith("-network.png\n")

    study = 'estimator = "classic"\nbatch = 2\nhidden = [4]\nseeds = 2\n[axes]\namplitude = [0.1, 0.2]\n'
    (tmp_path / "study.toml").write_text(study)
    said = oscsim("sweep", "study.toml", "--store", "store", "--figure", "store.pdf")
    assert (tmp_path / "store.pdf").read_bytes().startswith(b"%PDF")
    data = osc.load_sweep(tmp_path / "store")
    (row,) = [cells for cells in table(said.out) if cells[:1] == ["0.1"]]
    np.testing.assert_allclose(float(row[1]), data.relative_error.sel(amplitude=0.1).mean(), rtol=1e-3)
    assert oscsim("plot", "store", "--result", "cosine").out == "Figure: store-cosine.png\n"
    assert (tmp_path / "store-cosine.png").exists()
    with pytest.raises(SystemExit):
        main(["plot", "store", "--result", "nothing"])


def test_plot_says_what_a_sweep_lacks(oscsim, tmp_path):
    def study(key, n):
        if n == 3:
            raise KeyboardInterrupt
        return {"error": 1.0 / n}

    with pytest.raises(KeyboardInterrupt):
        osc.sweep(study, {"n": [1, 2, 3]}, seeds=2, key=jax.random.key(0), store=tmp_path / "store")
    said = oscsim("plot", "store").out
    assert said == ("The sweep is not finished. Blocks not computed yet, drawn empty: 1\nFigure: store-error.png\n")
    assert (tmp_path / "store-error.png").is_file()


@pytest.mark.slow
def test_the_folder_of_a_simulation_is_described_and_drawn(oscsim, tmp_path):
    oscsim("simulate", "--batch", 2, "--sizes", 64, 5, 10, "--cycles", 2, "--out", "sim")
    assert oscsim("info", "sim").out == oscsim("info", "sim/run.osc").out
    assert oscsim("plot", "sim").out == "Figure: sim/run-orbits.png\n"


def test_a_changed_study_is_asked_about_and_may_go_on(oscsim, tmp_path, capsys):
    study = 'estimator = "classic"\nbatch = 2\nhidden = [4]\nseeds = 2\n[axes]\namplitude = 0.1\n'
    (tmp_path / "study.toml").write_text(study)
    oscsim("sweep", "study.toml", "--store", "store")
    before = osc.load_sweep(tmp_path / "store").load()
    (tmp_path / "study.toml").write_text(study.replace("[4]", "[5]"))
    with pytest.raises(SystemExit):
        main(["sweep", "study.toml", "--store", "store"])
    assert "holds another sweep" in (said := capsys.readouterr().err)
    assert "--accept-changes" in said
    oscsim("sweep", "study.toml", "--store", "store", "--accept-changes")
    assert osc.load_sweep(tmp_path / "store").load().equals(before)


@pytest.mark.slow
def test_the_settings_of_a_run_are_options_of_another(oscsim, tmp_path):
    own = ("--hidden", 6, 5, "--learning-rate", 0.1, 0.2, 0.3, "--standardise", "--estimator", "phases", "--points", 4)
    oscsim("train", *own, "--samples", 40, "--epochs", 1, "--probe", 0, "--out", "run")
    oscsim("train", "--config", "run/settings.json", "--seed", 3, "--out", "again")
    first, second = (json.loads((tmp_path / n / "settings.json").read_text())["settings"] for n in ("run", "again"))
    assert first | {"seed": 3, "out": "again"} == second


class Stream(io.StringIO):
    """Where a bar is drawn: a terminal or a pipe."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def test_compiling_does_not_count_for_the_time_left(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Stream(True))
    with Progress(21, "block") as bar:
        with bar.compiling("it"):
            time.sleep(0.6)
            bar.update(1)
        for i in range(2, 12):
            with bar.compiling("it"):
                time.sleep(0.02)
                bar.update(i)
        bar.bar.refresh()
        shown = terminal.getvalue()
        assert "compiling:   0%" in shown
        assert "11/21 blocks, 00:00 left" in shown  # 0.2 s, and 0.8 s if compilation counted
        left = (bar.bar.format_dict["total"] - 11) * bar.bar.format_dict["elapsed"] / 10
        assert 0.15 < left < 0.5
        say("a warning")
    assert terminal.getvalue().endswith("\r" + " " * (len(terminal.getvalue().split("\r")[-2])) + "\r")  # wiped out


def test_a_pipe_gets_lines_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("oscsim.core.progress.SECONDS", 0.0)
    for asked, lines in ((None, 0), (True, 3)):
        monkeypatch.setattr("sys.stderr", pipe := Stream(False))
        with Progress(3, "block", shown=asked) as bar:
            for i in range(1, 4):
                bar.update(i)
        assert pipe.getvalue().count("\n") == lines
        assert "\r" not in pipe.getvalue()
    assert pipe.getvalue().splitlines()[1].startswith("2 of 3 blocks, 00:00 left")
