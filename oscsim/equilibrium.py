r"""Settled states and exact gradients: the oracles that every estimate is held against."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from oscsim._arrays import all_finite, as_count, complex_of, is_traced, require_positive, to_complex
from oscsim.errors import NotSettledError
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, gradient_of, require_holomorphic
from oscsim.networks.inputs import Inputs


class Equilibrium(eqx.Module):
    r"""Where the neurons rest under a constant teaching signal: $u = \partial\Phi/\partial s$, $s = \sigma(u)$.

    Attributes:
        potentials: $u$, one (batch, neurons) array per layer; real for a real `beta`.
        activities: $s = \sigma(u)$.
        residual: the largest change of a potential in one more sweep over the layers, per sample.
        steps: sweeps that it took.
    """

    potentials: Layers
    activities: Layers
    residual: Float[Array, "*points batch"]
    steps: Int[Array, "*points"]


def default_tolerance(dtype: Any) -> float:
    """The residual that settling aims at: 1e-12 in float64, 1e-6 in float32."""
    return 1e-12 if jnp.dtype(dtype) == jnp.float64 else 1e-6


def settle(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    beta: Any = 0.0,
    *,
    tolerance: float | None = None,
    max_steps: int = 1000,
    memory: int = 5,
    even_odd: bool = True,
    start: Layers | None = None,
    check: bool = True,
) -> Equilibrium:
    r"""The fixed point $u = \partial\Phi/\partial s\,(\sigma(u), \beta)$ of a batch, by even/odd sweeps and mixing.

    A sweep over the even layers and then the odd ones (block Gauss-Seidel) contracts as much as two steps of all layers
    at once, where each layer depends on its neighbours alone; Anderson acceleration mixes the sweeps. With `memory=0,
    even_odd=False` this is the plain iteration, Euler steps of length tau.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        beta: the teaching signal, real or complex; one number, or one per sample.
        tolerance: largest residual, absolute in the potentials; by default 1e-12 in float64, 1e-6 in float32.
        max_steps: sweeps before giving up.
        memory: how many earlier sweeps Anderson acceleration mixes; 0 for none.
        even_odd: the second, fourth, ... layer first, then the others with what those have become; else all at once.
        start: potentials to start from; by default rest.
        check: raise where a sample does not settle; without it, look at `residual`.

    Raises:
        NotSettledError: the residual stays above the tolerance; names the layer, the sample and beta.
        NotHolomorphicError: a complex `beta` on a network that declares itself non-holomorphic.
        ValueError: bad inputs (see `Inputs.of`), tolerance or counts.

    Source: Walker & Ni (2011) for the acceleration.
    """
    check_parameters(net)
    inputs = Inputs.of(net, x, y)
    if not is_traced(beta) and not np.issubdtype(np.asarray(beta).dtype, np.number):
        raise TypeError(f"beta={beta!r}: use one real or complex number, or one per sample")
    beta = jnp.asarray(beta)
    if jnp.iscomplexobj(beta):
        require_holomorphic(net, f"settling at beta={beta}")
    if not is_traced(beta) and not bool(jnp.all(jnp.isfinite(beta))):
        raise ValueError(f"beta={beta}: use finite numbers")
    if beta.ndim and beta.shape != (inputs.x.shape[0],):
        raise ValueError(
            f"beta has shape {beta.shape} for a batch of {inputs.x.shape[0]}: use one number, or one per sample"
        )
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    require_positive("tolerance", tolerance)
    max_steps, memory = as_count("max_steps", max_steps), as_count("memory", memory, 0)
    if start is not None:
        _check_start(net, inputs, start)
    found = settle_inputs(net, inputs, beta, np.asarray(tolerance), np.int32(max_steps), memory, start, even_odd)
    if check and not is_traced(found):
        require_settled(net, inputs, found, beta, tolerance)
    return found


def free_equilibrium(net: AbstractNetwork, inputs: Inputs) -> Equilibrium:
    """`settle` at beta = 0, on checked inputs.

    Raises:
        NotSettledError: a sample has no stable state.
    """
    tolerance = default_tolerance(net.dtype)
    found = settle_inputs(net, inputs, jnp.zeros(()), np.asarray(tolerance))
    if not is_traced(found):
        require_settled(net, inputs, found, 0.0, tolerance)
    return found


def _check_start(net: AbstractNetwork, inputs: Inputs, start: Any) -> None:
    """Refuse potentials to start from that are not those of this network and batch."""
    layouts = [jax.tree.map(np.shape, u) for u in (start, net.rest(inputs.x.shape[0]))]
    if layouts[0] != layouts[1]:
        raise ValueError(
            f"start has potentials of shape {layouts[0]}, this network and batch have {layouts[1]}: use those of an "
            "earlier Equilibrium, or leave it out"
        )
    if not is_traced(start) and not bool(all_finite(start)):
        raise ValueError("start holds potentials that are not finite: leave it out to start from rest")


@eqx.filter_jit
def settle_inputs(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Inexact[Array, "..."],
    tolerance: Any,
    max_steps: Any = 1000,
    memory: int = 5,
    start: Layers | None = None,
    even_odd: bool = True,
) -> Equilibrium:
    """`settle` on checked inputs: pure, nothing is raised."""
    beta = jnp.asarray(beta, complex_of(net.dtype) if jnp.iscomplexobj(beta) else net.dtype)
    u = net.rest(inputs.x.shape[0]) if start is None else start
    u = to_complex(u) if jnp.iscomplexobj(beta) else u

    layers = range(len(u))
    blocks = (layers[1::2], layers[::2]) if even_odd and len(layers) > 1 else (layers,)

    def sweep(u):
        for block in blocks:  # the compiler leaves out the forces that are not taken
            force = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
            u = tuple(force[i] if i in block else u[i] for i in layers)
        return u

    u, residual, steps = anderson(sweep, u, tolerance, max_steps, memory)
    return Equilibrium(u, net.activities(u), residual, steps)


PATIENCE = 100
"""Sweeps after which acceleration gives way to the neurons' own relaxation, in half steps."""


def anderson(
    function: Callable[[PyTree[Array]], PyTree[Array]],
    start: PyTree[Array],
    tolerance: Any,
    max_steps: Any,
    memory: int,
    linear: bool = False,
) -> tuple[PyTree[Array], Float[Array, " batch"], Int[Array, ""]]:
    r"""A fixed point $z = f(z)$ by Anderson acceleration, each sample of the batch on its own.

    The next $z$ is $\sum_i \alpha_i f(z_i)$ over the last few iterates, with weights that sum to one and make
    $\|\sum_i \alpha_i (f(z_i) - z_i)\|$ least; a complex iterate counts as a real vector of twice the length.
    Where $\|f(z) - z\|$ grew, unless $f$ is `linear`, the iterates before are forgotten: far from the fixed point they
    mislead. Real iterates are not mixed again until it has shrunk as often in a row as `memory` holds: near a
    bifurcation mixing can wander for ever, and sweeps of a real network go down in energy. Complex ones have no energy,
    and their fixed point may repel. After `PATIENCE` evaluations all take half steps, $z + (f(z) - z) / 2$.

    Returns:
        the fixed point; per sample the largest $|f(z) - z|$ at it; evaluations of `function`.
    """
    flat, unravel = _flatten_samples(start)
    real, is_complex = flat.dtype, any(map(jnp.iscomplexobj, jax.tree.leaves(start)))
    depth = max(memory, 1)
    history = (jnp.zeros((flat.shape[0], depth, flat.shape[1]), real),) * 2  # differences of residuals, of values

    def evaluate(z):
        return _flatten_samples(function(unravel(z)))[0]

    def running(carry):
        _, _, residual, _, _, step = carry
        size = jnp.max(jnp.abs(residual), axis=1)
        return (step < max_steps) & jnp.any((size > tolerance) & jnp.isfinite(size))

    def improve(carry):
        z, value, residual, (d_residual, d_value), shrunk, step = carry
        if memory == 0:
            z_next = value
        else:
            # Differences are kept with the newest in slot (step mod depth); unused slots are zero and weigh nothing.
            gram = jnp.einsum("bin,bjn->bij", d_residual, d_residual)
            right = jnp.einsum("bin,bn->bi", d_residual, residual)
            trace = jnp.trace(gram, axis1=1, axis2=2)[:, None, None]
            ridge = (10 * jnp.finfo(real).eps * trace + jnp.finfo(real).tiny) * jnp.eye(depth, dtype=real)[None]
            gamma = jnp.linalg.solve(gram + ridge, right[..., None])[..., 0]
            mixed = value - jnp.einsum("bi,bin->bn", gamma, d_value)
            z_next = jnp.where((shrunk < depth)[:, None], value, mixed)
            z_next = jnp.where(step < PATIENCE, z_next, z + residual / 2)
        value_next = evaluate(z_next)
        residual_next = value_next - z_next
        if not linear:
            grew = jnp.sum(residual_next**2, axis=1) > jnp.sum(residual**2, axis=1)
            d_residual, d_value = (jnp.where(grew[:, None, None], 0, d) for d in (d_residual, d_value))
            shrunk = shrunk if is_complex else jnp.where(grew, 0, shrunk + 1)
        slot = step % depth
        d_residual = d_residual.at[:, slot].set(residual_next - residual)
        d_value = d_value.at[:, slot].set(value_next - value)
        # A sample that has settled stays where it is, since its history holds rounding alone; so does one that is lost.
        keep = ~(jnp.max(jnp.abs(residual), axis=1, keepdims=True) > tolerance)
        z_next, value_next, residual_next = (
            jnp.where(keep, old, new) for old, new in ((z, z_next), (value, value_next), (residual, residual_next))
        )
        return z_next, value_next, residual_next, (d_residual, d_value), shrunk, step + 1

    value = evaluate(flat)
    trusted = jnp.full(flat.shape[0], depth, jnp.int32)
    carry = (flat, value, value - flat, history, trusted, jnp.ones((), jnp.int32))
    z, _, residual, _, _, steps = lax.while_loop(running, improve, carry)
    return unravel(z), jnp.max(jnp.abs(residual), axis=1), steps


def _flatten_samples(tree: PyTree[Array]) -> tuple[Array, Callable[[Array], PyTree[Array]]]:
    """A batch of pytrees as one real (batch, numbers) array, and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    batch = leaves[0].shape[0]
    parts = [part for a in leaves for part in ((a.real, a.imag) if jnp.iscomplexobj(a) else (a,))]
    ends = np.cumsum([p.size // batch for p in parts])[:-1]

    def unravel(flat: Array) -> PyTree[Array]:
        columns = iter(jnp.split(flat, ends, axis=1))
        restored = []
        for a in leaves:
            column = next(columns).reshape(a.shape)
            restored.append(lax.complex(column, next(columns).reshape(a.shape)) if jnp.iscomplexobj(a) else column)
        return jax.tree.unflatten(structure, restored)

    return jnp.concatenate([p.reshape(batch, -1) for p in parts], axis=1), unravel


def require_settled(net: AbstractNetwork, inputs: Inputs, found: Equilibrium, beta: Any, tolerance: float) -> None:
    """Raise where a sample of a batch has not settled, and say which, where and what to do."""
    worst = np.asarray(found.residual)
    if np.all(worst <= tolerance):
        return
    sample = int(np.argmax(np.where(np.isfinite(worst), worst, np.inf)))
    force = net.force(inputs.clamped, found.activities, inputs.y, beta)
    sizes = [np.abs(np.asarray(f[sample] - u[sample])).max() for f, u in zip(force, found.potentials, strict=True)]
    layer = int(np.argmax(np.where(np.isfinite(sizes), sizes, np.inf))) + 1
    at = np.broadcast_to(np.asarray(beta), worst.shape)[sample]
    remedy = (
        "lower |beta|: it may be past the convergence radius"
        if at != 0
        else "weights may be too large for one stable state: use a smaller scale or slope, more max_steps"
    )
    raise NotSettledError(
        f"sample {sample} did not settle at beta={at:.4g} after {int(found.steps)} steps: layer {layer} still moves by "
        f"{worst[sample]:.3g} (tolerance {tolerance:.3g}); {remedy}"
    )


def exact_gradient(
    net: AbstractNetwork,
    x: Any,
    y: Any,
    method: Literal["implicit", "bptt"] = "implicit",
    *,
    tolerance: float | None = None,
    max_steps: int = 1000,
) -> Any:
    r"""The gradient of the mean loss at the free equilibrium, a pytree like `parameters(net)`.

    `"implicit"`: with $F = \partial\Phi_0/\partial s$ and $u = F(\sigma(u), \theta)$ settled, the adjoint
    $\lambda = \partial C/\partial u + (\partial F/\partial u)^\top \lambda$ is settled in the same way, and
    $dL/d\theta = \lambda^\top \partial F/\partial\theta + \partial C/\partial\theta$.
    `"bptt"`: backpropagation through `max_steps` plain steps $u \leftarrow F(\sigma(u))$ from rest.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        method: `"implicit"` or `"bptt"`.
        tolerance: as in `settle`.
        max_steps: as in `settle`; the number of steps for `"bptt"`.

    Raises:
        NotSettledError: the free network, or the adjoint, does not settle.
        ValueError: an unknown method, bad inputs (see `Inputs.of`), tolerance or counts.
    """
    if method not in ("implicit", "bptt"):
        raise ValueError(f"method={method!r}: use 'implicit' or 'bptt'")
    check_parameters(net)
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    require_positive("tolerance", tolerance)
    return exact_solution(net, Inputs.of(net, x, y), method, tolerance, as_count("max_steps", max_steps))[0]


def exact_solution(
    net: AbstractNetwork, inputs: Inputs, method: str, tolerance: float, max_steps: int
) -> tuple[Any, Equilibrium, Bool[Array, ""]]:
    """The exact gradient of checked inputs, the free equilibrium, and whether all settled: raised where it can be."""
    if method == "implicit":
        gradient, found, adjoint = implicit_gradient(net, inputs, np.asarray(tolerance), np.int32(max_steps))
    else:
        gradient, found = _bptt_gradient(net, inputs, max_steps)
        adjoint = jnp.zeros(())
    if not is_traced(found):
        require_settled(net, inputs, found, 0.0, tolerance)
        if not bool(jnp.all(adjoint <= tolerance)):
            raise NotSettledError(
                f"the adjoint did not settle in {max_steps} steps (residual {float(jnp.max(adjoint)):.3g}, tolerance "
                f"{tolerance:.3g}): the free network is close to instability; use more max_steps"
            )
    return gradient, found, jnp.all(found.residual <= tolerance) & jnp.all(adjoint <= tolerance)


@eqx.filter_jit
def implicit_gradient(
    net: AbstractNetwork, inputs: Inputs, tolerance: Any, max_steps: Any = 1000
) -> tuple[Any, Equilibrium, Float[Array, " batch"]]:
    """The gradient, the free equilibrium, and the residual of the adjoint relative to its source; pure."""
    found = settle_inputs(net, inputs, jnp.zeros(()), tolerance, max_steps)
    u = found.potentials

    def loss(net, clamped, u):
        return net.loss(clamped, net.activities(u), inputs.y)

    def force(net, clamped, u):
        return net.force(clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))

    source = jax.grad(lambda u: jnp.sum(loss(net, inputs.clamped, u)))(u)
    # The adjoint is linear: solve it at unit source per sample, so that one tolerance serves every scale.
    size = jnp.max(jnp.abs(_flatten_samples(source)[0]), axis=1)
    size = jnp.where(size > 0, size, 1)
    scaled = tuple(a / size.reshape(-1, *(1,) * (a.ndim - 1)) for a in source)
    _, pull = jax.vjp(lambda u: force(net, inputs.clamped, u), u)
    adjoint, residual, _ = anderson(
        lambda v: jax.tree.map(jnp.add, scaled, pull(v)[0]), scaled, tolerance, max_steps, 5, linear=True
    )
    adjoint = tuple(a * size.reshape(-1, *(1,) * (a.ndim - 1)) for a in adjoint)

    def lagrangian(net, clamped):
        work = sum(jnp.sum(a * f) for a, f in zip(adjoint, force(net, clamped, u), strict=True))
        return (jnp.sum(loss(net, clamped, u)) + work) / inputs.x.shape[0]

    return gradient_of(lagrangian, net, inputs.x), found, residual


@eqx.filter_jit
def _bptt_gradient(net: AbstractNetwork, inputs: Inputs, steps: int) -> tuple[Any, Equilibrium]:
    start = net.rest(inputs.x.shape[0])

    def settled(net, clamped):
        @jax.checkpoint
        def step(u, _):
            return net.force(clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype)), None

        return lax.scan(step, start, length=steps)[0]

    def loss(net, clamped):
        u = settled(net, clamped)
        return jnp.mean(net.loss(clamped, net.activities(u), inputs.y))

    u = settled(net, inputs.clamped)
    s = net.activities(u)
    force = net.force(inputs.clamped, s, inputs.y, jnp.zeros((), net.dtype))
    moved = _flatten_samples(jax.tree.map(jnp.subtract, force, u))[0]
    found = Equilibrium(u, s, jnp.max(jnp.abs(moved), axis=1), jnp.asarray(steps, jnp.int32))
    return gradient_of(loss, net, inputs.x), found
