"""The store of a sweep: a Zarr group on disk or in memory, written block by block.

It appears at its place whole, in one rename; a block counts once all its results are written; nothing in it depends on
the clock, the machine or the order of work.
"""

import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray

from oscsim.core.arrays import describe
from oscsim.core.errors import BadValue

if TYPE_CHECKING:
    import zarr  # imported where it is used: a third of a second that only sweeps need

FORMAT = 1
DONE = "block_done"


class Variable(NamedTuple):
    """A result of a study.

    Attributes:
        name: of the result.
        dtype: of its numbers.
        seeded: whether there is one for each seed.
        dims: the names of its own dimensions.
        shape: their sizes.
        label: what it is.
        unit: its unit; empty for a pure number.
    """

    name: str
    dtype: np.dtype
    seeded: bool
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    label: str
    unit: str


class Layout(NamedTuple):
    """How a grid is cut into blocks.

    Attributes:
        shape: points along each axis.
        block: points of a block along each axis; the last ones may be smaller.
        seeds: realisations of each point.
        names: of the axes.
    """

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
        return tuple(
            slice(int(i) * b, min((int(i) + 1) * b, n)) for i, b, n in zip(place, self.block, self.shape, strict=True)
        )

    def points(self, number: int) -> list[tuple[int, ...]]:
        """The indices of its points."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.region(number))))


class Store:
    """An open store.

    Attributes:
        path: its folder; None in memory.
        layout: how its grid is cut.
    """

    def __init__(self, group: "zarr.Group", path: Path | None):
        self.group: Any = group
        self.path = path
        about: Any = group.attrs["oscsim"]
        self.layout = Layout(
            tuple(map(len, about["axes"].values())), tuple(about["block"]), about["seeds"], tuple(about["axes"])
        )

    @staticmethod
    def existing(path: str | Path, identity: Mapping[str, Any]) -> "Store | None":
        """The store at the path, or None where there is nothing.

        Raises:
            ValueError: it holds another sweep, or something else.
        """
        path = Path(path).absolute()
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        import zarr

        try:
            group = zarr.open_group(str(path), mode="r+")
            about: Any = group.attrs["oscsim"]
        except Exception as error:
            raise BadValue(
                f"store={path} holds something that is no sweep: choose another folder; nothing was changed"
            ) from error
        if about.get("format") != FORMAT:
            raise BadValue(f"store={path} has format {about.get('format')}, this version of oscsim reads {FORMAT}")
        for name, ours in identity.items():
            # As text: the order of the axes and 1 or 1.0 make another sweep, though equal in Python.
            if json.dumps(about.get(name)) != json.dumps(ours):
                raise BadValue(
                    f"store={path} holds another sweep: its {name} is {_short(about.get(name))}, not {_short(ours)}; "
                    "choose another folder; nothing was changed"
                )
        return Store(group, path)

    @staticmethod
    def open(path: str | Path) -> "Store":
        """The store at the path, as it is.

        Raises:
            ValueError: there is none.
        """
        import zarr

        path = Path(path).absolute()
        try:
            return Store(zarr.open_group(str(path), mode="r+"), path)
        except Exception as error:
            raise BadValue(f"store={path} is no sweep: give the folder that oscsim.sweep wrote") from error

    @staticmethod
    def create(
        path: str | Path | None,
        identity: Mapping[str, Any],
        layout: Layout,
        variables: Mapping[str, Variable],
        coordinates: Mapping[str, tuple[list[Any], str, str]],
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
            return Store(_filled(zarr.storage.MemoryStore(), identity, layout, variables, coordinates), None)
        path = Path(path).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.parent / f".{path.name}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _filled(str(beside), identity, layout, variables, coordinates)
            os.replace(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return Store(zarr.open_group(str(path), mode="r+"), path)

    def unfinished(self) -> list[int]:
        """The numbers of the blocks that are not written yet."""
        return np.flatnonzero(~np.ravel(np.asarray(self.group[DONE][...]))).tolist()

    def write(self, number: int, results: Mapping[str, np.ndarray]) -> None:
        """Write a block: its results, (points, [seeds,] ...), then that it is done."""
        region = self.layout.region(number)
        sizes = tuple(part.stop - part.start for part in region)
        for name, values in results.items():
            self.group[name][(*region, ...)] = values.reshape(*sizes, *values.shape[1:])
        place = np.unravel_index(number, self.layout.blocks) if self.layout.shape else ()
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
    """
    return Store.open(path).dataset()


def _filled(
    where: Any,
    identity: Mapping[str, Any],
    layout: Layout,
    variables: Mapping[str, Variable],
    coordinates: Mapping[str, tuple[list[Any], str, str]],
) -> "zarr.Group":
    """A group with all arrays in place, coordinates written, results empty."""
    import zarr

    group = zarr.create_group(where, zarr_format=3)
    for name, (values, label, unit) in coordinates.items():
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        data = np.asarray(values) if numbers else np.arange(len(values))
        array = group.create_array(name, data=data, dimension_names=(name,), fill_value=None if numbers else 0)
        array.attrs.update({"long_name": label, "units": unit or "1"})
        if not numbers:
            array.attrs["labels"] = [v if isinstance(v, str) else describe(v) for v in values]
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
    group.attrs["oscsim"] = {"format": FORMAT, "block": list(layout.block), "results": list(variables), **identity}
    return group


def _nothing(dtype: np.dtype) -> Any:
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
        parents = Path(path).absolute().parents
        parent = next((p for p in parents if p.exists()), parents[-1])
        free, where = shutil.disk_usage(parent).free, f"are free on the disk of {parent}: use another"
    if needed > free:
        raise BadValue(
            f"{math.prod(layout.shape):,} points with seeds={layout.seeds} give {needed / 1e9:,.3g} GB of results, and "
            f"{free / 1e9:,.3g} GB {where}, or fewer points or seeds"
        )


PLAIN = (bool, int, float, complex, str, bytes, type(None))
DATA = (eqx.Module, jax.Array, np.ndarray, np.generic, tuple, list, dict, *PLAIN)
"""What a study is likely to take from its module other than functions."""


def fingerprint(value: Any) -> str:
    """A name for a value by its content: equal for equal arrays, settings and code, in any process.

    Of a function its code counts, what it closes over, and what it takes by name from its own module: data, and
    functions that stand there too.
    """
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, value, set())
    return digest.hexdigest()


def _feed(digest: Any, value: Any, seen: set[int]) -> None:
    """Add a value to the digest; `seen` holds the functions in it so far, which may call each other."""
    digest.update(f"<{type(value).__qualname__}>".encode())
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if eqx.is_array(value) or isinstance(value, np.generic):
        array = np.ascontiguousarray(value)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.data)
    elif isinstance(value, types.FunctionType):
        if id(value) in seen:
            return
        seen.add(id(value))
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        for part in (value.__code__, value.__defaults__, value.__kwdefaults__, cells, _taken_by_name(value)):
            _feed(digest, part, seen)
    elif isinstance(value, types.MethodType):
        _feed(digest, (value.__self__, value.__func__), seen)
    elif isinstance(value, functools.partial):
        _feed(digest, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.CodeType):
        digest.update(value.co_code)
        for part in (value.co_consts, value.co_names):
            _feed(digest, part, seen)
    elif isinstance(value, (tuple, list, set, frozenset)):
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        for part in ordered:
            _feed(digest, part, seen)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _feed(digest, (name, part), seen)
    elif isinstance(value, PLAIN):
        digest.update(repr(value).encode())
    elif callable(wrapped := getattr(value, "__wrapped__", None)):  # compiled
        _feed(digest, wrapped, seen)
    elif hasattr(value, "__dict__"):
        digest.update(f"{type(value).__module__}.{getattr(value, '__qualname__', '')}".encode())
        if not isinstance(value, (type, types.ModuleType)):
            _feed(digest, vars(value), seen)


def _taken_by_name(function: types.FunctionType) -> dict[str, Any]:
    """What a function takes from its module: data, and functions of the same module."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    found = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    return {name: value for name, value in found.items() if isinstance(value, DATA) or _stands_in(function, value)}


def _stands_in(function: types.FunctionType, value: Any) -> bool:
    """Whether a value is a function of the same module."""
    module = getattr(value, "__module__", None)
    return callable(value) and not isinstance(value, type) and module == function.__module__


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
