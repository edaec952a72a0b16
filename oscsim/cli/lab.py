"""`oscsim lab`."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import oscsim as osc
from oscsim.cli.settings import given, shaped
from oscsim.core import BadValue, ending


@dataclass(frozen=True)
class Lab:
    """Open the lab: a network that oscillates live in the browser, with knobs to disturb it.

    Prints its address. It needs the extra `lab`: pip install '.[lab]' in a clone of oscsim.
    """

    port: int = 5006
    """Where to listen; 0 takes a free port."""

    browser: bool = True
    """Open a browser."""

    address: str = "127.0.0.1"
    """Whom to listen to: by default this machine alone. Another address needs --password or --allow-everybody."""

    password: str | None = None
    """What visitors are asked for. Others on this machine can read a command line: better in OSCSIM_LAB_PASSWORD."""

    allow_everybody: bool = False
    """Let in whoever can reach the address, without token or password."""

    visitors: int | None = None
    """Visitors at once, at most: 4 for each core of the machine, and no more than 16, if not given."""

    network: str = "6-4-4-4"
    """What to start with: 6-4-4-4, or digits."""

    checkpoint: Path | None = None
    """A network of yours, as oscsim train wrote it (folder or file). Opening it runs no code."""

    data: str = "digits"
    """For the checkpoint: digits, another data set by its name, or a file of your own (see oscsim train --help)."""

    def run(self) -> None:
        """Run it."""
        ending.go_on_by("the lab is closed")
        access = {
            "browser": self.browser,
            "password": self.password or os.environ.get("OSCSIM_LAB_PASSWORD"),
            "allow_everybody": self.allow_everybody,
            **given(visitors=self.visitors),
        }
        serve = partial(osc.lab.serve, self.port, self.address, **access)
        if self.checkpoint is None:
            if self.data != "digits":
                raise BadValue(f"data={self.data} belongs to a checkpoint: give one with --checkpoint, or leave it out")
            serve(network=self.network)
            return
        if self.network != Lab.network:
            raise BadValue(f"network={self.network} and checkpoint={self.checkpoint} exclude each other: give one")
        x, y = osc.datasets.load(self.data)
        data = shaped(osc.load(self.checkpoint), x), y
        held_out = osc.datasets.load("digits", "test") if self.data == "digits" else None
        serve(network=self.checkpoint, data=data, held_out=held_out)
