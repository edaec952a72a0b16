"""Options that several commands share: the network, the teaching signal, the integration, the data."""

import dataclasses
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import diffrax
import jax
import numpy as np

import oscsim as osc
from oscsim.core import BadValue, as_count, as_path, reading
from oscsim.dynamics import usual_tolerance

T = TypeVar("T")
AnyNetwork = osc.AbstractNetwork | osc.AbstractFeedForwardNetwork

HOLOMORPHIC = (osc.Logistic, osc.HoloTanh, osc.SiLU, osc.Tanh, osc.RaisedCosine, osc.Identity)
ACTIVATIONS = {cls.__name__.lower(): cls for cls in (*HOLOMORPHIC, osc.HardTanh, osc.ReLU)}
COSTS = {cls.__name__.lower(): cls for cls in (osc.CrossEntropy, osc.SquaredError)}
SOLVERS = {
    cls.__name__.lower(): cls
    for cls in (diffrax.Euler, diffrax.Heun, diffrax.Midpoint, diffrax.Bosh3, diffrax.Tsit5, diffrax.Dopri5)
}


MODELS = {
    ("vgg4", False): osc.models.vgg4,
    ("vgg4", True): osc.models.vgg4_feedforward,
    ("vgg6", False): osc.models.vgg6,
}
"""The networks for images, by name and by whether they are feed-forward."""


class Of:
    """Marks an option with the estimators that it belongs to: with others it would do nothing, and is refused."""

    def __init__(self, *owners: str):
        self.owners = owners


def given(**options: T | None) -> dict[str, T]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Network:
    """The neurons."""

    activation: Literal[tuple(ACTIVATIONS)] | None = None  # pyright: ignore[reportInvalidTypeForm]
    """How a potential becomes an activity; logistic if not given (relu in a feed-forward network)."""

    slope: float | None = None
    """Steepness of the logistic activation; 4 if not given."""

    centre: float | None = None
    """Potential of half activity of the logistic activation; 0.5 if not given."""

    cost: Literal[tuple(COSTS)] = "crossentropy"  # pyright: ignore[reportInvalidTypeForm]
    """Cross-entropy of a linear readout, or squared error of the last layer of neurons."""

    scale: float | None = None
    """Standard deviation of the initial weights; 1/sqrt(fan in) if not given."""

    def build(self, sizes: tuple[int, ...], key: jax.Array) -> osc.LayeredNetwork:
        """The network of these sizes, with its initial weights."""
        activation, cost = self._parts("logistic")
        return osc.LayeredNetwork(sizes, activation=activation, cost=cost, scale=self.scale, key=key)

    def build_feedforward(self, sizes: tuple[int, ...], key: jax.Array) -> osc.FeedForwardNetwork:
        """The feed-forward network of these sizes, with the same initial weights."""
        activation, cost = self._parts("relu")
        return osc.FeedForwardNetwork(sizes, activation=activation, cost=cost, scale=self.scale, key=key)

    def _parts(self, default: str) -> tuple[osc.AbstractActivation, osc.AbstractCost]:
        name = self.activation or default
        shape = given(slope=self.slope, centre=self.centre)
        if shape and name != "logistic":
            raise BadValue(f"{next(iter(shape))} belongs to the logistic activation, not to {name}")
        return ACTIVATIONS[name](**shape), COSTS[self.cost]()


@dataclass(frozen=True)
class Images:
    """Networks for images of 32 by 32 pixels."""

    model: Literal["layered", "vgg4", "vgg6"] = "layered"
    """Layers of neurons of the sizes in --hidden, or one of the paper's convolutional networks."""

    width: float | None = None
    """Of a convolutional network: what its channels are multiplied by; 1 if not given."""

    temperature: float | None = None
    """Of a convolutional network: that of its softmax pooling; 1 if not given."""

    augment: bool = False
    """Crop and flip the images at random."""

    def build(self, classes: int, key: jax.Array, feedforward: bool) -> AnyNetwork:
        """The convolutional network, with its initial weights, or its feed-forward twin."""
        if (self.model, feedforward) not in MODELS:
            raise BadValue(f"model={self.model} has no feed-forward twin: use vgg4 with backpropagation")
        shape = given(width=self.width, temperature=self.temperature)
        return MODELS[self.model, feedforward](classes, **shape, key=key)


@dataclass(frozen=True)
class Processes:
    """Several processes, on one machine or many, that train one network: each takes its share of every batch.

    All run the same command, but for the number of the process, and share the folder of the run.
    """

    coordinator: str | None = None
    """Address and port on the machine of process 0, the same for all, such as 10.0.0.1:4321; or auto, under SLURM, Open
    MPI and others that jax knows. Only one process if not given."""

    processes: int | None = None
    """How many there are."""

    process_id: int | None = None
    """Which of them this is, from 0."""

    lost_after: int = 100
    """Seconds without a sign of life after which a process counts as lost, and the others end."""

    def join(self) -> bool:
        """Find the others; returns whether there are any."""
        count, number, address = self.processes, self.process_id, self.coordinator
        if address in (None, "auto"):
            if (count, number) != (None, None):
                raise BadValue("processes and process_id need a coordinator: give --coordinator HOST:PORT")
            if address is None:
                if self.lost_after != Processes.lost_after:
                    raise BadValue(f"lost_after={self.lost_after} needs a coordinator: give --coordinator HOST:PORT")
                return False
            address = None  # jax finds it
        else:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal():
                raise BadValue(f"coordinator={address}: use HOST:PORT, or auto")
            if count is None or number is None:
                raise BadValue("a coordinator needs both --processes N and --process-id K")
            if not 0 <= number < as_count("processes", count):
                raise BadValue(f"process_id={number}: use 0 to {count - 1}")
        as_count("lost_after", self.lost_after)
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which ends the process
        try:
            jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=self.lost_after)
        except (RuntimeError, ValueError) as error:
            raise BadValue(f"coordinator={self.coordinator}: {error}") from error
        return True


@dataclass(frozen=True)
class Signal:
    """The teaching signal."""

    teaching: Annotated[Literal["rotating", "adaptive", "staircase", "cosine"], Of("lock-in")] = "rotating"
    """The form of the teaching signal; adaptive: rotating, with an amplitude for each sample that tunes itself."""

    amplitude: Annotated[float | None, Of("lock-in", "phases", "classic")] = None
    """Amplitude of the teaching signal, 0.4 if not given; of the adaptive one what it starts with, 0.05."""

    period: Annotated[float, Of("lock-in", "orbit")] = 200.0
    """Period of the teaching signal, in units of the neurons' time constant."""

    points: Annotated[int | None, Of("lock-in", "phases")] = None
    """Plateaus of the staircase, or points of the teaching circle; 10 if not given."""

    def build(self) -> osc.AbstractTeaching:
        """The signal."""
        if self.teaching == "staircase":
            return osc.Staircase(self.fixed_amplitude, self.period, 10 if self.points is None else self.points)
        if self.points is not None:
            raise BadValue(f"points={self.points} belongs to the staircase, not to the {self.teaching} signal")
        if self.teaching == "adaptive":
            return osc.Adaptive(self.period, **given(amplitude=self.amplitude))
        return {"rotating": osc.Rotating, "cosine": osc.Cosine}[self.teaching](self.fixed_amplitude, self.period)

    @property
    def fixed_amplitude(self) -> float:
        """The amplitude of a signal that keeps it."""
        return 0.4 if self.amplitude is None else self.amplitude


NOISES: dict[str, type[osc.AbstractNoise]] = {
    "white": osc.WhiteNoise,
    "ornsteinuhlenbeck": osc.OrnsteinUhlenbeck,
    "step": osc.StepNoise,
    "readout": osc.ReadoutNoise,
}
"""The noises; the options of each are its fields."""


@dataclass(frozen=True)
class Noise:
    """What disturbs the neurons, or their reading."""

    noise: Annotated[Literal[tuple(NOISES)] | None, Of("lock-in", "phases", "classic")] = None  # pyright: ignore
    """White or coloured noise on the potentials, the paper's noise at every step of one time constant, or noise on the
    reading alone; none if not given."""

    intensity: float | None = None
    """Of white and Ornstein-Uhlenbeck noise, in units of the potentials times the square root of time."""

    correlation_time: float | None = None
    """Of Ornstein-Uhlenbeck noise, in units of the neurons' time constant."""

    standard_deviation: float | None = None
    """Of step noise, in units of the potentials; of readout noise, in units of the activities."""

    shared_over_batch: bool = False
    """One noise for all samples of a batch, as in the paper; else independent ones."""

    def build(self) -> osc.AbstractNoise | None:
        """The noise, or None."""
        options = {name: value for name, value in vars(self).items() if name != "noise"}
        chosen = {name: value for name, value in options.items() if value is not None and value is not False}
        takes = {name: options.keys() & {f.name for f in dataclasses.fields(kind)} for name, kind in NOISES.items()}
        for name, value in chosen.items():
            if self.noise is None or name not in takes[self.noise]:
                owners = " and ".join(f"--noise {kind}" for kind in NOISES if name in takes[kind])
                raise BadValue(f"{name}={value} belongs to {owners}, not to {self.noise or 'a run without noise'}")
        if self.noise is None:
            return None
        missing = sorted(takes[self.noise] - chosen.keys() - {"shared_over_batch"}, reverse=True)
        if missing:
            raise BadValue(f"noise={self.noise} needs {' and '.join(missing)}: give --{missing[0].replace('_', '-')}")
        return NOISES[self.noise](**chosen)


@dataclass(frozen=True)
class Integration:
    """How a cycle is integrated."""

    rtol: Annotated[float | None, Of("lock-in")] = None
    """Relative tolerance of adaptive steps, in place of equal ones; 1e-4, in float64 1e-8, if not given. Not with
    noise."""

    atol: Annotated[float | None, Of("lock-in")] = None
    """Absolute tolerance of adaptive steps, in units of the potentials; likewise."""

    solver: Annotated[Literal[tuple(SOLVERS)] | None, Of("lock-in")] = None  # pyright: ignore
    """The integration scheme; None, or --rtol or --atol alone, for tsit5; None under noise for heun, under step noise
    for euler."""

    steps_per_cycle: Annotated[int | None, Of("lock-in")] = None
    """So many equal steps per cycle; None, or --rtol or --atol alone, for adaptive steps; None under noise for equal
    ones, four or more per time constant."""

    ticks: Annotated[int | None, Of("lock-in")] = None
    """How often per cycle the activities are read; 64, or a divisor of the steps, if not given."""

    def build(self, noise: osc.AbstractNoise | None) -> osc.Integration:
        """What `simulate` and `LockIn` take, under that noise."""
        solver = None if self.solver is None else SOLVERS[self.solver]()
        return osc.Integration(solver, self._controller(noise), self.steps_per_cycle, self.ticks)

    def _controller(self, noise: osc.AbstractNoise | None) -> diffrax.AbstractStepSizeController | None:
        """That of the tolerances, or None; refused here, where they have the names of the options."""
        tolerances = given(rtol=self.rtol, atol=self.atol)
        for name, value in tolerances.items():
            if not (math.isfinite(value) and value > 0):
                raise BadValue(f"{name}={value:g}: use a small positive number, such as 1e-6")
            if noise is not None:
                raise BadValue(f"{name}={value:g} with noise, under which steps are equal: use --steps-per-cycle N")
            if self.steps_per_cycle is not None:
                raise BadValue(
                    f"steps_per_cycle={self.steps_per_cycle} and {name}={value:g} exclude each other: give equal steps "
                    "or tolerances"
                )
        usual = usual_tolerance(np.dtype(jax.dtypes.canonicalize_dtype(float)))
        rtol, atol = tolerances.get("rtol", usual), tolerances.get("atol", usual)
        return diffrax.PIDController(rtol=rtol, atol=atol) if tolerances else None


def load_toml(name: str, path: Path) -> dict[str, Any]:
    """The content of a TOML file, or an error that names the option it was given to and says what is wrong."""
    if not path.is_file():
        raise BadValue(f"{name}={path}: no such file")
    with reading(f"{name}={path} is no TOML file"):
        return tomllib.loads(path.read_text("utf-8"))


def load_options(path: Path) -> dict[str, Any]:
    """The options in a TOML file, or those in the `settings.json` of a run, but for its folder."""
    if path.suffix != ".json":
        return load_toml("config", path)
    if not path.is_file():
        raise BadValue(f"config={path}: no such file")
    with reading(f"config={path} was not written by oscsim train, or is damaged"):
        settings = json.loads(path.read_text("utf-8"))["settings"]
        groups = [value for value in settings.values() if type(value) is dict]
        options = {name: value for group in (settings, *groups) for name, value in group.items()}
    spelt_out = ("solver", "steps_per_cycle")  # None is the default of all others
    options = {name: value for name, value in options.items() if value is not None or name in spelt_out}
    return {name: value for name, value in options.items() if value not in groups and name not in ("out", "resume")}


def with_places(command: T) -> T:
    """The command with `~` written out in its paths.

    Raises:
        ValueError: a path that leads elsewhere than to this machine.
    """
    found: dict[str, Any] = {}
    for name, value in vars(command).items():
        if isinstance(value, Path):
            found[name] = as_path(name, value)
        elif dataclasses.is_dataclass(value):
            found[name] = with_places(value)
    return dataclasses.replace(command, **found)  # pyright: ignore[reportArgumentType, reportCallIssue]


def flat(x: np.ndarray) -> np.ndarray:
    """Samples as rows, (n, inputs)."""
    return x.reshape(len(x), -1)


def first_samples(data: str, target: str | None, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """So many samples of a data set, from the first, as rows."""
    x, y = osc.datasets.load(data, target=target)
    if as_count("batch", batch) > len(x):
        raise BadValue(f"batch={batch}: {data} holds {len(x)} samples")
    return flat(x[:batch]), y[:batch]


def shaped(net: AnyNetwork, x: np.ndarray) -> np.ndarray:
    """Samples as the network takes them: as rows where it has dense layers."""
    return flat(x) if len(net.input_shape or ()) == 1 else x


def classes_of(*targets: np.ndarray) -> int:
    """How many classes there are in labels, or one-hot targets, of several splits."""
    return max(int(y.max()) + 1 if y.ndim == 1 else y.shape[1] for y in targets)
