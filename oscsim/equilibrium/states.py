"""`Equilibrium`: a settled state, and the test whether it is one."""

from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from oscsim.core.arrays import is_traced
from oscsim.core.errors import BadValue, NotSettledError
from oscsim.core.printing import AbstractPrinted
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs


class Equilibrium(AbstractPrinted):
    r"""Where the neurons rest under a constant teaching signal: $u = \partial\Phi/\partial s$, $s = \sigma(u)$.

    Attributes:
        potentials: $u$, one (batch, neurons) array per layer; real for a real `beta`.
        activities: $s = \sigma(u)$.
        residual: the largest change of a potential in one more sweep over the layers, or of the neurons' own motion
            where they were followed, per sample; infinite where all that was found is not stable.
        steps: sweeps that it took.
        by_flow: which samples were found by following the neurons in time, not by sweeps; None: none.

    Example:
        >>> free = osc.settle(net, x, y)
        >>> np.allclose(net.activities(free.potentials)[0], free.activities[0])
        True
    """

    potentials: Layers
    activities: Layers
    residual: Float[Array, "*points batch"]
    steps: Int[Array, "*points"]
    by_flow: Bool[Array, "*points batch"] | None = None

    def __str__(self) -> str:
        residual = np.asarray(self.residual)
        followed = 0 if self.by_flow is None else int(np.sum(self.by_flow))
        return (
            f"Equilibrium of {residual.size} samples: largest residual {residual.max():.2g}, {int(np.max(self.steps))} "
            f"sweeps" + (f"; {followed} found by following the neurons in time" if followed else "")
        )


@runtime_checkable
class Resting(Protocol):
    """What rests in a state, such as a `Run`."""

    @property
    def equilibrium(self) -> Equilibrium:
        """The state."""
        ...


At: TypeAlias = Equilibrium | Layers | Resting | None
"""The state that a question is about: an equilibrium, potentials, or what rests in one; None for that from rest."""


def default_tolerance(dtype: DTypeLike) -> float:
    """The residual that settling aims at: 1e-12 in float64, 1e-6 in float32."""
    return 1e-12 if jnp.dtype(dtype) == jnp.float64 else 1e-6


def rounding(potentials: Layers, axes: int = 1) -> Float[Array, "..."]:
    """The residual that rounding alone can leave, per sample; samples are counted along the first `axes`."""
    sizes = [jnp.max(jnp.abs(a), axis=tuple(range(axes, a.ndim))) for a in potentials]
    return 8 * jnp.finfo(sizes[0].dtype).eps * jnp.max(jnp.stack(sizes), axis=0)


def is_settled(found: Equilibrium, tolerance: ArrayLike) -> Bool[Array, "*points batch"]:
    """Which samples rest, to the tolerance; at a real beta also to what rounding leaves of large potentials."""
    if jnp.iscomplexobj(found.potentials[0]):
        return found.residual <= tolerance
    return found.residual <= jnp.maximum(
        jnp.asarray(tolerance, found.residual.dtype), rounding(found.potentials, found.residual.ndim)
    )


def check_start(net: AbstractNetwork, inputs: Inputs, start: Layers, name: str = "start") -> None:
    """Refuse potentials that are not those of this network and batch."""
    layouts = [jax.tree.map(np.shape, u) for u in (start, net.rest(inputs.x.shape[0]))]
    if layouts[0] != layouts[1]:
        raise BadValue(
            f"{name} has potentials of shape {layouts[0]}, this network and batch have {layouts[1]}: use those of an "
            "earlier Equilibrium, or leave it out"
        )
    # by numpy: under an outer jit even constants would be traced
    if not is_traced(start) and not all(np.isfinite(a).all() for a in start):
        raise BadValue(f"{name} holds potentials that are not finite: leave it out to start from rest")


def require_settled(
    net: AbstractNetwork, inputs: Inputs, found: Equilibrium, beta: ArrayLike, tolerance: float
) -> None:
    """Raise where a sample of a batch has not settled, and say which, where and what to do."""
    worst = np.asarray(found.residual)
    if np.all(worst <= tolerance) or np.all(is_settled(found, tolerance)):
        return
    sample = int(np.argmax(np.where(np.isfinite(worst), worst, np.inf)))
    force = net.force(inputs.clamped, found.activities, inputs.y, beta)
    sizes = [np.abs(np.asarray(f[sample] - u[sample])).max() for f, u in zip(force, found.potentials, strict=True)]
    layer = int(np.argmax(np.where(np.isfinite(sizes), sizes, np.inf))) + 1
    at = np.broadcast_to(np.asarray(beta), worst.shape)[sample]
    how = f"layer {layer} still moves by {sizes[layer - 1]:.3g} (tolerance {tolerance:.3g})"
    if np.isposinf(worst[sample]):
        how = "it was found in balance in an unstable state only, and followed in time it did not come to rest"
    remedy = (
        "lower |beta|: it may be past the convergence radius"
        if at != 0
        else "weights may be too large for a stable state: use a smaller scale or slope, more max_steps"
    )
    raise NotSettledError(
        f"sample {sample} did not settle at beta={at:.4g} after {int(found.steps)} steps: {how}; {remedy}"
    )
