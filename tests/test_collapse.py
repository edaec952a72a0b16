"""Collapse to chance: the experiment of docs/results/collapse.md at small size, and the option that prevents it."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import oscsim as osc
from oscsim.cli.commands import main

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "results" / "collapse.py"


def norm_of_change(before, after):
    pairs = zip(*(jax.tree.leaves(osc.parameters(net)) for net in (before, after)), strict=True)
    return np.sqrt(sum(np.sum((np.asarray(b) - np.asarray(a)) ** 2) for a, b in pairs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rates", [pytest.param((2.0,), marks=pytest.mark.slow), (2.0, 2.0)], ids=["one rate", "by layer"]
)
def test_clip_bounds_the_step(tmp_path, rates):
    options = ["--estimator", "exact", "--samples", "20", "--epochs", "1", "--probe", "0"]
    options += ["--learning-rate", *map(str, rates)]
    for name, clip in (("plain", []), ("loose", ["--clip", "100"]), ("tight", ["--clip", "0.01"])):
        main(["train", "digits", *options, *clip, "--out", str(tmp_path / name)])
    steps = {
        name: norm_of_change(osc.load(tmp_path / name / "step-000000000.osc"), osc.load(tmp_path / name))
        for name in ("plain", "loose", "tight")
    }
    assert steps["loose"] == steps["plain"] > 0.1
    assert steps["tight"] == pytest.approx(2 * 0.01, rel=1e-3)


@pytest.fixture
def collapse(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("collapse", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "collapse", module)
    spec.loader.exec_module(module)
    return module


def test_every_condition_changes_what_it_names(collapse):
    def step(name):  # of a gradient of norm 1
        optimizer = collapse.CONDITIONS[name].optimizer()
        gradient = {"w": np.array([0.6, 0.8], np.float32)}
        return np.linalg.norm(optimizer.update(gradient, optimizer.init(gradient), gradient)[0]["w"])

    assert step("as it is") == pytest.approx(2.0)
    assert step("clip 0.3") == pytest.approx(0.6)
    assert step("rate 1") == pytest.approx(1.0)
    drawn = {name: condition.estimator(10) for name, condition in collapse.CONDITIONS.items()}
    assert drawn["no noise"].noises == ()
    assert drawn["as it is"].noises[0].shared_over_batch
    assert not drawn["noise of its own for each sample"].noises[0].shared_over_batch
    amplitudes = {
        name: float(drawn[name].teaching.amplitude) for name in ("as it is", "amplitude 0.2", "amplitude 0.8")
    }
    assert list(amplitudes.values()) == pytest.approx([0.4, 0.2, 0.8])
    assert (drawn["as it is"].teaching.points, drawn["20 points"].teaching.points) == (10, 20)


@pytest.mark.slow
def test_the_quick_form_collapses_and_clipping_prevents_it(collapse, tmp_path, capsys):
    results = collapse.main(["--quick", "--figure", str(tmp_path / "collapse.png")])
    assert (tmp_path / "collapse.png").stat().st_size > 10_000
    assert "| clip 0.3 | 0 of 3 |" in capsys.readouterr().out
    unprotected, clipped = (results[name] for name in ("as it is", "clip 0.3"))
    assert (unprotected[1][-1] > collapse.COLLAPSED).sum() >= 1
    assert clipped[1][-1].max() < 40
    # What precedes it: the last layer falls silent within the first few updates.
    assert np.median(unprotected[0]["alive"][12]) < 20 < 50 < np.median(clipped[0]["alive"][12])
