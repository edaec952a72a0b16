r"""Running means of readings, with a sample of their error.

Cycles before the network locked do not belong to the mean. They are found in the stream: where one cycle alone is
less than half as contaminated as the mean so far, the mean starts anew with it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from oscsim.core.arrays import Count, per_sample
from oscsim.dynamics.gradient import Reading

STARTS_ANEW = 0.5
"""The mean starts anew with a cycle whose contamination is below this share of the mean's."""


class Average(eqx.Module):
    r"""The mean $\bar c$ of the readings that count, sample by sample, and a contrast between them.

    The contrast is $D_M = \sqrt{(M-2)/M}\, D_{M-1} + (c_M - \bar c_{M-1}) / M$: a combination of the readings whose
    weights sum to zero, and whose variance is that of the mean where cycles are independent. So it is a sample of the
    error of the mean, neuron by neuron, that needs no more memory than the mean itself.

    Attributes:
        mean: of the readings that count; the teaching signal's has a batch axis.
        contrast: $D_M$; zero where fewer than two cycles count.
        count: $M$, per sample.
        quality: how contaminated the mean is: its image per unit of signal, or the last change of a reading where there
            is no image; infinite before the first.
        skipped: how many cycles the mean has left out, per sample.
    """

    mean: Reading
    contrast: Reading
    count: Int[Array, " batch"]
    quality: Float[Array, ""]
    skipped: Int[Array, " batch"]

    @staticmethod
    def empty(reading: Reading) -> "Average":
        """Before the first reading; the argument shows the shapes."""
        nothing = jax.tree.map(jnp.zeros_like, reading.over_samples())
        batch = reading.mean[0].shape[0]
        none = jnp.zeros(batch, jnp.int32)
        return Average(nothing, nothing, none, jnp.asarray(jnp.inf, reading.mean[0].real.dtype), none)

    def restarted(self, where: Bool[Array, " batch"]) -> "Average":
        """Forget what was averaged so far of these samples."""

        def cleared(a):
            return jnp.where(per_sample(where, a), 0, a)

        return Average(
            self.mean.map_samples(cleared),
            self.contrast.map_samples(cleared),
            jnp.where(where, 0, self.count),
            self.quality,
            jnp.where(where, self.skipped + self.count, self.skipped),
        )

    def add(self, reading: Reading, keep: Bool[Array, "..."] | bool = True) -> "Average":
        """With one more reading, of the samples in `keep`; it leaves the others as they are."""
        keep = jnp.broadcast_to(keep, self.count.shape)
        after = self.count + 1
        shrink = jnp.sqrt(jnp.maximum(after - 2, 0) / jnp.maximum(after, 1))

        def averaged(m, a):
            return m + jnp.where(per_sample(keep, a), (a - m) / jnp.maximum(per_sample(after, a), 1), 0)

        def contrasted(d, m, a):
            new = per_sample(shrink, a).astype(a.real.dtype) * d + (a - m) / per_sample(after, a)
            return jnp.where(per_sample(keep & (after > 1), a), new, d)

        reading = reading.over_samples()
        return Average(
            self.mean.map_samples(averaged, reading),
            self.contrast.map_samples(contrasted, self.mean, reading),
            jnp.where(keep, after, self.count),
            self.quality,
            jnp.where(keep, self.skipped, self.skipped + 1),
        )

    def add_locked(self, reading: Reading, change: Float[Array, ""]) -> "Average":
        """With one more reading, or started anew with it where it is far better than the mean so far.

        `change` is the reading's relative change since the cycle before: what it is judged by where it has no image.
        """
        alone = lax.stop_gradient(reading).contamination(change)  # what decides has no derivative
        anew = (alone < STARTS_ANEW * self.quality) & (jnp.max(self.count) > 0)
        average = self.restarted(jnp.broadcast_to(anew, self.count.shape)).add(reading)
        return eqx.tree_at(lambda a: a.quality, average, lax.stop_gradient(average.mean).contamination(alone))


def accumulated(
    average: Average, reading: Reading, change: Array, age: Int[Array, "..."], discard: Count | int | None
) -> Average:
    """The average with one more cycle's reading.

    Args:
        average: so far.
        reading: of this cycle.
        change: its relative change since the cycle before, over the batch.
        age: how many cycles went before, since the start or since the amplitude last changed; one number, or one per
            sample.
        discard: how many of those do not count; None leaves out what came before the network locked.
    """
    if discard is None:
        return average.restarted(jnp.broadcast_to(age == 0, average.count.shape)).add_locked(reading, change)
    return average.restarted(jnp.broadcast_to(age == discard, average.count.shape)).add(reading, age >= discard)
