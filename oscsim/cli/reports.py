"""What several commands print and write: tables, figures, checked folders."""

import io
import math
import os
import time
import warnings
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import oscsim as osc
from oscsim.core import BadType, BadValue, MissingPackage
from oscsim.equilibrium import errors_of, per_layer, relative_error
from oscsim.networks import Data, Gradient

FAILURES = (BadValue, BadType, MissingPackage, OSError, osc.DivergenceError, osc.MaxStepsError, osc.NotSettledError)
"""What oscsim says of input, and what the system says of files: one line. All else is a defect with its traceback."""


def one_line(message: object) -> str:
    """A message on one line."""
    return " ".join(str(message).split()) or type(message).__name__


def print_cycles(run: osc.Run, exact: Gradient, discard: int = 0) -> None:
    """A table: after each cycle, how steady the readings are, how far off the running gradient is, and says it is."""
    numbers, errors, distances = osc.plot.running_errors(run, exact, discard)
    bars = osc.plot.running_bars(run, discard)
    of_layers = {k: np.asarray(v) for k, v in _layer_errors(run.gradient(discard, cumulative=True), exact).items()}
    first = run.first_cycle + discard + 1
    print(f"The running gradient (readings averaged from cycle {first} on) against the exact one;")
    print("its own bar knows nothing of that one; at the right, the relative error of each parameter array:\n")
    heads = ["cycle", "lock residual", "1 - cosine", "rel. error", "its own bar", *of_layers]
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
    print_table(["estimator", "1 - cosine", "rel. error", "its own bar", "seconds, first call", "once compiled"], rows)
    return estimates


@eqx.filter_jit
def _layer_errors(running: Gradient, exact: Gradient) -> dict[str, jax.Array]:
    return jax.vmap(lambda row: per_layer(relative_error, row, exact))(running)


def print_table(heads: list[str], rows: list[list[str]]) -> None:
    """Rows under their heads, the first column left-aligned, the others right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for cells in (heads, ["-" * width for width in widths], *rows):
        print("  " + "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip())


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or cannot be made, before anything is computed."""
    found = folder.absolute()
    while not found.exists() and found != found.parent:  # the root is its own: a drive may be missing
        found = found.parent
    if not (found.is_dir() and os.access(found, os.W_OK | os.X_OK)):
        raise BadValue(f"{folder} cannot be written: {found} is not a folder open for writing")


def png(axes: np.ndarray) -> bytes:
    """The figure of these axes as a PNG file, then closed."""
    import matplotlib.pyplot as plt

    buffer, figure = io.BytesIO(), axes.flat[0].figure
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return buffer.getvalue()
