"""Data augmentation: random crops and flips of images."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from oscsim.core.checks import as_count, as_flag, as_key, as_numbers
from oscsim.core.errors import BadValue
from oscsim.networks.inputs import Data


def augment(x: Data, key: Key[Array, ""], *, padding: int = 4, flip: bool = True) -> Array:
    """Vary images, each on its own: pad with zeros, crop to the old size at random, flip left to right or not.

    A pure function of `x` and `key`, to be used under `jax.jit` with a new key for each batch. Zeros are black, or the
    mean colour where the images are standardised. The method is that of He et al. (2016), arXiv 1512.03385.

    Args:
        x: images, (n, height, width, channels), with 1 or 3 channels.
        key: a random key of jax.
        padding: pixels on each side; 0 for no crop.
        flip: whether images are flipped, each with probability 1/2.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: x is no batch of images, or a negative padding.
        TypeError: key is no random key, or padding no integer.

    Example:
        >>> images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
        >>> osc.datasets.augment(images, jax.random.key(1), padding=2).shape
        (2, 8, 8, 3)
    """
    x = as_numbers("x", x)
    flip = as_flag("flip", flip)
    shape = np.shape(x)
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise BadValue(
            f"x has shape {shape}: use a batch of images, (n, height, width, channels), with 1 or 3 channels"
        )
    padding = as_count("padding", padding, 0)
    as_key("key", key)
    x = jnp.asarray(x)
    for_crop, for_flip = jax.random.split(key)
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(for_crop, (shape[0], 2), 0, 2 * padding + 1)
    x = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), shape[1:]))(padded, corners)
    if not flip:
        return x
    return jnp.where(jax.random.bernoulli(for_flip, shape=(shape[0], 1, 1, 1)), jnp.flip(x, 2), x)
