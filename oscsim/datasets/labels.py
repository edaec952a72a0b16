"""Labels as people have them, as the whole numbers that a network takes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Int32

from oscsim.core.checks import as_host, as_names, checked
from oscsim.core.errors import BadType, BadValue

MOST = 1000
"""Classes that labels may name where there are fewer samples than that."""


@checked(classes=as_names)
def as_labels(y: ArrayLike | Sequence, classes: Sequence[str] = ()) -> tuple[Int32[np.ndarray, " n"], tuple[str, ...]]:
    """Labels of any kind as whole numbers from 0, and what each of them stands for.

    Whole numbers from 0 on stay what they are, also as floats, as text or in a column, (n, 1). All others (names, -1
    and 1) are numbered in sorted order.

    Args:
        y: one label for each sample, (n,) or (n, 1).
        classes: number them in this order, such as that of the training data; sorted if not given.

    Returns:
        Labels, (n,), and the names of the classes in their order: empty where the numbers stayed what they were.

    Raises:
        ValueError: more than one number for each sample, none at all, fractions, a name that is not among `classes`.
        TypeError: neither numbers nor text.

    Example:
        >>> labels, names = osc.datasets.as_labels(["cat", "dog", "cat"])
        >>> labels.tolist(), names
        ([0, 1, 0], ('cat', 'dog'))
        >>> osc.datasets.as_labels([-1, 1, 1])[1]
        ('-1', '1')
    """
    found = as_host("y", y)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or not len(found):
        raise BadValue(f"y has shape {np.shape(y)}: use one label for each sample, (n,)")
    numbers = _numbers(found)
    if numbers is not None and numbers.min() >= 0 and not classes:
        if numbers.max() >= max(len(numbers), MOST):
            raise BadValue(
                f"y holds whole numbers up to {numbers.max():g} for {len(numbers)} samples, and a class is made for "
                "each: number the classes from 0"
            )
        return numbers.astype(np.int32), ()
    names = _text(found if numbers is None else numbers.astype(int))
    order = tuple(classes) or tuple(sorted(set(names), key=str if numbers is None else int))
    place = {name: i for i, name in enumerate(order)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise BadValue(f"y holds {unknown[0]!r}, which is none of the classes {_short(order)}")
    return np.array([place[name] for name in names], np.int32), order


def is_real(y: np.ndarray) -> bool:
    """Whether these are targets of a regression rather than labels: numbers with fractions."""
    return y.dtype.kind == "f" and bool(np.any(np.isfinite(y) & (y % 1 != 0)))


def _numbers(y: np.ndarray) -> np.ndarray | None:
    """Labels that are numbers; None where they are names."""
    if y.dtype.kind not in "biufSUO":
        raise BadType(f"y holds {y.dtype}: use whole numbers or names as labels")
    try:
        numbers = y.astype(float)
    except (TypeError, ValueError):
        return None
    bad = np.flatnonzero(~np.isfinite(numbers) | (numbers % 1 != 0))
    if bad.size:
        raise BadValue(
            f"y[{bad[0]}] is {y[bad[0]]}: labels are whole numbers or names; targets of a regression are real numbers, "
            "(n, outputs), with cost=SquaredError() (--cost squarederror)"
        )
    return numbers


def _text(y: np.ndarray) -> list[str]:
    """Each label as one would write it."""
    values = y.tolist()
    missing = [i for i, value in enumerate(values) if value is None or value != value]
    if missing:
        raise BadValue(f"y[{missing[0]}] is {values[missing[0]]}: give each sample a label")
    return [(value.decode() if type(value) is bytes else str(value)).strip() for value in values]


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
