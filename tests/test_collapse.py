"""Collapse to chance: the experiment of docs/results/collapse.md at small size, and the option that prevents it."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import oscsim as osc
from oscsim.cli import main

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "results" / "collapse.py"


def norm_of_change(before, after):
    pairs = zip(*(jax.tree.leaves(osc.parameters(net)) for net in (before, after)), strict=True)
    return np.sqrt(sum(np.sum((np.asarray(b) - np.asarray(a)) ** 2) for a, b in pairs))


@pytest.mark.parametrize("rates", [(2.0,), (2.0, 2.0)], ids=["one rate", "by layer"])
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


@pytest.mark.slow
def test_the_quick_form_collapses_and_clipping_prevents_it(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("collapse", SCRIPT)
    collapse = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "collapse", collapse)
    spec.loader.exec_module(collapse)
    results = collapse.main(["--quick", "--figure", str(tmp_path / "collapse.png")])
    assert (tmp_path / "collapse.png").stat().st_size > 10_000
    assert "| clip 0.3 | 0 of 3 |" in capsys.readouterr().out
    unprotected, clipped = (results[name] for name in ("as it is", "clip 0.3"))
    assert (unprotected[1][-1] > collapse.COLLAPSED).sum() >= 1
    assert clipped[1][-1].max() < 40
    # What precedes it: the last layer falls silent within the first few updates.
    assert np.median(unprotected[0]["alive"][12]) < 20 < 50 < np.median(clipped[0]["alive"][12])
