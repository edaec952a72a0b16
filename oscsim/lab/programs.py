"""One compilation at a time.

Two threads of the lab that compiled at once on a single processor were seen to stand still, both inside XLA's compiler
(jaxlib 0.10); and two that need the same program would compile it twice. Once compiled, it runs without any lock.
"""

import contextlib
import threading
from collections.abc import Hashable, Iterator
from typing import Any

import equinox as eqx
import jax

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


def layout(*trees: Any) -> Hashable:
    """Structure, shapes and types of what a program is compiled for."""
    leaves, structure = jax.tree.flatten(eqx.filter(trees, eqx.is_array))
    return structure, tuple((a.shape, a.dtype) for a in leaves)
