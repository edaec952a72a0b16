"""Which classes and functions a file may hold: oscsim's own classes, those of its solvers, and what users register.

A file names what it holds. Reading looks the name up here; it never imports what a file names, and calls nothing.
"""

import importlib
import sys
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx

from oscsim.core.checks import shown
from oscsim.core.errors import BadType

T = TypeVar("T", bound=Callable)

LIBRARIES = ("oscsim", "diffrax")
"""Whose modules files may hold: networks with all that goes with them, and solvers; none of their functions."""
ROOMS = ("networks", "equilibrium", "signals", "dynamics", "response", "estimators", "training", "hardware")
"""Of oscsim, where what files may hold is defined."""
MOVED = {
    "oscsim.session": "oscsim.training.learner",
    "oscsim.teaching": "oscsim.signals.teaching",
    "oscsim.models": "oscsim.networks.models",
}
"""Where modules that files of 0.1 name are now."""

_registered: dict[str, Callable] = {}


def register(value: T) -> T:
    """Let files hold a class or a function of your own: a decorator, which changes nothing about it.

    A file names the classes and functions that it holds, and reading imports nothing. So what is not oscsim's has to be
    registered before it is saved, and again in the process that reads it: put `@osc.register` above its definition, and
    import the module that it is in. The element-wise functions of `jax.nn` and `jax.numpy` are registered already.

    A class has to be an `equinox.Module`, as every network, signal or estimator is. A function is known by its name, so
    a lambda cannot be registered.

    Raises:
        TypeError: neither a module nor a function with a name.

    Example:
        >>> @osc.register
        ... def algebraic(u):
        ...     return u / jnp.sqrt(1 + u**2)
        >>> own = osc.LayeredNetwork((6, 5, 4), activation=algebraic, key=jax.random.key(0))
        >>> path = osc.core.checkpoint.save(own, "own.osc")
        >>> osc.load("own.osc").activation is algebraic
        True
    """
    if not _can_be_registered(value):
        raise BadType(
            f"register(value={shown(value)}): use a class of equinox.Module, or a function that def gives a name"
        )
    _registered[_written(value)] = value
    return value


def _can_be_registered(value: Callable) -> bool:
    if isinstance(value, type):
        return issubclass(value, eqx.Module)
    return bool(_written(value)) and "<lambda>" not in _written(value)


def named(name: str) -> Callable | None:
    """What is registered under this name, `module:qualname`; None if nothing is.

    What a script defines is in a module called `__main__`, but has another name where the script is imported.
    """
    found = _found(name)
    if found is None:
        for room in ROOMS:  # those which nobody has asked for yet
            importlib.import_module(f"oscsim.{room}")
        found = _found(name)
    return found


def _found(name: str) -> Callable | None:
    """The same, among what is loaded."""
    module, _, own = _key(name).partition(":")
    if module.partition(".")[0] in LIBRARIES:
        found = vars(sys.modules.get(module, object)).get(own)
        is_theirs = isinstance(found, type) and issubclass(found, eqx.Module) and found.__module__ == module
        return found if is_theirs else None
    found = {tuple(key.split(":")): value for key, value in _registered.items()}
    of_script = [v for (where, what), v in found.items() if what == own and "__main__" in (where, module)]
    return found.get((module, own), of_script[0] if len(of_script) == 1 else None)


def name_of(value: Callable) -> str | None:
    """The name under which `named` gives this class or function; None if it does not."""
    name = _written(value)
    return name if name and named(name) is value else None


def _written(value: Callable) -> str:
    """What a class or function calls itself; empty if it has no name, as a partial one."""
    match value:
        case object(__module__=str(module), __qualname__=str(name)):
            return _key(f"{module}:{name}")
    return ""


def _key(name: str) -> str:
    """The name under which it is kept: functions of libraries without their module, which changes with the version."""
    module, _, own = name.partition(":")
    root = module.partition(".")[0]
    return f"{root}:{own}" if root in ("jax", "optimistix") else f"{MOVED.get(module, module)}:{own}"
