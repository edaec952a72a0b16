"""`oscsim suggest` and `oscsim info`: what to use, and what there is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

import oscsim as osc
from oscsim.cli.reports import metrics_in, run_in
from oscsim.cli.settings import Network, Noise, first_samples
from oscsim.core import BadValue


@dataclass(frozen=True)
class Suggest:
    """Suggest amplitude, period and cycles for a layered network and your data, and say what limits the accuracy."""

    data: Annotated[str, tyro.conf.Positional] = "digits"
    """The embedded digits, another data set by its name, or a file of your own (see oscsim train --help)."""

    target: str | None = None
    """Of a table of your own, the column with the labels."""

    batch: int = 20
    """How many samples to look at, from the first."""

    sizes: tuple[int, ...] = (64, 32, 10)
    """Inputs, layers of neurons, outputs."""

    trained: Path | None = None
    """Suggest for this network instead: the folder of a training run, or a file."""

    accuracy: float | None = None
    """The error of the gradient to aim at, such as 0.01."""

    seed: int = 0
    """Seed of the initial weights."""

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in."""

    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    noise: tyro.conf.OmitArgPrefixes[Noise] = field(default_factory=Noise)

    def run(self) -> None:
        """Run it."""
        with jax.enable_x64(self.precision == "float64"):
            x, y = first_samples(self.data, self.target, self.batch)
            if self.trained is None:
                net = self.network.build(self.sizes, jax.random.key(self.seed))
            else:
                net = osc.load(self.trained)
            noise: Any = self.noise.build()  # `suggest` refuses one that it cannot predict from
            print(osc.suggest(net, x, y, accuracy=self.accuracy, noise=noise))


@dataclass(frozen=True)
class Info:
    """Say what a file or a folder of oscsim holds: a run, a network, a training run, or the store of a sweep."""

    path: Annotated[Path, tyro.conf.Positional]
    """A file, or a folder."""

    def run(self) -> None:
        """Run it."""
        if not self.path.exists():
            raise BadValue(f"path={self.path}: there is no such file or folder")
        with jax.enable_x64(True):  # reads what either precision wrote
            if (self.path / "zarr.json").is_file():
                return print(osc.load_sweep(self.path))
            print(osc.load(run_in(self.path)))
        if history := metrics_in(self.path):
            print(f"\nafter epoch {len(history)}:")
            for name, value in history[-1].items():
                print(f"  {name:24} {value:.6g}")
