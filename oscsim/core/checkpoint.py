"""Write modules to one file, and read them back: arrays as numpy's npz, the structure around them as JSON.

Nothing is pickled. A module is written as its class's import path and its fields, so a file holds networks, signals and
settings of the user's own as well. Reading it imports those classes by name: read only files that you trust.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import secrets
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oscsim.core.errors import BadValue

FORMAT = "oscsim 1"


def save(value: Any, path: str | Path) -> Path:
    """Write a pytree of modules and arrays to `path`: complete, or not at all.

    Raises:
        ValueError: something cannot be written, such as a lambda; the message says where it sits.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    arrays: list[np.ndarray] = []
    structure = json.dumps({"format": FORMAT, "tree": _encode(value, type(value).__name__, arrays)})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, structure=np.asarray(structure), **{str(i): a for i, a in enumerate(arrays)})
    return write(path, buffer.getbuffer())


def write(path: Path, content: Any) -> Path:
    """Write bytes to a file: complete and on the disk, or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
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


BINARY = getattr(os, "O_BINARY", 0)
"""Where there are text files of another kind."""


def paths(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; none where there is no folder."""
    return sorted(Path(folder).glob("step-*.osc"))


class Folder:
    """Numbered checkpoints in a folder, the last few of them kept.

    Args:
        path: the folder; made if it does not exist.
        keep: how many to keep.
        write: make the folder if it does not exist; without, it has to be there and is read only, and what would write
            does nothing.

    Raises:
        OSError: the folder cannot be made or written; said at once, and not at the first save.
        FileNotFoundError: with `write=False`, there is no such folder.
    """

    def __init__(self, path: str | Path, keep: int = 3, write: bool = True):
        self.path, self.keep, self.write = Path(path), keep, write
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

    def save(self, step: int, value: Any, spare: int | None = None) -> None:
        """Write the checkpoint of a step, then remove the oldest ones before it, but for that of the step to `spare`.

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
        """Make the checkpoint of a step the newest one, by removing later ones; without it, the newest one before it.

        Where there is neither, nothing is removed.
        """
        later = [path for path in self.paths() if path.name > self.path_of(step).name]
        if self.write and len(later) < len(self.paths()):
            for path in later:
                path.unlink(missing_ok=True)

    def newest(self, expect: type | None = None) -> Any:
        """What the newest intact checkpoint holds; damaged or foreign ones are named in a warning and passed over.

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


def load(path: str | Path, expect: type | None = None) -> Any:
    """Read what `save` wrote.

    Args:
        path: the file.
        expect: the class that it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, was not written by `save`, holds something else, or needs float64.
    """
    path = Path(path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file["structure"]))
            arrays = {name: file[name] for name in file.files if name != "structure"}
    except (zipfile.BadZipFile, zlib.error, TypeError, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise BadValue(f"{path} is truncated, or not a file that oscsim wrote ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BadValue(f"{path} was written in another format than {FORMAT!r}: read it with the version that wrote it")
    try:
        value = _decode(header["tree"], arrays, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{path} is damaged: its structure does not fit its arrays ({error})") from error
    if expect is not None and not isinstance(value, expect):
        raise BadValue(f"{path} holds a {type(value).__name__}, not a {expect.__name__}")
    return value


def _encode(value: Any, place: str, arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays.append(np.asarray(jax.random.key_data(value)))
        return {"key": len(arrays) - 1, "impl": str(jax.random.key_impl(value))}
    if isinstance(value, jax.Array) and value.dtype.kind == "V":  # such as bfloat16, which NumPy's files do not know
        array = np.asarray(value)
        arrays.append(array.view(f"u{array.itemsize}"))
        return {"jax": len(arrays) - 1, "dtype": array.dtype.name}
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        arrays.append(np.asarray(value))
        return {"jax" if isinstance(value, jax.Array) else "numpy": len(arrays) - 1}
    if isinstance(value, (tuple, list)):
        items = [_encode(v, f"{place}[{i}]", arrays) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _encode(v, f"{place}[{k!r}]", arrays) for k, v in value.items()}}
    if isinstance(value, eqx.Module):
        fields = {
            field.name: _encode(getattr(value, field.name), f"{place}.{field.name}", arrays)
            for field in dataclasses.fields(value)  # pyright: ignore[reportArgumentType]
        }
        return {"module": _import_path(type(value), place), "fields": fields}
    if callable(value):
        return {"import": _import_path(value, place)}
    raise BadValue(f"{place} is a {type(value).__name__}, which cannot be saved: use arrays, numbers or modules")


MOVED = {
    "oscsim.session": "oscsim.training.learner",
    "oscsim.teaching": "oscsim.signals.teaching",
    "oscsim.models": "oscsim.networks.models",
}
"""Where modules that files of 0.1 name are now."""


def _import_path(value: Any, place: str) -> str:
    """Where a class or function can be imported from, or an error if it cannot."""
    path = f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
    try:
        found = _imported(path)
    except (ImportError, AttributeError):
        found = None
    if found is not value or path.startswith("__main__:"):
        raise BadValue(
            f"{place} is {path.replace(':', '.')}, which cannot be imported again: define it at the top of a module"
        )
    return path


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    value = importlib.import_module(MOVED.get(module, module))
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _decode(tree: Any, arrays: dict[str, np.ndarray], path: Path) -> Any:
    if isinstance(tree, list):
        return [_decode(item, arrays, path) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tuple" in tree:
        return tuple(_decode(item, arrays, path) for item in tree["tuple"])
    if "dict" in tree:
        return {k: _decode(v, arrays, path) for k, v in tree["dict"].items()}
    if "numpy" in tree:
        return arrays[str(tree["numpy"])]
    if "jax" in tree:
        array = arrays[str(tree["jax"])]
        if "dtype" in tree:
            array = array.view(tree["dtype"])
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise BadValue(f'{path} holds {array.dtype}: call jax.config.update("jax_enable_x64", True) to read it')
        return jnp.asarray(array)
    if "key" in tree:
        return jax.random.wrap_key_data(jnp.asarray(arrays[str(tree["key"])]), impl=tree["impl"])
    found = _imported_from(tree.get("module") or tree["import"], path)
    if "import" in tree:
        return found
    if not (isinstance(found, type) and issubclass(found, eqx.Module)):
        raise BadValue(f"{path} names {tree['module']} as a module, which it is not")
    fields = {field.name for field in dataclasses.fields(found)}
    if fields != set(tree["fields"]):
        raise BadValue(
            f"{path} holds a {found.__name__} with fields {sorted(tree['fields'])}, this one has {sorted(fields)}: "
            "read it with the version that wrote it"
        )
    module = object.__new__(found)
    for name, value in tree["fields"].items():
        object.__setattr__(module, name, _decode(value, arrays, path))
    return module


def _imported_from(name: str, path: Path) -> Any:
    try:
        return _imported(name)
    except (ImportError, AttributeError) as error:
        raise BadValue(f"{path} needs {name.replace(':', '.')}, which cannot be imported: {error}") from error
