"""Files: written whole or not at all, under names that are only ours; read so that damage is one named error.

Nothing here runs or imports what a file names, and nothing takes memory that a file only claims to need.
"""

import contextlib
import errno
import gzip
import hashlib
import io
import math
import os
import platform
import re
import secrets
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from oscsim.core.ending import WRITING
from oscsim.core.errors import BadType, BadValue, DamagedFileError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINARY = os.O_BINARY if sys.platform == "win32" else 0
"""Where there are text files of another kind."""
HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
"""This machine, in the names of files that are being written."""
SMALL, RATIO = 2**28, 200
"""What unpacks to more than so many bytes, and to more than so many times its size, is made to fill the memory."""


# Writing.


def temporary(folder: Path) -> Path:
    """A new name in this folder which can only be ours, and says which process writes there."""
    return folder / f".oscsim-{HOST}-{os.getpid()}-{secrets.token_hex(8)}.part"


def remove_stale(folder: Path) -> None:
    """Remove what processes of this machine that were killed while they wrote have left in the folder."""
    for path in folder.glob(".oscsim-*.part"):
        owner = re.fullmatch(rf"\.oscsim-{HOST}-(\d+)-[0-9a-f]{{16}}\.part", path.name)
        if owner and not _is_running(int(owner[1])):
            _remove(path)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return False  # there, what is open cannot be removed
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        pass
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write(path: Path, content: bytes | memoryview) -> Path:
    """Write bytes to a file: complete and on the disk, or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with WRITING:
        return _write(path, content)


FIGURES = ".png", ".pdf", ".svg"
"""What a figure may be written as."""


def write_figure(path: Path, figure: "Figure", dots: int) -> Path:
    """Write a figure, as the ending of the path says, with so many dots per inch; whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=dots)
    return write(path, buffer.getbuffer())


def _write(path: Path, content: bytes | memoryview) -> Path:
    remove_stale(path.parent)
    beside = temporary(path.parent)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(beside):
            error.filename = str(path)  # the one that the user knows
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
    remove_stale(path.parent)
    beside = temporary(path.parent)
    with WRITING:
        try:
            yield beside
            os.replace(beside, path)
        finally:
            _remove(beside)


# Reading.


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever is raised inside over the content of a file into one error, which begins with `what`.

    Raises:
        DamagedFileError: anything else than a named error, a file that cannot be opened, or too little memory.
    """
    try:
        yield
    except (BadValue, BadType, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR):
            raise
        raise DamagedFileError(f"{what} ({type(error).__name__}: {error})") from error


def _opened(path: Path) -> IO[bytes]:
    """The file, if it is one: a device or a pipe may have no end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is a device or a pipe, and no file")
    return path.open("rb")


def unpacked(path: Path) -> bytes:
    """The content of a file, gzipped or not; to be called in `reading`.

    Raises:
        DamagedFileError: it unpacks to far more than a file of samples would.
    """
    with _opened(path) as file:
        if file.read(2) != b"\x1f\x8b":
            return path.read_bytes()
        size = os.fstat(file.fileno()).st_size
        most = max(SMALL, RATIO * size)
        file.seek(0)
        with gzip.open(file) as content:
            found = content.read(most + 1)
    require_unpackable(path, len(found), size)
    return found


def require_unpackable(path: Path, size: int, packed: int) -> None:
    """Refuse what is made to fill the memory, by the size that it unpacks to."""
    if size > max(SMALL, RATIO * packed):
        raise DamagedFileError(
            f"{path} has {packed / 1e6:,.3g} MB and unpacks to {size / 1e6:,.3g} MB or more, as no data do: if you "
            "trust it, unpack it yourself, and give what is in it"
        )


def read_arrays(path: Path, chosen: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, np.ndarray]:
    """Those of the arrays in an .npz file whose names are chosen; each is compared with its checksum.

    To be called in `reading`: a damaged file may raise anything.

    Raises:
        DamagedFileError: pickled objects, or what unpacks to far more than a file of samples would.
    """
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        wanted = {name: entries[name] for name in chosen(list(entries))}
        require_unpackable(path, sum(e.file_size for e in wanted.values()), os.fstat(file.fileno()).st_size)
        found = {}
        for name, entry in wanted.items():
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DamagedFileError(f"{path}: {name} is packed in a way that numpy does not use")
            with archive.open(entry) as content:
                found[name] = _array(path, content, entry.file_size)
    return found


def read_array(path: Path) -> np.ndarray:
    """The array in an .npy file; as `read_arrays`."""
    with _opened(path) as file:
        return _array(path, file, os.fstat(file.fileno()).st_size)


def _array(path: Path, file: IO[bytes] | io.BufferedIOBase, size: int) -> np.ndarray:
    """An array in numpy's format, of which there are `size` bytes.

    numpy's own reader evaluates the header, and makes room for whatever shape it names.
    """
    head = file.read(8)
    if head[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin as an array of numpy, and pickled objects are not read")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > 2**16:
        raise ValueError("its header is too long")
    header = file.read(length).decode("latin1")
    form = r"\s*\{'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\dL, ]*)\),?\s*\}\s*"
    fields = re.fullmatch(form, header)
    if fields is None:
        raise ValueError("its header names no shape and type")
    descr, fortran, sizes = fields.groups()
    dtype, shape = np.dtype(descr), tuple(int(n) for n in re.findall(r"\d+", sizes))
    if dtype.hasobject:
        raise DamagedFileError(
            f"{path}: it holds pickled objects, which may run anything when they are read; save numbers or text instead"
        )
    left = size - 8 - width - length
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"its header says {shape} of {dtype}, and it has {left} bytes")
    content = file.read(left + 1)  # to the end, where the checksum is compared
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran == "True" else "C").copy("K")
