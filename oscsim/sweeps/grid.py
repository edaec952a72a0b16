"""Sweeps: a study at every point of a grid of settings, under many seeds, on one core or on a cluster.

The grid is cut into blocks. One task computes a block as one compiled batch of points and seeds, and writes it at once.
A finished block is never computed again, and nothing is lost when a process is killed. The store keeps the layout, so a
sweep that was stopped and resumed ends bit for bit as one that was not.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jax import lax
from jaxtyping import Array, ArrayLike, Key

from oscsim.core.arrays import is_key
from oscsim.core.checks import as_count, as_flag, as_key, as_place, checked, shown, untraced
from oscsim.core.errors import BadType, BadValue
from oscsim.core.progress import Progress
from oscsim.sweeps.cluster import connected, run_on
from oscsim.sweeps.store import OWN, Coordinate, Layout, Store, Variable, fingerprint
from oscsim.sweeps.studies import AbstractStudy, FunctionStudy, Quantity, Results, Setting, Settings

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

BLOCKS = 64
"""Tasks of a sweep by default, at least, where there are as many points."""

NAME = re.compile(r"[^\W_][\w .%+-]*")
"""Of settings and results, which are folders in the store; also with blanks and the like."""

MEMORY = 2**28
"""Bytes that the arrays of one compiled batch may take, roughly."""


@checked(store=as_place, block=as_count, progress=as_flag)
def sweep(
    study: AbstractStudy | Callable[..., Results],
    axes: Mapping[str, Setting],
    *,
    seeds: int,
    key: Key[Array, ""],
    store: str | Path | None = None,
    client: "Client | str | None" = None,
    workers: int | None = None,
    block: int | None = None,
    progress: bool | None = None,
) -> xarray.Dataset:
    """Run a study at every point of a grid of settings, under many seeds.

    The realisation of seed $s$ at the point of number $p$ (counted with the last axis fastest) gets the key
    `fold_in(fold_in(key, p), s)`. Divergence is no error here: what it left is nan.

    Args:
        study: `oscsim.sweeps.studies.gradient_quality(...)`, `oscsim.sweeps.studies.training(...)`, or a function
            `study(key, **settings)` of your own that jax can trace and that returns a dict of arrays. Settings that are
            floats are traced, so that a changed value does not recompile; all others come as they are.
        axes: values of each setting, by name; a single value is a setting that does not vary.
        seeds: realisations at each point.
        key: for all of them.
        store: folder of the results, a Zarr group; made if it does not exist. A sweep that was stopped goes on there.
            None keeps the results in memory.
        client: a `dask.distributed.Client`, or the address of a scheduler, to run there, one task per block; needs a
            store that all workers can write to. By default everything runs in this process.
        workers: start so many processes on this machine instead, of one thread each. (In a script, call `sweep` under
            `if __name__ == "__main__":`, since they import it.)
        block: points per task; by default such that there are `BLOCKS` tasks or more. A store keeps its own.
        progress: show a progress bar with the time left; by default at a terminal and in notebooks.

    Returns:
        Results with the dimensions of the axes, then `seed`, then their own; coordinates and results have attributes
        `long_name` and `units`; the dataset's attributes are the settings that made it.

    Raises:
        ChangedStudyError: the store was made by another study, or by other versions of the libraries.
        ValueError: settings that the study does not take or refuses, an empty axis, more results than there is memory
            or space on the disk for, a store that holds another sweep or something else, a scheduler that cannot be
            reached. All of these but a refused setting are raised before anything is computed.
            Also results whose names, shapes or types change from point to point, once they do.
        TypeError: a study that returns no dict of arrays, or cannot be traced.
        FileNotFoundError: the store was moved or removed while the sweep ran.
        ImportError: no dask, where it is asked for.
        RuntimeError: a task whose workers died again and again; the other tasks are finished.

    Example:
        >>> def study(key, mean):
        ...     return {"drawn": mean + jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=3, key=jax.random.key(0))
        >>> data.drawn.dims, data.drawn.shape
        (('mean', 'seed'), (2, 3))
    """
    as_key("key", key)
    seeds = as_count("seeds", seeds)
    study = study if isinstance(study, AbstractStudy) else _as_study(study)
    grid = Grid(axes)
    if (client is not None or workers is not None) and store is None:
        raise BadValue("store is None: workers write their results into a store, give a folder that all can reach")
    with connected(client, workers) as connection:  # before anything is made
        task = Task(study, grid, seeds, key)
        opened = _opened(task, store, block)
        todo = opened.unfinished()
        total = opened.layout.count
        with Progress(total, "block", total - len(todo), progress) as bar:
            if connection is None:
                for i, number in enumerate(todo):
                    with bar.compiling("a block"):
                        task.run(opened, number)
                        bar.update(total - len(todo) + i + 1)
            else:
                run_on(connection, task, opened.path, todo, bar)
    return opened.dataset()


class Grid:
    """The points of a sweep: all combinations of the values in `axes`, with the settings in `fixed`."""

    def __init__(self, axes: Mapping[str, Setting]):
        if not isinstance(axes, Mapping) or not axes:
            raise BadValue(f"axes={shown(axes)}: give a dict from names of settings to their values")
        self.axes: dict[str, list[Setting]] = {}
        self.fixed: Settings = {}
        for name, values in axes.items():
            if type(name) is not str or not NAME.fullmatch(name) or name in OWN:
                raise BadValue(f"axes[{name!r}]: name a setting in letters, digits and _, and not {' or '.join(OWN)}")
            if isinstance(values, (list, tuple, range)) or _ndim(name, values) == 1:
                values = [_value(v) for v in values]
                if not values:
                    raise BadValue(f"axes[{name!r}] is empty: give one value or more")
                if len({repr(value) for value in values}) < len(values):
                    raise BadValue(f"axes[{name!r}]={shown(values)}: a value stands there twice")
                self.axes[name] = values
            elif _ndim(name, values) == 0:
                self.fixed[name] = _value(values)
            else:
                raise BadValue(f"axes[{name!r}] has shape {np.shape(values)}: give a list of values, or one value")
        if "seed" in axes or "key" in axes:
            raise BadValue("axes names 'seed' or 'key': these are given by seeds=... and key=...")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.axes.values()))

    def settings(self, index: tuple[int, ...]) -> Settings:
        """The settings of the point at this index."""
        varied = {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}
        return self.fixed | varied

    def traced(self, study: AbstractStudy) -> set[str]:
        """The names of the settings that are traced: all values are floats, and the study does not call it static."""
        everything = self.axes | {name: [value] for name, value in self.fixed.items()}
        return {name for name, values in everything.items() if {*map(type, values)} == {float}} - set(study.static())


def _ndim(name: str, values: Setting) -> int:
    """How many axes the values of a setting have; 0 of what is no array."""
    try:
        return np.ndim(untraced(f"axes[{name!r}]", values))
    except (ValueError, RecursionError, AttributeError) as error:
        raise BadValue(f"axes[{name!r}]={shown(values)}: give a list of values, or one value") from error


UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What jax raises where a program looks at the value of a traced number, or hands it to NumPy."""


class Task:
    """What all blocks share; each worker is sent it once."""

    def __init__(self, study: AbstractStudy, grid: Grid, seeds: int, key: Key[Array, ""]):
        self.study, self.grid, self.seeds = study, grid, seeds
        self.key_data, self.key_impl = np.asarray(jax.random.key_data(key)), str(jax.random.key_impl(key))
        self.traced = sorted(grid.traced(study))

    @property
    def key(self) -> Key[Array, ""]:
        """The key for all realisations; kept as numbers, which can be sent."""
        return jax.random.wrap_key_data(jnp.asarray(self.key_data), impl=self.key_impl)

    def run(self, store: Store, number: int) -> None:
        """Compute the block of this number, and write it."""
        indices = store.layout.points(number)
        found = self.results(indices, store.layout.points_per_block) | self.predictions(indices)
        self._explained(store.write, number, found, at=[self.grid.settings(index) for index in indices])

    def results(self, indices: list[tuple[int, ...]], size: int) -> dict[str, np.ndarray]:
        """The study's results at these points, (points, seeds, ...), from one compiled batch of `size` points."""
        filled = [indices[min(i, len(indices) - 1)] for i in range(size)]  # a smaller block runs the same program
        points = np.repeat([_flat(index, self.grid.shape) for index in filled], self.seeds)
        settings = [self.grid.settings(index) for index in filled]
        lanes = {n: np.repeat(np.asarray([s[n] for s in settings], float), self.seeds) for n in self.traced}
        plain = {name: value for name, value in settings[0].items() if name not in self.traced}
        numbers = points.astype(np.uint32), np.tile(np.arange(self.seeds, dtype=np.uint32), size)
        lanes = jax.tree.map(jnp.asarray, lanes)
        found = self._explained(_batch, self.study, plain, lanes, self.key, numbers, self._width(size), at=settings)
        return {n: np.asarray(a).reshape(size, self.seeds, *a.shape[1:])[: len(indices)] for n, a in found.items()}

    def predictions(self, indices: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
        """What theory says of these points, (points, ...)."""
        settings = [self.grid.settings(index) for index in indices]
        rows = [self._explained(self._predicted, one, at=[one]) for one in settings]
        if len({(name, a.shape) for row in rows for name, a in row.items()}) > len(rows[0]):
            raise BadValue(
                f"what the study predicts {_place(settings)} changes its names or shapes: keep them the same"
            )
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _predicted(self, settings: Settings) -> dict[str, np.ndarray]:
        """What theory says of a point."""
        found = {name: np.asarray(value) for name, value in self.study.prediction(settings).items()}
        for name, value in found.items():
            if value.dtype.kind not in "biufc":
                raise BadType(f"the study predicts {name} as {value.dtype}: return numbers")
        return found

    def first(self) -> jax.stages.Traced:
        """The program of the first realisation, traced and not computed."""
        settings = self.grid.settings((0,) * len(self.grid.axes))
        plain = {name: value for name, value in settings.items() if name not in self.traced}
        lane = {name: jnp.asarray(settings[name], float) for name in self.traced}
        arrays, rest = eqx.partition(self.study, eqx.is_array)
        program = jax.jit(lambda arrays, lane, key: _lane(eqx.combine(arrays, rest), plain, lane, key))
        return self._explained(program.trace, arrays, lane, self.key, at=[settings])

    def identity(self, first: jax.stages.Traced) -> dict[str, object]:
        """What tells this sweep from others; the study by its fields and by what it computes at the first point.

        The program is written for CPUs, whatever it runs on, so that the machine makes no difference.
        """
        return {
            "axes": {name: [_plain(v) for v in values] for name, values in self.grid.axes.items()},
            "settings": {name: _plain(value) for name, value in self.grid.fixed.items()},
            "seeds": self.seeds,
            "key": [self.key_impl, *map(int, np.ravel(self.key_data))],
            "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
            "study": fingerprint(self.study, first.lower(lowering_platforms=("cpu",)).as_text()),
        }

    def variables(self, first: jax.stages.Traced) -> dict[str, Variable]:
        """What the study returns: found without computing it."""
        found = {name: (True, a.shape, a.dtype) for name, a in first.out_info.items()}
        for name, value in self.predictions([(0,) * len(self.grid.axes)]).items():
            if name in found:
                raise BadValue(f"{name} is both a result and a prediction of the study: rename one of them")
            found[name] = False, value.shape[1:], value.dtype
        return {name: self._variable(name, *what) for name, what in found.items()}

    def _variable(self, name: str, seeded: bool, shape: tuple[int, ...], dtype: np.dtype) -> Variable:
        if not NAME.fullmatch(name) or name in OWN:
            raise BadValue(f"the study returns {name!r}: name it in letters, digits and _, and not {' or '.join(OWN)}")
        if name in {*self.grid.axes, *self.grid.fixed, "seed"}:
            raise BadValue(f"{name} is both a setting and a result of the study: rename one of them")
        if 0 in shape:
            raise BadValue(f"{name} has shape {shape}: return one number or more")
        quantity = self.study.quantities().get(name, Quantity(name))
        own = quantity.dims or tuple(f"{name}_{i}" for i in range(len(shape)))
        if len(own) != len(shape):
            raise BadValue(f"{name} has shape {shape}, and its dimensions are named {own}: name each of them")
        if {*own} & {*self.grid.axes, "seed"} or len({*own}) < len(own):
            raise BadValue(
                f"{name} has dimensions {own}, and one is there twice, or an axis of the sweep too: rename it"
            )
        return Variable(name, np.dtype(dtype), seeded, own, shape, quantity.label, quantity.unit)

    def _width(self, size: int) -> int:
        """How many lanes are computed at a time: all, if they fit; else a part that divides them evenly."""
        lanes = size * self.seeds
        content = sum(a.nbytes for a in jax.tree.leaves(self.study) if eqx.is_array(a))
        most = max(1, MEMORY // max(3 * content, 2**16))
        return max(d for d in range(1, min(lanes, most) + 1) if lanes % d == 0)

    def _explained(self, function: Callable[..., T], *args: object, at: list[Settings]) -> T:
        """The function's value; where it fails, with the settings at which it did."""
        try:
            return function(*args)
        except UNTRACEABLE as error:
            raise BadType(
                f"the study cannot be traced in {' and '.join(self.traced)}: {str(error).splitlines()[0]} Name what "
                "shapes the program in its static()"
            ) from error
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            place = _place(at)
            users = type(self.study) is FunctionStudy  # whatever it raises is the user's to mend
            if not users and not isinstance(error, (BadValue, BadType)):
                error.add_note(place)
                raise
            kind = BadType if isinstance(error, TypeError) else BadValue
            name = "" if type(error) in (TypeError, ValueError, BadType, BadValue) else f"{type(error).__name__} "
            raise kind(f"{name}{place}: {error}") from error


@eqx.filter_jit
def _batch(
    study: AbstractStudy,
    plain: Settings,
    lanes: dict[str, Array],
    key: Key[Array, ""],
    numbers: tuple[ArrayLike, ArrayLike],
    width: int,
) -> dict[str, Array]:
    """The study in every lane, each with its own floats and key."""

    def one(lane):
        floats, (point, seed) = lane
        return _lane(study, plain, floats, jax.random.fold_in(jax.random.fold_in(key, point), seed))

    return lax.map(one, (lanes, numbers), batch_size=width)


def _lane(study: AbstractStudy, plain: Settings, floats: dict[str, Array], key: Key[Array, ""]) -> dict[str, Array]:
    found = study(key, **plain, **floats)
    if not isinstance(found, dict) or {*map(type, found)} != {str}:
        raise BadType(f"the study returns {type(found).__name__}: return a dict from names to arrays")
    for name, value in found.items():
        if not eqx.is_array_like(value) or is_key(value) or jnp.asarray(value).dtype.kind not in "biufc":
            raise BadType(f"the study returns {name}={value!r}: return arrays of numbers")
    return {name: jnp.asarray(value) for name, value in found.items()}


def _as_study(function: Callable[..., Results]) -> AbstractStudy:
    if not callable(function) or isinstance(function, type):
        raise BadType(f"study={shown(function)}: use a function study(key, **settings), or one of oscsim.studies")
    return FunctionStudy(function)


def _opened(task: Task, path: str | Path | None, block: int | None) -> Store:
    """The store of this sweep: the one at the path, or a new one."""
    first = task.first()
    identity = task.identity(first)
    quantities = task.study.quantities()
    coordinates = {
        name: Coordinate(values, *quantities.get(name, Quantity(name))[:2]) for name, values in task.grid.axes.items()
    }
    if path is not None and (found := Store.existing(path, identity, coordinates)) is not None:
        return found
    shape = _block_shape(task, block)
    layout = Layout(task.grid.shape, shape, task.seeds, tuple(task.grid.axes))
    return Store.create(path, identity, layout, task.variables(first), coordinates)


def _block_shape(task: Task, points: int | None) -> tuple[int, ...]:
    """So many values of each axis to a block: whole ones at the end, and one of every axis that shapes the program."""
    left = max(1, math.prod(task.grid.shape) // BLOCKS) if points is None else as_count("block", points)
    sizes: list[int] = []
    for name, values in reversed(task.grid.axes.items()):
        size = min(len(values), left) if name in task.traced else 1
        left = left // size if size == len(values) else 1  # a block is a box: once an axis is cut, the next stand still
        sizes.append(size)
    return tuple(reversed(sizes))


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The number of the point at this index."""
    return int(np.ravel_multi_index(index, shape)) if shape else 0


def _value(value: Setting) -> Setting:
    """A number of NumPy or jax as one of Python."""
    return value.item() if isinstance(value, (np.generic, jax.Array)) else value


def _plain(value: Setting) -> Setting:
    """A setting as JSON holds it."""
    return value if type(value) in (bool, int, float, str, type(None)) else fingerprint(value)


def _place(at: list[Settings]) -> str:
    return f"at {_listed(at[0])}{' and after' if len(at) > 1 else ''}"


def _listed(settings: Settings) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
