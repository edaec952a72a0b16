"""Runs, gradients and histories in files for other programs, read back by the readers of those."""

import jax
import numpy as np
import optax
import pandas
import pytest
import scipy.io
import xarray

import oscsim as osc
from oscsim.networks.learned import named
from tests.helpers import toy

SIGNALS = {
    "harmonics": osc.Rotating(0.2, 60.0),
    "points": osc.Staircase(0.2, 60.0, 4),
    "an amplitude for each sample": osc.Adaptive(60.0),
}


@pytest.fixture(scope="module", params=SIGNALS.values(), ids=SIGNALS)
def run(request):
    return osc.simulate(*toy(), request.param, cycles=2)


def test_netcdf(run, tmp_path):
    expected, path = run.to_xarray(), run.export(tmp_path / "run.nc")
    with xarray.open_dataset(path, engine="scipy") as found:
        for name, variable in expected.variables.items():
            read = found[name] if name in found else found[f"{name}_real"] + 1j * found[f"{name}_imag"]
            assert read.dims == variable.dims
            np.testing.assert_array_equal(read, variable)
        assert found.attrs.keys() == expected.attrs.keys()


def test_zarr(run, tmp_path):
    path = run.export(tmp_path / "run.zarr")
    xarray.testing.assert_identical(xarray.open_zarr(path, consolidated=False).load(), run.to_xarray())
    with pytest.raises(osc.BadValue, match="there is something already"):
        run.export(path)


def test_csv(run, tmp_path):
    expected = run.to_xarray()
    table = pandas.read_csv(run.export(tmp_path / "run.csv"))
    assert list(table.columns[[0, 1, 3, 4, 5, 6]]) == ["layer", "cycle", "sample", "neuron", "real", "imag"]
    assert len(table) == sum(expected[f"layer_{n}"].size for n in (1, 2))
    for row in table.sample(20, random_state=0).itertuples():
        where = {"cycle": row.cycle, table.columns[2]: row[3], "sample": row.sample, f"neuron_{row.layer}": row.neuron}
        reading = expected[f"layer_{row.layer}"].sel({k: where[k] for k in list(where)[:2]})
        reading = complex(reading.isel({k: where[k] for k in list(where)[2:]}))
        np.testing.assert_allclose([row.real, row.imag], [reading.real, reading.imag], rtol=1e-6)


def test_matlab(run, tmp_path):
    expected, found = run.to_xarray(), scipy.io.loadmat(run.export(tmp_path / "run.mat"))
    for name, variable in expected.variables.items():
        np.testing.assert_array_equal(found[name], np.asarray(variable).reshape(found[name].shape))
    assert found["layer_1_dims"] == [", ".join(expected.layer_1.dims)]
    assert found["settings"]["network"][0, 0] == [expected.attrs["network"]]


def test_a_file_is_whole_or_not_there(run, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError("no space left")

    (tmp_path / "run.csv").write_text("before")
    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("os.replace", full)
    for ending in ("nc", "csv", "mat", "zarr"):
        with pytest.raises(OSError, match="no space left"):
            run.export(tmp_path / f"run.{ending}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("run.csv", "before")]


def test_other_endings_and_places_are_refused(run, tmp_path):
    for name in ("run.h5", "run"):
        with pytest.raises(osc.BadValue, match=r"use the ending \.nc, \.csv, \.mat or \.zarr"):
            run.export(tmp_path / name)
    with pytest.raises(osc.BadValue, match="only folders and files of this machine"):
        run.export("s3://bucket/run.nc")


def test_a_gradient_as_a_dictionary(tmp_path):
    gradient = osc.exact_gradient(*toy())
    found = osc.to_dict(gradient)
    assert set(found) == {f"{kind}_{i}" for kind in ("weights", "biases") for i in range(3)}
    for a, (_, b) in zip(found.values(), named(gradient), strict=True):
        np.testing.assert_array_equal(a, b)
    scipy.io.savemat(tmp_path / "gradient.mat", found)
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "gradient.mat")["weights_0"], gradient.weights[0])


@pytest.mark.slow
def test_a_history_goes_into_every_file(tmp_path):
    net, x, y = toy(4)
    trained = osc.train(net, (x, y), osc.Exact(), optax.sgd(0.1), epochs=2, batch_size=2, key=jax.random.key(0))
    table, rows = trained.to_xarray(), trained.to_pandas()
    np.testing.assert_array_equal(table.cosine_weights_0, rows["cosine/weights[0]"])
    table.to_zarr(tmp_path / "history.zarr", consolidated=False)
    table.to_netcdf(tmp_path / "history.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "history.nc", engine="scipy") as found:
        xarray.testing.assert_equal(found, xarray.open_zarr(tmp_path / "history.zarr", consolidated=False))
