"""A sweep in a process of its own: seconds of it, after a first one that compiled. Run by the benchmarks.

python sweeping.py FOLDER WORKERS BLOCKS SEEDS CYCLES

0 workers: in this process. 0 cycles: a study that does nothing.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

import oscsim as osc
from oscsim.sweeps.cluster import connected


def nothing(key, amplitude):
    return {"same": amplitude}


def main():
    folder, (workers, blocks, seeds, cycles) = Path(sys.argv[1]), map(int, sys.argv[2:])
    x, y = osc.datasets.load("digits")
    net = osc.LayeredNetwork((64, 32, 10), key=jax.random.key(0))
    settings = {"intensity": 0.1, "period": 64.0, "cycles": cycles} if cycles else {}
    study = osc.studies.gradient_quality(net, x[:4], y[:4], steps_per_cycle=128, predict=False) if cycles else nothing

    def timed(name, count, client):
        axes = settings | {"amplitude": np.linspace(0.05, 0.5, count)}
        began = time.perf_counter()
        osc.sweep(study, axes, seeds=seeds, key=jax.random.key(0), store=folder / name, client=client, block=1)
        return time.perf_counter() - began

    with connected(None, workers or None) as client:
        # Twice as many blocks as workers hold in advance, so that each of them compiles.
        timed(f"warm-{workers}", 8 * max(workers, 1), client)
        # The grid is part of what workers keep compiled programs for; they meet this one with their first block.
        print(json.dumps({"seconds": timed(f"timed-{workers}", blocks, client)}))


if __name__ == "__main__":
    main()
