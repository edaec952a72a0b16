"""`oscsim reproduce`."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import tyro

import oscsim as osc
from oscsim.cli.reports import print_table, require_writable, save_figure
from oscsim.core import BadValue, as_count, ending, write
from oscsim.datasets import Samples, Split

if TYPE_CHECKING:
    import xarray

Drawn = tuple[Callable, "dict[str, xarray.Dataset]"]
"""What draws the panels of a figure, and the panels."""


Row: TypeAlias = Literal[
    "hep", "continuous_hep", "classic_ep_4e-1", "classic_ep_1e-1", "orbit", "lock_in", "backpropagation"
]
"""The names of `osc.paper.METHODS`."""

Half: TypeAlias = Literal["no_noise", "noise"]
"""The names of `osc.paper.NOISES`."""


@dataclass(frozen=True)
class Reproduce:
    """Compute a figure or the table of the paper anew, the authors' curves behind it.

    Writes a figure, and a CSV file for each of its panels.
    """

    what: Annotated[Literal["fig2", "fig3", "table1"], tyro.conf.Positional]
    """fig2: a small network; fig3: gradients of the MNIST network in time and under noise; table1: MNIST learned."""

    quick: bool = False
    """A smaller version, in a minute or so: fewer points, seeds and samples."""

    out: Path = Path(".")
    """Folder for figure and data; made if it does not exist. table1 keeps its runs there, and goes on with them."""

    data_dir: Path | None = None
    """Folder with the files of MNIST; downloaded if not given."""

    seeds: int | None = None
    """Of fig3's panel c, 16 if not given; of table1, 3."""

    epochs: int | None = None
    """Of table1: 2 if not given, of some minutes for each run; the paper has 50."""

    rows: tuple[Row, ...] | None = None
    """Of table1: the paper's four if not given. orbit, lock_in and backpropagation are not the paper's."""

    noises: tuple[Half, ...] | None = None
    """Of table1: both halves if not given."""

    def run(self) -> None:
        """Run it."""
        require_writable(self.out)
        self._check()
        began = time.perf_counter()
        draw, panels = {"fig2": self._fig2, "fig3": self._fig3, "table1": self._table1}[self.what]()
        self.out.mkdir(parents=True, exist_ok=True)
        for name, panel in panels.items():
            separator = "" if len(name) == 1 else "-"
            text = panel.to_dataframe().to_csv(float_format="%.8g")
            write(self._file(f"{separator}{name}.csv"), text.encode())
        save_figure(draw(panels), self._file(".png"))
        print(f"Figure: {self._file('.png')}, data beside it  ({time.perf_counter() - began:.0f} s in all)")

    def _check(self) -> None:
        counts = {"seeds": self.seeds, "epochs": self.epochs}
        given = {"data_dir": self.data_dir, **counts, "rows": self.rows, "noises": self.noises}
        known = {"fig2": (), "fig3": ("data_dir", "seeds"), "table1": tuple(given)}[self.what]
        for name, value in given.items():
            if value is not None and name not in known:
                raise BadValue(f"{name}={value} has no effect on {self.what}: leave it out")
            if value is not None and name in counts:
                as_count(name, value)

    def _file(self, ending: str) -> Path:
        return (self.out / f"{self.what}{ending}").resolve()

    def _mnist(self, split: Split) -> Samples:
        return osc.datasets.load("mnist", split, self.data_dir)

    def _fig2(self) -> Drawn:
        fig2 = osc.paper.fig2
        if self.quick:
            fig2 = functools.partial(fig2, amplitudes=(0.01, 0.3, 0.6, 0.9, 1.2, 2.0), resolution=21)
        return osc.paper.draw_fig2, fig2()

    def _fig3(self) -> Drawn:
        x, y = (a[:2000] for a in self._mnist("train"))
        fig3 = functools.partial(osc.paper.fig3, x, y, seeds=self.seeds or (2 if self.quick else 16), progress=True)
        if self.quick:
            fig3 = functools.partial(fig3, periods=(100, 200), cycles=20, amplitudes=(0.22, 1.03, 3.88, 10.0))
        return osc.paper.draw_fig3, fig3()

    def _table1(self) -> Drawn:
        ending.go_on_by("the same command goes on, from the last checkpoint")
        train, test = self._mnist("train"), self._mnist("test")
        if self.quick:
            train, test = ((x[:200], y[:200]) for x, y in (train, test))
        panels = osc.paper.table1(
            train,
            test,
            out=self.out / ("runs-quick" if self.quick else "runs"),
            epochs=self.epochs or (1 if self.quick else 2),
            seeds=range(self.seeds or (1 if self.quick else 3)),
            methods=self.rows or osc.paper.PAPERS,
            noises=self.noises or ("no_noise", "noise"),
        )
        table, epochs = panels["table"], panels["errors"].sizes["epoch"]
        rows = [
            [
                osc.paper.METHODS[method].name,
                f"{osc.paper.NOISES[noise]}",
                *_percent(table.sel({"noise": noise, "method": method})),  # the keyword `method` means something else
            ]
            for noise in table.noise.values
            for method in table.method.values
        ]
        print("Test error in percent, mean over the seeds:\n")
        print_table(["method", "noise", "final", "best", f"authors,\nepoch {epochs}", "authors,\nbest"], rows)
        print()
        return osc.paper.draw_table1, panels


def _percent(row: "xarray.Dataset") -> list[str]:
    return [f"{float(value):.2f}" for value in row.data_vars.values()]
