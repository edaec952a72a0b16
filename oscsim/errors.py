"""Errors with names: each says what went wrong, with which value, and what to change."""


class DivergenceError(RuntimeError):
    """The neurons ran off to infinity or into a pole of their activation.

    Raised by `oscsim.simulate`. The message names the cycle, the layer and the amplitude.
    """


class NotSettledError(RuntimeError):
    """A fixed point was asked for and not reached within the given number of steps.

    Raised by `oscsim.settle` and by whatever needs an equilibrium.
    """


class NotHolomorphicError(TypeError):
    """A complex signal was to pass through a function that has no complex derivative."""
