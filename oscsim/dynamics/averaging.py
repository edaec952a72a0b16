"""Many cycles, averaged while they run."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from oscsim.dynamics.average import Average, accumulated, response_change
from oscsim.dynamics.cycle import advance
from oscsim.dynamics.error_bars import good_enough, gradient_and_error
from oscsim.dynamics.plan import Plan
from oscsim.dynamics.state import State
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Inputs


class Counts(eqx.Module):
    """How many cycles to run, and which of them count.

    Attributes:
        cycles: how many at least.
        discard: how many do not count, from the start and from each change of a sample's amplitude; None leaves out
            those before the network locked.
        most: how many at most, where samples whose amplitude was lowered, or the accuracy, ask for more.
        accuracy: the error to go on for until it is reached; None for none.
    """

    cycles: Any
    discard: Any
    most: Any
    accuracy: Any = None


class Averaged(eqx.Module):
    """What some cycles gave: the state after them, the average reading, and how much the last cycle changed it.

    Attributes:
        state: after the last cycle.
        average: of the cycles that count.
        change: of each sample's response in the last cycle, relative; infinite where there was one cycle only.
        residual: the lock residual of the last cycle.
    """

    state: State
    average: Average
    change: Array
    residual: Array


def averaged(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    plan: Plan,
    key: Any,
    counts: Counts,
    noise: Any,
) -> Averaged:
    """Run cycles and average what is read in them: pure, with memory that does not grow with their number."""

    def one(carry):
        number, state, average, _, _ = carry
        new, reading = advance(state, net, inputs, teaching, key, cycle=plan, noise=noise)
        residual, change = reading.change(state.reading), response_change(reading, state.reading, number)
        age = number if state.tuning is None else state.tuning.age
        average = accumulated(average, reading, residual, age, counts.discard)
        return number + 1, new, average, residual, change

    def wanting(carry):
        number, state, average, _, change = carry
        wanted = jnp.zeros((), bool)
        if state.tuning is not None:
            unread = state.tuning.age <= (1 if counts.discard is None else counts.discard)
            # A sample that was lowered has to be read again, and each has to be read at all.
            wanted |= jnp.any((state.tuning.lowered & unread) | (average.count == 0))
        if counts.accuracy is not None:
            error = gradient_and_error(net, inputs, average, change, teaching, plan, noise)[1]
            wanted |= ~good_enough(error, counts.accuracy)
        return (number < counts.cycles) | ((number < counts.most) & wanted & ~state.diverged)

    batch = inputs.x.shape[0]
    start = (
        jnp.zeros((), jnp.int32),
        state,
        Average.empty(state.reading),
        jnp.zeros((), net.dtype),
        jnp.full(batch, jnp.inf, net.dtype),
    )
    _, state, average, residual, change = lax.while_loop(wanting, one, start)
    return Averaged(state, average, change, residual)
