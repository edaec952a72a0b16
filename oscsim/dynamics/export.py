"""Readings in files for other programs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oscsim.core.arrays import describe
from oscsim.core.checks import as_path
from oscsim.core.errors import BadValue
from oscsim.core.files import whole_folder, write
from oscsim.core.units import Units
from oscsim.networks.base import AbstractNetwork, in_short, time_unit
from oscsim.signals.teaching import AbstractTeaching

if TYPE_CHECKING:
    import xarray


def neuron_axes(layer: int, count: int) -> list[str]:
    """The names of the axes of neurons of a layer, counted from 1: one, or several where they form images."""
    return [f"neuron_{layer}" + (f"_{i}" if count > 1 else "") for i in range(count)]


def attributes(network: AbstractNetwork, teaching: AbstractTeaching) -> dict[str, str | float]:
    """What every data set says of what was driven, and by what."""
    return {
        "network": in_short(network),
        "teaching": describe(teaching),
        "period": float(teaching.period),
        "time_unit": time_unit(network.time_constants),
    }


def labelled(data: "xarray.Dataset", units: Units) -> "xarray.Dataset":
    """What a run gives, with the names of the units of times, potentials and signals."""
    for name, variable in data.variables.items():
        if name == "time":
            variable.attrs["units"] = units.time
        elif name in ("teaching", "signal") or str(name).startswith(("potential_", "noise_")):
            variable.attrs["units"] = units.potential
    return data.assign_attrs(time_unit=units.time)


def export(data: "xarray.Dataset", path: str | Path) -> Path:
    """Write what `Run.to_xarray` gives, in the format that the ending of the path tells; see `Run.export`."""
    path = as_path("path", path)
    if path.suffix == ".zarr":
        if path.exists():
            raise BadValue(f"path={path}: there is something already; choose another, or remove it")
        with whole_folder(path) as beside:
            data.to_zarr(str(beside), zarr_format=3, consolidated=False)
        return path
    if path.suffix not in CONTENTS:
        raise BadValue(f"path={path}: use the ending {', '.join(CONTENTS)} or .zarr")
    return write(path, CONTENTS[path.suffix](data))


def _netcdf(data: "xarray.Dataset") -> bytes:
    """Complex variables in two, and whole numbers in 32 bits: netCDF 3 has no others."""
    parts = {}
    for name, variable in data.variables.items():
        if variable.dtype.kind == "c":
            parts |= {f"{name}_real": variable.real, f"{name}_imag": variable.imag}
        else:
            parts[name] = variable
    split = data.drop_vars(list(data.data_vars)).assign({n: v for n, v in parts.items() if n not in data.coords})
    return bytes(split.to_netcdf(engine="scipy", format="NETCDF3_64BIT"))


def _csv(data: "xarray.Dataset") -> bytes:
    """A row for each reading of a neuron; neurons of an image are counted through."""
    import pandas

    layers = []
    for name, variable in data.data_vars.items():
        if str(name).startswith("layer_"):
            values = np.reshape(variable.values, (*variable.shape[:3], -1))
            labels = [data[d].values for d in variable.dims[:2]] + [range(n) for n in values.shape[2:]]
            names = [*map(str, variable.dims[:2]), "sample", "neuron"]
            rows = pandas.MultiIndex.from_product(labels, names=names).to_frame(index=False)
            rows.insert(0, "layer", int(str(name).removeprefix("layer_")))
            layers.append(rows.assign(real=np.real(values).ravel(), imag=np.imag(values).ravel()))
    return pandas.concat(layers).to_csv(index=False).encode()


def _mat(data: "xarray.Dataset") -> memoryview:
    from scipy.io import savemat

    dimensions = {f"{name}_dims": ", ".join(map(str, variable.dims)) for name, variable in data.data_vars.items()}
    values = {str(name): np.asarray(variable) for name, variable in data.variables.items()}
    buffer = io.BytesIO()
    savemat(buffer, values | dimensions | {"settings": dict(data.attrs)}, do_compression=True, oned_as="column")
    return buffer.getbuffer()


CONTENTS: dict[str, Callable] = {".nc": _netcdf, ".csv": _csv, ".mat": _mat}
