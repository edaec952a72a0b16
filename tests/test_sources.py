"""Sources of batches: whatever the files, every sample of an epoch comes once and with its label, a run can go on in
the middle, one file at most is in memory, and no thread is left behind."""

import gc
import hashlib
import subprocess
import sys
import threading
import tracemalloc
import weakref

import jax
import jaxtyping
import numpy as np
import pytest

from oscsim.datasets import ArraySource, FileSource, imagenet32_files, load, stream
from oscsim.datasets.batches import Batch, read_batch
from tests.test_datasets import cut, python3_pickle

KEY = jax.random.key(5)
SIZES = 3, 17, 5, 11, 4, 16, 9, 7, 13, 8  # of the ten files
N = sum(SIZES)
BATCH_SIZES = [1, 3, 10, 31, 40, N]  # smaller and larger than a file; 1, 3, 31 and N divide N = 93
ALL = np.arange(N)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


def write(path, first, size):
    """A file as published; the first red pixel of each image is its number, from which its label follows."""
    numbers = np.arange(first, first + size)
    pixels = np.random.default_rng(first).integers(0, 256, (size, 3072), np.uint8)
    pixels[:, 0] = numbers
    path.write_bytes(python3_pickle(4)(pixels, [int(label) for label in 1 + label_of(numbers)]))


def label_of(numbers):
    return 371 * numbers % 1000


def write_all(folder):
    for i, size in enumerate(SIZES):
        write(folder / f"train_data_batch_{i + 1}", sum(SIZES[:i]), size)
    write(folder / "val_data", 100, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet32")
    write_all(folder)
    return folder


@pytest.fixture
def own_folder(tmp_path):
    """One that the test may damage."""
    write_all(tmp_path)
    return tmp_path


def read(path):
    with path.open("rb") as file:
        return read_batch(file, str(path), "labels", 1000, first=1)


def numbers_in(batches):
    """The numbers of the images in each batch."""
    return [np.rint(x[:, 0, 0, 0] * 255).astype(int) for x, _ in batches]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


class Reader:
    """Reads files and keeps account of it."""

    def __init__(self):
        self.paths, self.alive, self.most = [], [], 0

    def __call__(self, path):
        self.alive = [a for a in self.alive if a() is not None]
        self.most = max(self.most, len(self.alive))
        batch = Batch(*map(np.copy, read(path)))  # owns its memory, so that views of it keep it alive
        self.paths.append(path)
        self.alive += map(weakref.ref, batch)
        return batch


# What is in an epoch.


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_every_sample_comes_once_as_it_is_loaded(folder, batch_size):
    x, y = load("imagenet32", "train", folder)
    np.testing.assert_array_equal(y, label_of(ALL))
    source = stream("imagenet32", data_dir=folder)
    assert len(source) == N
    for epoch in range(3):
        batches = list(source.batches(KEY, epoch, batch_size))
        order = np.concatenate(numbers_in(batches))
        assert_same(batches, [(x[chosen], y[chosen]) for chosen in order.reshape(-1, batch_size)])
        assert len(order) == N // batch_size * batch_size
        assert len(set(order)) == len(order)


def test_what_does_not_fill_a_batch_is_another_each_epoch(folder):
    source = stream("imagenet32", data_dir=folder)
    left_out = [set(ALL) - set(np.concatenate(numbers_in(source.batches(KEY, i, 10)))) for i in range(20)]
    assert {len(left) for left in left_out} == {3}
    assert len(set.union(*left_out)) > 20


def test_the_same_key_and_epoch_give_the_same_batches(folder, x64):
    one, other = stream("imagenet32", data_dir=folder), stream("imagenet32", data_dir=str(folder))
    once = list(one.batches(KEY, 4, 10))
    assert_same(list(other.batches(KEY, 4, 10)), once)
    with jax.enable_x64(False):
        assert_same(list(one.batches(KEY, 4, 10)), once)
    order = np.concatenate(numbers_in(once))
    for key, epoch in ((KEY, 5), (jax.random.key(6), 4)):
        assert np.mean(np.concatenate(numbers_in(one.batches(key, epoch, 10))) == order) < 0.1


def test_files_and_what_is_in_them_are_shuffled(folder):
    source, epochs = stream("imagenet32", data_dir=folder), 200
    file_of = np.repeat(range(10), SIZES)
    firsts, within = np.zeros(10), np.zeros((3, 3))
    for epoch in range(epochs):
        order = numbers_in(source.batches(KEY, epoch, N))[0]
        files = file_of[order]
        assert np.count_nonzero(np.diff(files)) == 9  # file by file
        firsts[files[0]] += 1
        within[range(3), order[files == 0]] += 1
    # Chi-squared, each one time in a thousand: with 9 degrees of freedom, and with 4.
    assert np.sum((firsts - epochs / 10) ** 2 / (epochs / 10)) < 27.9
    assert np.sum((within - epochs / 3) ** 2 / (epochs / 3)) < 18.5


def test_epochs_side_by_side_do_not_disturb_each_other(folder):
    source = stream("imagenet32", data_dir=folder)
    together = list(zip(*(source.batches(KEY, epoch, 7) for epoch in range(3)), strict=True))
    for epoch in range(3):
        assert_same([batches[epoch] for batches in together], list(source.batches(KEY, epoch, 7)))


# Going on in the middle.


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_from_any_start_on_come_the_same_batches_and_what_is_not_needed_is_not_read(folder, batch_size):
    reader = Reader()
    source, steps = FileSource(imagenet32_files(folder), reader), N // batch_size
    numbered = dict(zip(imagenet32_files(folder), SIZES, strict=True))
    reader.paths.clear()
    whole = list(source.batches(KEY, 1, batch_size))
    files = list(reader.paths)
    if N % batch_size == 0:
        assert sorted(files) == sorted(numbered)
    ends = np.cumsum([numbered[path] for path in files])
    for start in range(steps + 1):
        reader.paths.clear()
        assert_same(list(source.batches(KEY, 1, batch_size, start)), whole[start:])
        begun = start * batch_size
        assert reader.paths == ([path for path, end in zip(files, ends, strict=True) if end > begun] * (start < steps))


def test_files_of_which_everything_is_left_out_are_not_read(folder):
    reader = Reader()
    source = FileSource(imagenet32_files(folder), reader)
    for epoch in range(10):
        reader.paths.clear()
        list(source.batches(KEY, epoch, 50))  # 43 are left out, more than the largest file has
        assert set(reader.paths) < set(imagenet32_files(folder))


# Memory.


@pytest.mark.parametrize("batch_size", [3, 40])
def test_one_file_at_most_is_in_memory(folder, batch_size):
    reader = Reader()
    source = FileSource(imagenet32_files(folder), reader, standardise=True)
    for epoch in range(2):
        for _ in source.batches(KEY, epoch, batch_size):
            pass
    source.first(40)
    list(source.batches(KEY, 0, batch_size, 1))
    assert len(reader.paths) > 30
    assert reader.most == 0  # of the files before, whenever the next one was read
    assert not any(a() is not None for a in reader.alive)  # and none after the end


def test_batches_are_made_ahead_but_not_many(folder):
    reader = Reader()
    source = FileSource(imagenet32_files(folder)[:1] * 20, reader)
    reader.paths.clear()
    batches, most = source.batches(KEY, 0, 3), 5  # one taken, two ready, one to be put there, and its file
    for taken in range(1, 11):
        next(batches)
        assert len(reader.paths) <= taken + most - 1
    wait_for(lambda: len(reader.paths) >= 10 + 2)
    batches.close()


def test_more_files_take_no_more_memory(tmp_path):
    def peak(count, size=100):
        for i in range(count):
            write(tmp_path / f"{i}", 0, size)
        gc.collect()
        tracemalloc.start()
        source = FileSource([tmp_path / f"{i}" for i in range(count)], read, standardise=True)
        for _ in source.batches(KEY, 0, 10):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / (3072 * size)  # in files

    peak(1)  # what is made at first use
    few = peak(4)
    assert few > 1
    assert peak(20) - few < 1


# Standardised.


def test_colours_are_standardised_over_all_files(folder):
    pixels = np.concatenate([read(path).pixels for path in imagenet32_files(folder)]).reshape(N, 3, 1024) / 255
    mean, deviation = pixels.mean((0, 2)), pixels.std((0, 2))
    train = stream("imagenet32", "train", folder, standardise=True)
    assert (train.mean.dtype, train.deviation.dtype) == (np.float64, np.float64)
    np.testing.assert_allclose(train.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(train.deviation, deviation, rtol=1e-13)
    np.testing.assert_array_equal(stream("imagenet32", "train", folder).mean, train.mean)

    x = np.concatenate([x for x, _ in train.batches(KEY, 0, 31)])
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean((0, 1, 2), np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(x.var((0, 1, 2), dtype=np.float64), 1, rtol=1e-6)
    for split, size in (("train", N), ("test", 12)):
        expected, labels = load("imagenet32", split, folder)
        for how in (True, train):  # by the training files, whichever split it is
            x, y = stream("imagenet32", split, folder, standardise=how).first(size)
            np.testing.assert_allclose(x, (expected - mean) / deviation, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(x, load("imagenet32", split, folder, standardise=True)[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(y, labels)


def test_images_of_one_colour_are_not_standardised(tmp_path):
    (tmp_path / "grey").write_bytes(python3_pickle(4)(np.full((2, 3072), 7, np.uint8), [1, 2]))
    source = FileSource([tmp_path / "grey"], read)
    np.testing.assert_array_equal(source.first(2)[0], np.full((2, 32, 32, 3), np.float32(7) / np.float32(255)))
    for standardise in (True, source):
        with pytest.raises(
            ValueError, match="standardise: all pixels of a channel are the same; use standardise=False"
        ):
            FileSource([tmp_path / "grey"], read, standardise)


# The first samples, and fingerprints.


@pytest.mark.parametrize("count", [1, 3, 4, 20, 92, 93, 1000])
def test_the_first_samples(folder, count):
    reader = Reader()
    source, (x, y) = FileSource(imagenet32_files(folder), reader), load("imagenet32", "train", folder)
    reader.paths.clear()
    assert_same([source.first(count)], [(x[:count], y[:count])])
    assert len(reader.paths) == np.searchsorted(np.cumsum(SIZES), min(count, N)) + 1  # and no file more
    assert_same([ArraySource(x, y).first(count)], [(x[:count], y[:count])])


def test_a_fingerprint_tells_what_would_be_another_run(own_folder):
    paths = imagenet32_files(own_folder)
    source = FileSource(paths, read)
    assert FileSource(list(map(str, paths)), read).digest == source.digest
    digests = [
        source.digest,
        FileSource(paths[::-1], read).digest,
        FileSource(paths[:-1], read).digest,
        FileSource(paths, read, standardise=True).digest,
        FileSource(paths, read, standardise=stream("imagenet32", "test", own_folder)).digest,
    ]
    pixels, labels = read(paths[3])
    for changed in ((pixels ^ (np.indices(pixels.shape).sum(0) == 99), labels), (pixels, labels ^ 1)):
        paths[3].write_bytes(python3_pickle(4)(changed[0].astype(np.uint8), [int(i) + 1 for i in changed[1]]))
        digests.append(FileSource(paths, read).digest)
    assert len(set(digests)) == len(digests) == 7


def test_the_fingerprint_of_arrays_is_that_of_runs_begun_before():
    x, y = np.random.default_rng(0).random((5, 2, 3)), np.arange(5, dtype=np.int32)
    expected = hashlib.blake2b(digest_size=16)
    for part in (b"(5, 2, 3)float64", x.tobytes(), b"(5,)int32", y.tobytes()):
        expected.update(part)
    assert ArraySource(x, y).digest == expected.hexdigest()
    assert ArraySource(np.asfortranarray(x), list(y)).digest == expected.hexdigest()


# Arrays.


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_order_of_arrays_is_the_permutation_of_jax(precision, batch_size):
    x, y = np.random.default_rng(0).random((N, 4)), label_of(ALL)
    source, steps = ArraySource(x, y), N // batch_size
    assert len(source) == N
    for epoch in (0, 3):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), N))
        chosen = [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
        for start in {0, 1, steps // 2, steps}:
            found = list(source.batches(KEY, epoch, batch_size, start))
            assert_same(found, [(x[part], y[part]) for part in chosen[start:]])


@pytest.mark.parametrize(("x", "y"), [(np.zeros((3, 2)), np.zeros(2)), (np.zeros(()), np.zeros(())), ([1], 1)])
def test_arrays_that_do_not_belong_together_are_refused(x, y):
    with pytest.raises(ValueError, match=r"x has shape .* and y .*: give one label for each input"):
        ArraySource(x, y)


# What is wrong is named.


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_bad_arguments_are_named_at_once(folder, kind):
    source = (
        stream("imagenet32", data_dir=folder) if kind == "files" else ArraySource(*load("imagenet32", "train", folder))
    )
    for arguments, words in {
        (0, 0): "batch_size=0: use a positive integer",
        (-1, 10): "epoch=-1: use 0 or a positive integer",
        (0, 10, -1): "start=-1: use 0 or a positive integer",
        (0, 10, 10): "start=10: an epoch has 9 batches of 10; use 0 to 9",
        (0, 94, 1): "start=1: an epoch has 0 batches of 94; use 0 to 0",
    }.items():
        with pytest.raises(ValueError, match=words):
            source.batches(KEY, *arguments)
    with pytest.raises((TypeError, jaxtyping.TypeCheckError), match="key"):
        source.batches(0, 0, 10)  # pyright: ignore
    with pytest.raises(ValueError, match="count=0: use a positive integer"):
        source.first(0)
    assert list(source.batches(KEY, 0, 94)) == []


def test_what_is_not_streamed_is_loaded(tmp_path):
    for name in ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100"):
        with pytest.raises(ValueError, match=rf"name='{name}'.* fits in memory; use load\('{name}'\)"):
            stream(name)
    with pytest.raises(ValueError, match="name='imagenet': no such data set; use 'digits'"):
        stream("imagenet")
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=r"split.*'valid'"):
        stream("imagenet32", "valid", tmp_path)  # pyright: ignore
    with pytest.raises(FileNotFoundError, match=rf"data_dir='{tmp_path}': imagenet32 needs train_data_batch_1"):
        stream("imagenet32", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"paths=\[\]: give one file or more"):
        FileSource([], read)


def shorten(path):
    path.write_bytes(cut(path.read_bytes(), 0.5))


def grow(path):
    write(path, 0, 12)


def alter(path):
    write(path, 0, 11)


SPOILT = {
    "damaged": (shorten, ValueError, "train_data_batch_4 is truncated, damaged"),
    "longer": (
        grow,
        ValueError,
        "train_data_batch_4 has changed: its 12 samples are not the 11 that it held when this",
    ),
    "altered": (alter, ValueError, "train_data_batch_4 has changed: its 11 samples are not the 11 that it held when"),
    "removed": (lambda path: path.unlink(), FileNotFoundError, "train_data_batch_4"),
}


@pytest.mark.parametrize(("spoil", "kind", "words"), SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_spoilt_later_is_named_to_who_asks_for_the_next_batch(own_folder, spoil, kind, words):
    source = stream("imagenet32", data_dir=own_folder)
    whole = [list(source.batches(KEY, epoch, 5)) for epoch in range(3)]
    spoil(own_folder / "train_data_batch_4")
    spoilt = range(sum(SIZES[:3]), sum(SIZES[:4]))
    for epoch in range(3):
        got = []
        with pytest.raises(kind, match=words):
            got.extend(source.batches(KEY, epoch, 5))  # keeps what came before
        before = next(i for i, numbers in enumerate(numbers_in(whole[epoch])) if set(numbers) & set(spoilt))
        assert_same(got, whole[epoch][:before])
    with pytest.raises(kind, match=words):
        source.first(N)
    source.first(19)  # of the files before


@pytest.mark.parametrize("spoil", [shorten, lambda path: path.write_text("")], ids=["cut", "empty"])
def test_a_file_that_is_damaged_at_the_start_is_named(own_folder, spoil):
    spoil(own_folder / "train_data_batch_10")
    with pytest.raises(ValueError, match="train_data_batch_10 is truncated, damaged"):
        stream("imagenet32", data_dir=own_folder)


# Threads: the fixture above sees to it that none is left.


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "oscsim batches"]


@pytest.mark.parametrize("taken", [0, 1, 2, 9, 30, 31])
@pytest.mark.parametrize("how", ["closed", "forgotten", "broken"])
def test_no_thread_outlives_its_iterator(folder, taken, how):
    source = stream("imagenet32", data_dir=folder)

    def take(fails):
        batches = source.batches(KEY, 0, 3)
        for _ in range(taken):
            next(batches)
        assert len(workers()) == (taken > 0) or taken > 20  # near the end it may be through
        if fails:
            raise ArithmeticError("the consumer's")
        return batches

    if how == "closed":
        batches = take(False)
        batches.close()
        assert workers() == []
    elif how == "forgotten":
        take(False)
        assert workers() == []
    else:
        with pytest.raises(ArithmeticError, match="the consumer's"):
            take(True)
        assert workers() == []


class Gate:
    """A reader of files of three samples that waits at a gate, from the time that it is shut."""

    def __init__(self, folder):
        self.shut, self.waits, self.go, self.reads = False, threading.Event(), threading.Event(), 0
        self.source = FileSource(imagenet32_files(folder)[:1] * 20, self)
        self.last = lambda: None

    def __call__(self, path):
        self.reads += 1
        if self.shut:
            self.waits.set()
            assert self.go.wait(10)
            self.last()
        return read(path)

    def next_read(self):
        """Batches, whose thread waits at the gate."""
        batches = self.source.batches(KEY, 0, 3)
        next(batches)
        wait_for(lambda: self.reads == 20 + 4)  # one batch is taken, two are ready, one waits for room
        self.shut = True
        next(batches)
        assert self.waits.wait(10)
        return batches


def test_who_closes_while_nothing_is_done_wakes_the_thread(folder):
    gate = Gate(folder)
    batches = gate.source.batches(KEY, 0, 3)
    next(batches)
    wait_for(lambda: gate.reads == 20 + 4)
    workers()[0].join(0.1)  # time to come to where it waits for room
    closer = threading.Thread(target=batches.close, daemon=True)
    closer.start()
    closer.join(10)
    assert workers() == []
    assert gate.reads == 20 + 4


def test_who_closes_while_a_file_is_read_waits_for_this_one_only(folder):
    gate = Gate(folder)
    batches = gate.next_read()
    timer = threading.Timer(0.2, gate.go.set)
    timer.start()
    batches.close()
    assert workers() == []
    assert gate.go.is_set()
    assert gate.reads == 20 + 5
    timer.join()


def test_a_forgotten_iterator_may_be_collected_by_its_own_thread(folder):
    gate, collected_by = Gate(folder), []
    gc.collect()
    gc.disable()
    try:
        cycle = [gate.next_read()]
        cycle.append(cycle)
        weakref.finalize(cycle[0], lambda: collected_by.append(threading.current_thread().name))
        gate.last = gc.collect
        del cycle
        assert len(workers()) == 1
        gate.go.set()
        wait_for(lambda: not workers())
    finally:
        gc.enable()
    assert collected_by == ["oscsim batches"]
    assert gate.reads == 20 + 5


def test_a_program_may_end_with_batches_left(folder):
    program = f"""
import jax, oscsim as osc
source = osc.datasets.stream("imagenet32", data_dir={str(folder)!r})
batches = source.batches(jax.random.key(0), 0, 3)
next(batches)
print("the end")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the end\n", "")
