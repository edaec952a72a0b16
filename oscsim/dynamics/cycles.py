"""Averages over many cycles, computed while they run: memory does not grow with their number."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import nondifferentiable_backward
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from oscsim.core.arrays import Count
from oscsim.core.errors import BadValue
from oscsim.dynamics.average import Average, accumulated
from oscsim.dynamics.cycle import Cycle, Watch, advance
from oscsim.dynamics.error_bars import gradient_and_error
from oscsim.dynamics.gradient_error import good_enough
from oscsim.dynamics.state import State
from oscsim.dynamics.system import System
from oscsim.networks.inputs import Inputs


class Averaged(eqx.Module):
    """Where some cycles stand: the state, the average reading, and how much the last cycle changed it.

    Attributes:
        state: after the last cycle.
        average: of the cycles that count; None where nothing is averaged.
        count: how many cycles were run.
        change: of each sample's response in the last cycle, relative; infinite where there was one cycle only.
        residual: the lock residual of the last cycle.
    """

    state: State
    average: Average | None
    count: Int[Array, ""]
    change: Float[Array, " batch"]
    residual: Float[Array, ""]

    @staticmethod
    def begin(system: System, state: State, average: bool = True) -> "Averaged":
        """Before the first cycle."""
        dtype, batch = system.network.dtype, state.potentials[0].shape[0]
        return Averaged(
            state=state,
            average=Average.empty(state.reading) if average else None,
            count=jnp.zeros((), jnp.int32),
            change=jnp.full(batch, jnp.inf, dtype),
            residual=jnp.zeros((), dtype),
        )

    @property
    def averages(self) -> Average:
        """The average, where there is one."""
        if self.average is None:
            raise BadValue("average=None: nothing was averaged in these cycles")
        return self.average

    def age(self) -> Int[Array, "..."]:
        """How many cycles went before: since the start, or since each sample's amplitude last changed."""
        return self.count if self.state.tuning is None else self.state.tuning.age

    def advance(
        self,
        system: System,
        inputs: Inputs,
        key: Key[Array, ""] | None,
        discard: Count | None,
        first: Bool[Array, ""] | None = None,
        watch: Watch | None = None,
    ) -> tuple["Averaged", Cycle]:
        """One more cycle, and what it gave.

        `first` says whether the reading before is of something else; by default it is in the first cycle.
        """
        state, cycle = advance(system, self.state, inputs, key=key, watch=watch)
        return self.after(state, cycle, discard, first), cycle

    def after(
        self, state: State, cycle: Cycle, discard: Count | None, first: Bool[Array, ""] | None = None
    ) -> "Averaged":
        """Where they stand after one more cycle, which gave this."""
        reading = cycle.reading
        now, before = lax.stop_gradient((reading, self.state.reading))  # what judges a cycle has no derivative
        residual, change = now.change(before), now.response_change(before)
        change = jnp.where(self.count == 0 if first is None else first, jnp.inf, change)
        average = self.average
        if average is not None:
            average = accumulated(average, reading, residual, self.age(), discard)
        return Averaged(state, average, self.count + 1, change, residual)


class Counts(eqx.Module):
    """How many cycles to run, and which of them count.

    Attributes:
        cycles: how many at least.
        most: how many at most, where samples whose amplitude was lowered, or the accuracy, ask for more.
        discard: how many do not count, from the start and from each change of a sample's amplitude; None leaves out
            those before the network locked.
        accuracy: the error to go on for until it is reached; None for none.
    """

    cycles: Count
    most: Count
    discard: Count | None = None
    accuracy: Float[Array, ""] | np.ndarray | None = None


@eqx.filter_jit
def averaged(
    system: System,
    state: State,
    inputs: Inputs,
    counts: Counts,
    *,
    key: Key[Array, ""] | None,
    exactly: int | None = None,
) -> Averaged:
    """Run cycles and average what is read in them: pure, and compiled.

    Exactly so many have every derivative that the plan's `adjoint` gives, and are compiled for their number; those that
    go on as `counts` says are compiled once, and have derivatives in forward mode alone.
    """

    def wanting(found):
        wanted, state = jnp.zeros((), bool), found.state
        if state.tuning is not None:
            unread = state.tuning.age <= (1 if counts.discard is None else counts.discard)
            # A sample that was lowered has to be read again, and each has to be read at all.
            wanted |= jnp.any((state.tuning.lowered & unread) | (found.averages.count == 0))
        if counts.accuracy is not None:
            wanted |= ~good_enough(gradient_and_error(system, inputs, found.averages, found.change)[1], counts.accuracy)
        return (found.count < counts.cycles) | ((found.count < counts.most) & wanted & ~state.diverged)

    def one(found):
        state, cycle = advance(system, found.state, inputs, key=key)
        return found.after(state, cycle, counts.discard)

    start = Averaged.begin(system, state)
    if exactly is not None:
        return lax.scan(jax.checkpoint(lambda found, _: (one(found), None)), start, length=exactly)[0]
    return nondifferentiable_backward(lax.while_loop(wanting, one, start), msg=NO_REVERSE)


NO_REVERSE = (
    "cycles whose number depends on what is read in them (an Adaptive signal, an accuracy) have no derivative in "
    "reverse mode: use jax.jvp or jax.jacfwd with Integration(adjoint=diffrax.ForwardMode()), or a fixed number of "
    "cycles under Rotating"
)
"""What `jax.grad` is told."""
