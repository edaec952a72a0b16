"""A lock for compilation: one program is compiled at a time.

Two visitors who need the same program wait for one compilation instead of compiling it twice. Compilations of different
programs do not compete for the processor. A compiled program runs without a lock.
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
    """Hold the lock while the block compiles this program; once it is compiled, there is no lock."""
    if program in _compiled:
        yield
        return
    with _compiling:
        yield
    _compiled.add(program)


def layout(*trees: PyTree) -> Hashable:
    """Structure, shapes and types of arguments: a program is compiled once for each."""
    leaves, structure = jax.tree.flatten(eqx.filter(trees, eqx.is_array))
    return structure, tuple((a.shape, a.dtype) for a in leaves)
