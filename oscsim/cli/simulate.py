"""`oscsim simulate`."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

import oscsim as osc
from oscsim.cli.reports import print_cycles, require_writable, save_figure
from oscsim.cli.settings import Integration, Network, Noise, Signal, first_samples
from oscsim.core import BadValue


@dataclass(frozen=True)
class Simulate:
    """Run a layered network on your data, and follow the gradient that its oscillation yields.

    Prints how right the gradient is by its own measure, then its error after every cycle, and writes the run (run.osc,
    read back by oscsim.Run.load) and a figure (run.png) into a folder.
    """

    out: Path
    """Folder for run.osc and run.png; made if it does not exist."""

    data: str = "digits"
    """The embedded digits, another data set by its name, or a file of your own (see oscsim train --help)."""

    target: str | None = None
    """Of a table of your own, the column with the labels."""

    batch: int = 20
    """How many samples to show, from the first."""

    sizes: tuple[int, ...] = (64, 32, 10)
    """Inputs, layers of neurons, outputs."""

    cycles: int = 6
    """How many periods to simulate; with --until the most."""

    until: float | None = None
    """Stop once the gradient's own error bar is below this share, such as 0.01; all cycles if not given."""

    discard: int | None = None
    """How many cycles at the start to leave out of the gradient; those before the network locked if not given."""

    seed: int = 0
    """Seed of the initial weights and of the noise."""

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in."""

    overwrite: bool = False
    """Replace run.osc and run.png if they exist."""

    network: Annotated[Network, tyro.conf.arg(name="")] = field(default_factory=Network)
    signal: Annotated[Signal, tyro.conf.arg(name="")] = field(default_factory=Signal)
    integration: Annotated[Integration, tyro.conf.arg(name="")] = field(default_factory=Integration)
    noise: Annotated[Noise, tyro.conf.arg(name="")] = field(default_factory=Noise)

    def run(self) -> None:
        """Run it."""
        targets = run_file, picture = self.out / "run.osc", self.out / "run.png"
        existing = [str(path) for path in targets if path.exists()]
        if existing and not self.overwrite:
            raise BadValue(f"out={self.out}: {existing[0]} exists; choose another folder, or pass --overwrite")
        require_writable(self.out)
        if self.discard is not None and not 0 <= self.discard < self.cycles:
            raise BadValue(f"discard={self.discard} leaves nothing of cycles={self.cycles}: discard fewer")
        with jax.enable_x64(self.precision == "float64"):
            x, y = first_samples(self.data, self.target, self.batch)
            net = self.network.build(self.sizes, jax.random.key(self.seed))
            teaching, noise = self.signal.build(), self.noise.build()
            key = None if noise is None else jax.random.key(self.seed)
            exact = osc.exact_gradient(net, x, y)
            how = self.integration.build(noise)
            run = osc.simulate(
                net,
                x,
                y,
                teaching,
                cycles=self.cycles,
                until=self.until,
                noise=noise,
                key=key,
                integration=how,
                progress=True,
            )
            discard = self.discard if self.discard is None else min(self.discard, run.cycles - 1)
            print(run, "\n")
            print_cycles(run, exact, discard or 0)
            if noise is None and run.cycles > 1 and not run.locked:
                warnings.warn(
                    f"the readings still change by {run.lock_residual[-1]:.2g} from cycle to cycle: the neurons did "
                    "not lock; use more cycles, or a lower amplitude (see oscsim.suggest)",
                    stacklevel=1,
                )
            axes = osc.plot.summary(run, exact, discard=discard)
            self.out.mkdir(parents=True, exist_ok=True)
            run.save(run_file)
            save_figure(axes, picture)
        print(f"\nRun:    {run_file}  (oscsim.Run.load reads it)\nFigure: {picture}")
