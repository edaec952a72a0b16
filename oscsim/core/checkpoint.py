"""Write modules to one file, and read them back: arrays as numpy's npz, the structure around them as JSON.

Nothing is pickled. A module is written as its class's import path and its fields, so a file holds networks, signals and
settings of the user's own as well. Reading it imports those classes by name: read only files that you trust.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import secrets
import shutil
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from oscsim.core.arrays import is_key
from oscsim.core.checks import as_path
from oscsim.core.ending import WRITING
from oscsim.core.errors import BadValue

FORMAT = "oscsim 1"


def save(value: PyTree, path: str | Path) -> Path:
    """Write a pytree of modules and arrays to `path`: complete, or not at all.

    Raises:
        ValueError: something cannot be written, such as a lambda; the message says where it sits.
        OSError: the folder cannot be written.
    """
    path = as_path("path", path)
    arrays: list[np.ndarray] = []
    structure = json.dumps({"format": FORMAT, "tree": _encode(value, type(value).__name__, arrays)})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, structure=np.asarray(structure), **{str(i): a for i, a in enumerate(arrays)})
    return write(path, buffer.getbuffer())


def write(path: Path, content: bytes | memoryview) -> Path:
    """Write bytes to a file: complete and on the disk, or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with WRITING:
        return _write(path, content)


def _write(path: Path, content: bytes | memoryview) -> Path:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is on the disk only once the folder is
        with contextlib.suppress(OSError):  # some network shares cannot promise it, and the file is there
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    return path


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write into, which is at `path` once all is written; after an error it is gone.

    Raises:
        OSError: there is something at `path`, or the folder around it cannot be written.
    """
    beside = path.parent / f".{path.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    with WRITING:
        try:
            yield beside
            os.replace(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


BINARY = os.O_BINARY if sys.platform == "win32" else 0
"""Where there are text files of another kind."""


def paths(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; none where there is no folder."""
    return sorted(as_path("folder", folder).glob("step-*.osc"))


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

    def clean(self) -> None:
        """Remove what a process that was killed while it wrote has left behind."""
        for leftover in self.path.glob("*.*.part") if self.write else ():
            leftover.unlink(missing_ok=True)

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
        """
        refused = []
        for path in reversed(self.paths()):
            try:
                value = load(path, expect)
            except ValueError as error:
                refused.append(str(error))
                continue
            if refused:
                warnings.warn(f"{'; '.join(refused)}; going on from {path} instead", stacklevel=2)
            return value
        raise BadValue(f"{self.path} holds no checkpoint that can be read" + "".join(f"; {r}" for r in refused))


def load(path: str | Path, expect: type | None = None) -> PyTree:
    """Read what `save` wrote.

    Args:
        path: the file.
        expect: the class that it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, was not written by `save`, holds something else, or needs float64.
    """
    path = as_path("path", path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file["structure"]))
            arrays = {name: file[name] for name in file.files if name != "structure"}
    except (zipfile.BadZipFile, zlib.error, TypeError, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise BadValue(f"{path} is truncated, or not a file that oscsim wrote ({error})") from error
    if type(header) is not dict or header.get("format") != FORMAT:
        raise BadValue(f"{path} was written in another format than {FORMAT!r}: read it with the version that wrote it")
    try:
        value = _decode(header["tree"], arrays, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{path} is damaged: its structure does not fit its arrays ({error})") from error
    if expect is not None and not isinstance(value, expect):
        raise BadValue(f"{path} holds a {type(value).__name__}, not a {expect.__name__}")
    return value


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
            return {"module": _import_path(type(value), place), "fields": fields}
        case _ if callable(value):
            return {"import": _import_path(value, place)}
    raise BadValue(f"{place} is a {type(value).__name__}, which cannot be saved: use arrays, numbers or modules")


MOVED = {
    "oscsim.session": "oscsim.training.learner",
    "oscsim.teaching": "oscsim.signals.teaching",
    "oscsim.models": "oscsim.networks.models",
}
"""Where modules that files of 0.1 name are now."""


def _import_path(value: Callable, place: str) -> str:
    """The import path of a class or function; an error if it cannot be imported."""
    path = repr(value)
    with contextlib.suppress(ImportError, AttributeError):
        path = f"{value.__module__}:{value.__qualname__}"
        if _imported(path) is value and not path.startswith("__main__:"):
            return path
    raise BadValue(
        f"{place} is {path.replace(':', '.')}, which cannot be imported again: define it at the top of a module"
    )


def _imported(path: str) -> Callable:
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(MOVED.get(module, module)))


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
                array = array.view(tree["dtype"])
            if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
                raise BadValue(f'{path} holds {array.dtype}: call jax.config.update("jax_enable_x64", True) to read it')
            return jnp.asarray(array)
        case {"key": number, "impl": impl}:
            return jax.random.wrap_key_data(jnp.asarray(arrays[str(number)]), impl=impl)
        case {"import": name}:
            return _imported_from(name, path)
        case {"module": name, "fields": fields}:
            return _module(_imported_from(name, path), name, fields, arrays, path)
        case dict():
            raise KeyError(*tree)
    return tree


def _module(kind: Callable, name: str, values: dict, arrays: dict[str, np.ndarray], path: Path) -> eqx.Module:
    if not (isinstance(kind, type) and issubclass(kind, eqx.Module)):
        raise BadValue(f"{path} names {name} as a module, which it is not")
    fields = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    if fields != set(values):
        raise BadValue(
            f"{path} holds a {kind.__name__} with fields {sorted(values)}, this one has {sorted(fields)}: "
            "read it with the version that wrote it"
        )
    module = object.__new__(kind)
    for field, value in values.items():
        object.__setattr__(module, field, _decode(value, arrays, path))
    return module


def _imported_from(name: str, path: Path) -> Callable:
    try:
        return _imported(name)
    except (ImportError, AttributeError) as error:
        raise BadValue(f"{path} needs {name.replace(':', '.')}, which cannot be imported: {error}") from error
