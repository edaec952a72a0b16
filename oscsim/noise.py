"""What disturbs the neurons."""

import equinox as eqx
import jax
from jaxtyping import Array, Key

from oscsim._arrays import Scalar, is_traced, scalar_named
from oscsim.networks.base import Layers


class StepNoise(eqx.Module):
    r"""The paper's noise in discrete time: at every step $u \leftarrow \partial\Phi/\partial s + \sigma \xi$.

    $\xi$ is a fresh normal number: real, independent per neuron and step.

    Attributes:
        standard_deviation: $\sigma \ge 0$, in the units of the potentials.
        shared_over_batch: one noise vector for all samples of a batch, as in the paper's runs; else independent ones.

    Raises:
        ValueError: a negative or infinite standard deviation.

    Source: Laborieux & Zenke (2022), section 5.
    """

    standard_deviation: Scalar = eqx.field(converter=scalar_named("standard_deviation"))
    shared_over_batch: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not is_traced(self.standard_deviation) and not 0 <= float(self.standard_deviation) < float("inf"):
            raise ValueError(
                f"standard_deviation={float(self.standard_deviation):g}: use a finite number that is not negative"
            )

    def __call__(self, u: Layers, key: Key[Array, ""]) -> Layers:
        """The potentials after one step's noise."""
        keys = jax.random.split(key, len(u))
        sigma = self.standard_deviation

        def disturbed(layer, key):
            shape = (1, *layer.shape[1:]) if self.shared_over_batch else layer.shape
            return layer + (sigma * jax.random.normal(key, shape, layer.real.dtype)).astype(layer.real.dtype)

        return tuple(disturbed(layer, k) for layer, k in zip(u, keys, strict=True))
