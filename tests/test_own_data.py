"""Data of the user's own: labels of any kind, files under any of their names, in Python and in commands."""

import gzip
import json
import pickle
import warnings

import jax
import numpy as np
import optax
import pytest
from sklearn.preprocessing import LabelEncoder, StandardScaler

import oscsim as osc
from oscsim.cli.commands import main
from oscsim.datasets import as_labels, load, read
from tests.test_datasets import idx

RNG = np.random.default_rng(0)
X = RNG.random((12, 3))
Y = np.arange(12) % 3
QUICK = ("--estimator", "exact", "--epochs", 1, "--hidden", 4, "--batch-size", 4, "--probe", 0)


# Labels.

KINDS = {
    "a column": Y[:, None],
    "whole floats": Y.astype(float),
    "a column of floats": Y[:, None].astype(np.float32),
    "bytes": Y.astype(np.uint8),
    "text": Y.astype(str),
    "a list": Y.tolist(),
}


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_whole_numbers_from_0_stay_what_they_are(given):
    labels, classes = as_labels(given)
    assert (labels.dtype, classes) == (np.int32, ())
    np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize(
    "given",
    [
        ["b", "c", "a", "b"],
        np.array([b"no", b"yes"]),
        np.array([["x"], ["y"]], object),
        [-1, 1, 1],
        [-1.0, 1.0],
        [-10, 9],
    ],
    ids=str,
)
def test_other_labels_are_numbered_in_sorted_order(given):
    labels, classes = as_labels(given)
    encoder = LabelEncoder().fit(np.ravel(given))
    np.testing.assert_array_equal(labels, encoder.transform(np.ravel(given)))
    assert list(classes) == [name.removesuffix(".0") for name in encoder.classes_.astype(str)]
    np.testing.assert_array_equal(as_labels(np.ravel(given)[::-1], classes)[0], labels[::-1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0.5, 1.0], r"y\[0\] is 0.5: labels are whole numbers or names"),
        ([0.0, np.nan], r"y\[1\] is nan"),
        (["a", None], r"y\[1\] is None: give each sample a label"),
        (np.eye(3), r"y has shape \(3, 3\): use one label for each sample"),
        ([], "y has shape"),
        (1, "y has shape"),
        ([1j], "y holds complex128"),
        ([0, 10**6], "whole numbers up to 1e\\+06 for 2 samples"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused(given, words):
    with pytest.raises((osc.BadValue, osc.BadType), match=words):
        as_labels(given)


def test_a_name_that_is_no_class_is_refused():
    with pytest.raises(osc.BadValue, match="y holds 'cow', which is none of the classes 'cat', 'dog'"):
        as_labels(["cat", "cow"], ("cat", "dog"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (Y[:, None], r"a column of labels is y\[:, 0\]"),
        (Y.astype(float), "datasets.as_labels"),
        (Y.astype(str), "datasets.as_labels"),
        (Y - 1, "datasets.as_labels"),
    ],
    ids=["a column", "floats", "names", "from -1 on"],
)
def test_a_network_names_the_remedy_for_other_labels(y, words):
    with pytest.raises((osc.BadValue, osc.BadType), match=words):
        osc.exact_gradient(osc.LayeredNetwork((3, 4, 3), key=jax.random.key(0)), X, y)


@pytest.mark.parametrize("network", [osc.LayeredNetwork, osc.FeedForwardNetwork])
def test_the_cross_entropy_of_one_class_is_refused(network):
    net = network((3, 4, 1), key=jax.random.key(0))
    with pytest.raises(osc.BadValue, match="outputs=1: the cross-entropy of one class is 0"):
        osc.evaluate(net, X, np.zeros(12, int))
    real = network((3, 4, 1), cost=osc.SquaredError(), key=jax.random.key(0))
    assert osc.evaluate(real, X, X[:, :1])["loss"] > 0


def test_labels_of_one_class_are_noticed():
    with pytest.warns(UserWarning, match="all 12 labels are 2: there is nothing to tell apart"):
        osc.datasets.ArraySource(X, np.full(12, 2))
    osc.datasets.ArraySource(X, Y)


# Files.

NAMES = np.array(["ape", "bee", "cow"])[Y]


def table(path, header="a,b,c,label", sep=",", y=NAMES, first="", end=""):
    rows = [sep.join([*map(repr, map(float, row)), str(label)]) for row, label in zip(X, y, strict=True)]
    path.write_text(first + "\n".join([*([header] if header else []), *rows]) + "\n" + end)
    return path


TABLES = {
    "a header": {},
    "no header": {"header": ""},
    "semicolons": {"header": "a;b;c;y", "sep": ";"},
    "tabs": {"header": "a\tb\tc\tclass", "sep": "\t"},
    "spaces": {"header": "", "sep": " "},
    "a mark of the encoding": {"first": "\ufeff"},
    "numbers as names of columns": {"header": "0,1,2,Target"},
    "quotes": {"header": '"a","b","c","species"'},
}


@pytest.mark.parametrize("given", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("y", [NAMES, Y], ids=["names", "numbers"])
def test_tables(tmp_path, given, y):
    found = read(table(tmp_path / "own.csv", y=y, **given))
    np.testing.assert_array_equal(found.train[0], X)
    np.testing.assert_array_equal(found.train[1], Y)
    assert found.classes == (("ape", "bee", "cow") if y is NAMES else ())
    assert found.test is None


def test_tables_as_pandas_writes_them(tmp_path):
    import pandas

    frame = pandas.DataFrame(X).assign(label=NAMES)
    frame.to_csv(tmp_path / "rows.csv.gz")  # with the numbers of the rows, packed
    frame[["label", 0, 1, 2]].to_csv(tmp_path / "first.csv", index=False)
    for name in ("rows.csv.gz", "first.csv"):
        x, y = load(tmp_path / name)
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)


def test_the_column_of_the_labels_can_be_named(tmp_path):
    table(tmp_path / "own.csv", "kind,b,c,d", y=Y)
    x, y = load(tmp_path / "own.csv", target="d")
    np.testing.assert_array_equal(y, Y)
    x, y = load(tmp_path / "own.csv", target="kind")
    np.testing.assert_array_equal(x, np.column_stack([X[:, 1:], Y]))
    np.testing.assert_array_equal(y[:, 0], X[:, 0])  # numbers with fractions: a regression
    table(tmp_path / "bare.csv", "", y=Y)
    np.testing.assert_array_equal(load(tmp_path / "bare.csv", target="0")[1][:, 0], X[:, 0])
    np.testing.assert_array_equal(load(tmp_path / "bare.csv", target="-1")[1], Y)


BAD_TABLES = {
    "a word among the inputs": ({"end": "1,red,2,ape\n"}, {}, "column b is 'red' in line 14: inputs are numbers"),
    "an empty cell": ({"end": "1,,2,ape\n"}, {}, "column b is empty in line 14"),
    "no such column": ({}, {"target": "kind"}, "target=kind: no such column in .* it has a, b, c, label"),
    "no such number": ({"header": ""}, {"target": "7"}, "no header: use 0 to 3"),
    "two columns of labels": ({"header": "a,b,class,label"}, {}, "class and label could both"),
    "one class": ({"y": ["ape"] * 12}, {}, "all 12 labels to train on are ape: give two classes"),
    "rows of other lengths": ({"end": "1,2,3,4,5,6\n"}, {}, "is no table of samples"),
    "a share of all": ({}, {"validation": 1.0}, "validation=1 of the 12 samples"),
    "a share of none": ({}, {"validation": 0.01}, "validation=0.01 of the 12 samples"),
}


@pytest.mark.parametrize(("given", "options", "words"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_what_is_wrong_with_a_table_is_named(tmp_path, given, options, words):
    with pytest.raises(osc.BadValue, match=words):
        read(table(tmp_path / "own.csv", **given), **options)


def test_a_share_becomes_the_part_to_test_on(tmp_path):
    path = table(tmp_path / "own.csv")
    with pytest.raises(osc.BadValue, match=r"no part to test on.*validation=0\.2"):
        load(path, "test")
    parts = [load(path, split, validation=0.25) for split in ("train", "test", "train")]
    assert [len(y) for _, y in parts] == [9, 3, 9]
    np.testing.assert_array_equal(parts[0][0], parts[2][0])  # the same each time
    together = np.concatenate([np.column_stack(part) for part in parts[:2]])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(np.column_stack([X, Y]), axis=0))


KEYS = [
    ("x", "y", "x_test", "y_test"),
    ("X", "Y", "X_test", "Y_test"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("data", "targets", "data_val", "targets_val"),
    ("images", "labels", "val_images", "val_labels"),
]


@pytest.mark.parametrize("keys", KEYS, ids="-".join)
@pytest.mark.parametrize("kind", ["npz", "npy", "a folder of npy"])
def test_arrays_by_their_usual_names(tmp_path, keys, kind):
    arrays = dict(zip(keys, (X, NAMES, X[:4], NAMES[:4, None]), strict=True))
    if kind == "npz":
        np.savez(tmp_path / "own.npz", **arrays, label_names=np.array(["ape", "bee", "cow"]))
        path = tmp_path / "own.npz"
    else:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        path = tmp_path / f"{keys[0]}.npy" if kind == "npy" else tmp_path
    for split, n in (("train", 12), ("test", 4)):
        x, y = load(path, split)
        np.testing.assert_array_equal(x, X[:n])
        np.testing.assert_array_equal(y, Y[:n])
    assert read(path).classes == ("ape", "bee", "cow")
    with pytest.raises(osc.BadValue, match=r"validation=0\.5: .* has a part to test on already"):
        read(path, validation=0.5)
    with pytest.raises(osc.BadValue, match="target=a is the column of a table"):
        read(path, target="a")


def test_a_class_that_only_one_part_has_counts_in_both(tmp_path):
    np.savez(tmp_path / "own.npz", x=X, y=NAMES, x_test=X[:1], y_test=np.array(["bat"]))
    found = read(tmp_path / "own.npz")
    assert found.classes == ("ape", "bat", "bee", "cow")
    np.testing.assert_array_equal(found.train[1], np.array([0, 2, 3])[Y])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "y of the part train is missing"),
        ({"a": X, "b": Y}, "no array x and array y in it"),
        ({"x": X, "images": X, "y": Y}, "x and images could both be x of the part train"),
        ({"x": X, "y": Y[:5]}, r"x has shape \(12, 3\), y has shape \(5,\)"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "samples of different shapes in its parts"),
        ({"x": NAMES[:, None], "y": Y}, "x holds <U3; use numbers"),
        ({"x": X.astype(object), "y": Y}, "it holds pickled objects"),
    ],
    ids=lambda value: "-".join(value) if type(value) is dict else "",
)
def test_what_is_wrong_with_arrays_is_named(tmp_path, arrays, words):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(osc.BadValue, match=words):
        read(tmp_path / "own.npz")


def test_nothing_pickled_is_read(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path / "harmed").touch, ()

    for name in ("own.pkl", "own.npz", "own.pt", "x.npy"):
        (tmp_path / name).write_bytes(pickle.dumps(Harm()))
        with pytest.raises(osc.BadValue, match=r"pickled objects|not an \.npz file"):
            read(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("path", ["none.npz", "none.csv", "none/", "~/none.npy", "./none"])
def test_a_path_that_leads_nowhere_is_said_to(path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load(path)


PLACES = {
    "as published": "{0}.gz",
    "unpacked": "{0}",
    "Kaggle": "{0}/{0}",
    "unpacked, still .gz": "{0}.gz",
    "7-Zip": "{1}",
    "torchvision": "{2}/raw/{0}",
    "within torchvision": "raw/{0}",
}


@pytest.mark.parametrize(("kind", "place"), PLACES.items(), ids=PLACES)
@pytest.mark.parametrize("named", [True, False], ids=["fashion_mnist", "a folder"])
def test_idx_files_as_people_have_them(tmp_path, kind, place, named):
    written = {}
    for stem in ("train", "t10k"):
        images, labels = RNG.integers(0, 256, (12, 28, 28), np.uint8), Y.astype(np.uint8)
        for name, array in {f"{stem}-images-idx3-ubyte": images, f"{stem}-labels-idx1-ubyte": labels}.items():
            path = tmp_path / place.format(name, name.replace("-idx", ".idx"), "FashionMNIST")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx(array)) if kind == "as published" else idx(array))
        written[stem] = images / np.float32(255)
    for split, stem in (("train", "train"), ("test", "t10k")):
        x, y = load("fashion_mnist", split, tmp_path) if named else load(tmp_path, split)
        np.testing.assert_array_equal(x.reshape(12, 28, 28), written[stem])
        np.testing.assert_array_equal(y, Y)


def test_tables_for_each_part_in_a_folder(tmp_path):
    table(tmp_path / "mnist_train.csv")
    table(tmp_path / "mnist_test.csv", y=NAMES[::-1])
    np.testing.assert_array_equal(load(tmp_path)[1], Y)
    np.testing.assert_array_equal(load(tmp_path, "test")[1], Y[::-1])


def test_targets_that_no_output_reaches_are_noticed(tmp_path):
    np.savez(tmp_path / "own.npz", x=X, y=100 + X[:, :1])
    with pytest.warns(UserWarning, match="targets reach from 1.* scale the targets in the file"):
        load(tmp_path / "own.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.savez(tmp_path / "own.npz", x=X, y=X[:, :1])
        load(tmp_path / "own.npz")


def test_inputs_far_from_0_are_noticed_and_scaled(tmp_path):
    far = 1000 * X + [0, 50, 7]
    np.savez(tmp_path / "own.npz", x=far, y=Y, x_test=far[:4], y_test=Y[:4])
    with pytest.warns(UserWarning, match=r"inputs reach from .* scale them with standardise=True \(--standardise\)"):
        load(tmp_path / "own.npz")
    scaler = StandardScaler().fit(far)
    for split, x in (("train", far), ("test", far[:4])):
        np.testing.assert_allclose(load(tmp_path / "own.npz", split, standardise=True)[0], scaler.transform(x))
    images = RNG.integers(0, 256, (12, 5, 5), np.uint8)
    images[:, 0, 0] = 7  # the same everywhere, as at the border of digits
    np.savez(tmp_path / "images.npz", x=images, y=Y)
    x, _ = load(tmp_path / "images.npz", standardise=True)
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-6)
    np.savez(tmp_path / "flat.npz", x=images.reshape(12, -1), y=Y)
    assert (load(tmp_path / "flat.npz", standardise=True)[0][:, 0] == 0).all()


# Commands.


@pytest.mark.slow
@pytest.mark.filterwarnings("default:data=own.csv. inputs reach")  # as users see it
def test_a_table_is_trained_on_and_its_names_are_predicted(oscsim, tmp_path):
    x = 100 * np.eye(3)[Y] + X
    rows = [",".join(map(str, [*row, name])) for row, name in zip(x, NAMES, strict=True)]
    (tmp_path / "own.csv").write_text("a,b,c,kind\n" + "\n".join(rows) + "\n")
    np.save(tmp_path / "x.npy", x)
    with_labels = ("--estimator", "exact", "--epochs", 60, "--batch-size", 4, "--probe", 0, "--validation", 0.25)
    said = oscsim("train", "own.csv", "--standardise", *with_labels, "--out", "run")
    assert said.err == ""
    assert said.out.startswith("Classes: 0 ape, 1 bee, 2 cow\n")
    for path in ("own.csv", "x.npy"):
        assert oscsim("predict", "run", path).out.split() == NAMES.tolist()
    warned = oscsim("train", "own.csv", *QUICK, "--validation", 0, "--out", "other")
    assert "oscsim: warning: data=own.csv: inputs reach from" in warned.err
    assert "validation" not in warned.out
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["classes"] == ["ape", "bee", "cow"]


@pytest.mark.slow
def test_a_table_of_real_targets_is_a_regression(oscsim, tmp_path):
    """The epochs report R^2, and `predict` prints what `osc.predict` gives."""
    x = np.linspace(0, 1, 60, dtype=np.float32)
    y = 0.5 + 0.3 * x
    np.savetxt(tmp_path / "line.csv", np.column_stack([x, y]), delimiter=",", header="x,target", comments="")
    options = ["--cost", "squarederror", "--estimator", "exact", "--hidden", "4", "--probe", "0", "--validation", "0.2"]
    shown = oscsim("train", str(tmp_path / "line.csv"), *options, "--epochs", "2", "--out", str(tmp_path / "run")).out
    assert "R²" in shown
    assert "validation" in shown
    np.save(tmp_path / "x.npy", x[:3, None])
    printed = oscsim("predict", str(tmp_path / "run"), str(tmp_path / "x.npy")).out
    expected = osc.predict(osc.load(tmp_path / "run"), x[:3, None])
    np.testing.assert_allclose([float(line) for line in printed.split()], np.ravel(expected), rtol=1e-5)


@pytest.mark.slow
def test_one_hot_targets_are_classes_also_where_they_are_floats(oscsim, tmp_path):
    np.savez(tmp_path / "own.npz", x=X, y=np.eye(3)[Y], x_test=X, y_test=np.eye(3)[Y])
    oscsim("train", "own.npz", *QUICK, "--out", "run")
    np.save(tmp_path / "x.npy", X)
    labels = osc.predict(osc.load(tmp_path / "run"), X)
    assert oscsim("predict", "run", "x.npy").out.split() == [str(label) for label in labels]


def test_settings_of_a_run_are_a_file_of_options(oscsim, tmp_path):
    table(tmp_path / "own.csv")
    oscsim("train", "own.csv", *QUICK, "--validation", 0.25, "--seed", 3, "--slope", 2, "--out", "first")
    oscsim("train", "--config", "first/settings.json", "--out", "again")
    first, again = (json.loads((tmp_path / run / "settings.json").read_text()) for run in ("first", "again"))
    assert first["settings"].pop("out") != again["settings"].pop("out")
    assert first == again
    for a, b in zip(*(jax.tree.leaves(osc.load(tmp_path / run)) for run in ("first", "again")), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "foreign.json").write_text("[]")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "foreign.json"), "--out", str(tmp_path / "none")])


def test_images_are_flattened_for_a_layered_network(oscsim, tmp_path):
    images = RNG.integers(0, 256, (12, 28, 28), np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=Y.astype(str), x_test=images, y_test=Y.astype(str))
    oscsim("train", "images.npz", *QUICK, "--standardise", "--out", "run")
    assert osc.load(tmp_path / "run").sizes == (784, 4, 3)
    assert len(oscsim("predict", "run", "images.npz").out.split()) == 12
    assert (tmp_path / "run" / "settings.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv",), "data=none.csv: no such file or folder"),
        (("own.csv",), "no part to test on"),
        (("own.csv", "--validation", 0, "--patience", 3), "patience=3 needs samples to test on"),
        (("own.csv", "--data-dir", "."), "data_dir=. belongs to the named data sets"),
        (("digits", "--validation", 0.2), "target and validation belong to data of your own"),
        (("images.npz", "--model", "vgg4", "--standardise"), "model=vgg4 takes (32, 32, 3)"),
        (("s3://bucket/own.csv",), "only folders and files of this machine"),
        (("own.csv", "--out", "s3://bucket/run"), "out=s3:/bucket/run: only folders and files of this machine"),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "") if type(value) is tuple else "",
)
def test_what_the_user_can_mend_is_said_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "own.csv")
    np.savez(tmp_path / "images.npz", x=np.ones((12, 28, 28)), y=Y, x_test=np.ones((12, 28, 28)), y_test=Y)
    with pytest.raises(SystemExit) as done:
        main(["train", *map(str, arguments), *(() if "--out" in arguments else ("--out", "run"))])
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# Places.


@pytest.mark.slow
def test_the_home_folder_is_written_out_everywhere(tmp_path, monkeypatch, oscsim):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    net = osc.LayeredNetwork((3, 4, 3), key=jax.random.key(0))
    osc.core.checkpoint.save(net, "~/net.osc")
    assert osc.load("~/net.osc").sizes == (3, 4, 3)
    settings = {"epochs": 1, "key": jax.random.key(0), "batch_size": 4}
    osc.train(net, (X, Y), osc.Exact(), optax.sgd(0.1), checkpoints=osc.Checkpoints("~/run"), **settings)
    assert osc.load("~/run").sizes == (3, 4, 3)
    osc.sweep(lambda key, a: {"r": a}, {"a": [1.0, 2.0]}, seeds=1, key=jax.random.key(0), store="~/sweep")
    np.testing.assert_array_equal(osc.load_sweep("~/sweep").r, [[1.0], [2.0]])
    table(tmp_path / "home" / "own.csv")
    oscsim("train", "~/own.csv", *QUICK, "--validation", 0.25, "--out", "~/command")
    assert {p.name for p in (tmp_path / "home").iterdir()} == {"net.osc", "run", "sweep", "own.csv", "command"}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("place", ["s3://bucket/it", "gs://bucket/it", "https://host/it.npz", "file:///it"])
def test_places_elsewhere_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = osc.LayeredNetwork((3, 4, 3), key=jax.random.key(0))
    settings = {"epochs": 1, "key": jax.random.key(0), "batch_size": 4}
    for call in (
        lambda: osc.load(place),
        lambda: load(place),
        lambda: load("mnist", data_dir=place),
        lambda: osc.core.checkpoint.save(net, place),
        lambda: osc.load_sweep(place),
        lambda: osc.sweep(lambda key, a: {"r": a}, {"a": [1.0]}, seeds=1, key=jax.random.key(0), store=place),
        lambda: osc.Run.load(place),
        lambda: osc.train(net, (X, Y), osc.Exact(), optax.sgd(0.1), checkpoints=osc.Checkpoints(place), **settings),
        lambda: osc.datasets.read_imagenet32(place),
    ):
        with pytest.raises(osc.BadValue, match="only folders and files of this machine"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_columns_of_a_table_are_found_by_name(tmp_path):
    (tmp_path / "own.csv").write_text("rate,width,kind\n0.1,1,a\n0.2,0.5,b\n0.3,0,a\n")
    (tmp_path / "new.csv").write_text("width,other,rate\n50,0,5\n")
    (tmp_path / "lacking.csv").write_text("width,other\n50,0\n")
    own = osc.datasets.read(tmp_path / "own.csv")
    assert own.columns == ("rate", "width")
    found = osc.datasets.read_inputs(tmp_path / "new.csv", 2, columns=own.columns)
    np.testing.assert_array_equal(found, [[5, 50]])
    with pytest.raises(osc.BadValue, match="has no column rate, which the network was trained on"):
        osc.datasets.read_inputs(tmp_path / "lacking.csv", 2, columns=own.columns)


@pytest.mark.parametrize("standardise", [False, True])
def test_new_samples_are_read_as_those_to_train_on(tmp_path, standardise):
    def write(name, rows, header):
        lines = [header, *(",".join(map(str, row)) for row in rows)]
        (tmp_path / name).write_text("\n".join(lines[not header :]) + "\n")
        return tmp_path / name

    named = read(
        write("own.csv", [(*row, y) for row, y in zip(X, Y, strict=True)], "a,b,c,label"), standardise=standardise
    )
    turned = named.inputs_of(write("new.csv", [(7, *row[::-1]) for row in X], "extra,c,b,a"))
    np.testing.assert_allclose(turned, named.train[0], rtol=1e-6)
    labelled = named.inputs_of(tmp_path / "own.csv")
    np.testing.assert_array_equal(labelled, named.train[0])
    assert turned.dtype == named.train[0].dtype
    with pytest.raises(ValueError, match="has no column b"):
        named.inputs_of(write("lacking.csv", X[:, :2], "a,c"))

    np.savez(tmp_path / "own.npz", x=X.astype(np.float32), y=Y)
    arrays = read(tmp_path / "own.npz", standardise=standardise)
    np.save(tmp_path / "new.npy", X)
    np.testing.assert_allclose(arrays.inputs_of(tmp_path / "new.npy"), arrays.train[0], rtol=1e-5, atol=1e-6)
    np.save(tmp_path / "short.npy", X[:, :2])
    with pytest.raises(ValueError, match="samples of shape"):
        arrays.inputs_of(tmp_path / "short.npy")

    bare = read(
        write("bare.csv", [(y, *row) for row, y in zip(X, Y, strict=True)], ""), target="0", standardise=standardise
    )
    np.testing.assert_allclose(bare.inputs_of(tmp_path / "bare.csv", target="0"), bare.train[0])
