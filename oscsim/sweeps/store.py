"""The store of a sweep: a Zarr group on disk or in memory, written block by block.

The folder appears whole, in one rename. A block counts once all its results are written. Nothing in the store depends
on the clock, the machine or the order of work.
"""

import itertools
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import xarray
from jaxtyping import PyTree

from oscsim.core.arrays import describe, is_key
from oscsim.core.checkpoint import whole_folder
from oscsim.core.checks import as_path
from oscsim.core.ending import WRITING
from oscsim.core.errors import BadValue
from oscsim.datasets.source import digest_of

if TYPE_CHECKING:
    import zarr  # imported where it is used: a third of a second that only sweeps need

FORMAT = 2  # 1, of oscsim 0.1, named a study by its bytecode
DONE = "block_done"


class Variable(NamedTuple):
    """A result of a study: `dims` and `shape` are its own, beside those of the grid; `seeded`: one per seed."""

    name: str
    dtype: np.dtype
    seeded: bool
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    label: str
    unit: str


class Coordinate(NamedTuple):
    """The values of an axis, what they are, and their unit (empty for pure numbers)."""

    values: list
    label: str
    unit: str


class Layout(NamedTuple):
    """How a grid of `shape` is cut into blocks of `block` points along each axis; the last ones may be smaller."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    seeds: int
    names: tuple[str, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.blocks)

    @property
    def points_per_block(self) -> int:
        return math.prod(self.block)

    def region(self, number: int) -> tuple[slice, ...]:
        """Where in the grid the block of this number lies."""
        place = np.unravel_index(number, self.blocks) if self.shape else ()
        begins = [int(i) * b for i, b in zip(place, self.block, strict=True)]
        return tuple(slice(i, min(i + b, n)) for i, b, n in zip(begins, self.block, self.shape, strict=True))

    def points(self, number: int) -> list[tuple[int, ...]]:
        """The indices of its points."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.region(number))))


class Store:
    """An open store; `path` is its folder, None in memory."""

    def __init__(self, group: "zarr.Group", path: Path | None):
        self.group: Any = group  # whose items are arrays or groups: only the caller knows
        self.path = path
        about = self.group.attrs["oscsim"]
        sizes = tuple(map(len, about["axes"].values()))
        self.layout = Layout(sizes, tuple(about["block"]), about["seeds"], tuple(about["axes"]))

    @staticmethod
    def existing(path: str | Path, identity: Mapping[str, object]) -> "Store | None":
        """The store at the path, or None where there is nothing.

        Raises:
            ValueError: it holds another sweep, or something else.
        """
        path = as_path("store", path).absolute()
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        try:
            found = Store.open(path)
        except BadValue as error:
            raise BadValue(
                f"store={path} holds something that is no sweep: choose another folder; nothing was changed"
            ) from error
        about = found.group.attrs["oscsim"]
        old, written = about.get("format"), about.get("versions")
        if old not in (1, FORMAT):
            raise BadValue(f"store={path} has format {old}, this version of oscsim reads {FORMAT}")
        for name, ours in identity.items():
            if name == "study" and old == 1:
                warnings.warn(
                    f"store={path} was begun by oscsim 0.1: make sure that its study is this one", stacklevel=4
                )
            # As text: the order of the axes and 1 or 1.0 make another sweep, though equal in Python.
            elif json.dumps(about.get(name)) != json.dumps(ours):
                under = f" (it was begun under {written}, this is {versions()})" if written != versions() else ""
                raise BadValue(
                    f"store={path} holds another sweep: its {name} is {_short(about.get(name))}, not {_short(ours)}"
                    f"{under}; choose another folder; nothing was changed"
                )
        return found

    @staticmethod
    def open(path: str | Path) -> "Store":
        """The store at the path, as it is.

        Raises:
            ValueError: there is none.
        """
        import zarr

        path = as_path("store", path).absolute()
        try:
            return Store(zarr.open_group(str(path), mode="r+"), path)
        except (KeyError, OSError, ValueError) as error:
            raise BadValue(f"store={path} is no sweep: give the folder that oscsim.sweep wrote") from error

    @staticmethod
    def create(
        path: str | Path | None,
        identity: Mapping[str, object],
        layout: Layout,
        variables: Mapping[str, Variable],
        coordinates: Mapping[str, Coordinate],
    ) -> "Store":
        """A new store, with nothing in it yet; at its path it appears whole.

        Raises:
            ValueError: there is no room for the results.
            OSError: the folder cannot be written.
        """
        import zarr
        import zarr.storage

        _require_room(path, layout, variables)
        if path is None:
            group = zarr.create_group(zarr.storage.MemoryStore(), zarr_format=3)
            _fill(group, identity, layout, variables, coordinates)
            return Store(group, None)
        path = as_path("store", path).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(path) as beside:
            _fill(zarr.create_group(str(beside), zarr_format=3), identity, layout, variables, coordinates)
        return Store.open(path)

    def unfinished(self) -> list[int]:
        """The numbers of the blocks that are not written yet."""
        return np.flatnonzero(~np.ravel(np.asarray(self.group[DONE][...]))).tolist()

    def write(self, number: int, results: Mapping[str, np.ndarray]) -> None:
        """Write a block: its results, (points, [seeds,] ...), then that it is done."""
        region = self.layout.region(number)
        sizes = tuple(part.stop - part.start for part in region)
        place = np.unravel_index(number, self.layout.blocks) if self.layout.shape else ()
        with WRITING:
            for name, values in results.items():
                self.group[name][(*region, ...)] = values.reshape(*sizes, *values.shape[1:])
            self.group[DONE][tuple(map(int, place))] = True

    def dataset(self) -> xarray.Dataset:
        """The results as a labelled dataset; read from disk where they are looked at."""
        opened = xarray.open_zarr(self.group.store, consolidated=False, chunks=None, zarr_format=3)
        opened = opened.drop_vars(DONE)
        about = opened.attrs.pop("oscsim")
        for name in self.layout.names:
            labels = opened[name].attrs.pop("labels", None)
            if labels is not None:
                opened = opened.assign_coords({name: (name, np.asarray(labels, object), opened[name].attrs)})
        opened = opened.assign_coords(about["settings"])[about["results"]]
        opened.attrs = {"seeds": about["seeds"], "precision": about["precision"], "key": str(about["key"])}
        return opened


def load_sweep(path: str | Path) -> xarray.Dataset:
    """The results of a sweep in a store, finished or not; what is missing is nan (0 or False in whole numbers).

    Raises:
        ValueError: there is no sweep at the path.

    Example:
        >>> def study(key, mean):
        ...     return {"drawn": mean + jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=3, key=jax.random.key(0), store="results")
        >>> osc.load_sweep("results").equals(data)
        True
    """
    return Store.open(path).dataset()


def versions() -> dict[str, str]:
    """The packages whose versions decide what a program is."""
    return {name: metadata.version(name) for name in ("oscsim", "jax")}


def _fill(
    group: "zarr.Group",
    identity: Mapping[str, object],
    layout: Layout,
    variables: Mapping[str, Variable],
    coordinates: Mapping[str, Coordinate],
) -> None:
    """Put all arrays into a group: coordinates written, results empty."""
    for name, (values, label, unit) in coordinates.items():
        numbers = {*map(type, values)} <= {int, float}
        data = np.asarray(values) if numbers else np.arange(len(values))
        array = group.create_array(name, data=data, dimension_names=(name,), fill_value=None if numbers else 0)
        array.attrs.update({"long_name": label, "units": unit or "1"})
        if not numbers:
            array.attrs["labels"] = [v if type(v) is str else describe(v) for v in values]
    group.create_array("seed", data=np.arange(layout.seeds), dimension_names=("seed",))
    for v in variables.values():
        seeds = (layout.seeds,) if v.seeded else ()
        array = group.create_array(
            v.name,
            shape=(*layout.shape, *seeds, *v.shape),
            chunks=(*layout.block, *seeds, *v.shape),
            dtype=v.dtype,
            fill_value=_nothing(v.dtype),
            dimension_names=(*layout.names, *(("seed",) if v.seeded else ()), *v.dims),
        )
        array.attrs.update({"long_name": v.label, "units": v.unit or "1"})
    group.create_array(
        DONE,
        shape=layout.blocks,
        chunks=(1,) * len(layout.blocks),
        dtype=bool,
        fill_value=False,
        dimension_names=tuple(f"block_{name}" for name in layout.names),
    )
    about = {"format": FORMAT, "versions": versions(), "block": list(layout.block), "results": list(variables)}
    group.attrs["oscsim"] = about | dict(identity)  # pyright: ignore[reportArgumentType]


def _nothing(dtype: np.dtype) -> complex | float | int | bool:
    """What stands where nothing is written yet."""
    if np.issubdtype(dtype, np.complexfloating):
        return complex(np.nan, np.nan)
    return np.nan if np.issubdtype(dtype, np.floating) else np.zeros((), dtype).item()


def _require_room(path: str | Path | None, layout: Layout, variables: Mapping[str, Variable]) -> None:
    """Refuse results that do not fit, before anything is made."""
    numbers = (math.prod(v.shape) * (layout.seeds if v.seeded else 1) * v.dtype.itemsize for v in variables.values())
    needed = math.prod(layout.shape) * sum(numbers)
    if path is None:
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # only Linux tells
            return
        where = "of memory are free: give a store"
    else:
        parents = as_path("store", path).absolute().parents
        parent = next((p for p in parents if p.exists()), parents[-1])
        free, where = shutil.disk_usage(parent).free, f"are free on the disk of {parent}: use another"
    if needed > free:
        raise BadValue(
            f"{math.prod(layout.shape):,} points with seeds={layout.seeds} give {needed / 1e9:,.3g} GB of results, and "
            f"{free / 1e9:,.3g} GB {where}, or fewer points or seeds"
        )


ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(value: PyTree, program: str = "") -> str:
    """A name for a pytree by its content, the same in every process: its structure, its numbers, and a program.

    What is no array counts as it is printed, without its address: a function by its name, an object by its `repr`.
    """
    leaves, structure = jax.tree.flatten(value)
    others = [leaf for leaf in leaves if not eqx.is_array_like(leaf)]
    arrays = [jax.random.key_data(a) if is_key(a) else a for a in leaves if eqx.is_array_like(a)]
    text = ADDRESS.sub("", f"{structure} {others} {program}").encode()
    return digest_of(np.frombuffer(text, np.uint8), *map(np.asarray, arrays))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
