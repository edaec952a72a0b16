"""Small inputs on which other projects failed, by public reports: right here, or refused in words."""

import math

import jax
import numpy as np
import optax
import pytest
import xarray

import oscsim as osc
from oscsim.training.monitor import best_of

RNG = np.random.default_rng(0)
X, Y = RNG.random((8, 2)), np.arange(8) % 2
NET = osc.LayeredNetwork((2, 3, 2), key=jax.random.key(0))


def table(path, labels, **columns):
    """A table of two columns of numbers, others, and labels."""
    rows = [",".join(("a", "b", *columns, "label"))]
    for i, label in enumerate(labels):
        rows.append(
            ",".join((*(f"{v:.3f}" for v in RNG.random(2)), *(values[i] for values in columns.values()), label))
        )
    path.write_text("\n".join(rows) + "\n")
    return osc.datasets.read(path)


def train(**changes):
    settings = {"epochs": 2, "batch_size": 4, "key": jax.random.key(1)} | changes
    return osc.train(NET, (X, Y), osc.Exact(), optax.sgd(0.5), **settings)


@pytest.mark.parametrize("names", [("T", "F"), ("yes", "no", "NA"), ("null", "nan", "None")])
def test_labels_that_readers_of_tables_take_for_something_else(tmp_path, names):
    """bioinfo-chru-strasbourg/howard #201: T is read as True; NA and null as missing."""
    data = table(tmp_path / "own.csv", names * 4)
    assert data.classes == tuple(sorted(names))
    assert [data.classes[label] for label in data.train[1]] == list(names * 4)


def test_a_column_of_true_and_false_among_the_inputs(tmp_path):
    """CamDavidsonPilon/lifelines #457."""
    data = table(tmp_path / "own.csv", ["x", "y"] * 4, flag=["True", "False"] * 4)
    np.testing.assert_array_equal(data.train[0][:, 2], [1, 0] * 4)


def test_labels_of_true_and_false(tmp_path):
    """deepset-ai/FARM #66."""
    np.testing.assert_array_equal(table(tmp_path / "own.csv", ["True", "False"] * 4).train[1], [1, 0] * 4)


def test_a_decimal_comma_is_said(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("a;b;label\n1,5;2,5;x\n3,5;4,5;y\n")
    with pytest.raises(ValueError, match="column a is '1,5' in line 2: inputs are numbers"):
        osc.datasets.read(path)


def test_nothing_held_out_does_not_end_the_run():
    """oscmcompany/fund #821: its loss is nan, which burns the patience."""
    with pytest.raises(ValueError, match=r"y has shape \(0,\).*one sample at least"):
        train(validation=(X[:0], Y[:0]))


@pytest.mark.parametrize(("scores", "best"), [([math.nan, 3.0, 2.0, math.nan], 2), ([3.0, math.nan, 3.0], 0)])
def test_nan_is_no_improvement(scores, best):
    """Bjarten/early-stopping-pytorch #28."""
    assert best_of(scores) == best


def test_the_best_network_is_that_of_the_best_epoch_however_the_run_ends():
    """tensorflow #35634, keras #20323: only where it is stopped early, or that of another epoch."""
    trained = train(epochs=5, validation=osc.Validation(X, np.roll(Y, 1)))
    losses = [row["validation_error"] for row in trained.history]
    assert osc.evaluate(trained.best, X, np.roll(Y, 1))["error"] == min(losses)


def test_going_on_with_batches_of_another_size_is_refused(tmp_path):
    """transformers #21271, SMILify #72: it goes on at another place, or from scratch."""
    train(epochs=1, checkpoints=osc.Checkpoints(tmp_path))
    with pytest.raises(ValueError, match="batch_size"):
        train(checkpoints=osc.Checkpoints(tmp_path, resume=True), batch_size=2)


@pytest.mark.parametrize(("count", "interval"), [(1001, 0.1), (2001, 0.05), (335, 0.3)])
def test_a_series_that_ends_with_the_run(count, interval):
    """BlueBrain/eFEL #270, tick #470: the last value is lost where the interval is no binary fraction."""
    values = RNG.random((count, 3, 2))
    period = (count - 1) * interval / 2
    series = osc.TimeSeries(values, interval)
    run = osc.simulate(NET, series, Y[:3], osc.Constant(0.0, period), cycles=2)
    assert run.cycles == 2
    with pytest.raises(ValueError, match="ends at"):
        osc.simulate(NET, osc.TimeSeries(values[:-1], interval), Y[:3], osc.Constant(0.0, period), cycles=2)


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan])
def test_times_that_do_not_grow(interval):
    """pasqal-io/Pulser #1087: said by the library beneath."""
    with pytest.raises(ValueError, match=r"interval=.*: use a positive, finite number"):
        osc.TimeSeries(np.ones(3), interval)


def test_true_is_no_number_of_something():
    """pandas #9798: index_col=True is the second column."""
    with pytest.raises(ValueError, match="samples=True: use 0 or a positive integer"):
        osc.PerCycle(samples=[True])
    with pytest.raises(ValueError, match="batch_size=True: use a positive integer"):
        train(batch_size=True)


def test_attributes_of_files_are_text_and_numbers(tmp_path):
    """xeofs #89, xarray #1500: None and True cannot be written as netCDF."""
    run = osc.simulate(NET, X[:3], Y[:3], osc.Rotating(0.1, 50.0), cycles=1)
    found = xarray.load_dataset(run.export(tmp_path / "run.nc")).attrs
    assert {type(value) for value in found.values()} <= {str, np.float64}
    assert found["period"] == 50
