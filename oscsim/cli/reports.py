"""What several commands print and write: tables, figures, checked folders."""

import json
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

import oscsim as osc
from oscsim.core import FIGURES, BadType, BadValue, MissingPackage, write_figure
from oscsim.equilibrium import errors_of, per_layer, relative_error
from oscsim.networks import Data, Gradient

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAILURES = (BadValue, BadType, MissingPackage, OSError, osc.DivergenceError, osc.MaxStepsError, osc.NotSettledError)
"""What oscsim says of input, and what the system says of files: one line. All else is a defect with its traceback."""

WIDTH = 80
"""Columns of a terminal."""

DOTS = 160
"""Per inch of a figure."""


def one_line(message: object) -> str:
    """A message on one line."""
    return " ".join(str(message).split()) or type(message).__name__


def print_cycles(run: osc.Run, exact: Gradient, discard: int = 0) -> None:
    """A table: after each cycle, how steady the readings are, how far off the running gradient is, and says it is."""
    numbers, errors, distances = osc.plot.running_errors(run, exact, discard)
    bars = osc.plot.running_bars(run, discard)
    of_layers = {k: np.asarray(v) for k, v in _layer_errors(run.gradient(discard, cumulative=True), exact).items()}
    first = run.first_cycle + discard + 1
    print(f"The running gradient, of readings averaged from cycle {first} on, against the exact one.")
    print("Its own bar is computed without the exact one. At the right: the error of each parameter array.\n")
    heads = ["cycle", "lock\nresidual", "1 -\ncosine", "relative\nerror", "its own\nbar"]
    heads += [name.replace("[", "\n[") for name in of_layers]
    rows = [
        [f"{number}", *(f"{v:.2e}" for v in (run.lock_residual[discard + i], distances[i], errors[i], bars[i], *rest))]
        for i, (number, *rest) in enumerate(zip(numbers, *of_layers.values(), strict=True))
    ]
    print_table(heads, rows)


def compare(
    estimators: dict[str, osc.AbstractEstimator], net: osc.AbstractNetwork, x: Data, y: Data, exact: Gradient
) -> dict[str, osc.Estimate]:
    """A table of estimators: how far each is from the exact gradient, and how long it takes. Returns the estimates."""
    rows, estimates = [], {}
    for name, estimator in estimators.items():
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            with warnings.catch_warnings():  # the table says how far off it is
                warnings.simplefilter("ignore", osc.InexactGradientWarning)
                estimate = jax.block_until_ready(estimator(net, x, y, tolerance=math.inf))
            seconds.append(time.perf_counter() - began)
        error, distance = map(float, errors_of(estimate.gradient, exact))
        estimates[name] = estimate
        bar = "" if estimate.error is None else f"{float(estimate.error.total):.2e}"
        rows.append([name, f"{distance:.2e}", f"{error:.2e}", bar, f"{seconds[0]:.2f}", f"{seconds[1]:.3f}"])
    heads = ["estimator", "1 -\ncosine", "relative\nerror", "its own\nbar", "first call\n(s)", "compiled\n(s)"]
    print_table(heads, rows)
    return estimates


@eqx.filter_jit
def _layer_errors(running: Gradient, exact: Gradient) -> dict[str, jax.Array]:
    return jax.vmap(lambda row: per_layer(relative_error, row, exact))(running)


def print_table(heads: list[str], rows: list[list[str]], fixed: int = 1) -> None:
    """Rows under their heads, which may have several lines; the first column left-aligned, the others right.

    What does not fit into 80 columns is a further table, with the same first columns: `fixed` of them.
    """
    height = max(head.count("\n") + 1 for head in heads)
    columns = []
    for i, (head, *cells) in enumerate(zip(heads, *rows, strict=True)):
        lines = [""] * (height - 1 - head.count("\n")) + head.split("\n")
        width = max(map(len, (*lines, *cells)))
        aligned = [cell.rjust(width) if i else cell.ljust(width) for cell in (*lines, "-" * width, *cells)]
        columns.append(aligned)
    widths = [len(column[0]) for column in columns]
    gap = 2 if sum(widths) + 2 * len(widths) <= WIDTH else 1
    parts = [columns[:fixed]]
    for column in columns[fixed:]:
        taken = sum(len(other[0]) + gap for other in parts[-1])
        if taken + len(column[0]) + 2 > WIDTH and len(parts[-1]) > fixed:
            parts.append(columns[:fixed])
        parts[-1] = [*parts[-1], column]
    tables = ("\n".join("  " + (" " * gap).join(line).rstrip() for line in zip(*p, strict=True)) for p in parts)
    print("\n\n".join(tables))


def require_writable(folder: Path, said: str | None = None) -> None:
    """Refuse a folder that cannot be written, or cannot be made, before anything is computed.

    `said` is what was asked for, if it is not the folder.
    """
    found = folder.absolute()
    while not found.exists() and found != found.parent:  # the root is its own: a drive may be missing
        found = found.parent
    try:
        with tempfile.TemporaryFile(dir=found):  # what permissions say is not all: of a share, or to root
            pass
    except OSError as error:
        raise BadValue(f"{said or folder} cannot be written: {found} is not a folder open for writing") from error


def require_writable_file(name: str, path: Path | None, endings: tuple[str, ...] = FIGURES) -> None:
    """Refuse a file that cannot be written, or is of another kind, before anything is computed."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise BadValue(f"{name}={path}: give a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise BadValue(f"{name}={path} is a folder: give the name of a file in it")
    require_writable(path.parent, f"{name}={path}")


def save_figure(axes: "np.ndarray | Axes", path: Path) -> None:
    """Write the figure of these axes, as its name says, whole or not at all; then it is closed."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = np.ravel(np.asarray(axes))[0].figure
    write_figure(path, figure, DOTS)
    plt.close(figure)


def metrics_in(folder: Path) -> list[dict[str, float]] | None:
    """The metrics of each epoch of a training run, nan where a number was not finite; None where there is no run."""
    path = folder / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise BadValue(f"{path} is damaged ({error})") from error
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]


def run_in(path: Path) -> Path:
    """The run in the folder of a simulation; any other path as it is."""
    return path / "run.osc" if (path / "run.osc").is_file() else path
