"""The Python call that repeats what the lab shows: plain oscsim, to be pasted into a script or a notebook."""

import equinox as eqx
import jax
import numpy as np

from oscsim.lab.settings import EXAMPLES, STEPS, TICKS, Settings


def python_call(settings: Settings, cycles: int, origin: str | None = None, steps: int = STEPS) -> str:
    """Python code that runs these settings from rest and prints cosine and relative error of each realisation.

    Where the weights learn it is a call of `oscsim.train`, which takes the samples in an order of its own.

    Args:
        settings: of the lab.
        cycles: how many it ran.
        origin: code that defines `net, x, y` for a network of the user's own.
        steps: of each cycle, `oscsim.lab.settings.steps_for` of the network.
    """
    network = origin or "net, x, y = ...  # your network and its data, as you gave them to the lab"
    if settings.network in EXAMPLES:
        network = f'net, x, y = osc.lab.example("{settings.network}")'
    if settings.learning:
        return f"""import diffrax
import jax
import optax
import oscsim as osc

{network}
{_lock_in(settings, settings.discarded + 1, steps)}
# The neurons never stop: each batch meets them as the one before left them. The order of samples is train's own.
result = osc.train(
    net, (x, y), osc.AlwaysOn(lock_in), optax.sgd({settings.learning_rate!r}), epochs=1, batch_size=20,
    key=jax.random.key({settings.seed}),
)
print(result)
"""
    return f"""import diffrax
import jax
import oscsim as osc

{network}
x, y = x[{settings.sample} : {settings.sample + 1}], y[{settings.sample} : {settings.sample + 1}]
exact = osc.exact_gradient(net, x, y)
{_gradients(settings, max(cycles, settings.discarded + 1), steps)}
    print(r, float(osc.cosine(gradient, exact)), float(osc.relative_error(gradient, exact)))
"""


def _gradients(settings: Settings, cycles: int, steps: int) -> str:
    """A loop over the realisations r, up to the `gradient` of each."""
    noise, key = _noise(settings), f"jax.random.key({settings.seed})"
    lock_in = _lock_in(settings, f"({cycles}, {cycles})", steps)
    if settings.signal == "adaptive" and not noise:
        return f"""{lock_in}
for r in range(1):
    gradient = lock_in(net, x, y).gradient"""
    if settings.signal != "two-phase" and noise:
        return f"""{lock_in}
result = osc.ensemble(lock_in, net, x, y, realisations={settings.realisations}, key={key})
for r in range({settings.realisations}):
    gradient = jax.tree.map(lambda a: jax.numpy.asarray(a[r]), result.gradients)"""
    read = "osc.lab.classic_gradient(run, " if settings.signal == "two-phase" else "run.gradient("
    disturbed = noise and f"{noise.replace(4 * ' ', 8 * ' ')} key=jax.random.fold_in({key}, r),"
    return f"""for r in range({settings.realisations if noise else 1}):
    run = osc.simulate(
        net, x, y, {_teaching(settings)}, cycles={cycles},{disturbed}
        {_reading(settings, steps)},
    )
    gradient = {read}discard={settings.discarded})"""


def _lock_in(settings: Settings, cycles: int | str, steps: int) -> str:
    return f"""lock_in = osc.LockIn(
    {_teaching(settings)}, cycles={cycles}, discard={settings.discarded},{_noise(settings)}
    {_reading(settings, steps)},
)"""


def _teaching(settings: Settings) -> str:
    return f"{_room(settings)}.{_code(settings.teaching)}"


def _reading(settings: Settings, steps: int) -> str:
    integration = f"osc.Integration(diffrax.Heun(), steps_per_cycle={steps}, ticks={TICKS})"
    return f"demodulator={_room(settings)}.{type(settings.reader).__name__}(), integration={integration}"


def _room(settings: Settings) -> str:
    return "osc.lab" if settings.signal == "two-phase" else "osc"


def _noise(settings: Settings) -> str:
    """The noise as an argument on a line of its own; empty for none."""
    noise = settings.disturbance
    return "" if noise is None else f"\n    noise=osc.{_code(noise)},"


def _code(module: eqx.Module) -> str:
    """The call that makes it from its numbers; all else is the default of its class."""
    numbers = jax.tree.leaves_with_path(eqx.filter(module, eqx.is_array))
    # float32 as short as it can be said without becoming another number
    arguments = (f"{jax.tree_util.keystr(path, simple=True)}={np.float32(value)!s}" for path, value in numbers)
    return f"{type(module).__name__}({', '.join(arguments)})"
