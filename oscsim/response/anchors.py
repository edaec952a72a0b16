"""Whether an anchor that is measured in the same equation stays with the free equilibrium."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, PyTree

from oscsim.core.checks import checked, instance, untraced
from oscsim.core.errors import BadValue
from oscsim.equilibrium import flat, free_equilibrium, is_dense
from oscsim.equilibrium.corrected import MeasuredCorrection
from oscsim.equilibrium.vectors import DENSE, as_layers
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters
from oscsim.networks.inputs import Data, Inputs

MEASURED = instance(MeasuredCorrection, "use MeasuredCorrection(net, filter_time)")


@checked(net=MEASURED, x=untraced, y=untraced)
def anchor_rates(net: MeasuredCorrection, x: Data, y: Data) -> Complex[np.ndarray, "batch neurons"]:
    r"""The rates at which a measured anchor returns to the free equilibrium of each input, slowest first.

    They are the eigenvalues of $P^{-\top} P / \kappa$, $P = \sigma'^{-1} - K$, for an anchor much slower than the
    neurons. One with a negative real part is a rate at which the anchor runs away. With $P = S + K_a$ in its symmetric
    and antisymmetric parts and $S$ positive definite, none has where $\rho(S^{-1} K_a) < 1$.

    Args:
        net: with the anchor's time $\kappa$.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, outputs).

    Returns:
        One complex (neurons,) row per sample, by their real parts, the smallest first; in 1 / unit of time.

    Raises:
        NotSettledError: the network within has no stable state.
        ValueError: bad inputs (see `Inputs.of`); more neurons than a matrix is made of.
        TypeError: another network.

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> own = osc.OwnFeedback(deep, angle=60.0, key=jax.random.key(1))
        >>> rates = osc.response.anchor_rates(osc.MeasuredCorrection(own, filter_time=1000.0), x, y)
        >>> rates.shape, bool((rates.real > 0).all())  # the anchor stays
        ((3, 9), True)
    """
    check_parameters(net)
    within = net.network
    if not is_dense(within):
        raise BadValue(f"net has more than {DENSE} neurons, of which no matrix is made: use a smaller network")
    inputs = Inputs.of(within, x, y)
    free = free_equilibrium(within, inputs)
    couplings, slopes = _linearised(within, inputs, free.potentials)
    found = []
    for k, d in zip(np.asarray(couplings, float), np.asarray(slopes, float), strict=True):
        unit = np.eye(len(d))
        found.append(np.linalg.eigvals(np.linalg.solve(unit - d[:, None] * k.T, unit - d[:, None] * k)))
    rates = np.asarray(found, complex) / float(net.filter_time)
    return np.take_along_axis(rates, np.argsort(rates.real, axis=1), axis=1)


@eqx.filter_jit
def _linearised(net: AbstractNetwork, inputs: Inputs, u: Layers) -> tuple[Array, Array]:
    r"""$K = \partial F/\partial s$ and $\sigma'$ of each sample, as a matrix and a vector of all neurons."""

    def one(clamped: PyTree, u: Array, y: Array) -> tuple[Array, Array]:
        clamped, y = jax.tree.map(lambda a: a[None], (clamped, y))
        force = lambda s: flat(net.force(clamped, as_layers(net, s[None]), y, jnp.zeros((), net.dtype)))  # noqa: E731
        emitted = lambda u: flat(net.activities(as_layers(net, u[None])))  # noqa: E731
        return jax.jacfwd(force)(emitted(u)), jax.jvp(emitted, (u,), (jnp.ones_like(u),))[1]

    return jax.vmap(one)(inputs.clamped, jax.vmap(flat)(u), inputs.y)
