"""One run of very many cycles. `python tests/benchmarks/soak.py 1000000` takes a few minutes.

A small network runs in ten parts that go on from each other, and keeps its mean reading. Each part prints its time per
cycle, the resident memory, and how far its mean c_1 is from that of the first cycles: there a phase that drifts would
show, or a sum that rounds. The last lines give the largest change of each.
"""

import re
import statistics
import sys
import time
from pathlib import Path

import diffrax
import jax
import numpy as np

import oscsim as osc

PARTS = 10


def resident():
    """Memory of this process in megabytes."""
    return int(re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024


def response(run):
    """c_1 of all neurons of all samples, as one vector."""
    return np.concatenate([np.asarray(c[-1]).ravel() for c in run.phasors[1]]).astype(complex)


def main():
    each = int(sys.argv[1]) // PARTS
    net = osc.LayeredNetwork((3, 4, 2), key=jax.random.key(0))
    x, y = np.asarray([[0.2, -0.4, 0.9]]), np.asarray([1])
    teaching = osc.Rotating(amplitude=0.2, period=64.0)
    how = {"integration": osc.Integration(diffrax.Heun(), steps_per_cycle=128), "record": osc.Mean(), "progress": False}
    run = osc.simulate(net, x, y, teaching, cycles=20, **how)  # locks
    first = osc.simulate(net, x, y, teaching, cycles=each // PARTS, start=run, **how)
    reference, run = response(first), first
    times, memory, phases = [], [], []
    print("    cycles  us per cycle  memory (MB)  phase (rad)  relative change of c_1")
    for part in range(PARTS):
        began = time.process_time()
        run = osc.simulate(net, x, y, teaching, cycles=each, start=run, **how)
        times.append(1e6 * (time.process_time() - began) / each)
        memory.append(resident())
        now = response(run)
        phases.append(float(np.angle(np.vdot(reference, now))))
        change = np.linalg.norm(now - reference) / np.linalg.norm(reference)
        print(f"{(part + 1) * each:10}  {times[-1]:12.1f}  {memory[-1]:11.1f}  {phases[-1]:11.1e}  {change:.1e}")
    middle = statistics.median(times)
    print(f"largest phase {max(map(abs, phases)):.1e} rad")
    print(f"memory, last part / first part {memory[-1] / memory[0]:.3f}")
    slowest, fastest = max(times) / middle, min(times) / middle
    print(f"processor time per cycle, slowest and fastest part / median {slowest:.3f}, {fastest:.3f}")
    print(f"gradient good to {100 * float(run.error().total):.2g} %")


main()
