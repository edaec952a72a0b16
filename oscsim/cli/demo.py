"""`oscsim demo`."""

import time
from dataclasses import dataclass
from pathlib import Path

import jax

import oscsim as osc
from oscsim.cli.reports import compare, print_cycles, require_writable, save_figure


@dataclass(frozen=True)
class Demo:
    """Run a 64-32-10 network on 20 handwritten digits, and compare the gradients that it yields.

    Prints how the gradient in the oscillation closes in on the exact one, then how it compares with other estimators,
    and saves oscsim-demo.png in the current folder.
    """

    def run(self) -> None:
        """Run it."""
        picture = Path("oscsim-demo.png")
        require_writable(picture.parent)
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
        figure = osc.plot.summary(run, exact, {name: estimates[name] for name in estimates if name != "exact"})
        save_figure(figure, picture.resolve())
        print(f"\nFigure: {picture.resolve()}  ({time.perf_counter() - began:.0f} s in all)")
