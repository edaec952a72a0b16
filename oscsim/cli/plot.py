"""`oscsim plot`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import jax
import tyro

import oscsim as osc
from oscsim.cli.reports import metrics_in, require_writable_file, run_in, save_figure
from oscsim.cli.sweep import draw_sweep, result_of
from oscsim.core import BadValue, checkpoint

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Plot:
    """Draw what oscsim wrote: how a network learned, the orbits of a run, the map or curves of a sweep, a network.

    Writes a PNG, PDF or SVG file, and says where.
    """

    path: Annotated[Path, tyro.conf.Positional]
    """The folder of a training run, the store of a sweep, that of a simulation, or a file with a run or a network."""

    out: Path | None = None
    """The file to write; by default a PNG file beside what is drawn (in the folder of a training run)."""

    result: str | None = None
    """Of a sweep, which result to draw; relative_error, final_error or the first if not given."""

    follow: bool = False
    """Of a training run that goes on: draw again after each epoch, until Ctrl-C."""

    def run(self) -> None:
        """Run it."""
        path = run_in(self.path)
        if not path.exists():
            raise BadValue(f"path={path}: there is no such file or folder")
        store = (path / "zarr.json").is_file()
        if self.follow and (store or not path.is_dir()):
            raise BadValue(f"follow belongs to a training run, and {path} holds none: leave it out")
        if self.result is not None and not store:
            raise BadValue(f"result={self.result} belongs to a sweep, and {path} holds none: leave it out")
        require_writable_file("out", self.out)
        while self.follow and metrics_in(path) == []:  # its first epoch goes on
            time.sleep(1)
        with jax.enable_x64(True):  # reads what either precision wrote
            axes, out = self._sweep() if store else self._learning() if path.is_dir() else self._file(path)
            if self.out is None:
                require_writable_file("out", out)
            save_figure(axes, self.out or out)
        print(f"Figure: {self.out or out}", flush=True)
        if self.follow:
            self._follow(self.out or out)

    def _follow(self, out: Path) -> None:
        """Draw again whenever there are new metrics."""
        metrics = self.path / "metrics.jsonl"
        seen = metrics.stat().st_mtime
        while True:
            time.sleep(1)
            if metrics.stat().st_mtime != seen:
                seen = metrics.stat().st_mtime
                save_figure(self._learning()[0], out)

    def _sweep(self) -> "tuple[Axes, Path]":
        data = osc.load_sweep(self.path)
        result = result_of(data, self.result)
        if left := data.attrs.get("unfinished"):
            print(f"The sweep is not finished. Blocks not computed yet, drawn empty: {left}", flush=True)
        return draw_sweep(data, result), self.path.with_name(f"{self.path.resolve().name}-{result}.png")

    def _learning(self) -> "tuple[np.ndarray, Path]":
        history = metrics_in(self.path)
        if history is None:
            raise BadValue(f"path={self.path} holds no training run and no sweep: give the folder of one")
        if not history:
            raise BadValue(f"path={self.path}: no epoch was finished yet; draw it later")
        return osc.plot.training(history), self.path / "learning.png"

    def _file(self, path: Path) -> "tuple[np.ndarray | Axes, Path]":
        match checkpoint.load(path):
            case osc.Run() as run:
                return osc.plot.orbits(run), path.with_name(f"{path.stem}-orbits.png")
        return osc.plot.network(osc.load(path)), path.with_name(f"{path.stem}-network.png")
