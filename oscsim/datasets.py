"""Data to learn from, as arrays."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int


def load(
    name: str, split: Literal["train", "test"] = "train"
) -> tuple[Float[np.ndarray, "n features"], Int[np.ndarray, " n"]]:
    """Load a data set as inputs in [0, 1] and integer labels.

    `"digits"`: 1,797 handwritten digits of 8 x 8 pixels, embedded in scikit-learn (Alpaydin & Kaynak, 1998); shuffled
    once for all, 1,437 to train and 360 to test.

    Args:
        name: `"digits"`.
        split: `"train"` or `"test"`.

    Returns:
        (n, 64) float32 in [0, 1], and (n,) int32 labels.

    Raises:
        ValueError: an unknown data set or split.
    """
    if name != "digits":
        raise ValueError(f"name={name!r}: no such data set; use 'digits'")
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: use 'train' or 'test'")
    from sklearn.datasets import load_digits  # a second to import: only where it is needed

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = order[:1437] if split == "train" else order[1437:]
    return (images[chosen] / 16).astype(np.float32), labels[chosen].astype(np.int32)
