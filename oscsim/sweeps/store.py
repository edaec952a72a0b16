"""The store of a sweep: a Zarr group on disk or in memory, written block by block.

The folder appears whole, in one rename. A block counts once all its results are written. Nothing in the store depends
on the clock, the machine or the order of work.
"""

import contextlib
import itertools
import json
import math
import re
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
from oscsim.core.checks import as_path, as_place, checked
from oscsim.core.ending import WRITING
from oscsim.core.errors import BadValue, ChangedStudyError, DamagedFileError, warn
from oscsim.core.files import reading, whole_folder
from oscsim.core.memory import require_disk, require_memory
from oscsim.datasets.source import digest_of

if TYPE_CHECKING:
    import zarr  # imported where it is used: a third of a second that only sweeps need

FORMAT = 2  # 1, of oscsim 0.1, named a study by its bytecode
DONE = "block_done"
OWN = (DONE, "zarr.json")
"""Names that the store has itself."""
WHOLE = {"array.write_empty_chunks": True}
"""For zarr, which leaves out what is nan everywhere: then it could not be told from what was lost."""


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

    def place(self, number: int) -> tuple[int, ...]:
        """The index of the block of this number among the blocks."""
        return tuple(int(i) for i in np.unravel_index(number, self.blocks)) if self.shape else ()

    def region(self, number: int) -> tuple[slice, ...]:
        """Where in the grid the block of this number lies."""
        begins = [i * b for i, b in zip(self.place(number), self.block, strict=True)]
        return tuple(slice(i, min(i + b, n)) for i, b, n in zip(begins, self.block, self.shape, strict=True))

    def points(self, number: int) -> list[tuple[int, ...]]:
        """The indices of its points."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.region(number))))


class Store:
    """An open store; `path` is its folder, None in memory."""

    def __init__(self, group: "zarr.Group", path: Path | None):
        self.group: Any = group  # whose items are arrays or groups: only the caller knows
        self.path = path
        self.about: dict[str, Any] = dict(self.group.attrs["oscsim"])
        about = self.about
        sizes = tuple(map(len, about["axes"].values()))
        self.layout = Layout(sizes, tuple(about["block"]), about["seeds"], tuple(about["axes"]))

    @staticmethod
    def existing(
        path: str | Path, identity: Mapping[str, object], coordinates: Mapping[str, Coordinate]
    ) -> "Store | None":
        """The store at the path, or None where there is nothing; what is damaged in it counts as not computed.

        Raises:
            ChangedStudyError: it was made by another study, or by other versions.
            ValueError: it holds another sweep, or something else.
        """
        path = _place(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        try:
            found = Store.open(path)
        except BadValue as error:
            raise BadValue(
                f"store={path} holds something that is no sweep: choose another folder; nothing was changed ({error})"
            ) from error
        about = found.about
        if about.get("format") not in (1, FORMAT):
            raise BadValue(f"store={path} has format {about.get('format')}, this version of oscsim reads {FORMAT}")
        for name, ours in identity.items():
            # As text: the order of the axes and 1 or 1.0 make another sweep, though equal in Python.
            if name != "study" and json.dumps(about.get(name)) != json.dumps(ours):
                raise BadValue(
                    f"store={path} holds another sweep: its {name} is {_short(about.get(name))}, not {_short(ours)}; "
                    "choose another folder; nothing was changed"
                )
        found._require_maker(identity["study"])
        found._mend(coordinates)
        return found

    def _require_maker(self, study: object) -> None:
        """Refuse to go on where the results that are there would not be computed again."""
        written, now = self.about.get("versions"), versions()
        if self.about["format"] == 1:
            warn(f"store={self.path} was begun by oscsim 0.1: make sure that its study is this one")
        elif written is None:  # changes were accepted
            self._tell({"study": study, "versions": now})
        elif self.about.get("study") != study or any(now.get(name) != v for name, v in written.items()):
            others = f"it was made under {_listed(written)}, and this is {_listed(now)}"
            if self.about.get("study") != study:
                others = f"its study is {_short(self.about.get('study'))}, not {_short(study)} ({others})"
            raise ChangedStudyError(
                f"store={self.path} holds another sweep: {others}; choose another folder, or, if what it holds is "
                f"right all the same, call osc.accept_changes({str(self.path)!r}) before, or use oscsim sweep "
                "--accept-changes; nothing was changed"
            )

    def _tell(self, changes: Mapping[str, object]) -> None:
        """Change what the store says about itself."""
        self.about |= changes
        if self.path is not None:
            self.about["checksum"] = _checksum(self.path, self.about)
        self.group.attrs["oscsim"] = self.about

    @staticmethod
    def open(path: str | Path, *, checked: bool = False) -> "Store":
        """The store at the path, as it is; `checked` says that all of its files were looked at.

        Raises:
            ValueError: there is none, or what it says about itself is damaged.
        """
        import zarr

        path = _place(path)
        with reading(f"store={path} is no sweep: give the folder that oscsim.sweep wrote"):
            if not path.is_dir():
                raise ValueError("there is no such folder")
            if not checked:
                _require_known(path)
            found = Store(zarr.open_group(str(path), mode="r+"), path)
            for name in (*found.layout.names, *found.about["results"], DONE):
                found.group[name]  # each is there
            if found.about.get("checksum", "") not in ("", _checksum(path, found.about)):
                raise DamagedFileError(f"store={path}: what it says about itself is damaged; choose another folder")
        return found

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
        path = _place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_folder(path) as beside:
                _fill(zarr.create_group(str(beside), zarr_format=3), identity, layout, variables, coordinates)
                Store(zarr.open_group(str(beside), mode="r+"), beside)._tell({})
        except OSError:
            if (found := Store.existing(path, identity, coordinates)) is None:
                raise
            return found  # another process began the same sweep at the same time: together, then
        return Store.open(path, checked=True)

    def unfinished(self) -> list[int]:
        """The numbers of the blocks that are not written yet."""
        return np.flatnonzero(~self._done()).tolist()

    def write(self, number: int, results: Mapping[str, np.ndarray]) -> None:
        """Write a block: its results, (points, [seeds,] ...), then that it is done.

        Raises:
            ValueError: results of other names, shapes or types than those at the first point.
            FileNotFoundError: the store is not there any more.
        """
        import zarr

        if self.path is not None and not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(
                f"store={self.path} was moved or removed while the sweep ran: the same call goes on with it where it is"
            )
        self._require_agreed(results)
        region = self.layout.region(number)
        sizes = tuple(part.stop - part.start for part in region)
        with WRITING, zarr.config.set(WHOLE):
            for name, values in results.items():
                self.group[name][(*region, ...)] = values.reshape(*sizes, *values.shape[1:])
            self.group[DONE][self.layout.place(number)] = True

    def _require_agreed(self, results: Mapping[str, np.ndarray]) -> None:
        """Refuse what would be cut, repeated, or left out where the store was made for something else."""
        begun, rank = self.about["results"], len(self.layout.shape)
        if {*results} != {*begun}:
            raise BadValue(
                f"the study returns {', '.join(sorted(results))}, and {', '.join(sorted(begun))} at the first point: "
                "return the same results everywhere, nan where there is none"
            )
        for name, values in results.items():
            held = self.group[name]
            seeded = (self.layout.seeds,) if "seed" in held.metadata.dimension_names else ()
            shape, due = values.shape[1 + len(seeded) :], held.shape[rank + len(seeded) :]
            if shape != due or np.result_type(values.dtype, held.dtype) != held.dtype:
                raise BadValue(
                    f"the study returns {name} as {values.dtype} of shape {shape}, and as {held.dtype} of shape {due} "
                    "at the first point: return the same shapes and types everywhere"
                )

    def _done(self) -> np.ndarray:
        """Which blocks are written, by their numbers."""
        with contextlib.suppress(Exception):  # whatever reading a damaged file raises
            return np.ravel(np.asarray(self.group[DONE][...]))
        return np.array([self._is_done(number) for number in range(self.layout.count)])

    def _is_done(self, number: int) -> bool:
        with contextlib.suppress(Exception):  # as above
            return bool(self.group[DONE][self.layout.place(number)])
        return False

    def _is_whole(self, name: str, number: int) -> bool:
        """Whether what the store holds of a result in a block is there, and is what was written."""
        if self.path is None:
            return True
        with contextlib.suppress(Exception):  # whatever reading a damaged file raises
            self.group[name][(*self.layout.region(number), ...)]
            # Before there was a checksum, zarr left out what was 0, False or nan everywhere.
            return self._chunk(name, self.layout.place(number)).is_file() or "checksum" not in self.about
        return False

    def _chunk(self, name: str, place: tuple[int, ...]) -> Path:
        """The file with this part of an array."""
        held = self.group[name]
        place = (*place, *(0,) * (held.ndim - len(place)))
        return (self.path or Path()) / name / held.metadata.encode_chunk_key(place)

    def damaged(self) -> list[int]:
        """The numbers of the blocks that were written, and of which something is missing or changed."""
        done = np.flatnonzero(self._done()).tolist()
        return [n for n in done if not all(self._is_whole(name, n) for name in self.about["results"])]

    def _mend(self, coordinates: Mapping[str, Coordinate]) -> None:
        """Write the axes again where they are damaged, and have damaged blocks computed again."""
        for name, data in _axes(coordinates, self.layout).items():
            if not self._holds(name, data):
                self._chunk(name, (0,)).unlink(missing_ok=True)
                self.group[name][...] = data
        damaged = self.damaged()
        if damaged:
            warn(f"store={self.path}: {len(damaged)} of its blocks are missing or damaged, and computed again")
        for number in damaged:
            self.group[DONE][self.layout.place(number)] = False
            for name in self.about["results"]:
                self._chunk(name, self.layout.place(number)).unlink(missing_ok=True)

    def _holds(self, name: str, data: np.ndarray) -> bool:
        with contextlib.suppress(Exception):  # whatever reading a damaged file raises
            return bool(np.array_equal(self.group[name][...], data, equal_nan=data.dtype.kind == "f"))
        return False

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


@checked(path=as_place)
def load_sweep(path: str | Path) -> xarray.Dataset:
    """The results of a sweep in a store, finished or not; what is not computed yet is nan (0 or False if whole).

    Where blocks of points are not computed yet, the attribute `unfinished` says how many.

    Raises:
        DamagedFileError: something that was computed is missing or damaged; the same sweep computes it again.
        ValueError: there is no sweep at the path.

    Example:
        >>> def study(key, mean):
        ...     return {"drawn": mean + jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=3, key=jax.random.key(0), store="results")
        >>> osc.load_sweep("results").equals(data)
        True
    """
    found = Store.open(path)
    axes = [name for name in (*found.layout.names, "seed") if not found._chunk(name, (0,)).is_file()]
    damaged = [*map(str, found.damaged()), *axes]
    if damaged:
        raise DamagedFileError(
            f"store={found.path} is damaged, in block or axis {', '.join(damaged[:5])}: call the same sweep again, "
            "which computes what is missing"
        )
    with reading(f"store={found.path} is damaged; call the same sweep again"):
        data = found.dataset()
    left = len(found.unfinished())
    return data.assign_attrs(unfinished=left) if left else data


def accept_changes(store: str | Path) -> None:
    """Let a sweep go on in a store that was made by another study, or by other versions of the libraries.

    What the store holds is not computed again: it is for you to know that it would come out the same. The next call of
    `sweep` goes on with its own study and versions, and the store names these from then on.

    Raises:
        ValueError: there is no sweep at the path.

    Example:
        >>> axes = {"mean": [0.0, 1.0]}
        >>> first = osc.sweep(lambda key, mean: {"a": mean + 1.0}, axes, seeds=1, key=jax.random.key(0), store="kept")
        >>> osc.accept_changes("kept")
        >>> again = osc.sweep(lambda key, mean: {"a": mean + 2.0}, axes, seeds=1, key=jax.random.key(0), store="kept")
        >>> bool((again.a == first.a).all())
        True
    """
    Store.open(store)._tell({"study": None, "versions": None})


def versions() -> dict[str, str]:
    """The packages whose versions decide what a program is."""
    return {name: metadata.version(name) for name in ("oscsim", "jax", "jaxlib", "numpy")}


def _listed(written: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in written.items())


def _place(path: str | Path) -> Path:
    """Where a store is, links followed."""
    return as_path("store", path).resolve()


CODECS = {"bytes", "zstd", "crc32c"}
"""How the arrays of a store are packed. zarr would look for others among all that is installed."""


def _require_known(path: Path) -> None:
    """Refuse links, which lead out of the store, and packing that `sweep` does not use; for `reading`."""
    links = [p for p in path.rglob("*") if p.is_symlink()]
    if links:
        raise ValueError(f"{links[0]} is a link")
    for file in path.glob("*/zarr.json"):
        about = json.loads(file.read_bytes())
        unknown = {codec["name"] for codec in about["codecs"]} - CODECS
        if unknown or about["storage_transformers"] or about["chunk_grid"]["name"] != "regular":
            raise ValueError(f"{file} names what no sweep uses: {', '.join(map(str, unknown))}")


def _checksum(path: Path, about: Mapping[str, object]) -> str:
    """Of what a store says about itself and its arrays."""
    said = json.dumps({name: value for name, value in about.items() if name != "checksum"}, sort_keys=True).encode()
    files = (file.read_bytes() for file in sorted(path.glob("*/zarr.json")))
    return digest_of(*(np.frombuffer(content, np.uint8) for content in (said, *files)))


def _axes(coordinates: Mapping[str, Coordinate], layout: Layout) -> dict[str, np.ndarray]:
    """What stands in the store for each axis: its values, where these are numbers, else how many there are."""
    found = {
        name: np.asarray(values) if {*map(type, values)} <= {int, float} else np.arange(len(values))
        for name, (values, _, _) in coordinates.items()
    }
    return found | {"seed": np.arange(layout.seeds)}


def _fill(
    group: "zarr.Group",
    identity: Mapping[str, object],
    layout: Layout,
    variables: Mapping[str, Variable],
    coordinates: Mapping[str, Coordinate],
) -> None:
    """Put all arrays into a group: coordinates written, results empty."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    packing: Any = {"compressors": [ZstdCodec(), Crc32cCodec()], "config": {"write_empty_chunks": True}}
    for name, data in _axes(coordinates, layout).items():
        array = group.create_array(name, data=data, chunks=data.shape, dimension_names=(name,), **packing)
        if name in coordinates:
            values, label, unit = coordinates[name]
            array.attrs.update({"long_name": label, "units": unit or "1"})
            if not {*map(type, values)} <= {int, float}:
                array.attrs["labels"] = [v if type(v) is str else describe(v) for v in values]
    for v in variables.values():
        seeds = (layout.seeds,) if v.seeded else ()
        array = group.create_array(
            v.name,
            shape=(*layout.shape, *seeds, *v.shape),
            chunks=(*layout.block, *seeds, *v.shape),
            dtype=v.dtype,
            fill_value=_nothing(v.dtype),
            dimension_names=(*layout.names, *(("seed",) if v.seeded else ()), *v.dims),
            **packing,
        )
        array.attrs.update({"long_name": v.label, "units": v.unit or "1"})
    group.create_array(
        DONE,
        shape=layout.blocks,
        chunks=(1,) * len(layout.blocks),
        dtype=bool,
        fill_value=False,
        dimension_names=tuple(f"block_{name}" for name in layout.names),
        **packing,
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
    what = f"{math.prod(layout.shape):,} points with seeds={layout.seeds}: what they give"
    if path is None:
        return require_memory(what, needed, "give a store, or fewer points or seeds")
    require_disk(what, needed, as_path("store", path), "use another, or fewer points or seeds")


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
