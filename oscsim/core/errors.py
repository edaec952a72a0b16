"""Named errors, and `RESULTS`: what went wrong as a value that can be read under jit."""

import sys
import warnings

import equinox as eqx

INSIDE = {"oscsim", "equinox", "jax", "jaxtyping", "contextlib"}
"""Packages whose lines are none of the user's own."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's own that led here: Python tells a warning once for each line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class BadValue(ValueError):
    """An argument has a value that cannot be right. The message names it, its value and the remedy.

    Example:
        >>> osc.Rotating(amplitude=-0.2, period=100.0)
        Traceback (most recent call last):
            ...
        oscsim.core.errors.BadValue: amplitude=-0.2: use a positive, finite number
    """


class BadType(TypeError):
    """An argument is of the wrong kind. The message names it, its value and the remedy.

    Example:
        >>> osc.Boxcar(harmonics="0, 1")
        Traceback (most recent call last):
            ...
        oscsim.core.errors.BadType: harmonics='0, 1': give distinct integers in a tuple, 0 and 1 among ...
    """


class DamagedFileError(BadValue):
    """A file is truncated or changed, or is not of the kind that it was read as. The message names it.

    Example:
        >>> np.save("x.npy", np.eye(2))
        >>> osc.load("x.npy")
        Traceback (most recent call last):
            ...
        oscsim.core.errors.DamagedFileError: x.npy is truncated, or not a file that oscsim wrote ...
    """


class NotRegisteredError(BadValue):
    """A class or function that is not oscsim's, and was not registered, was to be saved or read: see `register`.

    Example:
        >>> own = osc.LayeredNetwork((6, 5, 4), activation=lambda u: u**3, key=jax.random.key(0))
        >>> osc.core.checkpoint.save(own, "own.osc")
        Traceback (most recent call last):
            ...
        oscsim.core.errors.NotRegisteredError: LayeredNetwork.activation is ...
    """


class ChangedStudyError(BadValue):
    """A sweep was to go on in a store that another study, or other versions, made: see `accept_changes`.

    Example:
        >>> axes, key = {"mean": [0.0, 1.0]}, jax.random.key(0)
        >>> data = osc.sweep(lambda key, mean: {"a": mean + 1.0}, axes, seeds=1, key=key, store="results")
        >>> osc.sweep(lambda key, mean: {"a": mean + 2.0}, axes, seeds=1, key=key, store="results")
        Traceback (most recent call last):
            ...
        oscsim.core.errors.ChangedStudyError: store=... holds another sweep: its study is ...
    """


class MissingPackage(ModuleNotFoundError):
    """A package that an extra of oscsim brings is not installed. The message says how to install it."""


class DivergenceError(RuntimeError):
    """The neurons ran off to infinity or into a pole of their activation.

    Raised by `oscsim.simulate`, by estimators and in training. The message names the cycle or step, the layer and what
    drove it there.

    Example:
        >>> runaway = osc.HopfieldNetwork((6, 5, 4), activation=osc.Identity(), scale=3.0, key=jax.random.key(0))
        >>> osc.simulate(runaway, x, y, osc.Rotating(0.2, 100.0), cycles=2)
        Traceback (most recent call last):
            ...
        oscsim.core.errors.DivergenceError: the neurons diverged in cycle 1: layer 1 of 1, ...
    """


class MaxStepsError(RuntimeError):
    """The solver took as many steps as it may within one tick of a cycle, and the neurons did not run away.

    A slow signal, or one fast layer, asks for more of them. Raised by `oscsim.simulate`, by estimators and in training.
    The message names the cycle, the number of steps, and what to change.

    Example:
        >>> few = osc.Integration(max_steps=8)
        >>> osc.simulate(net, x, y, osc.Rotating(0.2, 5000.0), cycles=1, integration=few)
        Traceback (most recent call last):
            ...
        oscsim.core.errors.MaxStepsError: the solver reached max_steps=8 within one of the 64 ticks of cycle 1, ...
    """


class NotSettledError(RuntimeError):
    """A fixed point was asked for and not reached within the given number of steps.

    Raised by `oscsim.settle` and by whatever needs an equilibrium.

    Example:
        >>> osc.settle(net, x, y, max_steps=1, method="sweeps")
        Traceback (most recent call last):
            ...
        oscsim.core.errors.NotSettledError: sample ... did not settle at beta=0 after 1 steps: ...
    """


class NotHolomorphicError(BadType):
    """A complex signal was to pass through a function that has no complex derivative.

    Example:
        >>> osc.check_holomorphic(jnp.abs)
        Traceback (most recent call last):
            ...
        oscsim.core.errors.NotHolomorphicError: the Cauchy-Riemann equations are broken by: abs ...
    """


class InexactGradientError(RuntimeError):
    """A gradient whose own error is above the tolerance, where `throw=True` asked for an error.

    The message says why, and what to do.

    Example:
        >>> osc.Classic(amplitude=2.0)(net, x, y, throw=True)
        Traceback (most recent call last):
            ...
        oscsim.core.errors.InexactGradientError: gradient good to ... %: ...; the amplitude is too large ...
    """


class InexactGradientWarning(UserWarning):
    """A gradient whose own error is above the tolerance. The message says why, and what to do.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     estimate = osc.Classic(amplitude=2.0)(net, x, y)
        >>> caught[0].category is osc.InexactGradientWarning
        True
    """


class RESULTS(eqx.Enumeration):
    """What became of a computation, as a value: under jit, where nothing can be raised, it is there to be read.

    `RESULTS[result]` is the sentence that says what went wrong and what to change, empty where nothing did; errors and
    warnings add the numbers. `throw=` says whether it is raised.

    Example:
        >>> result = osc.Exact()(net, x, y).result
        >>> bool(result == osc.RESULTS.successful)
        True
        >>> osc.RESULTS[osc.RESULTS.lag]
        'the neurons lag behind the period; use a longer period, or extrapolate=True'
    """

    successful = ""
    diverged = (
        "the neurons diverged; lower the amplitude (it may be past the convergence radius: see suggest), or take "
        "smaller steps"
    )
    max_steps_reached = (
        "the solver ran out of steps, and the neurons did not run away; use a larger max_steps, or more ticks"
    )
    not_settled = "the neurons did not settle; use a lower amplitude, more max_steps, or weights of a smaller scale"
    not_locked = (
        "not locked: the cycles differ; run more cycles, or discard more, and if that does not help lower the amplitude"
    )
    one_cycle = (
        "the only cycle holds a start that is not forgotten, or an amplitude past the convergence radius; run more "
        "cycles, or use start='settled'"
    )
    out_of_regime = (
        "outside the analytic regime: samples are past their convergence radius; lower the amplitude, or use Adaptive; "
        "if that changes nothing, take more steps_per_cycle"
    )
    rounding = "rounding swallows the response; use a larger amplitude, or float64"
    noise = "the noise has not averaged out; average more cycles or estimates, or use a larger amplitude"
    unsettled_points = (
        "the nudge moves the neurons hardly further than they are settled to; use a larger amplitude, a tighter "
        "tolerance (float64 allows more), or more steps"
    )
    truncation = (
        "the amplitude is too large for so few points; use a smaller one, or more points (Phases, which also has "
        "adaptive=True)"
    )
    lag = "the neurons lag behind the period; use a longer period, or extrapolate=True"
    steps = "the solver's steps are too long; use more steps_per_cycle, or tighter tolerances"
    asymmetry = "the couplings are not symmetric, which no amplitude or period makes up for"
