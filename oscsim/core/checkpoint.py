"""Write modules to one file, and read them back: arrays as numpy's npz, the structure around them as JSON.

Nothing is pickled. A module is written as the name of its class and its fields, a function as its name; reading builds
what is registered under these names (see `oscsim.core.registry`), and neither imports nor calls anything. What a
training run writes is a `Learner`, see `oscsim.training.resuming`.
"""

import contextlib
import dataclasses
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from oscsim.core.arrays import is_key
from oscsim.core.checks import as_path
from oscsim.core.errors import BadValue, DamagedFileError, NotRegisteredError, warn
from oscsim.core.files import read_arrays, reading, remove_stale, write
from oscsim.core.memory import require_memory
from oscsim.core.registry import name_of, named

FORMAT = "oscsim 1"


def save(value: PyTree, path: str | Path) -> Path:
    """Write a pytree of modules and arrays to `path`: complete, or not at all.

    Raises:
        ValueError: something cannot be written, such as a lambda; the message says where it sits.
        NotRegisteredError: a class or function that is not registered (see `register`).
        OSError: the folder cannot be written.
    """
    path = as_path("path", path)
    arrays: list[np.ndarray] = []
    structure = json.dumps({"format": FORMAT, "tree": _encode(value, type(value).__name__, arrays)})
    remedy = "save less; samples that were recorded in a folder are in its files"
    require_memory(f"path={path}: writing what is saved", sum(a.nbytes for a in arrays), remedy)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, structure=np.asarray(structure), **{str(i): a for i, a in enumerate(arrays)})
    return write(path, buffer.getbuffer())


def paths(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; none where there is no folder."""
    found = as_path("folder", folder).glob("step-*.osc")
    return sorted(path for path in found if re.fullmatch(r"step-\d{9,}\.osc", path.name))


class Folder:
    """Numbered checkpoints in a folder, the last few of them kept.

    Args:
        path: the folder; made if it does not exist.
        keep: how many to keep.
        write: False only reads: the folder must exist, and methods that would write do nothing.

    Raises:
        OSError: the folder cannot be made or written. It is tried here, not at the first save.
        FileNotFoundError: with `write=False`, there is no such folder.
    """

    def __init__(self, path: str | Path, keep: int = 3, write: bool = True):
        self.path, self.keep, self.write = as_path("folder", path), keep, write
        if not write and not self.path.is_dir():
            raise FileNotFoundError(f"{path}: no such folder; give one that holds checkpoints")
        if write:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            remove_stale(self.path)

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return paths(self.path)

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.path / f"step-{step:09d}.osc"

    def newest_path(self) -> Path | None:
        """The newest checkpoint."""
        return self.paths()[-1] if self.paths() else None

    def save(self, step: int, value: PyTree, spare: int | None = None) -> None:
        """Write the checkpoint of a step, then remove the oldest ones before it, but not that of step `spare`.

        Raises:
            OSError: it cannot be written; the ones before stay.
        """
        if not self.write:
            return
        path = save(value, self.path_of(step))
        earlier = [other for other in self.paths() if other.name < path.name]
        for old in earlier[: max(0, len(earlier) - self.keep + 1)]:
            if spare is None or old != self.path_of(spare):
                with contextlib.suppress(OSError):  # someone reads it, where that forbids: next time
                    old.unlink(missing_ok=True)

    def rewind(self, step: int) -> None:
        """Remove the checkpoints after a step, if one of this step or before it remains."""
        later = [path for path in self.paths() if path.name > self.path_of(step).name]
        if self.write and len(later) < len(self.paths()):
            for path in later:
                path.unlink(missing_ok=True)

    def newest(self, expect: type | None = None) -> PyTree:
        """Read the newest intact checkpoint. Damaged or foreign ones are passed over, with a warning.

        Raises:
            ValueError: there is none, or none that can be read.
            NotRegisteredError: it holds a class or function that is not registered.
        """
        refused = []
        for path in reversed(self.paths()):
            try:
                value = load(path, expect)
            except NotRegisteredError:
                raise  # as the ones before would
            except ValueError as error:
                refused.append(str(error))
                continue
            if refused:
                warn(f"{'; '.join(refused)}; going on from {path} instead")
            return value
        raise BadValue(f"{self.path} holds no checkpoint that can be read" + "".join(f"; {r}" for r in refused))


def load(path: str | Path, expect: type | None = None) -> PyTree:
    """Read what `save` wrote.

    Args:
        path: the file.
        expect: the class that it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: the file is truncated or changed, was not written by `save`, or holds something else.
        NotRegisteredError: it holds a class or function that is not registered (see `register`).
        ValueError: it was written by another version, or needs float64.
    """
    path = as_path("path", path)
    with reading(f"{path} is truncated, or not a file that oscsim wrote"):
        arrays = read_arrays(path)
        header = json.loads(str(arrays.pop("structure")))
    if type(header) is not dict or header.get("format") != FORMAT:
        raise DamagedFileError(
            f"{path} was written in another format than {FORMAT!r}: read it with the version that wrote it"
        )
    with reading(f"{path} is damaged: its structure does not fit its arrays"):
        value = _decode(header["tree"], arrays, path)
    if expect is not None and not isinstance(value, expect):
        raise DamagedFileError(f"{path} holds a {type(value).__name__}, not a {expect.__name__}")
    return value


def require_savable(value: PyTree) -> None:
    """Refuse what `save` would refuse, and write nothing.

    Raises:
        ValueError: something cannot be written; the message says where it sits.
    """
    _encode(value, type(value).__name__, [])


def _encode(value: PyTree, place: str, arrays: list[np.ndarray]) -> PyTree:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case jax.Array() if is_key(value):
            arrays.append(np.asarray(jax.random.key_data(value)))
            return {"key": len(arrays) - 1, "impl": str(jax.random.key_impl(value))}
        case jax.Array() if value.dtype.kind == "V":  # such as bfloat16, which NumPy's files do not know
            array = np.asarray(value)
            arrays.append(array.view(f"u{array.itemsize}"))
            return {"jax": len(arrays) - 1, "dtype": array.dtype.name}
        case jax.Array():
            arrays.append(np.asarray(value))
            return {"jax": len(arrays) - 1}
        case np.ndarray() | np.generic():
            arrays.append(np.asarray(value))
            return {"numpy": len(arrays) - 1}
        case tuple() | list():
            items = [_encode(v, f"{place}[{i}]", arrays) for i, v in enumerate(value)]
            return items if type(value) is list else {"tuple": items}
        case dict() if all(type(k) is str for k in value):
            return {"dict": {k: _encode(v, f"{place}[{k!r}]", arrays) for k, v in value.items()}}
        case eqx.Module():
            names = [field.name for field in dataclasses.fields(value)]  # pyright: ignore[reportArgumentType]
            fields = {name: _encode(vars(value)[name], f"{place}.{name}", arrays) for name in names}
            return {"module": _name(type(value), place), "fields": fields}
        case _ if callable(value):
            return {"import": _name(value, place)}
    raise BadValue(f"{place} is a {type(value).__name__}, which cannot be saved: use arrays, numbers or modules")


def _name(value: Callable, place: str) -> str:
    """The name of a class or function in files; an error where it has none."""
    if name := name_of(value):
        return name
    what = repr(value)
    with contextlib.suppress(AttributeError):
        what = f"{value.__module__}.{value.__qualname__}"
    raise NotRegisteredError(
        f"{place} is {what}, which files cannot hold: define it by name, and put @osc.register above the definition"
    )


def _named(name: str, path: Path) -> Callable:
    """What a file may hold under this name."""
    if (found := named(name)) is None:
        raise NotRegisteredError(
            f"{path} holds {name.replace(':', '.')}, which is not registered: import the module that defines it, with "
            "@osc.register above the definition, and then read the file"
        )
    return found


def _decode(tree: PyTree, arrays: dict[str, np.ndarray], path: Path) -> PyTree:
    match tree:
        case list():
            return [_decode(item, arrays, path) for item in tree]
        case {"tuple": items}:
            return tuple(_decode(item, arrays, path) for item in items)
        case {"dict": items}:
            return {k: _decode(v, arrays, path) for k, v in items.items()}
        case {"numpy": number}:
            return arrays[str(number)]
        case {"jax": number}:
            array = arrays[str(number)]
            if "dtype" in tree:
                array = array.view(_dtype(tree["dtype"]))
            if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
                raise BadValue(f'{path} holds {array.dtype}: call jax.config.update("jax_enable_x64", True) to read it')
            return jnp.asarray(array)
        case {"key": number, "impl": impl}:
            return jax.random.wrap_key_data(jnp.asarray(arrays[str(number)]), impl=impl)
        case {"import": name}:
            return _named(name, path)
        case {"module": name, "fields": fields}:
            return _module(_named(name, path), name, fields, arrays, path)
        case dict():
            raise KeyError(*tree)
    return tree


def _module(kind: Callable, name: str, values: dict, arrays: dict[str, np.ndarray], path: Path) -> eqx.Module:
    if not (isinstance(kind, type) and issubclass(kind, eqx.Module)):
        raise DamagedFileError(f"{path} names {name} as a module, which it is not")
    fields = {field.name: field.default for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    added = {field: fields[field] for field in fields.keys() - values.keys()}  # since the file was written
    if not values.keys() <= fields.keys() or dataclasses.MISSING in added.values():
        raise BadValue(
            f"{path} holds a {kind.__name__} with fields {sorted(values)}, this one has {sorted(fields)}: "
            "read it with the version that wrote it"
        )
    module = object.__new__(kind)
    for field, value in values.items():
        object.__setattr__(module, field, _decode(value, arrays, path))
    for field, value in added.items():
        object.__setattr__(module, field, value)
    return module


def _dtype(name: str) -> np.dtype:
    """A type of numbers that NumPy does not know, such as bfloat16."""
    if (dtype := jnp.dtype(name)).kind != "V":
        raise TypeError(f"{name} is no type of numbers of jax's own")
    return dtype
