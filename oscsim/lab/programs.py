"""One compilation at a time.

Two visitors who need the same program wait for one compilation instead of compiling it twice, and those who need others
do not fight over the processor with the cycles of everybody else. Once compiled, a program runs without any lock.
"""

import contextlib
import threading
from collections.abc import Hashable, Iterator

import equinox as eqx
import jax
from jaxtyping import PyTree

_compiled: set[Hashable] = set()
_compiling = threading.RLock()


@contextlib.contextmanager
def first_time(*program: Hashable) -> Iterator[None]:
    """Around what compiles a program the first time that it is named, and only runs it afterwards."""
    if program in _compiled:
        yield
        return
    with _compiling:
        yield
    _compiled.add(program)


def layout(*trees: PyTree) -> Hashable:
    """Structure, shapes and types of what a program is compiled for."""
    leaves, structure = jax.tree.flatten(eqx.filter(trees, eqx.is_array))
    return structure, tuple((a.shape, a.dtype) for a in leaves)
