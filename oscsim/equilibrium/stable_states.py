"""The stable states of a network, for each input."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from oscsim.core.arrays import per_sample, repeated
from oscsim.core.checks import (
    as_count,
    as_index,
    as_key,
    as_numbers,
    both,
    checked,
    optional,
    positive,
    untraced,
)
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractPrinted
from oscsim.equilibrium.settling import Method, settle_inputs
from oscsim.equilibrium.states import Equilibrium, default_tolerance, is_settled
from oscsim.equilibrium.vectors import as_layers, flatten_samples
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters
from oscsim.networks.inputs import Data, Inputs, as_inputs


class States(AbstractPrinted):
    """The stable states of one input, the ones that most starts lead to first.

    Attributes:
        potentials: one (states, neurons) array per layer.
        share: the share of random starts that lead to each.
        losses: the cost at each; nan where no targets were given.
        from_rest: which of them the neurons reach from rest; -1 if they settle nowhere.
        lost: the share of random starts that settle nowhere.

    Example:
        >>> states = osc.equilibria(net, x, y, starts=8, key=jax.random.key(0))[0]
        >>> states.count, [u.shape for u in states.potentials], states.lost
        (1, [(1, 5)], 0.0)
    """

    potentials: tuple[np.ndarray, ...]
    share: Float[np.ndarray, " states"]
    losses: Float[np.ndarray, " states"]
    from_rest: int = eqx.field(static=True)
    lost: float = eqx.field(static=True)

    @property
    def count(self) -> int:
        """How many were found."""
        return len(self.share)

    def __str__(self) -> str:
        told = []
        for number, (share, loss) in enumerate(zip(self.share, self.losses, strict=True)):
            rest = ", and rest" if number == self.from_rest else ""
            told.append(f"loss {loss:.4g} ({100 * share:.0f} % of starts{rest})")
        told += [f"{100 * self.lost:.0f} % of starts settle nowhere"] if self.lost else []
        return f"{self.count} stable state{'' if self.count == 1 else 's'}: " + "; ".join(told)


class Equilibria(AbstractPrinted):
    """What `equilibria` found: `found[i]` holds the `States` of sample i.

    Attributes:
        samples: one `States` per input.
        starts: how many random starts each had.

    Example:
        >>> found = osc.equilibria(net, x, y, starts=8, key=jax.random.key(0))
        >>> len(found), found.counts  # inputs, and the stable states of each
        (3, (1, 1, 1))
    """

    samples: tuple[States, ...]
    starts: int = eqx.field(static=True)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, sample: int) -> States:
        return self.samples[sample]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many stable states each input has."""
        return tuple(states.count for states in self.samples)

    def at(self, choice: ArrayLike | Sequence[int] = 0) -> Layers:
        """Potentials of the batch with one state of each input, for `exact_gradient(..., at=...)` and its like.

        Args:
            choice: the number of the state, one for all inputs or one for each.

        Raises:
            ValueError: an input has no such state.
        """
        given = untraced("choice", as_numbers("choice", choice))
        if np.shape(given) not in ((), (len(self),)):
            raise BadValue(
                f"choice has shape {np.shape(given)}: give one number, or one for each of {len(self)} inputs"
            )
        numbers = np.broadcast_to([as_index("choice", n) for n in np.ravel(given)], (len(self),))
        for sample, (number, states) in enumerate(zip(numbers, self.samples, strict=True)):
            if not 0 <= number < states.count:
                raise BadValue(
                    f"choice={number} for sample {sample}, which has {states.count} stable states: use 0 to "
                    f"{states.count - 1}"
                )
        rows = [[layer[n] for layer in states.potentials] for n, states in zip(numbers, self.samples, strict=True)]
        return tuple(jnp.asarray(np.stack(layer)) for layer in zip(*rows, strict=True))

    def __str__(self) -> str:
        lines = [f"Equilibria of {len(self)} inputs, from rest and {self.starts} random starts each"]
        return "\n".join(lines + [f"  sample {number}: {states}" for number, states in enumerate(self.samples)])


@checked(net=untraced, x=untraced, y=untraced, key=both(as_key, untraced), scale=untraced)
def equilibria(
    net: AbstractNetwork,
    x: Data,
    y: Data = None,
    *,
    starts: int = 64,
    key: Key[Array, ""],
    scale: ArrayLike | None = None,
) -> Equilibria:
    r"""The stable states of each input: the neurons are followed from rest and from random potentials to their ends.

    States that few starts lead to may be missed. Potentials count as they are: phases that differ by a whole turn are
    two states.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes), for the losses; may be left out.
        starts: random starts for each input.
        key: for the starts, which are normal in each potential.
        scale: their standard deviation; by default twice the root mean square of the potentials that rest leads to, and
            1 at least, the scale on which usual activations bend, each input its own.

    Raises:
        ValueError: bad inputs (see `Inputs.of`), counts or scale.
        TypeError: a key of the wrong kind.

    Example:
        >>> osc.equilibria(net, x, y, starts=8, key=jax.random.key(0)).counts  # stable states of each input
        (1, 1, 1)
    """
    check_parameters(net)
    starts = as_count("starts", starts)
    scale = optional(positive("scale"))(scale)
    x = as_inputs(net, x)
    inputs = Inputs.of(net, x, np.zeros(len(x), np.int32) if y is None else y)
    batch = inputs.x.shape[0]
    rest = settle_inputs(net, inputs, jnp.zeros(()), default_tolerance(net.dtype), method="flow")
    if scale is None:
        size = jnp.sqrt(jnp.mean(flatten_samples(rest.potentials)[0] ** 2, axis=1))
        spread = jnp.where(jnp.isfinite(size), jnp.maximum(2 * size, 1), 1)
    else:
        spread = jnp.full(batch, scale, net.dtype)
    found = from_random_starts(net, inputs, starts, key, spread, "flow")
    tolerance = default_tolerance(net.dtype)
    ends = np.asarray(flatten_samples(found.potentials)[0]).reshape(starts, batch, -1)
    arrived = np.asarray(is_settled(found, tolerance)).reshape(starts, batch)
    first = np.asarray(flatten_samples(rest.potentials)[0])
    rested = np.asarray(is_settled(rest, tolerance))
    samples = []
    for i in range(batch):
        seen = np.concatenate([first[i : i + 1][rested[i : i + 1]], ends[arrived[:, i], i]])
        number = distinct(seen)
        counted = number[int(rested[i]) :]
        states = np.stack([seen[np.argmax(number == n)] for n in range(number.max() + 1)]) if len(seen) else seen
        share = np.array([np.sum(counted == n) for n in range(len(states))]) / starts
        order = np.argsort(-share, kind="stable")
        losses = np.full(len(states), np.nan) if y is None else _losses(net, inputs, i, states[order])
        samples.append(
            States(
                potentials=tuple(np.asarray(layer) for layer in as_layers(net, jnp.asarray(states[order]))),
                share=share[order],
                losses=losses,
                from_rest=int(np.flatnonzero(order == number[0])[0]) if rested[i] else -1,
                lost=float(np.mean(~arrived[:, i])),
            )
        )
    return Equilibria(tuple(samples), starts)


def from_random_starts(
    net: AbstractNetwork,
    inputs: Inputs,
    starts: int,
    key: Key[Array, ""],
    scale: Float[Array, " batch"],
    method: Method | None,
) -> Equilibrium:
    """Where the samples settle from normal potentials of a standard deviation each: (starts * batch, ...), in turn."""
    rest = net.rest(inputs.x.shape[0])
    tiled = repeated(inputs, starts)
    random = []
    for k, layer in zip(jax.random.split(key, len(rest)), rest, strict=True):
        drawn = jax.random.normal(k, (starts, *layer.shape), layer.dtype)
        drawn *= per_sample(scale.astype(layer.dtype)[None], drawn)
        random.append(drawn.reshape(-1, *layer.shape[1:]))
    return settle_inputs(net, tiled, jnp.zeros(()), default_tolerance(net.dtype), start=tuple(random), method=method)


def distinct(potentials: Float[np.ndarray, "ends neurons"]) -> np.ndarray:
    """The number of the state that each end is at, counted from 0 in the order in which they are met."""
    near = 1e-5 if potentials.dtype == np.float64 else 1e-2
    met: list[np.ndarray] = []
    numbers = []
    for end in potentials:
        same = [n for n, u in enumerate(met) if np.max(np.abs(end - u)) <= near * (1 + np.max(np.abs(u)))]
        if not same:
            met.append(end)
        numbers.append(same[0] if same else len(met) - 1)
    return np.array(numbers, int)


def _losses(net: AbstractNetwork, inputs: Inputs, sample: int, states: np.ndarray) -> np.ndarray:
    """The cost of one sample at each of its states."""
    clamped, y = jax.tree.map(lambda a: jnp.repeat(a[sample][None], len(states), axis=0), (inputs.clamped, inputs.y))
    return np.asarray(net.loss(clamped, net.activities(as_layers(net, jnp.asarray(states))), y))
