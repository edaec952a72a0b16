"""`oscsim sweep`."""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import diffrax
import jax
import numpy as np
import optax
import typeguard
import tyro

import oscsim as osc
from oscsim.cli.reports import print_table, require_writable, require_writable_file, save_figure
from oscsim.cli.settings import Network, classes_of, flat, load_toml
from oscsim.core import BadValue, as_count, ending
from oscsim.datasets import Samples

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

ROWS = 40
"""Of the table of results, at most."""

EVERY_ITEM = typeguard.CollectionCheckStrategy.ALL_ITEMS


@dataclass(frozen=True)
class Sweep:
    """Run a study on a grid of settings, under many seeds, into a Zarr store; the same command again goes on with it.

    The study is a TOML file, see docs/sweeps.md. oscsim.load_sweep(DIR) gives the results as an xarray.Dataset.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """TOML file with the study, its data and its axes."""

    store: Path
    """Folder of the results; made if it does not exist."""

    scheduler: str | None = None
    """Address of a dask scheduler to run on; all its workers must reach the store."""

    workers: int | None = None
    """Start so many worker processes here instead, of one thread each."""

    block: int | None = None
    """Points per task; chosen if not given."""

    accept_changes: bool = False
    """Go on in a store that another study or other versions of the libraries made; what it holds is kept."""

    figure: Path | None = None
    """Draw a result over the axes (one or two of them) into this PNG, PDF or SVG file."""

    result: str | None = None
    """Which result to draw; relative_error or final_error if not given."""

    def run(self) -> None:
        """Run it."""
        file = _File.read(self.study)
        require_writable(self.store)
        require_writable_file("figure", self.figure)
        if self.result is not None and self.figure is None:
            raise BadValue(f"result={self.result} without figure: give --figure FILE.png, or leave it out")
        if self.accept_changes:
            osc.accept_changes(self.store)
        ending.go_on_by("the same command goes on, from the blocks that are finished")
        with jax.enable_x64(file.precision == "float64"):
            data = osc.sweep(
                file.build(),
                file.grid(),
                seeds=file.seeds,
                key=jax.random.key(file.seed),
                store=self.store,
                client=self.scheduler,
                workers=self.workers,
                block=self.block,
                progress=True,
            )
        result = result_of(data, self.result)
        _print_results(data, result)
        print(f"\nStore:  {self.store}  (oscsim.load_sweep reads it, oscsim plot draws it)")
        if self.figure is not None:
            save_figure(draw_sweep(data, result), self.figure)
            print(f"Figure: {self.figure}")


def result_of(data: "xarray.Dataset", name: str | None) -> str:
    """The result to look at: the one named, or that which answers the question of the study, or the first."""
    measured = [str(n) for n, a in data.data_vars.items() if set(a.dims) - {"seed"} <= set(data.coords)]
    measured = [n for n in measured if "seed" in data[n].dims]
    for found in (name,) if name is not None else ("relative_error", "final_error", *measured):
        if found in measured:
            return found
    raise BadValue(f"result={name}: the sweep measured {', '.join(measured)}; choose among these")


def draw_sweep(data: "xarray.Dataset", result: str) -> "Axes":
    """A map over two axes of numbers, else curves."""
    varied = [str(name) for name in data[result].dims if name != "seed"]
    flat = len(varied) == 2 and all(data[n].dtype.kind in "if" and data.sizes[n] > 1 for n in varied)
    return (osc.plot.sweep_map if flat else osc.plot.sweep_curves)(data, result)


def _print_results(data: "xarray.Dataset", result: str) -> None:
    """A table: at each point the average of a result over the seeds, its band, its prediction; other results."""
    names = [str(name) for name in data[result].dims if name != "seed"]
    theory = f"predicted_{result}"
    summary = osc.summarise(data[[result]], average="rms" if theory in data else "mean")[result]
    shown = {part: summary.sel(statistic=part) for part in ("average", "low", "high")}
    shown |= {"predicted": data[theory]} if theory in data else {}
    others = [str(n) for n, a in data.data_vars.items() if n != result and {*a.dims} == {*names, "seed"}]
    shown |= {n: data[n].mean("seed") for n in others if data[n].dtype != bool or data[n].any()}
    grid = [np.ravel(a) for a in np.meshgrid(*(data[n].values for n in names), indexing="ij")]
    columns = [*grid, *(np.ravel(a.transpose(*names).values) for a in shown.values())]
    rows = [[*map(_text, row)] for row in zip(*columns, strict=True)]
    kind = "root mean square" if theory in data else "average"
    print(f"{result.replace('_', ' ')}: {kind} over {data.sizes['seed']} seeds, from low to high with 95 % confidence")
    if len(rows) > ROWS:
        print(f"{len(rows)} points, of which the first {ROWS} are shown")
    heads = [_head(n, data[n].attrs.get("units", "1")) for n in names]
    print()
    print_table([*heads, *(n.replace("_", "\n") for n in shown)], rows[:ROWS], max(1, len(names)))


def _head(name: str, unit: str) -> str:
    lines = name.split("_") + ([] if unit == "1" else [f"({unit.replace('tau', 'τ')})"])
    return "\n".join(lines)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.number)) else str(value)


def _only(default: Any, matters: "Callable[[_File], bool]") -> Any:
    """A key that matters to some studies only: where it would do nothing, it is refused."""
    return field(default=default, metadata={"matters": matters})


@dataclass(frozen=True)
class _File:
    """A study as a file describes it: the fields are its keys."""

    axes: dict[str, Any]
    study: Literal["gradient_quality", "training"] = "gradient_quality"
    estimator: Literal["lock-in", "phases", "classic"] = "lock-in"
    data: str = "digits"
    data_dir: str | None = _only(None, lambda file: file.data in osc.datasets.NAMES)
    target: str | None = None
    validation: float | None = _only(None, lambda file: file.study == "training")
    standardise: bool = False
    batch: int = 20
    samples: int | None = _only(None, lambda file: file.study == "training")
    hidden: tuple[int, ...] = (32,)
    epochs: int = _only(10, lambda file: file.study == "training")
    points: int = _only(10, lambda file: file.estimator == "phases")
    steps: tuple[int, int] | None = _only(None, lambda file: file.estimator in ("phases", "classic"))
    readings: int = _only(1, lambda file: file.estimator == "classic" and "standard_deviation" in file.axes)
    steps_per_cycle: int | None = _only(None, lambda file: file.estimator == "lock-in")
    shared_over_batch: bool = _only(False, lambda file: file.noisy)
    predict: bool = _only(True, lambda file: file.study == "gradient_quality" and file.estimator == "lock-in")
    seeds: int = 16
    seed: int = 0
    precision: Literal["float32", "float64"] = "float32"
    network: Network = field(default_factory=Network)

    @staticmethod
    def read(path: Path) -> "_File":
        """The study in this file.

        Raises:
            ValueError: no such file, no TOML, unknown keys, or values of another kind.
        """
        content = load_toml("study", path)
        if type(content.get("axes")) is not dict:
            raise BadValue(f"study={path} has no table [axes]: name the settings to vary, such as amplitude = [0.1]")
        network = _checked(path, Network, content.pop("network", {}), "network.")
        file = _File(**_checked(path, _File, content), network=Network(**network))
        for key in dataclasses.fields(_File):
            if key.name in content and "matters" in key.metadata and not key.metadata["matters"](file):
                raise BadValue(
                    f"study={path}: {key.name} does nothing in a {file.study} study of {file.estimator} over "
                    f"{', '.join(file.axes)}: leave it out"
                )
        return file

    @property
    def noisy(self) -> bool:
        """Whether the estimator has a noise of its own that is varied."""
        built = self.study == "training" or self.estimator != "lock-in"
        return built and not self.axes.keys().isdisjoint(("standard_deviation", "intensity"))

    def grid(self) -> dict[str, Any]:
        """The axes: lists as they are, ranges written out."""
        return {name: _values(name, value) for name, value in self.axes.items()}

    def build(self) -> "osc.studies.AbstractStudy":
        """The study."""
        x, y = self._samples("train")
        held_out = self._samples("test") if self.study == "training" else (x, y)
        sizes = (x.shape[1], *self.hidden, classes_of(y, held_out[1]))

        def network(key):
            return self.network.build(sizes, key)

        if self.study == "gradient_quality":
            if self.batch > len(x):
                raise BadValue(f"batch={self.batch}: {self.data} holds {len(x)} samples, use fewer")
            x, y = x[: self.batch], y[: self.batch]
            net = network(jax.random.key(self.seed))
            estimator = None if self.estimator == "lock-in" else self._estimator()
            return osc.studies.gradient_quality(
                net, x, y, estimator, steps_per_cycle=self.steps_per_cycle, predict=self.predict
            )
        return osc.studies.training(
            network,
            (x[: self.samples], y[: self.samples]),
            self._estimator(),
            optax.sgd,
            epochs=self.epochs,
            validation=held_out,
            batch_size=self.batch,
        )

    def _samples(self, split: Literal["train", "test"]) -> Samples:
        x, y = osc.datasets.load(
            self.data,
            split,
            self.data_dir,
            standardise=self.standardise,
            target=self.target,
            validation=self.validation,
        )
        return flat(x), y

    def _estimator(self) -> Callable[..., osc.AbstractEstimator]:
        """From settings to an estimator; its parameters are the settings that can be varied."""

        def noise(kind, strength):  # one that is traced may be anything
            return (
                None
                if type(strength) is float and strength == 0
                else kind(strength, shared_over_batch=self.shared_over_batch)
            )

        def phases(amplitude, points=self.points, standard_deviation=0.0):
            return osc.Phases(amplitude, points, steps=self.steps, noise=noise(osc.StepNoise, standard_deviation))

        def classic(amplitude, standard_deviation=0.0):
            forcing = noise(osc.StepNoise, standard_deviation)
            readings = 1 if forcing is None else self.readings
            return osc.Classic(amplitude, steps=self.steps, noise=forcing, readings=readings)

        def lock_in(amplitude, period, intensity=0.0, cycles=2, discard=1):
            return osc.LockIn(
                osc.Rotating(amplitude, period),
                cycles=cycles,
                discard=discard,
                integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=self.steps_per_cycle or 128),
                noise=noise(osc.WhiteNoise, intensity),
            )

        return {"phases": phases, "classic": classic, "lock-in": lock_in}[self.estimator]


def _checked(path: Path, cls: type, content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The content of a table, of the kinds that the fields of a dataclass have."""
    known = {field.name: field.type for field in dataclasses.fields(cls) if field.name != "network"}
    found = {name: tuple(value) if type(value) is list else value for name, value in content.items()}
    for name, value in found.items():
        if name not in known:
            raise BadValue(f"study={path}: unknown key {prefix}{name}; it takes {', '.join(sorted(known))}")
        kind = known[name]
        said = inspect.formatannotation(kind)
        if typing.get_origin(kind) is Literal:
            said = f"one of {', '.join(typing.get_args(kind))}"
        try:
            typeguard.check_type(value, kind, collection_check_strategy=EVERY_ITEM)
        except typeguard.TypeCheckError as error:
            raise BadValue(f"study={path}: {prefix}{name}={value!r} is not {said}") from error
        if type(value) is bool and kind is not bool:  # to Python, an integer
            raise BadValue(f"study={path}: {prefix}{name}={value!r} is not {said}")
    return found


def _values(name: str, value: Any) -> Any:
    """The values of an axis: a list, one value, or `{from, to, count, scale}`."""
    if type(value) is not dict:
        return value
    if set(value) - {"scale"} != {"from", "to", "count"}:
        raise BadValue(f"axes.{name}={value}: a range has from, to, count, and scale if it is log")
    scale = value.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise BadValue(f"axes.{name}.scale={scale!r}: use linear or log")
    if scale == "log" and not (value["from"] > 0 and value["to"] > 0):
        raise BadValue(f"axes.{name} from {value['from']} to {value['to']} on a log scale: use positive numbers")
    spaced = np.geomspace if scale == "log" else np.linspace
    count = as_count(f"axes.{name}.count", value["count"])
    return [float(f"{v:.12g}") for v in spaced(value["from"], value["to"], count)]
