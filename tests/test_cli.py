"""The command line as a user meets it: on real data, in an empty folder."""

import subprocess
import sys

import jax
import matplotlib.image
import numpy as np
import pytest

import oscsim as osc
from oscsim.cli import main


def figure(path):
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 500
    assert image.shape[1] > 800
    assert image[..., :3].std() > 0.05  # something is drawn on it
    return image


def test_demo(oscsim, tmp_path):
    done = oscsim("demo")
    assert done.err == ""
    for word in ("LayeredNetwork", "lock residual", "1 - cosine", "weights[0]", "lock-in", "10 points", "classic"):
        assert word in done.out
    rows = [line.split() for line in done.out.splitlines()]
    (lock_in,) = [row for row in rows if row[:1] == ["lock-in"]]
    (classic,) = [row for row in rows if row[:1] == ["classic"]]
    assert float(lock_in[1]) < 1e-3 < float(classic[1])
    assert len([row for row in rows if len(row) == 9 and row[0].isdigit()]) == 6  # a row for each cycle
    figure(tmp_path / "oscsim-demo.png")
    assert [path.name for path in tmp_path.iterdir()] == ["oscsim-demo.png"]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "none.npz"), "data=none.npz: no such file"),
        (("--batch", 0), "batch=0: use a positive integer"),
        (("--cycles", 3, "--discard", 3), "discard=3 leaves nothing of cycles=3"),
        (("--period", 3), "period=3 is shorter than 2 pi tau"),
        (("--amplitude", -1), "amplitude=-1: use a positive"),
        (("--activation", "relu"), "ReLU is not holomorphic"),
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
