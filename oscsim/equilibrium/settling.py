"""Settling: sweeps over the layers, and where they fail, the neurons are followed in time."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Inexact

from oscsim.core.arrays import complex_of, constant, is_traced, per_sample, promoting, to_complex
from oscsim.core.checks import (
    as_count,
    as_flag,
    as_numbers,
    as_positive,
    checked,
    choice,
    count,
)
from oscsim.core.errors import BadType, BadValue, NotSettledError
from oscsim.core.printing import AbstractSettings
from oscsim.equilibrium.acceleration import PATIENCE, anderson
from oscsim.equilibrium.derivatives import settled
from oscsim.equilibrium.flow import newton, settle_by_flow, slope
from oscsim.equilibrium.states import (
    At,
    Equilibrium,
    check_start,
    default_tolerance,
    is_settled,
    require_settled,
    rounding,
)
from oscsim.equilibrium.vectors import as_layers, even_and_odd, flat, largest
from oscsim.networks.base import AbstractNetwork, Layers, as_potentials, check_parameters, require_holomorphic
from oscsim.networks.inputs import Data, Inputs


class Sweeps(AbstractSettings):
    r"""Sweeps $u \leftarrow F(\sigma(u), \beta)$ over the layers, mixed by Anderson acceleration.

    `Sweeps(memory=0, even_odd=False)` is the plain iteration, Euler steps of length tau.

    Attributes:
        memory: how many earlier sweeps are mixed; 0 for none.
        even_odd: the second, fourth, ... layer first, then the others with what those have become; else all at once.

    Raises:
        ValueError: a memory that is no count.
    """

    memory: int = eqx.field(static=True, default=5, converter=count("memory", 0))
    even_odd: bool = eqx.field(static=True, default=True)


Method = Literal["sweeps", "flow"] | Sweeps
"""How a state is looked for; None is sweeps first, and the flow where they fail."""

SWEEPS = 3 * PATIENCE
"""Sweeps after which those who have not settled are followed in time, which by then costs less than going on."""


@promoting
@checked(start=as_potentials, throw=as_flag)
def settle(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    beta: ArrayLike = 0.0,
    *,
    tolerance: float | None = None,
    max_steps: int = 1000,
    start: Layers | None = None,
    method: Method | None = None,
    throw: bool = True,
) -> Equilibrium:
    r"""A stable fixed point $u = \partial\Phi/\partial s\,(\sigma(u), \beta)$ for each sample of a batch.

    By default in two steps. *Sweeps* over the even layers and then the odd ones (block Gauss-Seidel), mixed by Anderson
    acceleration, contract as much as two steps of all layers at once, where each layer depends on its neighbours alone.
    Samples that they do not settle, or settle in a state that the neurons would not stay in, are then *followed in
    time*:
    $\tau \dot u = -u + \partial\Phi/\partial s$ from `start` to its end, accurately as long as other states may
    compete, and by Newton's method once one is certain; after `oscsim.equilibrium.flow.EXPLICIT_STEPS` steps by
    pseudo-transient continuation. So a network has no stable state only if its neurons never come to rest.

    Which of several states is found is another matter: sweeps may end in another one than the neurons. With
    `method="flow"` all samples are followed, and each ends where its neurons do.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        beta: the teaching signal, real or complex; one number, or one per sample. At a complex one there are sweeps
            alone: what they find continues the free state, and may repel neurons.
        tolerance: largest residual, absolute in the potentials; by default 1e-12 in float64, 1e-6 in float32, which
            suits activations that bend on a scale of about 1, as does the way the neurons are followed. What
            rounding leaves of large potentials is let pass.
        max_steps: sweeps before giving up; of those that are followed, `oscsim.equilibrium.settling.SWEEPS` at most.
        start: potentials to start from; by default rest.
        method: `"sweeps"` alone, whose fixed point may be unstable, or others, `oscsim.equilibrium.Sweeps(memory=...,
            even_odd=...)`; `"flow"` alone; None for both.
        throw: raise where a sample does not settle; without it, look at `residual`.

    Raises:
        NotSettledError: a sample has no stable state (with sweeps alone: they leave a residual above the tolerance);
            names the layer, the sample and beta.
        NotHolomorphicError: a complex `beta` on a network that declares itself non-holomorphic.
        ValueError: bad inputs (see `Inputs.of`), tolerance, counts or method; `"flow"` at a complex beta.

    Source: Walker & Ni (2011) for the acceleration; Kelley & Keyes (1998) for the continuation.

    Example:
        >>> free, nudged = osc.settle(net, x, y), osc.settle(net, x, y, beta=0.2)
        >>> print(free.residual < 1e-6)  # of each sample
        [ True  True  True]
        >>> nudged_loss, free_loss = (net.loss(run.inputs.clamped, s.activities, y).mean() for s in (nudged, free))
        >>> print(nudged_loss < free_loss)
        True
    """
    check_parameters(net)
    inputs = Inputs.of(net, x, y)
    if not (method is None or isinstance(method, Sweeps)):
        method = choice("sweeps", "flow", otherwise="Sweeps(...), or None for both")("method", method)
    beta = jnp.asarray(as_numbers("beta", beta, "use one real or complex number, or one per sample"))
    if jnp.iscomplexobj(beta):
        require_holomorphic(net, f"settling at beta={beta}")
        if method == "flow":
            raise BadValue(f"method='flow' at beta={beta}: neurons need not rest at a complex beta; use 'sweeps'")
    if not is_traced(beta) and not np.all(np.isfinite(np.asarray(beta))):
        raise BadValue(f"beta={beta}: use finite numbers")
    if beta.ndim and beta.shape != (inputs.x.shape[0],):
        raise BadValue(
            f"beta has shape {beta.shape} for a batch of {inputs.x.shape[0]}: use one number, or one per sample"
        )
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    tolerance = as_positive("tolerance", tolerance)
    max_steps = as_count("max_steps", max_steps)
    if start is not None:
        check_start(net, inputs, start)
    found = settle_inputs(net, inputs, beta, np.asarray(tolerance), np.int32(max_steps), start, method)
    if throw and not is_traced(found):
        require_settled(net, inputs, found, beta, tolerance)
    return found


def free_equilibrium(
    net: AbstractNetwork, inputs: Inputs, tolerance: float | None = None, max_steps: int = 1000
) -> Equilibrium:
    """`settle` at beta = 0, on checked inputs.

    Raises:
        NotSettledError: a sample has no stable state.
    """
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    found = settle_inputs(net, inputs, jnp.zeros(()), np.asarray(tolerance), np.int32(max_steps))
    if not is_traced(found):
        require_settled(net, inputs, found, 0.0, tolerance)
    return found


def settled_start(net: AbstractNetwork, inputs: Inputs) -> Layers:
    """The potentials of the free equilibrium.

    Under jit, as in training, by sweeps alone: a sample that they do not settle starts at rest, as neurons may start
    anywhere, and following it in time would be most of the program.

    Raises:
        NotSettledError: a sample has no stable state; not under jit.
    """
    if not is_traced(net, inputs):
        return free_equilibrium(net, inputs).potentials
    tolerance = default_tolerance(net.dtype)
    found = settle_inputs(net, inputs, jnp.zeros(()), np.asarray(tolerance), method="sweeps")
    settled = is_settled(found, tolerance)
    rest = net.rest(inputs.x.shape[0])
    return tuple(jnp.where(per_sample(settled, a), a, b) for a, b in zip(found.potentials, rest, strict=True))


def settle_inputs(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Inexact[Array, "..."],
    tolerance: ArrayLike,
    max_steps: ArrayLike = 1000,
    start: Layers | None = None,
    method: Method | None = None,
) -> Equilibrium:
    """`settle` on checked inputs: pure, nothing is raised.

    Called with traced arrays it is one program; otherwise the flow is compiled where it is needed. What it finds has
    derivatives of any order in network, inputs and `beta`: see `derivatives.py`.
    """
    start = net.begun(inputs) if start is None else start
    still, shown, at, begun = constant((net, inputs, beta, start))
    return _differentiable(net, inputs, beta, _found(still, shown, at, tolerance, max_steps, begun, method))


def _differentiable(net: AbstractNetwork, inputs: Inputs, beta: Array, found: Equilibrium) -> Equilibrium:
    """What was found, with its derivatives."""
    if not is_traced(net, inputs, beta):
        return found
    u = settled(net, inputs, beta, found.potentials)
    return Equilibrium(u, net.activities(u), found.residual, found.steps, found.by_flow)


def _found(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Inexact[Array, "..."],
    tolerance: ArrayLike,
    max_steps: ArrayLike,
    start: Layers,
    method: Method | None,
) -> Equilibrium:
    """The search of `settle_inputs`."""
    if jnp.iscomplexobj(beta):
        method = method or "sweeps"
    if method == "flow":
        nowhere = jnp.full(inputs.x.shape[0], jnp.inf, net.dtype)
        swept, doubtful = (
            Equilibrium(start, start, nowhere, jnp.zeros((), jnp.int32)),
            jnp.ones(inputs.x.shape[0], bool),
        )
    else:
        if method is None:
            max_steps = (jnp if is_traced(max_steps) else np).minimum(max_steps, SWEEPS)
        sweeps = method if isinstance(method, Sweeps) else Sweeps()
        swept, doubtful, any_doubt = _sweep_inputs(net, inputs, beta, tolerance, max_steps, sweeps, start)
        if method is not None or (not is_traced(any_doubt) and not bool(any_doubt)):
            return swept
    return _followed(net, inputs, beta, tolerance, start, swept, doubtful)


@eqx.filter_jit
def _sweep_inputs(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Inexact[Array, "..."],
    tolerance: ArrayLike,
    max_steps: ArrayLike,
    sweeps: Sweeps,
    start: Layers,
) -> tuple[Equilibrium, Bool[Array, " batch"], Bool[Array, ""]]:
    """What sweeps find, which samples may not be at a stable state, and whether there are any."""
    beta = jnp.asarray(beta, complex_of(net.dtype) if jnp.iscomplexobj(beta) else net.dtype)
    u = to_complex(start) if jnp.iscomplexobj(beta) else start

    layers = range(len(u))
    blocks = even_and_odd(u) if sweeps.even_odd else (layers,)

    def sweep(u):
        for block in blocks:  # the compiler leaves out the forces that are not taken
            force = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
            u = tuple(force[i] if i in block else u[i] for i in layers)
        return u

    u, residual, steps, contracts = anderson(sweep, u, tolerance, max_steps, sweeps.memory)
    found = Equilibrium(u, net.activities(u), residual, steps, jnp.zeros(residual.shape, bool))
    # What plain sweeps converge to, they contract to.
    doubtful = ~is_settled(found, tolerance) | (~contracts if sweeps.memory else False)
    return found, doubtful, jnp.any(doubtful)


@eqx.filter_jit
def _followed(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Array,
    tolerance: ArrayLike,
    start: Layers,
    swept: Equilibrium,
    doubtful: Bool[Array, " batch"],
) -> Equilibrium:
    """The equilibrium with the doubtful samples followed in time, where they are not at a stable state."""
    u, residual, by_flow = settle_by_flow(
        net, inputs, jnp.asarray(beta, net.dtype), tolerance, start, swept.potentials, swept.residual, doubtful
    )
    return Equilibrium(u, net.activities(u), residual, swept.steps, by_flow)


AT_STATE = 1e-2
"""How far from a state, in potentials, the fixed point may lie that it is taken for."""


def state_at(net: AbstractNetwork, inputs: Inputs, at: At = None) -> Equilibrium:
    r"""The free equilibrium that a question is about.

    Args:
        net: the neurons.
        inputs: checked inputs.
        at: an `Equilibrium`, potentials (one array per layer), or what has an attribute `equilibrium`, such as a `Run`:
            the fixed point there, found by Newton's method. It need not be stable. None: the one that `settle` finds
            from rest.

    Raises:
        NotSettledError: there is no fixed point within `AT_STATE` of the state; without `at`, a sample has no stable
            state.
        TypeError: `at` is no state.
        ValueError: a state of another network or batch.
    """
    if at is None:
        return free_equilibrium(net, inputs)
    at = getattr(at, "equilibrium", at)
    u = at.potentials if isinstance(at, Equilibrium) else at
    if not isinstance(u, (tuple, list)):
        raise BadType(f"at={type(at).__name__}: use an Equilibrium, potentials (one array per layer), or a Run")
    u = tuple(jnp.asarray(jnp.real(jnp.asarray(a)), net.dtype) for a in as_potentials("at", u))
    check_start(net, inputs, u, "at")
    tolerance = default_tolerance(net.dtype)
    still, shown, u = constant((net, inputs, u))
    found, moved = _swept_from(still, shown, u, tolerance)
    if is_traced(moved) or not bool(jnp.all(moved <= AT_STATE)):
        found, moved = _polished(still, shown, u, tolerance, found, moved)
    if not is_traced(moved) and not bool(jnp.all(moved <= AT_STATE)):
        sample = int(jnp.argmax(moved))
        raise NotSettledError(
            f"at: sample {sample} is at no free equilibrium: no fixed point was found within {AT_STATE:g} of its "
            "potentials; use a state that has settled, of the same network and inputs"
        )
    return _differentiable(net, inputs, jnp.zeros(()), found)


@eqx.filter_jit
def _swept_from(
    net: AbstractNetwork, inputs: Inputs, u: Layers, tolerance: ArrayLike
) -> tuple[Equilibrium, Float[Array, " batch"]]:
    """What sweeps settle to from here, and how far they went; infinitely far where they did not settle."""
    found = _sweep_inputs(net, inputs, jnp.zeros((), net.dtype), tolerance, PATIENCE, Sweeps(), u)[0]
    return found, jnp.where(is_settled(found, tolerance), _distance(found.potentials, u), jnp.inf)


@eqx.filter_jit
def _polished(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    tolerance: ArrayLike,
    swept: Equilibrium,
    moved: Float[Array, " batch"],
) -> tuple[Equilibrium, Float[Array, " batch"]]:
    """The same by Newton's method, for those whose sweeps led away."""
    zero, tolerance = jnp.zeros((), net.dtype), jnp.asarray(tolerance, net.dtype)

    def one(sample):
        clamped, y, u, there, residual, moved = sample

        def polish():
            end, residual, _ = newton(slope(net, (clamped, y, zero)), flat(u), tolerance, 2 * AT_STATE)
            near = residual <= jnp.maximum(tolerance, rounding((end,), 0))
            return end, residual, jnp.where(near, jnp.max(jnp.abs(end - flat(u))), jnp.inf)

        return lax.cond(moved <= AT_STATE, lambda: (flat(there), residual, moved), polish)

    samples = (inputs.clamped, inputs.y, u, swept.potentials, swept.residual, moved)
    vectors, residual, moved = lax.map(one, samples)
    u = as_layers(net, vectors)
    return Equilibrium(u, net.activities(u), residual, swept.steps, swept.by_flow), moved


def _distance(u: Layers, v: Layers) -> Float[Array, " batch"]:
    """The largest difference of a potential, per sample."""
    return largest(jax.tree.map(jnp.subtract, u, v))
