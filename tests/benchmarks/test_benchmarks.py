"""How fast oscsim is, in ratios to what is unavoidable and to what one would write instead.

    pytest tests/benchmarks -s

The network is the MNIST one, 784-256-256-10, at batch 20 in float32. Each number is a median of ratios between runs
that alternate in one process (see `timing.py`); what misses its bar is marked in the table, and fails nothing.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import oscsim as osc
from oscsim.dynamics.demodulation import AbstractDemodulator
from oscsim.dynamics.gradient import Phasors
from oscsim.networks.inputs import Inputs

from . import naive
from .timing import paired

AMPLITUDE, PERIOD, CYCLES = 0.4, 300, 3


def test_force(net, batch, table):
    """(a) A force, activation and all, against the four real matrix products in it."""
    inputs = Inputs.of(net, *batch)
    count = 100

    @eqx.filter_jit
    def forces(net, inputs, packed):
        def one(_, packed):
            u = tuple(lax.complex(x, y) for x, y in zip(*packed, strict=True))
            f = net.force(inputs.clamped, net.activities(u), inputs.y, jnp.asarray(0.4j, jnp.complex64))
            return tuple(a.real for a in f), tuple(a.imag for a in f)

        return lax.fori_loop(0, count, one, packed)

    @jax.jit
    def products(w, w_out, stacked):
        def one(_, stacked):  # real and imaginary parts on top of each other
            below, above, top, logits = stacked
            return above @ w, below @ w.T, logits @ w_out, top @ w_out.T

        return lax.fori_loop(0, count, one, stacked)

    keys = jax.random.split(jax.random.key(1), 6)
    packed = tuple(tuple(jax.random.normal(keys[2 * i + j], (20, 256)) / 5**i for j in range(2)) for i in range(2))
    stacked = tuple(jax.random.normal(k, (40, n)) for k, n in zip(keys, (256, 256, 256, 10), strict=False))
    w, w_out = (a / 2 for a in net.weights[1:])  # halved: repeated products neither grow nor vanish
    times = paired(
        {"force": lambda: forces(net, inputs, packed), "products": lambda: products(w, w_out, stacked)}, rounds=41
    )
    table(
        "(a) one force evaluation / its bare real matrix products",
        times.ratio("force", "products"),
        most=2.5,
        goal=2,
        detail=f"{times.median('force') / count * 1e6:.0f} us / {times.median('products') / count * 1e6:.0f} us",
    )


def test_simulate(net, batch, table):
    """(b) `simulate` with Euler steps against a loop written by hand, which reads nothing."""
    teaching = osc.Rotating(amplitude=AMPLITUDE, period=PERIOD)
    inputs = Inputs.of(net, *batch)

    @eqx.filter_jit
    def by_hand(net, inputs, teaching, dt):
        def step(u, k):
            f = net.force(inputs.clamped, net.activities(u), inputs.y, teaching((k % PERIOD) * dt))
            return tuple(a + (dt / tau) * (b - a) for a, b, tau in zip(u, f, net.time_constants, strict=True)), None

        rest = tuple(a.astype(jnp.complex64) for a in net.rest(len(inputs.x)))
        return lax.scan(step, rest, jnp.arange(CYCLES * PERIOD))[0]

    def simulate(cycles):
        return osc.simulate(
            net,
            *batch,
            teaching,
            cycles=cycles,
            integration=osc.Integration(steps_per_cycle=PERIOD, solver=diffrax.Euler()),
        ).state.potentials

    dt = jnp.asarray(1.0)
    for ours, theirs in zip(simulate(CYCLES), by_hand(net, inputs, teaching, dt), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    times = paired(
        {"simulate": lambda: simulate(CYCLES), "hand": lambda: by_hand(net, inputs, teaching, dt)}, rounds=21
    )
    table(
        "(b) simulate, three cycles of 300 Euler steps / the same loop by hand",
        times.ratio("simulate", "hand"),
        most=1.1,
        detail=f"{times.median('simulate') * 1e3:.0f} ms / {times.median('hand') * 1e3:.0f} ms",
    )


class Nothing(AbstractDemodulator):
    """Reads nothing."""

    def init(self, s, beta, ticks):
        return Phasors(((), ()), (jnp.zeros(()), jnp.zeros(())), (0, 1))

    def begin(self, state, cycle):
        return state

    def update(self, state, s, beta, tick, ticks):
        return state

    def read(self, state):
        return state


@pytest.mark.parametrize("adaptive", [False, True], ids=["Euler", "Tsit5"])
def test_demodulation(net, batch, table, adaptive):
    """(c) 64 demodulated ticks a cycle against the same solve unread, and against one undivided solve."""
    teaching = osc.Rotating(amplitude=AMPLITUDE, period=320.0)
    inputs = Inputs.of(net, *batch)
    steps = {} if adaptive else {"solver": diffrax.Euler(), "steps_per_cycle": 320}

    @eqx.filter_jit
    def cycles(system, inputs):
        state = osc.begin(system, inputs)
        return lax.fori_loop(0, 2, lambda _, state: osc.advance(system, state, inputs)[0], state)

    def of(ticks, demodulator=None):
        integration = osc.Integration(ticks=ticks, **steps)
        system = osc.System.of(net, teaching, integration=integration, demodulator=demodulator)
        return lambda: jax.tree.leaves(cycles(system, inputs))

    times = paired({"read": of(64), "unread": of(64, Nothing()), "undivided": of(1, Nothing())}, rounds=15)
    name = "Tsit5, adaptive steps" if adaptive else "320 Euler steps"
    milliseconds = {key: times.median(key) / 2 * 1e3 for key in times.seconds}
    for other, text in (("unread", "the same 64 ticks unread"), ("undivided", "one undivided solve")):
        table(
            f"(c) {name} and 64 demodulated ticks a cycle / {text}",
            times.ratio("read", other),
            most=1.1,
            detail=f"{milliseconds['read']:.0f} ms / {milliseconds[other]:.0f} ms a cycle",
        )


def agreement(net, gradient, reference):
    """Cosine and relative error between our gradient and one as (weights, biases) per layer."""
    weights, biases = zip(*reference, strict=True)
    reference = eqx.tree_at(lambda n: (n.weights, n.biases), osc.parameters(net), (weights, biases))
    return float(osc.cosine(gradient, reference)), float(osc.relative_error(gradient, reference))


def compared(table, claim, ours, opponents, *, rounds, **bar):
    """Rows for `ours` against each opponent; the faster opponent is the one that the bar is held against."""
    times = paired({"ours": ours, **opponents}, rounds)
    for name in opponents:
        table(
            f"{claim}, {name}",
            times.ratio(name, "ours"),
            detail=f"{times.median(name) * 1e3:.0f} ms / {times.median('ours') * 1e3:.0f} ms",
            **bar,
        )


def test_oscillating_gradient(net, batch, table):
    """(d) A gradient by oscillation against complex64 code with an accumulator in every synapse."""
    lock_in = osc.LockIn(
        osc.Rotating(amplitude=AMPLITUDE, period=PERIOD),
        cycles=CYCLES,
        discard=1,
        integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=PERIOD),
    )
    data, settings = naive.prepared(net, *batch), (AMPLITUDE, PERIOD, CYCLES, 1)
    gradient = lock_in(net, *batch).gradient
    for other in (naive.oscillate, naive.oscillate_compiled):
        cosine, error = agreement(net, gradient, other(data, *settings))
        print(f"\n{other.__name__}: 1 - cosine {1 - cosine:.1e}, relative error {error:.1e}")
        assert cosine > 0.9999
        assert error < 1e-2
    opponents = {
        "a Python loop of jitted steps": lambda: naive.oscillate(data, *settings),
        "one compiled loop": lambda: naive.oscillate_compiled(data, *settings),
    }
    compared(
        table,
        "(d) three cycles of 300 steps to the gradient: complex64 with per-synapse accumulators / LockIn",
        lambda: jax.tree.leaves(lock_in(net, *batch).gradient),
        opponents,
        rounds=5,
        least=4.5,
        goal=6,
    )


def test_orbit_gradient(net, batch, table):
    """(k) The gradient on the orbit, one linear system, against three periods of stepping: ours and complex64 code."""
    steps = osc.Integration(solver=diffrax.Euler(), steps_per_cycle=PERIOD)
    lock_in = osc.LockIn(osc.Rotating(AMPLITUDE, PERIOD), cycles=CYCLES, discard=1, integration=steps)
    orbit = osc.Orbit(PERIOD, tolerance=1e-4)
    data, settings = naive.prepared(net, *batch), (AMPLITUDE, PERIOD, CYCLES, 1)
    expected = osc.response.predict_gradient(net, *batch, period=PERIOD)
    for name, gradient in (("orbit", orbit(net, *batch).gradient), ("lock-in", lock_in(net, *batch).gradient)):
        print(f"\n{name}: error {float(osc.relative_error(gradient, expected)):.1e}")
    assert osc.relative_error(orbit(net, *batch).gradient, expected) < 1e-3
    opponents = {
        "complex64 in a Python loop of jitted steps": (lambda: naive.oscillate(data, *settings), 60),
        "complex64 in one compiled loop": (lambda: naive.oscillate_compiled(data, *settings), None),
        "LockIn": (lambda: jax.tree.leaves(lock_in(net, *batch).gradient), 8),
    }
    for name, (function, least) in opponents.items():
        compared(
            table,
            "(k) three cycles of 300 steps to the gradient / Orbit",
            lambda: jax.tree.leaves(orbit(net, *batch).gradient),
            {name: function},
            rounds=5,
            least=least,
        )


def test_settled_gradient(net, batch, table):
    """(e) Ten settled points against complex64 code that iterates each of them, both to a residual of 1e-4."""
    phases = osc.Phases(amplitude=AMPLITUDE, points=10, tolerance=1e-4)
    data = naive.prepared(net, *batch)
    gradient = phases(net, *batch).gradient
    for other in (naive.phases, naive.phases_compiled):
        cosine, error = agreement(net, gradient, other(data, AMPLITUDE, 10, 1e-4))
        print(f"\n{other.__name__}: 1 - cosine {1 - cosine:.1e}, relative error {error:.1e}")
        assert cosine > 0.9999
        assert error < 1e-2
    opponents = {
        "a Python loop of jitted steps": lambda: naive.phases(data, AMPLITUDE, 10, 1e-4),
        "one compiled loop per point": lambda: naive.phases_compiled(data, AMPLITUDE, 10, 1e-4),
    }
    compared(
        table,
        "(e) ten points settled to 1e-4: complex64, each iterated / Phases",
        lambda: jax.tree.leaves(phases(net, *batch).gradient),
        opponents,
        rounds=11,
        least=8,
    )


def test_convolutional_gradient(table):
    """(j) Two points of vgg4 at full width, batch 16: settled, against the paper's 250 + 2 x 60 plain steps.

    The steps are ours too, real convolutions in one compiled loop: a stronger opponent than complex64 code.
    """
    net = osc.models.vgg4(10, key=jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (16, 32, 32, 3)), np.arange(16) % 10
    plain = osc.Phases(1.0, 2, steps=(250, 60))
    there = plain(net, x, y)
    settled = osc.Phases(1.0, 2, tolerance=1e-6)  # what the steps leave is printed beside it
    cosine = float(osc.cosine(settled(net, x, y).gradient, there.gradient))
    print(f"\nresidual {float(there.residual):.1e}, 1 - cosine {1 - cosine:.1e}")
    assert cosine > 0.9999
    compared(
        table,
        "(j) one gradient of vgg4, batch 16, two points: 250 + 2 x 60 plain steps / settled to 1e-6",
        lambda: jax.tree.leaves(settled(net, x, y).gradient),
        {"one compiled loop": lambda: jax.tree.leaves(plain(net, x, y).gradient)},
        rounds=3,
        least=3,
    )


@pytest.mark.parametrize("ticks", [200, 50])
def test_noise(table, ticks):
    """(h) 64 noisy realisations of 64 neurons against an Euler-Maruyama loop by hand, in steps of half a time constant.

    The loop reads nothing; ours demodulates at every step (200 ticks a cycle, the default), or at every fourth.
    """
    count, steps, cycles, q = 64, 200, 2, jnp.asarray(0.1)
    net = osc.LayeredNetwork((16, 32, 32, 4), key=jax.random.key(0))
    x, y = np.full((1, 16), 0.5, np.float32), np.array([1])
    teaching, key = osc.Rotating(0.3, 100.0), jax.random.key(1)
    inputs = Inputs.of(net, np.repeat(x, count, axis=0), np.repeat(y, count))

    @eqx.filter_jit
    def by_hand(net, inputs, teaching, q, key):
        dt = teaching.period / steps

        def step(carry, k):
            u, key = carry
            key, *own = jax.random.split(key, len(u) + 1)
            f = net.force(inputs.clamped, net.activities(u), inputs.y, teaching((k % steps) * dt))
            kick = [q * jnp.sqrt(dt) * jax.random.normal(k, a.shape) for k, a in zip(own, u, strict=True)]
            u = tuple(a + (dt * (b - a) + c) / tau for a, b, c, tau in zip(u, f, kick, net.time_constants, strict=True))
            return (u, key), None

        rest = tuple(a.astype(jnp.complex64) for a in net.rest(count))
        return lax.scan(step, (rest, key), jnp.arange(cycles * steps))[0][0]

    lock_in = osc.LockIn(
        teaching,
        cycles=(cycles, cycles),
        discard=1,
        noise=osc.WhiteNoise(q),
        integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=steps, ticks=ticks),
    )

    def ensemble():
        return osc.ensemble(lock_in, net, x, y, realisations=count, key=key).readings[1]

    in_numpy = naive.noisy_network(net, inputs, teaching, float(q), steps)
    times = paired(
        {
            "ensemble": ensemble,
            "hand": lambda: by_hand(net, inputs, teaching, q, key),
            "numpy": lambda: in_numpy(cycles),
        },
        rounds=31,
    )
    table(
        f"(h) throughput of 64 noisy realisations of 64 neurons, {ticks} ticks in 200 Euler steps / a loop by hand",
        times.ratio("hand", "ensemble"),
        least=0.9,
        detail=f"{times.median('ensemble') * 1e3:.0f} ms / {times.median('hand') * 1e3:.0f} ms",
    )
    table(
        f"(h) the same, {ticks} ticks / the model in numpy, complex64, which reads nothing",
        times.ratio("numpy", "ensemble"),
        detail=f"{times.median('ensemble') * 1e3:.0f} ms / {times.median('numpy') * 1e3:.0f} ms",
    )


def test_sweep(table, tmp_path):
    """(i) A sweep on two workers against the same one in one process of one thread; and a task that does nothing.

    Both are warm: what is compiled was compiled before.
    """
    pytest.importorskip("distributed", reason="needs the extra `sweep`")

    def seconds(*arguments):
        command = [sys.executable, str(Path(__file__).with_name("sweeping.py")), str(tmp_path / str(len(ran)))]
        ran.append(arguments)
        environment = os.environ | {"NPROC": "1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [*command, *map(str, arguments)], env=environment, check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])["seconds"]

    ran: list[tuple] = []
    blocks = 48
    pairs = [(seconds(0, blocks, 64, 6), seconds(2, blocks, 64, 6)) for _ in range(3)]
    table(
        "(i) a sweep in one process of one thread / on two workers",
        statistics.median(a / b for a, b in pairs),
        least=1.7,
        detail=" / ".join(f"{statistics.median(p[i] for p in pairs):.1f} s" for i in range(2)),
    )
    tasks = 500
    table(
        "(i) a task that does nothing, on one worker, its results written",
        statistics.median(seconds(1, tasks, 4, 0) for _ in range(3)) / tasks * 1e3,
        most=20,
        unit=" ms",
    )


@pytest.fixture
def fresh(batch, tmp_path):
    """`fresh(period, cycles, *options)` runs `fresh.py` in a process of its own."""
    path = tmp_path / "batch.npz"
    np.savez(path, x=batch[0], y=batch[1])
    root = Path(osc.__file__).resolve().parents[1]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["PYTHONPATH"] = str(root)

    def run(*arguments):
        command = [sys.executable, str(Path(__file__).with_name("fresh.py")), str(path), *map(str, arguments)]
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    return run


def test_memory(fresh, table):
    """(f) Peak memory of a process with 1,000 cycles against one with 10, keeping the mean."""
    few, many = [], []
    for _ in range(3):
        few.append(fresh(60, 10, "mean")["kilobytes"])
        many.append(fresh(60, 1000, "mean")["kilobytes"])
    table(
        "(f) peak memory of 1,000 cycles / of 10 cycles, keeping the mean",
        statistics.median(a / b for a, b in zip(many, few, strict=True)),
        most=1.05,
        detail=f"{statistics.median(many) / 1024:.0f} MiB / {statistics.median(few) / 1024:.0f} MiB",
    )


def test_first_call(fresh, table):
    """(g) Compilation and first run of (b) in a fresh process, after the imports."""
    seconds = [fresh(PERIOD, CYCLES)["seconds"] for _ in range(3)]
    table(
        "(g) first simulate of (b) in a fresh process, compilation included",
        statistics.median(seconds),
        most=5,
        unit=" s",
    )
