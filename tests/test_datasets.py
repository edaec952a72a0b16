"""Data sets: files as published are read to the last bit, whatever is wrong with one is named, and a download that
breaks leaves nothing behind."""

import gc
import gzip
import hashlib
import http.server
import os
import pickle
import resource
import shutil
import struct
import tarfile
import threading

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import oscsim as osc
from oscsim.datasets import augment, files, imagenet32_files, load, read_imagenet32

few = settings(max_examples=30)
part = st.floats(0, 1, exclude_max=True)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _no_folder_named(monkeypatch):
    monkeypatch.delenv("OSCSIM_DATA", raising=False)


# Files in the published formats, small.


def cut(content, part):
    return content[: int(part * len(content))]


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder, n=5, packed=True, stems=("train", "t10k")):
    """Random images and labels, as written: by stem."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for stem in stems:
        images = RNG.integers(0, 256, (n, 28, 28), np.uint8)
        labels = RNG.integers(0, 10, n, np.uint8)
        for name, array in {f"{stem}-images-idx3-ubyte": images, f"{stem}-labels-idx1-ubyte": labels}.items():
            content = gzip.compress(idx(array)) if packed else idx(array)
            (folder / f"{name}{'.gz' if packed else ''}").write_bytes(content)
        written[stem] = images, labels
    return written


def colours(n=2, classes=10, first=0):
    """Rows of pixels and labels."""
    return RNG.integers(0, 256, (n, 3072), np.uint8), [int(i) for i in RNG.integers(first, first + classes, n)]


def python2_pickle(pixels, labels, key="labels"):
    """A batch as Python 2 pickled it, which is how CIFAR was published."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    def integer(value):
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text("b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text("u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text("|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    content = b"T" + struct.pack("<I", pixels.size) + pixels.tobytes()
    array += b"(" + integer(1) + b"".join(map(integer, pixels.shape)) + b"\x86" + dtype + b"\x89" + content + b"tb"
    numbers = b"](" + b"".join(map(integer, labels)) + b"e"
    other = text("batch_label") + text("a batch") + text("filenames") + b"](" + text("a.png") + b"e"
    return b"\x80\x02}(" + text("data") + array + text(key) + numbers + other + b"u."


def python3_pickle(protocol):
    """A batch as Python 3 pickles it, with more in it."""

    def pickled(pixels, labels, key="labels"):
        batch = {"data": pixels, key: labels, "mean": pixels.mean(0), b"names": [b"", b"a.png"], "loss": 0.5}
        return pickle.dumps(batch, protocol)

    return pickled


PICKLES = {"Python 2": python2_pickle} | {f"protocol {i}": python3_pickle(i) for i in range(6)}


def write_cifar(folder, packed, pickled=python2_pickle, n=2):
    """CIFAR-10's six batches in a folder, or in an archive of it: pixels and labels, as written, by batch."""
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = folder / "cifar-10-batches-py"
    unpacked.mkdir()
    batches = {}
    for name in ("data_batch_4", "test_batch", *(f"data_batch_{i}" for i in (1, 2, 3, 5))):
        batches[name] = colours(n)
        (unpacked / name).write_bytes(pickled(*batches[name]))
    (unpacked / "readme.html").write_text("not a batch")
    if packed:
        archive(folder / "cifar-10-python.tar.gz", unpacked, batches)
    return batches


def archive(path, unpacked, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in (*names, "readme.html"):
            tar.add(unpacked / name, f"{unpacked.name}/{name}")
    shutil.rmtree(unpacked)


def assert_images(x, y, batches, first=0):
    """Pixel (row, column) of a channel stands at 1024 channel + 32 row + column of its published row."""
    pixels = np.concatenate([pixels for pixels, _ in batches])
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert x.shape == (len(pixels), 32, 32, 3)
    assert x.flags.c_contiguous
    image, row, column, channel = np.indices(x.shape)
    np.testing.assert_array_equal(x, pixels[image, 1024 * channel + 32 * row + column] / np.float32(255))
    np.testing.assert_array_equal(y, np.concatenate([labels for _, labels in batches]) - first)


# Digits and names.


def test_digits_are_those_of_scikit_learn_in_two_parts():
    from sklearn.datasets import load_digits

    (x, y), (x_test, y_test) = load("digits"), load("digits", "test")
    assert x.shape == (1437, 64)
    assert x_test.shape == (360, 64)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert (x.min(), x.max()) == (0, 1)
    images, labels = load_digits(return_X_y=True)
    both = np.column_stack([np.concatenate([x, x_test]) * 16, np.concatenate([y, y_test])])
    whole = np.column_stack([images, labels])
    np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])


def test_digits_need_no_folder(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"data_dir='.*': 'digits' is embedded .* leave it out"):
        load("digits", data_dir=tmp_path)
    monkeypatch.setenv("OSCSIM_DATA", str(tmp_path))
    load("digits")


@given(st.text().filter(lambda name: name not in osc.datasets.NAMES and not set(name) & set("./~\\")))
@few
def test_unknown_names_are_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match="no such data set") as error:
        load(name)
    assert f"name={name!r}" in str(error.value)
    assert all(repr(known) in str(error.value) for known in osc.datasets.NAMES)


def test_unknown_splits_are_refused(tmp_path):
    for call in (lambda: load("mnist", "valid", tmp_path), lambda: imagenet32_files(tmp_path, "valid")):  # pyright: ignore
        with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=r"split.*'valid'"):
            call()
    with pytest.raises(ValueError, match="split='valid': use 'train' or 'test'"):
        files.require_split("valid")


# MNIST and its like.


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_read_to_the_last_bit(shared, mnist, split):
    x, y = load("mnist", split, shared / "data")
    images, labels = getattr(mnist, split)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)


def test_where_mnist_is_looked_for(shared, mnist, monkeypatch, tmp_path):
    folder = shared / "data" / "mnist"
    np.testing.assert_array_equal(load("mnist", "test", folder)[1], mnist.test.labels)  # without a subfolder
    monkeypatch.setenv("OSCSIM_DATA", str(folder))
    np.testing.assert_array_equal(load("mnist", "test")[1], mnist.test.labels)
    with pytest.raises(FileNotFoundError, match=f"data_dir='{tmp_path}'"):  # the argument wins
        load("mnist", "test", tmp_path)
    monkeypatch.setenv("OSCSIM_DATA", str(tmp_path))
    np.testing.assert_array_equal(load("mnist", "test", str(folder))[1], mnist.test.labels)
    with pytest.raises(FileNotFoundError, match=f"OSCSIM_DATA='{tmp_path}'"):
        load("mnist", "test")


def test_mnist_of_other_content_is_refused(tmp_path):
    write_fashion(tmp_path)
    with pytest.raises(ValueError, match="is not MNIST's") as error:
        load("mnist", data_dir=tmp_path)
    found = hashlib.md5(gzip.decompress((tmp_path / "train-images-idx3-ubyte.gz").read_bytes())).hexdigest()
    for word in ("train-images-idx3-ubyte.gz", found, "6bbc9ace898e44ae57da46a324031adb", "get it again from https://"):
        assert word in str(error.value)


def test_mnist_is_not_taken_for_fashion_mnist(shared):
    with pytest.raises(ValueError, match=r"is MNIST's.*put those of fashion_mnist in a subfolder fashion_mnist"):
        load("fashion_mnist", "test", shared / "data" / "mnist")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("subfolder", ["fashion_mnist", ""])
def test_fashion_mnist(tmp_path, packed, subfolder):
    written = write_fashion(tmp_path / subfolder, packed=packed)
    for split, stem in (("train", "train"), ("test", "t10k")):
        x, y = load("fashion_mnist", split, tmp_path)
        images, labels = written[stem]
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(x, images.reshape(-1, 784) / np.float32(255))
        np.testing.assert_array_equal(y, labels)


def test_the_subfolder_comes_first(tmp_path):
    write_fashion(tmp_path)
    images, _ = write_fashion(tmp_path / "fashion_mnist")["train"]
    np.testing.assert_array_equal(load("fashion_mnist", data_dir=tmp_path)[0] * 255, images.reshape(-1, 784))


@given(st.integers(0, 1), part, st.booleans())
@few
def test_an_idx_file_cut_anywhere_is_refused(tmp_path_factory, which, part, packed):
    folder = tmp_path_factory.mktemp("cut")
    write_fashion(folder, packed=packed, stems=["train"])
    path = sorted(folder.iterdir())[which]
    path.write_bytes(cut(path.read_bytes(), part))
    with pytest.raises(ValueError, match=r"truncated or damaged|is not an IDX file") as error:
        load("fashion_mnist", data_dir=folder)
    assert str(path) in str(error.value)
    assert "get it again from http://" in str(error.value)


NO_IMAGES, NO_LABELS = np.zeros((5, 28, 28), np.uint8), np.zeros(5, np.uint8)
BAD_IDX = {
    "bytes too many": (idx(NO_IMAGES) + b"\0", idx(NO_LABELS), "it has 3937 bytes, and an array of .* takes 3936"),
    "labels for images": (idx(NO_LABELS), idx(NO_LABELS), "with rank 3: it begins with"),
    "other numbers": (b"\0\0\x0d" + idx(NO_IMAGES)[3:], idx(NO_LABELS), "not an IDX file of bytes"),
    "other sizes": (idx(np.zeros((5, 32, 32), np.uint8)), idx(NO_LABELS), "not images of 28 x 28"),
    "no images": (idx(NO_IMAGES[:0]), idx(NO_LABELS[:0]), "not images of 28 x 28"),
    "labels too few": (idx(NO_IMAGES), idx(NO_LABELS[:4]), "holds 4 labels up to 0, not one .* 5 images"),
    "labels too high": (idx(NO_IMAGES), idx(NO_LABELS + np.uint8(10)), "holds 5 labels up to 10, not one of 0 to 9"),
}


@pytest.mark.parametrize(("images", "labels", "words"), BAD_IDX.values(), ids=BAD_IDX)
def test_idx_files_of_another_structure_are_refused(tmp_path, images, labels, words):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(ValueError, match=words) as error:
        load("fashion_mnist", data_dir=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "get it again from http://" in str(error.value)


# CIFAR.


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("subfolder", ["cifar10", ""])
@pytest.mark.parametrize("pickled", PICKLES.values(), ids=PICKLES)
def test_cifar10(tmp_path, packed, subfolder, pickled):
    batches = write_cifar(tmp_path / subfolder, packed, pickled)
    assert_images(*load("cifar10", "train", tmp_path), [batches[f"data_batch_{i}"] for i in range(1, 6)])
    assert_images(*load("cifar10", "test", tmp_path), [batches["test_batch"]])


def test_an_archive_that_a_browser_has_unzipped_is_read(tmp_path):
    batches = write_cifar(tmp_path, packed=True)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert_images(*load("cifar10", "test", tmp_path), [batches["test_batch"]])


def test_cifar100_has_its_fine_labels(tmp_path):
    unpacked = tmp_path / "cifar-100-python"
    unpacked.mkdir()
    batches = {}
    for split in ("train", "test"):
        pixels, labels = colours(3, 100)
        batch = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [0, 1, 2]}
        (unpacked / split).write_bytes(pickle.dumps(batch))
        batches[split] = pixels, labels
        assert_images(*load("cifar100", split, tmp_path), [batches[split]])
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as tar:
        tar.add(unpacked, "./cifar-100-python")
    shutil.rmtree(unpacked)
    for split in ("train", "test"):
        assert_images(*load("cifar100", split, tmp_path), [batches[split]])


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """The content of an archive of CIFAR-10."""
    folder = tmp_path_factory.mktemp("cifar")
    write_cifar(folder, packed=True)
    return (folder / "cifar-10-python.tar.gz").read_bytes()


@given(part)
@few
def test_an_archive_cut_anywhere_is_refused(tmp_path_factory, cifar, part):
    path = tmp_path_factory.mktemp("cut") / "cifar-10-python.tar.gz"
    path.write_bytes(cut(cifar, part))
    with pytest.raises(ValueError, match=r"truncated|incomplete") as error:
        load("cifar10", data_dir=path.parent)
    assert str(path) in str(error.value)
    assert "get it again" in str(error.value)


@given(part, st.sampled_from(list(PICKLES)))
@few
def test_a_batch_cut_anywhere_is_refused(tmp_path_factory, part, pickled):
    path = tmp_path_factory.mktemp("cut") / "val_data"
    path.write_bytes(cut(PICKLES[pickled](*colours()), part))
    with pytest.raises(ValueError, match="val_data is truncated, damaged"):
        read_imagenet32(path)


@given(st.data(), st.sampled_from(list(PICKLES)))
@settings(max_examples=200)
def test_a_damaged_batch_is_read_or_refused(tmp_path_factory, data, pickled):
    path = tmp_path_factory.mktemp("damaged") / "val_data"
    content = bytearray(PICKLES[pickled](np.zeros((1, 3072), np.uint8), [1]))
    structure = [i for i, byte in enumerate(content) if byte] or [0]
    for i in data.draw(st.lists(st.sampled_from(structure), min_size=1, max_size=3)):
        content[i] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        x, y = read_imagenet32(path)
    except ValueError as error:
        if "val_data" not in str(error):
            raise
    else:
        assert x.shape == (len(y), 32, 32, 3)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x02}\x95" + b"batch2st.", id="a frame of 8e18 bytes"),
        pytest.param(b"\x80\x02}r\xff\xff\xff\x3f.", id="a dictionary memorised as number 2**30 - 1"),
    ],
)
def test_a_damaged_number_takes_no_memory(tmp_path, content):
    path = tmp_path / "val_data"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="val_data is truncated, damaged"):
        read_imagenet32(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # kilobytes: a gigabyte


def test_what_lacks_a_batch_is_refused(tmp_path):
    batches = write_cifar(tmp_path, packed=False)
    unpacked = tmp_path / "cifar-10-batches-py"
    (unpacked / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-py is incomplete, it lacks data_batch_3: get it"):
        load("cifar10", data_dir=tmp_path)
    del batches["data_batch_3"]
    archive(tmp_path / "cifar-10-python.tar.gz", unpacked, batches)
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz is incomplete, it lacks data_batch_3: get it"):
        load("cifar10", data_dir=tmp_path)


PIXELS, LABELS = np.zeros((2, 3072), np.uint8), [1, 2]
BAD_BATCHES = {
    "no dictionary": ([PIXELS, LABELS], "AttributeError"),
    "no pixels": ({"labels": LABELS}, "KeyError: 'data'"),
    "no labels": ({"data": PIXELS}, "KeyError: 'labels'"),
    "floats": ({"data": PIXELS / 1.0, "labels": LABELS}, "'data' is float64 of .2, 3072., not uint8"),
    "another size": ({"data": PIXELS[:, :768], "labels": LABELS}, "'data' is uint8 of .2, 768., not uint8 of .n, 3072"),
    "one image": ({"data": PIXELS[0], "labels": LABELS}, "'data' is uint8 of .3072,.,"),
    "no images": ({"data": PIXELS[:0], "labels": []}, "'data' is uint8 of .0, 3072.,"),
    "labels too few": ({"data": PIXELS, "labels": [1]}, "'labels' is int64 of .1,., not one integer for each of 2"),
    "labels of text": ({"data": PIXELS, "labels": ["a", "b"]}, "'labels' is <U1 of .2,., not one integer"),
    "label 0": ({"data": PIXELS, "labels": [0, 5]}, "'labels' has 0 to 5, not 1 to 1000"),
    "label 1001": ({"data": PIXELS, "labels": np.array([5, 1001])}, "'labels' has 5 to 1001, not 1 to 1000"),
    "objects": ({"data": np.array([[object, 1]]), "labels": LABELS}, "builtins.object|__builtin__.object"),
    "numbers as objects": ({"data": np.array([[None, 1]]), "labels": LABELS}, "truncated, damaged"),
}


@pytest.mark.parametrize(("batch", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_batches_of_another_structure_are_refused(tmp_path, batch, words, protocol):
    path = tmp_path / "val_data"
    path.write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(ValueError, match=words) as error:
        read_imagenet32(path)
    assert str(path) in str(error.value)
    assert "get it again" in str(error.value)


# Pickles that do something.


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HARMFUL = {
    "shell": (os.system, "touch harm"),
    "folder": (os.mkdir, "harm"),
    "eval": (eval, "__import__('os').mkdir('harm')"),
    "import": (__import__, "harm"),
    "open": (open, "harm", "w"),
    "attribute": (getattr, "a", "upper"),
    "numpy's own": (np.save, "harm.npy", [1]),
    "nested": (pickle.loads, pickle.dumps(Calls(os.mkdir, "harm"))),
}


@pytest.mark.parametrize("call", HARMFUL.values(), ids=HARMFUL)
@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_call_something_are_refused(tmp_path, monkeypatch, call, protocol):
    monkeypatch.chdir(tmp_path)
    batch = {"data": PIXELS, "labels": LABELS, "more": Calls(*call)}
    (tmp_path / "val_data").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(ValueError, match=r"val_data is .*it asks for .*, and only arrays and plain data are admitted"):
        read_imagenet32("val_data")
    write_cifar(tmp_path, packed=True, pickled=lambda *_: pickle.dumps(batch, protocol))
    with pytest.raises(ValueError, match=r"batch_. in .*it asks for"):
        load("cifar10", data_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-python.tar.gz", "val_data"]


names = st.from_regex(r"[a-zA-Z_.]{1,12}", fullmatch=True)


@given(names, names)
@example("numpy", "load")
@example("numpy", "ndarray.tofile")
@example("numpy._core.multiarray", "fromfile")
@example("builtins", "bytes")
@example("copyreg", "_reconstructor")
@example("oscsim.datasets.batches", "_encode")
@few
def test_no_other_name_is_imported(tmp_path_factory, module, name):
    path = tmp_path_factory.mktemp("names") / "val_data"
    path.write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(ValueError, match="it asks for") as error:
        read_imagenet32(path)
    assert f"{module}.{name}" in str(error.value)


def test_states_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "val_data"
    right = python2_pickle(PIXELS, LABELS)
    path.write_bytes(right)
    read_imagenet32(path)
    for old, new in {
        b"J\x00\x0c\x00\x00": b"J\x00\x0c\x00\x01",  # more pixels than bytes
        b"J\x02\x00\x00\x00J\x00\x0c": b"J\xff\xff\xff\xffJ\x00\x0d",  # a negative number of rows, of another length
        b"U\x02u1": b"U\x02O8",  # addresses
        b"U\x02u1J": b"U\x02i8J",
    }.items():
        assert old in right
        path.write_bytes(right.replace(old, new))
        with pytest.raises(ValueError, match="val_data is truncated, damaged"):
            read_imagenet32(path)


# ImageNet32.


@pytest.fixture
def imagenet(tmp_path):
    """A folder of ImageNet32, and what is in it."""
    names = [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]
    batches = {name: colours(2, 1000, first=1) for name in names}
    for name, batch in batches.items():
        (tmp_path / name).write_bytes(python3_pickle(4)(*batch))
    return tmp_path, batches


def test_imagenet32(imagenet):
    folder, batches = imagenet
    train = [f"train_data_batch_{i}" for i in range(1, 11)]
    assert imagenet32_files(folder) == [folder / name for name in train]
    assert imagenet32_files(str(folder), "test") == [folder / "val_data"]
    assert_images(*load("imagenet32", "train", folder), [batches[name] for name in train], first=1)
    assert_images(*load("imagenet32", "test", folder), [batches["val_data"]], first=1)
    for name, batch in batches.items():
        assert_images(*read_imagenet32(folder / name), [batch], first=1)


def test_labels_of_imagenet32_begin_at_0(tmp_path):
    path = tmp_path / "val_data"
    path.write_bytes(pickle.dumps({"data": PIXELS, "labels": np.array([1, 1000], np.uint16)}))
    np.testing.assert_array_equal(read_imagenet32(path)[1], [0, 999])


def test_where_imagenet32_is_looked_for(imagenet, monkeypatch, tmp_path_factory):
    folder, batches = imagenet
    monkeypatch.setenv("OSCSIM_DATA", str(folder))
    assert_images(*load("imagenet32", "test"), [batches["val_data"]], first=1)
    (folder / "train_data_batch_7").unlink()
    with pytest.raises(FileNotFoundError, match=r"OSCSIM_DATA='.*imagenet32 needs train_data_batch_7 .* put it there$"):
        imagenet32_files()
    with pytest.raises(FileNotFoundError, match=r"data_dir='.*: imagenet32 needs val_data in this folder"):
        load("imagenet32", "test", tmp_path_factory.mktemp("empty"))
    monkeypatch.delenv("OSCSIM_DATA")
    with pytest.raises(ValueError, match=r"data_dir=None: imagenet32 is not downloaded; get it from https://image-net"):
        load("imagenet32")
    with pytest.raises(FileNotFoundError, match=r"path='missing': no such file; use one of imagenet32_files"):
        read_imagenet32("missing")


@pytest.mark.parametrize("name", [name for name in osc.datasets.NAMES if name != "digits"])
def test_missing_files_and_folders_are_named(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=rf"data_dir='{tmp_path}': {name} needs .*subfolder {name}.* put it there"
    ):
        load(name, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"data_dir='{tmp_path}/missing': no such folder"):
        load(name, data_dir=tmp_path / "missing")


# Standardised.


@pytest.mark.parametrize("split", ["train", "test"])
def test_colours_are_standardised_by_channel_over_the_training_split(tmp_path, split):
    write_cifar(tmp_path, packed=False, n=300)
    train = load("cifar10", "train", tmp_path)[0].astype(np.float64)
    x, y = load("cifar10", split, tmp_path)
    standardised, labels = load("cifar10", split, tmp_path, standardise=True)
    assert standardised.dtype == np.float32
    expected = (x - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    np.testing.assert_allclose(standardised, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(labels, y)
    if split == "train":
        np.testing.assert_allclose(standardised.mean((0, 1, 2), np.float64), 0, atol=1e-6)
        np.testing.assert_allclose(standardised.var((0, 1, 2), dtype=np.float64), 1, rtol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_flat_images_are_standardised_over_all_pixels_of_the_training_split(split):
    train = load("digits")[0].astype(np.float64)
    x, _ = load("digits", split)
    standardised, _ = load("digits", split, standardise=True)
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised, (x - train.mean()) / train.std(), rtol=1e-5, atol=1e-6)


def test_images_of_one_colour_are_not_standardised(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(NO_IMAGES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(NO_LABELS))
    with pytest.raises(ValueError, match="standardise=True: all pixels of a channel are the same"):
        load("fashion_mnist", data_dir=tmp_path, standardise=True)


# Augmentation.


def crops(image, padding):
    """Every crop of a padded image, by corner and flip."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[row : row + height, column : column + width]
            yield (row, column, False), crop
            yield (row, column, True), crop[:, ::-1]


def chosen(images, augmented, padding):
    """Which corner and flip was drawn for each image."""
    return [
        [what for what, crop in crops(before, padding) if np.array_equal(crop, after)]
        for before, after in zip(images, augmented, strict=True)
    ]


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.booleans(), st.sampled_from([1, 3]))
@few
def test_each_image_is_one_of_its_crops(seed, padding, flip, channels):
    images = RNG.random((3, 6, 5, channels), np.float32)
    augmented = augment(images, jax.random.key(seed), padding=padding, flip=flip)
    assert augmented.shape == images.shape
    for drawn in chosen(images, augmented, padding):
        assert drawn
        assert flip or any(not flipped for _, _, flipped in drawn)


def test_every_corner_and_both_sides_are_drawn_alike():
    n, padding = 1800, 1
    image = RNG.random((4, 4, 1), np.float32)
    augmented = augment(np.repeat(image[None], n, 0), jax.random.key(0), padding=padding)
    drawn = [what for (what,) in chosen(np.repeat(image[None], n, 0), np.asarray(augmented), padding)]
    counts = np.array([drawn.count(what) for what, _ in crops(image, padding)])
    assert counts.sum() == n
    assert np.sum((counts - 100) ** 2 / 100) < 40.8  # chi-squared with 17 degrees of freedom, one time in a thousand


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augmentation_is_pure_and_compiles(precision, dtype):
    images = jnp.asarray(RNG.random((4, 32, 32, 3)) * 255, dtype)
    key = jax.random.key(3)
    once = augment(images, key)
    assert once.dtype == dtype
    np.testing.assert_array_equal(once, augment(images, key))
    np.testing.assert_array_equal(once, jax.jit(augment)(images, key))
    assert not np.array_equal(once, augment(images, jax.random.key(4)))
    np.testing.assert_array_equal(augment(images, key, padding=0, flip=False), images)


@pytest.mark.parametrize("shape", [(), (784,), (5, 784), (32, 32, 3), (5, 3, 32, 32), (1, 5, 32, 32, 3)])
def test_what_is_no_batch_of_images_is_not_augmented(shape):
    for call in (augment, jax.jit(augment)):
        with pytest.raises(ValueError, match=r"x has shape .* use a batch of images") as error:
            call(np.zeros(shape, np.float32), jax.random.key(0))
        assert str(shape) in str(error.value)


@pytest.mark.usefixtures("unchecked")
def test_augmentation_names_its_bad_arguments():
    images = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(ValueError, match="padding=-1: use 0 or a positive integer"):
        augment(images, jax.random.key(0), padding=-1)
    with pytest.raises(TypeError, match=r"key=0: use jax.random.key"):
        augment(images, 0)


# Downloads, from a server on this machine.


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by path; of a path in `cut`, only half arrives."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.asked = {}, set(), []
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        self.server.asked.append(self.path[1:])
        content = self.server.content.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path[1:] in self.server.cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    import pooch

    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder / "oscsim"


@pytest.fixture
def server(cache, monkeypatch):
    """A server, and a way to have it stand for the address of a data set."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def publish(name, folder):
            running.content |= {path.name: path.read_bytes() for path in folder.iterdir()}
            md5 = {file: hashlib.md5(content).hexdigest() for file, content in running.content.items()}
            monkeypatch.setitem(files.PUBLISHED, name, files.Published(running.address, md5))

        running.publish = publish
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def fashion(server, tmp_path):
    """Fashion-MNIST, small, on the server."""
    written = write_fashion(tmp_path / "written")
    server.publish("fashion_mnist", tmp_path / "written")
    return written


IMAGES, LABELS_FILE = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def test_a_data_set_is_downloaded_once(server, fashion, cache):
    for _ in range(2):
        x, y = load("fashion_mnist")
        np.testing.assert_array_equal(x, fashion["train"][0].reshape(-1, 784) / np.float32(255))
        np.testing.assert_array_equal(y, fashion["train"][1])
    assert server.asked == [IMAGES, LABELS_FILE]
    assert sorted(path.name for path in (cache / "fashion_mnist").iterdir()) == [IMAGES, LABELS_FILE]


def test_mnist_is_downloaded(server, mnist, shared, cache):
    server.publish("mnist", shared / "data" / "mnist")
    np.testing.assert_array_equal(load("mnist", "test")[0], mnist.test.images)


def test_cifar10_is_downloaded(server, cache, tmp_path):
    batches = write_cifar(tmp_path / "written", packed=True)
    server.publish("cifar10", tmp_path / "written")
    for _ in range(2):
        assert_images(*load("cifar10", "test"), [batches["test_batch"]])
    assert server.asked == ["cifar-10-python.tar.gz"]


def spoil_by_cutting(server):
    server.cut.add(IMAGES)


def spoil_by_changing(server):
    server.content[IMAGES] = server.content[IMAGES][:-1] + b"\1"


def spoil_by_removing(server):
    del server.content[IMAGES]


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (spoil_by_cutting, OSError, "IncompleteRead|Connection broken"),
        (spoil_by_changing, ValueError, "hash"),
        (spoil_by_removing, OSError, "404"),
    ],
    ids=["cut", "changed", "removed"],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of a response that was not read to its end
def test_a_broken_download_leaves_nothing_and_can_be_repeated(server, fashion, cache, spoil, kind, words):
    right = dict(server.content)
    spoil(server)
    for _ in range(2):
        with pytest.raises(kind, match=words) as error:
            load("fashion_mnist")
        assert server.address + IMAGES in str(error.value)
        assert "Nothing of it was kept: try again, or" in str(error.value)
        assert not [path for path in cache.rglob("*") if path.is_file()]
    del error
    gc.collect()  # the response
    server.content, server.cut = right, set()
    np.testing.assert_array_equal(load("fashion_mnist")[1], fashion["train"][1])


def test_what_was_damaged_in_the_cache_is_downloaded_again(server, fashion, cache):
    load("fashion_mnist")
    path = cache / "fashion_mnist" / IMAGES
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(load("fashion_mnist")[1], fashion["train"][1])
    assert server.asked == [IMAGES, LABELS_FILE, IMAGES]


def test_where_nobody_answers(cache, monkeypatch):
    with Server() as closed:
        address = closed.address
    monkeypatch.setitem(files.PUBLISHED, "mnist", files.Published(address, files.PUBLISHED["mnist"].md5))
    with pytest.raises(OSError, match=f"{address}train-images-idx3-ubyte.gz could not be downloaded"):
        load("mnist")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_folder_is_read_and_nothing_downloaded(server, fashion, tmp_path):
    with pytest.raises(FileNotFoundError, match="put it there, or name no folder to have it downloaded"):
        load("fashion_mnist", data_dir=tmp_path)
    load("fashion_mnist", data_dir=tmp_path / "written")
    assert server.asked == []


def test_whatever_is_read_has_an_address_and_a_checksum():
    assert set(files.PUBLISHED) == set(osc.datasets.NAMES) - {"digits", "imagenet32"}
    for published in files.PUBLISHED.values():
        assert published.address.endswith("/")
        assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in published.md5.values())
    for name, packing in osc.datasets.cifar.CIFAR.items():
        assert set(files.PUBLISHED[name].md5) == {packing.archive}
    for name in ("mnist", "fashion_mnist"):
        assert set(files.PUBLISHED[name].md5) == {f"{file}.gz" for file in osc.datasets.idx.MNIST_MD5}
