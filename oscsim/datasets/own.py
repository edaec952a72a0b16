"""Samples in files of one's own: tables, arrays and IDX files, under the names that people give them."""

import csv
import io
import math
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oscsim.core.checks import (
    Given,
    as_count,
    as_flag,
    as_index,
    as_native,
    as_path,
    as_place,
    as_plain,
    as_sequence,
    as_text,
    checked,
)
from oscsim.core.errors import BadValue, warn
from oscsim.core.files import read_array, read_arrays, reading, unpacked
from oscsim.datasets.idx import is_idx, read_idx
from oscsim.datasets.labels import as_labels, is_real
from oscsim.datasets.source import Samples

if TYPE_CHECKING:
    import pandas

ROLES = {
    "x": ("x", "images", "image", "data", "features", "inputs"),
    "y": ("y", "label", "labels", "target", "targets"),
}
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "t10k"),
    "validation": ("val", "valid", "validation"),
}
"""The words in the name of an array or a file by which its part is known; without one of a split it is to train."""
KNOWN = {word for group in (ROLES, SPLITS) for words in group.values() for word in words} | {"idx1", "idx3", "ubyte"}
TARGET_COLUMNS = ("label", "target", "y", "class")
TABLES = (".csv", ".tsv", ".txt")
FAR = 10.0
"""Where the root mean square of an input is above this, it was not scaled."""
KINDS = "use a table (.csv), arrays (.npz, .npy), or a folder with IDX files or train.csv and test.csv"

Scaling = tuple[np.ndarray, np.ndarray]
"""What is taken off the inputs, and what they are then divided by."""


class OwnData(NamedTuple):
    """What `read` found.

    Attributes:
        train: inputs, (n, ...), and labels, (n,) from 0, or targets, (n, outputs).
        test: likewise; None where there is no such part.
        classes: what each label stands for, in order; empty where labels are whole numbers from 0 already.
        scaling: what was taken off the inputs, and what they were divided by; None where they stayed what they were.
        columns: the names of the inputs in a table with a header; empty elsewhere.

    Example:
        >>> np.savez("own.npz", x=np.eye(4), y=["no", "yes", "no", "yes"])
        >>> own = osc.datasets.read("own.npz", validation=0.25)
        >>> own.classes, own.train[0].shape, own.held_out()[0].shape
        (('no', 'yes'), (3, 4), (1, 4))
    """

    train: Samples
    test: Samples | None
    classes: tuple[str, ...]
    scaling: Scaling | None
    columns: tuple[str, ...] = ()

    def held_out(self) -> Samples:
        """The part to test on.

        Raises:
            ValueError: there is none; the message says how to come by one.
        """
        if self.test is None:
            raise BadValue(
                "the data have no part to test on, such as x_test and y_test: keep a share of them with validation=0.2 "
                "(--validation 0.2)"
            )
        return self.test

    def inputs_of(self, path: str | os.PathLike[str], target: str | None = None) -> np.ndarray:
        """The inputs in another file, such as new samples without labels, as the network takes them.

        They are the columns of the training part, found by their names where both files have a header, scaled as those
        were. Labels are left out.

        Args:
            path: a table, an .npz or an .npy file.
            target: in a table without a header that holds labels, their column, if it is not the last.

        Raises:
            ValueError: what is no input; a table without one of the columns; samples of another shape.
            FileNotFoundError: there is no such file.
        """
        shape = self.train[0].shape[1:]
        x = read_inputs(path, math.prod(shape), target, self.columns)
        if x.shape[1:] != shape:
            raise BadValue(f"data={path}: samples of shape {x.shape[1:]}, those to train on have {shape}")
        if self.scaling is not None:
            mean, deviation = self.scaling
            x = (x - mean) / deviation
        return x.astype(self.train[0].dtype)


def as_column(name: str, column: Given) -> str:
    """The name of a column, or its number as text, or an error that names what is none."""
    return as_text(name, column if isinstance(column, str) else str(as_index(name, column)))


def as_columns(name: str, columns: Given) -> tuple[str, ...]:
    """Names of columns, or an error that names what is none."""
    return tuple(as_column(f"{name}[{i}]", column) for i, column in enumerate(as_sequence(name, columns)))


@checked(path=as_place, target=as_column, validation=as_plain, standardise=as_flag)
def read(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    validation: float | None = None,
    standardise: bool = False,
) -> OwnData:
    r"""Samples in a file or folder of your own.

    - A table, `.csv`, `.tsv` or `.txt`, also gzipped: a row for each sample, with or without a header; labels in the
      column called label, target, y or class, else in the last.
    - `.npz`: arrays `x`, `y`, and to test `x_test`, `y_test`; also called images or data, labels or targets, with
      train, test or val before or after. A part called val is that to test on where there is none.
    - `.npy`: inputs, with the labels and the other parts in files beside it that are called as those arrays.
    - A folder: such `.npy` files; IDX files, whose bytes are divided by 255; or tables of which one has train in its
      name, and another test.

    Labels may be names, -1 and 1, whole floats or a column: see `as_labels`; the classes are those of all parts. Real
    numbers with fractions are the targets of a regression. Nothing pickled is read.

    Args:
        path: the file or folder.
        target: the column of a table that holds the labels: its name, or without a header its number, from 0.
        validation: where there is no part to test, this share of the samples is, at random but the same each time.
        standardise: shift and scale to mean 0 and variance 1 over the training part: each column of a table, each
            channel of colour images, all pixels of others.

    Warns:
        UserWarning: inputs far outside of [0, 1], which neurons take for saturation.

    Raises:
        ValueError: what cannot be read as samples; labels of one class only; a share that leaves nothing.
        FileNotFoundError: there is nothing at the path.

    Example:
        >>> with open("flowers.csv", "w") as file:
        ...     _ = file.write("sepal,petal,species\n5.1,1.4,setosa\n6.4,5.6,virginica\n")
        >>> flowers = osc.datasets.read("flowers.csv")
        >>> flowers.train[0].shape, flowers.train[1].tolist(), flowers.classes
        ((2, 2), [0, 1], ('setosa', 'virginica'))
    """
    path = as_path("data", path)
    parts, columns = _parts(path, target)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts["validation"]
    parts = {split: _checked(path, *parts[split]) for split in ("train", "test") if split in parts}
    if "train" not in parts:
        raise BadValue(f"data={path}: nothing to train on in it, only a part to test; name it x, y or x_train, y_train")
    parts, classes = _labelled(path, parts)
    if validation:
        if "test" in parts:
            raise BadValue(f"validation={validation:g}: {path} has a part to test on already; leave it out")
        parts["train"], parts["test"] = _divided(path, *parts["train"], validation)
    if parts["train"][1].ndim == 1 and len(np.unique(parts["train"][1])) == 1:
        only = classes[parts["train"][1][0]] if classes else parts["train"][1][0]
        raise BadValue(f"data={path}: all {len(parts['train'][1])} labels to train on are {only!s}: give two classes")
    scaling = scaling_of(parts["train"][0]) if standardise else None
    if scaling is not None:
        mean, deviation = scaling
        parts = {split: (((x - mean) / deviation).astype(x.dtype), y) for split, (x, y) in parts.items()}
    else:
        _warn_unscaled(path, parts["train"][0])
    if parts["train"][1].ndim > 1:
        _warn_unreachable(path, parts["train"][1])
    return OwnData(parts["train"], parts.get("test"), classes, scaling, columns)


@checked(path=as_place, count=as_count, target=as_column, columns=as_columns)
def read_inputs(
    path: str | os.PathLike[str],
    count: int | None = None,
    target: str | None = None,
    columns: Sequence[str] = (),
) -> np.ndarray:
    """The inputs in a file, whose labels, if it has some, are left out.

    Args:
        path: a table, an .npz or an .npy file.
        count: how many inputs a sample has; where a table has one column more, it is that of the labels.
        target: which one, as for `read`.
        columns: the names of the inputs, in their order; a table with a header has to have them, in any order.

    Raises:
        ValueError: what is no input; a table without one of the columns.
        FileNotFoundError: there is no such file.

    Example:
        >>> np.save("x.npy", np.eye(4))
        >>> osc.datasets.read_inputs("x.npy").shape
        (4, 4)
    """
    path = as_path("data", path)
    if _is_table(path):
        frame, header = _frame(path)
        if header and columns:
            if lacking := [name for name in columns if name not in frame.columns]:
                raise BadValue(
                    f"data={path} has no column {lacking[0]}, which the network was trained on: it takes the columns "
                    f"{', '.join(columns)}"
                )
            return _numbers(path, frame.reindex(columns=list(columns)), header)
        named = any(str(name).lower() in TARGET_COLUMNS for name in frame.columns) or target in frame.columns
        if frame.shape[1] != count and (named or frame.shape[1] - 1 == count):
            frame = frame.drop(columns=frame.columns[_target_column(path, frame, header, target)])
        return _numbers(path, frame, header)
    if path.suffix == ".npy":
        return _inputs(path, _load_npy(path))
    found = _npz(path)
    for split in ("train", "test", "validation"):
        if (split, "x") in found:
            return _inputs(path, found[split, "x"])
    raise BadValue(f"data={path}: no array x in it; use an .npy file, an .npz file with x, or a table")


# From files to parts.

Parts = dict[str, Samples]


def _parts(path: Path, target: str | None) -> tuple[Parts, tuple[str, ...]]:
    """Inputs and labels as they stand in the files, by split, and the names of the inputs in a table to train on."""
    if not path.exists():
        raise FileNotFoundError(f"data={path}: no such file or folder, nor a data set of that name; {KINDS}")
    if _is_table(path):
        samples, columns = _table(path, target)
        return {"train": samples}, columns
    if path.is_dir():
        tables = {role[0]: p for p in sorted(path.iterdir()) if _is_table(p) and (role := _role(p.name, "x"))}
        if tables:
            found = {split: _table(table, target) for split, table in tables.items()}
            _, columns = found.get("train", next(iter(found.values())))
            return {split: samples for split, (samples, _) in found.items()}, columns
    if target is not None:
        raise BadValue(f"target={target} is the column of a table, and {path} is none: leave it out")
    found = _npz(path) if path.suffix == ".npz" else _beside(path)
    splits = {split for split, _ in found}
    lacking = [f"{role} of the part {split}" for split in splits for role in "xy" if (split, role) not in found]
    if not found or lacking:
        raise BadValue(
            f"data={path}: no array x and array y in it"
            + (f" ({lacking[0]} is missing)" if lacking else "")
            + "; name them x, y, x_test, y_test"
        )
    return {split: (found[split, "x"], found[split, "y"]) for split in splits}, ()


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", re.sub(r"\.(npy|gz)$", "", name.lower())))


def _role(name: str, default: str | None = None) -> tuple[str, str] | None:
    """The split and the role, x or y, that a name such as `x_test` or `t10k-labels-idx1-ubyte.gz` tells."""
    words = _words(name)
    splits = [split for split, known in SPLITS.items() if words & set(known)] or ["train"]
    roles = [role for role, known in ROLES.items() if words & set(known)] or [default]
    return (splits[0], roles[0]) if len(splits) == 1 and len(roles) == 1 and roles[0] else None


def _by_role(path: Path, names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Which of the names is which part, by plain ones where there are some; refused where two could be the same one."""
    roles = {name: role for name in names if (role := _role(name))}
    plain = {name: role for name, role in roles.items() if _words(name) <= KNOWN} or roles
    found: dict[tuple[str, str], str] = {}
    for name, role in plain.items():
        if role in found:
            raise BadValue(f"data={path}: {found[role]} and {name} could both be {role[1]} of the part {role[0]}")
        found[role] = name
    return found


def _npz(path: Path) -> dict[tuple[str, str], np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"data={path}: no such file; {KINDS}")
    if not zipfile.is_zipfile(path):
        raise BadValue(f"data={path}: not an .npz file; write one with numpy.savez(path, x=x, y=y)")
    roles: dict[tuple[str, str], str] = {}
    with reading(f"data={path} is damaged, or holds no numeric arrays x and y"):
        arrays = read_arrays(path, lambda names: roles.update(_by_role(path, names)) or roles.values())
    return {role: arrays[name] for role, name in roles.items()}


def _beside(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """The arrays in a folder, or beside a file."""
    if path.is_file() and path.suffix != ".npy":
        what = "pickled objects may run anything when they are read; " if path.suffix in PICKLED else ""
        raise BadValue(f"data={path}: {what}{KINDS}")
    folder = path if path.is_dir() else path.parent
    files = {p.name: p for p in sorted(folder.glob("*.npy"))}
    if files:
        return {role: _load_npy(files[name]) for role, name in _by_role(path, files).items()}
    # Of what lies there twice, packed and unpacked, one.
    nested = (p for depth in ("*", "*/*", "*/*/*") for p in sorted(folder.glob(depth)) if _role(p.name))
    found = (p for p in nested if p.is_file() and is_idx(p))
    files = {p.name.removesuffix(".gz").replace(".idx", "-idx"): p for p in found}
    arrays = {role: read_idx(files[name], "get it again")[0] for role, name in _by_role(path, files).items()}
    return {role: a / np.float32(255) if role[1] == "x" else a for role, a in arrays.items()}


PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


def _load_npy(path: Path) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(f"data={path}: no such file; use an .npy or .npz file with inputs, or a table")
    with reading(f"data={path} is damaged, or no numeric array"):
        return read_array(path)


# Tables.


def _is_table(path: Path) -> bool:
    return path.is_file() and Path(path.name.removesuffix(".gz")).suffix.lower() in TABLES


def _table(path: Path, target: str | None) -> tuple[Samples, tuple[str, ...]]:
    frame, header = _frame(path)
    place = _target_column(path, frame, header, target)
    y, inputs = frame.iloc[:, place], frame.drop(columns=frame.columns[place])
    columns = tuple(map(str, inputs.columns)) if header else ()
    return (_numbers(path, inputs, header), y.to_numpy()), columns


def _frame(path: Path) -> "tuple[pandas.DataFrame, bool]":
    """The table, without a column of row numbers, and whether it has a header."""
    import pandas

    with reading(f"data={path} is no table of samples"):
        content = unpacked(path).decode("utf-8-sig")
        line = content[: content.find("\n") + 1] or content
        separator = max(",;\t", key=line.count)
        spaced = separator not in line
        cells = line.split() if spaced else next(csv.reader([line], delimiter=separator, skipinitialspace=True))
        cells = [cell.strip() for cell in cells]
        numbered = bool(cells) and cells[0] in ("", "Unnamed: 0")
        header = _is_header(cells[numbered:])
        frame = pandas.read_csv(
            io.StringIO(content),
            sep=r"\s+" if spaced else separator,
            header=0 if header else None,
            index_col=0 if numbered and header else False,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=[""],
        )
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame, header


def _is_header(cells: list[str]) -> bool:
    """Whether the first row of a table names its columns: by words alone, one known for labels, or 0, 1, 2, ..."""
    known = any(cell.lower() in TARGET_COLUMNS for cell in cells)
    return known or not any(map(_is_number, cells)) or cells == [str(i) for i in range(len(cells))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _target_column(path: Path, frame: "pandas.DataFrame", header: bool, target: str | None) -> int:
    names, count = list(frame.columns), frame.shape[1]
    if count < 2:
        raise BadValue(f"data={path}: one column only; a table has inputs and labels, separated by commas")
    if target is None:
        known = [i for i, name in enumerate(names) if header and name.lower() in TARGET_COLUMNS]
        if len(known) > 1:
            listed = " and ".join(names[i] for i in known)
            raise BadValue(f"data={path}: the columns {listed} could both hold the labels; name one as target")
        return known[0] if known else count - 1
    if header and target in names:
        return names.index(target)
    if not header and re.fullmatch(r"-?\d+", target) and -count <= int(target) < count:
        return int(target) % count
    has = f"it has {', '.join(names[:20])}" if header else f"it has no header: use 0 to {count - 1}"
    raise BadValue(f"target={target}: no such column in {path}; {has}")


def _numbers(path: Path, frame: "pandas.DataFrame", header: bool) -> np.ndarray:
    """The columns as numbers, or an error that names the cell that holds none."""
    import pandas

    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        numbers = column if column.dtype.kind in "biuf" else pandas.to_numeric(column, errors="coerce")
        bad = np.flatnonzero(np.isnan(np.asarray(numbers, float)))
        if bad.size:
            cell = column.iloc[bad[0]]
            held = "is empty" if cell != cell else f"is {cell!r}"
            raise BadValue(
                f"data={path}: column {name} {held} in line {bad[0] + 1 + header}: inputs are numbers; leave out the "
                "column, or the samples, or write it as numbers; labels in another column than the last are named as "
                "target"
            )
    return frame.to_numpy(dtype=float)


# From parts to samples.


def _inputs(path: Path, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "biuf":
        raise BadValue(f"data={path}: x holds {x.dtype}; use numbers")
    return as_native("x", x) if x.dtype.kind == "f" else x.astype(np.float32)


def _checked(path: Path, x: np.ndarray, y: np.ndarray) -> Samples:
    x = _inputs(path, x)
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or not len(x):
        raise BadValue(
            f"data={path}: x has shape {x.shape}, y has shape {y.shape}; use x of shape (n, inputs) and y of shape (n,)"
        )
    return x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _labelled(path: Path, parts: Parts) -> tuple[Parts, tuple[str, ...]]:
    """The parts with labels from 0 in all of them, or with targets."""
    targets = [y for _, y in parts.values()]
    if len({x.shape[1:] for x, _ in parts.values()}) > 1 or len({y.shape[1:] for y in targets}) > 1:
        shapes = " and ".join(f"{x.shape}, {y.shape}" for x, y in parts.values())
        raise BadValue(f"data={path}: samples of different shapes in its parts, {shapes}; give the same columns")
    if targets[0].ndim > 1 or any(map(is_real, targets)):
        for y in targets:
            if y.dtype.kind not in "biuf":
                raise BadValue(f"data={path}: y holds {y.dtype} of {y.shape}; use one label for each sample, (n,)")
        return {split: (x, y if y.ndim > 1 else y[:, None]) for split, (x, y) in parts.items()}, ()
    try:
        labels, classes = as_labels(np.concatenate(targets))
    except (ValueError, TypeError) as error:
        raise BadValue(f"data={path}: {error}") from error
    ends = np.cumsum([len(y) for y in targets])[:-1]
    pieces = zip(parts.items(), np.split(labels, ends), strict=True)
    return {split: (x, y) for (split, (x, _)), y in pieces}, classes


def _divided(path: Path, x: np.ndarray, y: np.ndarray, share: float) -> tuple[Samples, Samples]:
    count = round(share * len(x)) if 0 < share < 1 else 0
    if not 0 < count < len(x):
        raise BadValue(f"validation={share:g} of the {len(x)} samples in {path}: use a share such as 0.2")
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[:count], order[count:]
    return (x[train], y[train]), (x[test], y[test])


def scaling_of(x: np.ndarray) -> Scaling:
    """Mean and standard deviation: of each column, of each channel of colour images, of all pixels of others."""
    axes = (0,) if x.ndim == 2 else tuple(range(3 if x.ndim == 4 else x.ndim))
    mean, deviation = np.asarray(x.mean(axes, np.float64)), np.asarray(x.std(axes, np.float64))
    return mean, np.where(deviation > 0, deviation, 1.0)  # what is the same everywhere becomes 0


def _warn_unscaled(path: Path, x: np.ndarray) -> None:
    if _size(x) > FAR:
        warn(
            f"data={path}: inputs reach from {x.min():g} to {x.max():g}, and neurons saturate far outside of [0, 1]: "
            "scale them with standardise=True (--standardise)"
        )


def _warn_unreachable(path: Path, y: np.ndarray) -> None:
    if _size(y) > FAR:
        warn(
            f"data={path}: targets reach from {y.min():g} to {y.max():g}, and outputs of neurons lie near "
            "[0, 1]: scale the targets in the file"
        )


def _size(a: np.ndarray) -> float:
    """The root mean square of the largest column."""
    return float(np.sqrt(np.max(np.mean(np.square(a, dtype=np.float64), axis=0))))
