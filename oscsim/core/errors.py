"""Errors with names: each says what went wrong, with which value, and what to change."""


class BadValue(ValueError):
    """An argument has a value that cannot be right. The message names it, its value and the remedy."""


class BadType(TypeError):
    """An argument is of the wrong kind. The message names it, its value and the remedy."""


class MissingPackage(ModuleNotFoundError):
    """A package that an extra of oscsim brings is not installed. The message says how to install it."""


class DivergenceError(RuntimeError):
    """The neurons ran off to infinity or into a pole of their activation.

    Raised by `oscsim.simulate`, by estimators and in training. The message names the cycle or step, the layer and what
    drove it there.
    """


class MaxStepsError(RuntimeError):
    """The solver took as many steps as it may within one tick of a cycle, and the neurons did not run away.

    A slow signal, or one fast layer, asks for more of them. Raised by `oscsim.simulate`, by estimators and in training.
    The message names the cycle, the number of steps, and what to change.
    """


class NotSettledError(RuntimeError):
    """A fixed point was asked for and not reached within the given number of steps.

    Raised by `oscsim.settle` and by whatever needs an equilibrium.
    """


class NotHolomorphicError(BadType):
    """A complex signal was to pass through a function that has no complex derivative."""


class InexactGradientError(RuntimeError):
    """A gradient whose own error is above the tolerance, where `throw=True` asked for an error.

    The message says why, and what to do.
    """


class InexactGradientWarning(UserWarning):
    """A gradient whose own error is above the tolerance. The message says why, and what to do."""
