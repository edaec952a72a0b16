"""The command line: each subcommand is one dataclass whose fields are its options, with a method `run`.

Options have the names of the Python arguments; a value that names a class is the class's name in lower case.
"""

import io
import os
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax
import numpy as np
import tyro

import oscsim as osc
from oscsim import plot
from oscsim.metrics import per_layer, relative_error

FAILURES = (ValueError, TypeError, OSError, osc.DivergenceError, osc.NotSettledError)
"""What is reported in one line; anything else is a defect of oscsim and keeps its traceback."""

ACTIVATIONS = {
    cls.__name__.lower(): cls
    for cls in (
        osc.Logistic,
        osc.HoloTanh,
        osc.SiLU,
        osc.Tanh,
        osc.RaisedCosine,
        osc.Identity,
        osc.HardTanh,
        osc.ReLU,
    )
}
COSTS = {cls.__name__.lower(): cls for cls in (osc.CrossEntropy, osc.SquaredError)}
SOLVERS = {
    cls.__name__.lower(): cls
    for cls in (diffrax.Euler, diffrax.Heun, diffrax.Midpoint, diffrax.Bosh3, diffrax.Tsit5, diffrax.Dopri5)
}


@dataclass(frozen=True)
class Demo:
    """Run a 64-32-10 network on 20 handwritten digits, and compare the gradients that it yields.

    Prints how the gradient in the oscillation closes in on the exact one, then how it compares with other estimators,
    and saves oscsim-demo.png in the current folder.
    """

    def run(self) -> None:
        """Run it."""
        picture = Path("oscsim-demo.png")
        _require_writable(picture.parent)
        began = time.perf_counter()
        x, y = osc.datasets.load("digits")
        x, y = x[:20], y[:20]
        net = osc.LayeredNetwork((64, 32, 10), key=jax.random.key(0))
        teaching = osc.Rotating(amplitude=0.4, period=200.0)
        print(
            "20 handwritten digits drive 32 neurons; a teaching signal turns at the output for 6 periods of 200 tau.\n"
        )
        run = osc.simulate(net, x, y, teaching, cycles=6)
        print(run, "\n")
        exact = osc.exact_gradient(net, x, y)
        print_cycles(run, exact)
        estimators = {
            "lock-in": osc.LockIn(teaching),
            "lock-in, extrapolated": osc.LockIn(teaching, extrapolate=True),
            "10 points": osc.Phases(0.4, points=10),
            "classic": osc.Classic(0.4),
            "exact": osc.Exact(),
        }
        print("\nThe same gradient by other means; the exact one is found by implicit differentiation:\n")
        estimates = compare(estimators, net, x, y, exact)
        figure = plot.summary(run, exact, {name: estimates[name] for name in estimates if name != "exact"})
        _write(picture, _png(figure))
        print(f"\nFigure: {picture.resolve()}  ({time.perf_counter() - began:.0f} s in all)")


@dataclass(frozen=True)
class Simulate:
    """Run a layered network on your data, and follow the gradient that its oscillation yields.

    Prints the error of the running gradient after every cycle, and writes the run (run.osc, read back by
    oscsim.Run.load) and a figure (run.png) into a folder.
    """

    out: Path
    """Folder for run.osc and run.png; made if it does not exist."""

    data: str = "digits"
    """The embedded digits, or an .npz file with arrays x, (n, inputs), and y, (n,) integer labels or (n, classes)."""

    batch: int = 20
    """How many samples to show, from the first."""

    sizes: tuple[int, ...] = (64, 32, 10)
    """Inputs, layers of neurons, outputs."""

    activation: Literal[tuple(ACTIVATIONS)] = "logistic"  # pyright: ignore[reportInvalidTypeForm]
    """How a potential becomes an activity."""

    slope: float | None = None
    """Steepness of the logistic activation; 4 if not given."""

    centre: float | None = None
    """Potential of half activity of the logistic activation; 0.5 if not given."""

    cost: Literal[tuple(COSTS)] = "crossentropy"  # pyright: ignore[reportInvalidTypeForm]
    """Cross-entropy of a linear readout, or squared error of the last layer of neurons."""

    scale: float | None = None
    """Standard deviation of the initial weights; 1/sqrt(fan in) if not given."""

    teaching: Literal["rotating", "staircase", "cosine"] = "rotating"
    """The teaching signal."""

    amplitude: float = 0.4
    """Amplitude of the teaching signal."""

    period: float = 200.0
    """Period of the teaching signal, in units of the neurons' time constant."""

    points: int | None = None
    """Plateaus of the staircase; 10 if not given."""

    cycles: int = 6
    """How many periods to simulate."""

    discard: int = 0
    """How many cycles at the start to leave out of the gradient."""

    solver: Literal[tuple(SOLVERS)] = "tsit5"  # pyright: ignore[reportInvalidTypeForm]
    """The integration scheme."""

    steps_per_cycle: int | None = None
    """So many equal steps per cycle; adaptive steps if not given."""

    ticks: int | None = None
    """How often per cycle the activities are read; 64, or a divisor of the steps, if not given."""

    seed: int = 0
    """Seed of the initial weights."""

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in."""

    overwrite: bool = False
    """Replace run.osc and run.png if they exist."""

    def run(self) -> None:
        """Run it."""
        targets = run_file, picture = self.out / "run.osc", self.out / "run.png"
        existing = [str(path) for path in targets if path.exists()]
        if existing and not self.overwrite:
            raise ValueError(f"out={self.out}: {existing[0]} exists; choose another folder, or pass --overwrite")
        _require_writable(self.out)
        if not 0 <= self.discard < self.cycles:
            raise ValueError(f"discard={self.discard} leaves nothing of cycles={self.cycles}: discard fewer")
        with jax.enable_x64(self.precision == "float64"):
            x, y = self._samples()
            net, teaching = self._network(), self._signal()
            steps: dict[str, Any] = {"steps_per_cycle": self.steps_per_cycle, "ticks": self.ticks}
            exact = osc.exact_gradient(net, x, y)
            run = osc.simulate(net, x, y, teaching, cycles=self.cycles, solver=SOLVERS[self.solver](), **steps)
            print(run, "\n")
            print_cycles(run, exact, self.discard)
            if run.cycles > 1 and run.lock_residual[-1] > plot.LOCKED:
                warnings.warn(
                    f"the readings still change by {run.lock_residual[-1]:.2g} from cycle to cycle: the neurons did "
                    "not lock; use more cycles, or a lower amplitude (see oscsim.suggest)",
                    stacklevel=1,
                )
            image = _png(plot.summary(run, exact, discard=self.discard))
            self.out.mkdir(parents=True, exist_ok=True)
            run.save(run_file)
            _write(picture, image)
        print(f"\nRun:    {run_file}  (oscsim.Run.load reads it)\nFigure: {picture}")

    def _samples(self) -> tuple[np.ndarray, np.ndarray]:
        """The first samples of the data."""
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: use a positive integer")
        x, y = osc.datasets.load("digits") if self.data == "digits" else load_npz(Path(self.data))
        if self.batch > len(x):
            raise ValueError(f"batch={self.batch}: {self.data} holds {len(x)} samples")
        return x[: self.batch], y[: self.batch]

    def _network(self) -> osc.LayeredNetwork:
        shape = {name: getattr(self, name) for name in ("slope", "centre") if getattr(self, name) is not None}
        if shape and self.activation != "logistic":
            raise ValueError(f"{next(iter(shape))} belongs to the logistic activation, not to {self.activation}")
        return osc.LayeredNetwork(
            self.sizes,
            activation=ACTIVATIONS[self.activation](**shape),
            cost=COSTS[self.cost](),
            scale=self.scale,
            key=jax.random.key(self.seed),
        )

    def _signal(self) -> osc.AbstractTeaching:
        if self.teaching == "staircase":
            return osc.Staircase(self.amplitude, self.period, 10 if self.points is None else self.points)
        if self.points is not None:
            raise ValueError(f"points={self.points} belongs to the staircase, not to the {self.teaching} signal")
        return {"rotating": osc.Rotating, "cosine": osc.Cosine}[self.teaching](self.amplitude, self.period)


COMMANDS = Demo | Simulate


def main(args: Sequence[str] | None = None) -> None:
    """The command `oscsim`. What the user can mend is said in one line on stderr, with exit status 2."""
    command = tyro.cli(COMMANDS, prog="oscsim", description=osc.__doc__, args=args)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"oscsim: warning: {_line(message)}", file=sys.stderr)
        try:
            command.run()
        except FAILURES as error:
            print(f"oscsim: error: {_line(error)}", file=sys.stderr)
            sys.exit(2)


def load_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets from a file, or an error that says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"data={path}: no such file; use digits, or an .npz file with arrays x and y")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"data={path}: not an .npz file; write one with numpy.savez(path, x=x, y=y)")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {"x", "y"} - set(file.files)
            if missing:
                raise ValueError(f"no array {' and no array '.join(sorted(missing))} in it")
            x, y = file["x"], file["y"]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"data={path}: {error}; use an .npz file with numeric arrays x and y") from error
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y):
        raise ValueError(f"data={path}: x has shape {x.shape}, y has shape {y.shape}; use (n, inputs) and (n,)")
    return x, y


def print_cycles(run: osc.Run, exact: Any, discard: int = 0) -> None:
    """A table: after each cycle, how steady the readings are, and how far off the running gradient is."""
    numbers, errors, distances = plot.running_errors(run, exact, discard)
    of_layers = {k: np.asarray(v) for k, v in _layer_errors(run.gradient(discard, cumulative=True), exact).items()}
    first = run.first_cycle + discard + 1
    print(f"The running gradient (readings averaged from cycle {first} on) against the exact one;")
    print("at the right, the relative error of each parameter array:\n")
    heads = ["cycle", "lock residual", "1 - cosine", "rel. error", *of_layers]
    rows = [
        [f"{number}", *(f"{v:.2e}" for v in (run.lock_residual[discard + i], distances[i], errors[i], *rest))]
        for i, (number, *rest) in enumerate(zip(numbers, *of_layers.values(), strict=True))
    ]
    _print_table(heads, rows)


def compare(estimators: dict[str, Any], net: Any, x: Any, y: Any, exact: Any) -> dict[str, osc.Estimate]:
    """A table of estimators: how far each is from the exact gradient, and how long it takes. Returns the estimates."""
    rows, estimates = [], {}
    for name, estimator in estimators.items():
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            estimate = jax.block_until_ready(estimator(net, x, y))
            seconds.append(time.perf_counter() - began)
        error, distance = map(float, plot.errors_of(estimate.gradient, exact))
        estimates[name] = estimate
        rows.append([name, f"{distance:.2e}", f"{error:.2e}", f"{seconds[0]:.2f}", f"{seconds[1]:.3f}"])
    _print_table(["estimator", "1 - cosine", "rel. error", "seconds, first call", "once compiled"], rows)
    return estimates


@eqx.filter_jit
def _layer_errors(running: Any, exact: Any) -> dict[str, Any]:
    return jax.vmap(lambda row: per_layer(relative_error, row, exact))(running)


def _print_table(heads: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for cells in (heads, ["-" * width for width in widths], *rows):
        print("  " + "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip())


def _line(message: Any) -> str:
    """A message on one line."""
    return " ".join(str(message).split()) or type(message).__name__


def _require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or cannot be made, before anything is computed."""
    found = folder.absolute()
    while not found.exists():
        found = found.parent
    if not (found.is_dir() and os.access(found, os.W_OK | os.X_OK)):
        raise ValueError(f"{folder} cannot be written: {found} is not a folder open for writing")


def _png(axes: Any) -> bytes:
    """The figure of these axes as a PNG file, then closed."""
    import matplotlib.pyplot as plt

    buffer, figure = io.BytesIO(), axes.flat[0].figure
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file: complete, or not at all."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
