"""The Python call that repeats what the lab shows: plain oscsim, to be pasted into a script or a notebook."""

import jax
import numpy as np

from oscsim.lab.settings import EXAMPLES, STEPS, TICKS, Settings
from oscsim.signals.noise import Noise


def python_call(settings: Settings, cycles: int, origin: str | None = None, steps: int = STEPS) -> str:
    """Python code that runs these settings from rest and prints cosine and relative error of each realisation.

    Args:
        settings: of the lab.
        cycles: how many it ran.
        origin: code that defines `net, x, y` for a network of the user's own.
        steps: of each cycle, `oscsim.lab.settings.steps_for` of the network.
    """
    if settings.learning:
        return _training(settings, origin, steps)
    cycles = max(cycles, settings.discarded + 1)
    network = _network(settings, origin)
    shown = f"x, y = x[{settings.sample} : {settings.sample + 1}], y[{settings.sample} : {settings.sample + 1}]"
    teaching, integration = _teaching(settings), _integration(steps)
    noise, key = settings.disturbance, f"jax.random.key({settings.seed})"
    reading = f"demodulator={_reader(settings)}, {integration}"
    count = settings.realisations
    if settings.signal == "adaptive" and noise is None:
        body = f"""
lock_in = osc.LockIn(
    {teaching}, cycles=({cycles}, {cycles}), discard={settings.discarded},
    {reading},
)
gradient = lock_in(net, x, y).gradient
print(0, float(osc.cosine(gradient, exact)), float(osc.relative_error(gradient, exact)))
"""
    elif settings.signal == "two-phase" or noise is None:
        runs = 1 if noise is None else count
        disturbed = "" if noise is None else f"\n        noise=osc.{_exact(noise)}, key=jax.random.fold_in({key}, r),"
        gradient = (
            f"osc.lab.classic_gradient(run, discard={settings.discarded})"
            if settings.signal == "two-phase"
            else f"run.gradient(discard={settings.discarded})"
        )
        body = f"""
for r in range({runs}):
    run = osc.simulate(
        net, x, y, {teaching}, cycles={cycles},{disturbed}
        {reading},
    )
    gradient = {gradient}
    print(r, float(osc.cosine(gradient, exact)), float(osc.relative_error(gradient, exact)))
"""
    else:
        body = f"""
lock_in = osc.LockIn(
    {teaching}, cycles=({cycles}, {cycles}), discard={settings.discarded}, noise=osc.{_exact(noise)},
    {reading},
)
result = osc.ensemble(lock_in, net, x, y, realisations={count}, key={key})
for r in range({count}):
    gradient = jax.tree.map(lambda a: jax.numpy.asarray(a[r]), result.gradients)
    print(r, float(osc.cosine(gradient, exact)), float(osc.relative_error(gradient, exact)))
"""
    return f"""import diffrax
import jax
import oscsim as osc

{network}
{shown}
exact = osc.exact_gradient(net, x, y)
{body.lstrip()}"""


def _training(settings: Settings, origin: str | None, steps: int) -> str:
    """The call that learns with these settings; the lab takes the samples in an order of its own."""
    noise = settings.disturbance
    disturbed = "" if noise is None else f"\n    noise=osc.{_exact(noise)},"
    return f"""import diffrax
import jax
import optax
import oscsim as osc

{_network(settings, origin)}
lock_in = osc.LockIn(
    {_teaching(settings)}, cycles={settings.discarded + 1}, discard={settings.discarded},{disturbed}
    demodulator={_reader(settings)}, {_integration(steps)},
)
# The neurons never stop: each batch meets them as the one before left them. The order of samples is train's own.
result = osc.train(
    net, (x, y), osc.AlwaysOn(lock_in), optax.sgd({settings.learning_rate!r}), epochs=1, batch_size=20,
    key=jax.random.key({settings.seed}),
)
print(result)
"""


def _network(settings: Settings, origin: str | None) -> str:
    if settings.network in EXAMPLES:
        return f'net, x, y = osc.lab.example("{settings.network}")'
    return origin or "net, x, y = ...  # your network and its data, as you gave them to the lab"


def _teaching(settings: Settings) -> str:
    amplitude, period = f"amplitude={settings.amplitude!r}", f"period={settings.period!r}"
    if settings.signal == "adaptive":
        lowest, highest = settings.bounds
        return f"osc.Adaptive({period}, {amplitude}, lowest={lowest!r}, highest={highest!r})"
    kind = "osc.Rotating" if settings.signal == "turning" else "osc.lab.TwoPhase"
    return f"{kind}({amplitude}, {period})"


def _integration(steps: int) -> str:
    return f"integration=osc.Integration(diffrax.Heun(), steps_per_cycle={steps}, ticks={TICKS})"


def _reader(settings: Settings) -> str:
    if settings.signal == "two-phase":
        return "osc.lab.PhaseMeans()"
    return f"osc.{type(settings.reader).__name__}()"


def _exact(noise: Noise) -> str:
    """The noise as code; what is no number is the default of its class."""
    numbers = {name: float(value) for name, value in vars(noise).items() if isinstance(value, jax.Array)}
    # float32 as short as it can be said without becoming another number
    arguments = ", ".join(f"{name}={np.float32(value)!s}" for name, value in numbers.items())
    return f"{type(noise).__name__}({arguments})"
