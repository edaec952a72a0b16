"""One simulation in a fresh process: seconds of the first call, and the largest memory. Run by the benchmarks.

python fresh.py BATCH.npz PERIOD CYCLES [mean]
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

import diffrax
import jax
import numpy as np

import oscsim as osc


def peak_kilobytes():
    """The largest resident memory of this program; `ru_maxrss` would start at that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


path, period, cycles, *options = sys.argv[1:]
data = np.load(path)
net = osc.LayeredNetwork((784, 256, 256, 10), activation=osc.Logistic(4.0, 0.5), scale=0.05, key=jax.random.key(0))
began = time.perf_counter()
run = osc.simulate(
    net,
    data["x"],
    data["y"],
    osc.Rotating(amplitude=0.4, period=float(period)),
    cycles=int(cycles),
    integration=osc.Integration(steps_per_cycle=int(period), solver=diffrax.Euler()),
    record=osc.Mean() if "mean" in options else osc.PerCycle(),
)
jax.block_until_ready(run.state.potentials)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "kilobytes": peak_kilobytes()}))
