"""Files: they run and import nothing, damage is one named error, and what others keep beside them stays."""

import bz2
import gzip
import json
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.cli.commands import main
from oscsim.core import checkpoint, files
from oscsim.core.registry import named

KEY = jax.random.key(0)


@osc.register
def cubic(u):
    return u - u**3 / 3


@osc.register
class Scaled(osc.AbstractActivation):
    scale: jax.Array

    def __call__(self, u):
        return jnp.tanh(self.scale * u)


class Stranger(osc.AbstractActivation):
    def __call__(self, u):
        return u


def network(**changes):
    return osc.LayeredNetwork((2, 3, 2), key=KEY, **changes)


def twin():
    return osc.FeedForwardNetwork((2, 3, 2), key=KEY)


def train(folder, net=None, **changes):
    x, y = np.ones((4, 2)) * np.arange(4)[:, None] / 4, np.arange(4) % 2
    settings = {"epochs": 1, "batch_size": 2, "key": KEY, "checkpoints": osc.Checkpoints(folder, **changes)}
    return osc.train(twin() if net is None else net, (x, y), osc.Backpropagation(), optax.sgd(0.1), **settings)


# A file runs nothing.


@pytest.mark.parametrize("activation", [cubic, Scaled(jnp.asarray(2.0)), jax.nn.silu, jnp.tanh], ids=range(4))
def test_what_is_registered_is_saved_and_read(activation, tmp_path):
    net = network(activation=activation)
    found = osc.load(checkpoint.save(net, tmp_path / "net.osc"))
    assert type(found.activation) is type(activation)
    assert eqx.tree_equal(found, net)


@pytest.mark.parametrize(
    "activation",
    [lambda u: u, Stranger(), Stranger, eqx.Partial(cubic), jax.tree_util.Partial(cubic), os.system, checkpoint.save],
    ids=range(7),
)
def test_what_is_not_is_refused_before_anything_is_made(activation, tmp_path):
    net = eqx.tree_at(lambda n: n.activation, network(), activation, is_leaf=lambda leaf: leaf is network().activation)
    with pytest.raises(osc.NotRegisteredError, match=r"LayeredNetwork.activation is .*put @osc.register above"):
        checkpoint.save(net, tmp_path / "net.osc")
    with pytest.raises(osc.NotRegisteredError, match=r"FeedForwardNetwork.activation is .*put @osc.register above"):
        train(tmp_path / "run", eqx.tree_at(lambda n: n.activation, twin(), activation))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [lambda u: u, eqx.Partial(cubic), dict, np.ndarray], ids=range(4))
def test_what_cannot_be_registered(value):
    with pytest.raises(osc.BadType, match=r"register\(.*use a class of equinox.Module, or a function"):
        osc.register(value)


@osc.register
class Graded(osc.AbstractActivation):
    scale: float = 2.0

    def __call__(self, u):
        return jnp.tanh(self.scale * u)


def test_fields_that_a_file_does_not_know_take_their_defaults(tmp_path):
    """A file of an earlier version, which has no `scale`; what has no default is refused."""
    path = checkpoint.save(network(activation=Graded(3.0)), tmp_path / "net.osc")
    changed(path, lambda fields: fields["activation"]["fields"].pop("scale"))
    assert osc.load(path).activation.scale == 2.0
    changed(path, lambda fields: fields["activation"]["fields"].update(other=1.0))
    with pytest.raises(osc.BadValue, match=r"holds a Graded with fields \['other'\].*the version that wrote it"):
        osc.load(path)
    changed(path, lambda fields: fields.pop("weights"))
    with pytest.raises(osc.BadValue, match="holds a LayeredNetwork with fields"):
        osc.load(path)


def changed(path, change):
    """A file as another version would have written it."""
    with np.load(path) as found:
        arrays = dict(found)
    structure = json.loads(str(arrays["structure"]))
    change(structure["tree"]["fields"])
    with path.open("wb") as file:
        np.savez(file, **(arrays | {"structure": np.asarray(json.dumps(structure))}))


def test_a_script_and_who_imports_it_read_the_same_files():
    assert named(f"{cubic.__module__}:cubic") is named("__main__:cubic") is cubic
    assert named("elsewhere:cubic") is None
    assert named("oscsim.teaching:Rotating") is osc.Rotating  # where 0.1 had it


def forged(path, tree, **arrays):
    structure = json.dumps({"format": "oscsim 1", "tree": tree}) if type(tree) is not str else tree
    np.savez(path, structure=np.asarray(structure), **arrays)
    return path


def module(name, **fields):
    return {"module": name, "fields": fields}


def in_network(activation):
    """The file of a network with something in place of its activation."""

    def write(path):
        checkpoint.save(network(), path)
        with np.load(path) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("structure")))
        about["tree"]["fields"]["activation"] = activation
        return forged(path, about["tree"], **arrays)

    return write


def packed(header, data=b"", method=zipfile.ZIP_STORED, name="structure.npy"):
    """A file whose structure is an array with this header."""

    def write(path):
        with zipfile.ZipFile(path, "w", method) as archive:
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
            archive.writestr(name, head + data)
        return path

    return write


def spoiled(change):
    def write(path):
        content = bytearray(checkpoint.save(network(), path).read_bytes())
        change(content)
        path.write_bytes(content)
        return path

    return write


def linked(target):
    def write(path):
        path.symlink_to(target)
        return path

    return write


LARGE = files.SMALL + 2**24
HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s,), }\n"
PARTIAL = module("equinox._module._partial:Partial", func={"import": "os:system"}, args={"tuple": ["touch canary"]})
NETWORKS = {
    "a partial command": in_network(PARTIAL),
    "a partial command where it was": in_network(PARTIAL | {"module": "jax._src.tree_util:Partial"}),
    "a command": in_network({"import": "os:system"}),
    "eval": in_network({"import": "builtins:eval"}),
    "a process": in_network(module("subprocess:Popen", args="touch canary")),
    "a module beside": in_network({"import": "beside:function"}),
    "a class of a module beside": in_network(module("beside:Network")),
    "a module beside in a package": in_network({"import": "oscsim.beside:function"}),
    "a module that is installed": in_network({"import": "antigravity:fly"}),
    "a room that is not loaded": in_network({"import": "oscsim.lab.view:LAB"}),
    "a function of ours": in_network({"import": "oscsim.core.files:write"}),
    "a module of ours": in_network({"import": "oscsim.core.files:os.system"}),
    "what a module of ours imports": in_network({"import": "oscsim.core.files:shutil"}),
    "a class of ours that is no module": in_network(module("oscsim.core.checkpoint:Folder", path=".", keep=1)),
    "a function of diffrax": in_network({"import": "diffrax:diffeqsolve"}),
    "a function as a module": in_network(module("jax:silu")),
    "an attribute of a registered function": in_network({"import": "jax:silu.__globals__"}),
    "a lambda": in_network({"import": "tests.test_files:<lambda>"}),
    "no name": in_network({"import": None}),
    "an empty name": in_network({"import": ""}),
    "objects": in_network({"jax": 0, "dtype": "O"}),
    "no such array": in_network({"jax": 10**6}),
    "a key of no kind": in_network({"key": 0, "impl": "none"}),
    "lists in lists": lambda path: forged(path, "[" * 10**5),
    "a pickled structure": lambda path: np.savez(path, structure=np.array([print], object)) or path,
    "a header that calls": packed("{'descr': __import__('os').system('touch canary'), 'shape': (1,)}"),
    "a header of brackets": packed("(" * 9000),
    "a header of signs": packed("-" * 9000),
    "a long header": packed(HEADER % "1" + " " * 60000, b"1" * 9),
    "a shape of 10^12": packed(HEADER % 10**12, b"1"),
    "a shape of 10^30": packed(HEADER % 10**30, b"1"),
    "a bomb": packed(HEADER % LARGE, bytes(LARGE), zipfile.ZIP_DEFLATED),
    "bz2": packed(HEADER % 1, b"1", zipfile.ZIP_BZIP2),
    "a way out": packed(HEADER % 1, b"1", name="../../canary.npy"),
    "encrypted": spoiled(lambda content: content.__setitem__(content.index(b"PK\x01\x02") + 8, 1)),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Harm())) and path,
    "a link to a device": linked("/dev/zero"),
    "a link to itself": linked("file.osc"),
}


class Harm:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.fixture
def watched(tmp_path, monkeypatch, request):
    """A folder with a module in it that must not be imported; afterwards it holds what the test has written, no more.

    Nothing was started, nothing named by a file was imported, and the memory stayed small.
    """
    (tmp_path / "beside.py").write_text("open('canary', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    large = "bomb" in request.node.name or "10^" in request.node.name
    if large:
        tracemalloc.start()  # makes everything slow
    STARTED.clear()
    yield tmp_path
    if large:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 4 * LARGE  # of which half is what the test itself takes for a bomb
    assert not STARTED
    assert not {"beside", "antigravity", "oscsim.beside"} & {*sys.modules}
    assert not [path for path in (*tmp_path.rglob("*"), *tmp_path.parent.glob("*")) if "canary" in path.name]


STARTED = []
STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
sys.addaudithook(lambda event, _: STARTED.append(event) if event in STARTS else None)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_crafted_network_is_refused(kind, watched):
    path = NETWORKS[kind](watched / "file.npz")  # numpy would add the ending
    if not path.is_symlink():
        path = path.rename(watched / "file.osc")
    for read in (osc.load, osc.Run.load):
        with pytest.raises((osc.BadValue, OSError), match="file"):
            read(path)


def test_a_crafted_run_and_a_crafted_checkpoint_are_refused(watched):
    x, y = np.ones((1, 2)), np.array([0])
    run = osc.simulate(network(), x, y, osc.Rotating(0.1, 100.0), cycles=1)
    folder = watched / "run"
    train(folder)
    for path in (run.save(watched / "run.npz"), *folder.glob("step-*.osc")):
        with np.load(path) as file:
            arrays = dict(file)
        tree = json.loads(str(arrays.pop("structure")))["tree"]
        tree["fields"]["first_cycle" if path.stem == "run" else "network"] = PARTIAL
        forged(path.with_suffix(".npz"), tree, **arrays).replace(path)
    for read in (
        lambda: osc.Run.load(watched / "run.npz"),
        lambda: osc.load(folder),
        lambda: train(folder, resume=True),
    ):
        with pytest.raises(osc.NotRegisteredError, match="Partial, which is not registered"):
            read()


TEXTS = {"no object": "[1]", "nested": "[" * 10**5, "no settings": "{}", "settings of names": '{"settings": ["data"]}'}
TEXTS |= {"unknown": '{"settings": {"beside": 1}}', "a class": '{"settings": {"descent": {"module": "os:system"}}}'}
TEXTS |= {"bytes": "\udcff", "a name": '{"settings": {"dataset": "beside"}, "scaling": "os.system"}'}


@pytest.mark.parametrize("kind", TEXTS)
def test_crafted_settings_are_refused(kind, watched, capsys):
    text = TEXTS[kind].encode("utf-8", "surrogateescape")
    (watched / "settings.json").write_bytes(text)
    (watched / "options.toml").write_bytes(b"a = " + text)
    checkpoint.save(network(), watched / "net.osc")
    np.save(watched / "x.npy", np.ones((1, 2)))
    for command in (
        ("train", "--config", "settings.json", "--out", "run"),
        ("train", "--config", "options.toml", "--out", "run"),
        ("train", "--resume", "."),
        ("predict", "net.osc", "x.npy"),
    ):
        if command[0] == "predict" and kind in ("no settings", "unknown", "a class"):
            continue  # nothing in them matters to it
        with pytest.raises(SystemExit):
            main(command)
        assert "Traceback" not in capsys.readouterr().err
    assert not (watched / "run").exists()


def tarred(path):
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../canary", "cifar-10-batches-py/data_batch_1"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("canary")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def nested():
    labels = [1] * 1000
    for _ in range(3):
        labels = [labels] * 1000
    return {"data": np.zeros((1000, 3072), np.uint8), "labels": labels}


def big(head):
    return gzip.compress(head + bytes(LARGE), compresslevel=1)


IDX = b"\0\0\x08\x01" + LARGE.to_bytes(4, "big")
DATA = {
    "a pickle in an npz": ("a.npz", lambda path: np.savez(path, x=np.array([Harm()]), y=np.arange(1))),
    "a pickle in an npy": ("x.npy", lambda path: np.save(path, np.array([Harm()]))),
    "a pickle": ("a.pkl", lambda path: path.write_bytes(pickle.dumps(Harm()))),
    "a pickle called npz": ("a.npz", lambda path: path.write_bytes(pickle.dumps(Harm()))),
    "a bomb in an npz": ("a.npz", packed(HEADER % LARGE, bytes(LARGE), zipfile.ZIP_DEFLATED, "x.npy")),
    "a shape of 10^12": ("x.npy", lambda path: path.write_bytes(header_of(10**12))),
    "a bomb of a table": ("a.csv.gz", lambda path: path.write_bytes(big(b"a,b\n"))),
    "a bomb of IDX": ("i/train-images-idx1-ubyte.gz", lambda path: path.write_bytes(big(IDX))),
    "IDX of 10^12": ("i/train-images-idx3-ubyte", lambda path: path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)),
    "not gzip": ("a.csv.gz", lambda path: path.write_bytes(b"\x1f\x8b" + bytes(30))),
    "bz2": ("a.csv", lambda path: path.write_bytes(bz2.compress(bytes(100)))),
}


def header_of(count):
    header = HEADER % count
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize("kind", DATA)
def test_crafted_data_are_refused(kind, watched):
    name, write = DATA[kind]
    path = watched / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    with pytest.raises(osc.BadValue, match=r"data=|pickled objects|unpacks to|truncated"):
        osc.datasets.read(path.parent if path.parent != watched else path)


def test_crafted_batches_are_refused(watched):
    (watched / "val_data").write_bytes(pickle.dumps(nested()))
    with pytest.raises(osc.DamagedFileError, match="val_data is truncated, damaged"):
        osc.datasets.read_imagenet32("val_data")
    tarred(watched / "cifar-10-python.tar.gz")
    with pytest.raises(osc.BadValue, match="data_batch_1 in"):
        osc.datasets.load("cifar10", data_dir=watched)


# Damage.


def value():
    return {"net": network(), "number": 3, "array": np.arange(40.0), "key": KEY}


def headers_of(path):
    """Where in the file something else stands than the content of arrays."""
    content = path.read_bytes()
    inside = set()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            begin = entry.header_offset
            begin += 30 + sum(struct.unpack("<HH", content[begin + 26 : begin + 30]))
            head = 10 + int.from_bytes(content[begin + 8 : begin + 10], "little")
            inside |= {*range(begin + head, begin + entry.file_size)}
    return sorted({*range(len(content))} - inside), sorted(inside)


def flipped(path, places, out):
    """How many of these bits, flipped, are refused, and how many change nothing; anything else is an error."""
    content, whole = path.read_bytes(), checkpoint.load(path)
    refused = 0
    for byte, bit in places:
        damaged = bytearray(content)
        damaged[byte] ^= 1 << bit
        out.write_bytes(damaged)
        try:
            found = checkpoint.load(out)
        except osc.DamagedFileError:
            refused += 1
        else:
            assert eqx.tree_equal(found, whole)
    return refused, len(places) - refused


def test_flipped_bits_are_refused_or_mean_nothing(tmp_path):
    path = checkpoint.save(value(), tmp_path / "whole.osc")
    heads, inside = headers_of(path)
    rng = random.Random(0)
    some = [(rng.choice(part), rng.randrange(8)) for part in (heads, heads, inside) for _ in range(25)]
    refused, same = flipped(path, some, tmp_path / "damaged.osc")
    assert refused >= 50
    assert refused + same == 75


@pytest.mark.slow
def test_all_flipped_bits_of_headers_and_a_thousand_in_arrays(tmp_path):
    path = checkpoint.save(value(), tmp_path / "whole.osc")
    heads, inside = headers_of(path)
    every = [(byte, bit) for byte in heads for bit in range(8)]
    rng = random.Random(0)
    print(len(every), flipped(path, every, tmp_path / "damaged.osc"))
    content = [(rng.choice(inside), rng.randrange(8)) for _ in range(1000)]
    assert flipped(path, content, tmp_path / "damaged.osc") == (1000, 0)


def test_the_checkpoint_before_is_taken_whatever_damage_raises(tmp_path):
    train(tmp_path)
    newest = sorted(tmp_path.glob("step-*.osc"))[-1]
    whole = newest.read_bytes()
    for old, new in ((b"'shape': (", b"'shape': )"), (b"'descr'", b"'descr\\"), (b"PK\x03\x04", b"PK\x03\x05")):
        newest.write_bytes(whole.replace(old, new))
        with pytest.warns(UserWarning, match=rf"{newest.name} is truncated.*going on from .*step-000000000.osc"):
            osc.load(tmp_path)
        with pytest.warns(UserWarning, match="going on from"):
            again = train(tmp_path, resume=True)
        assert eqx.tree_equal(osc.load(tmp_path), again.network)
        assert eqx.tree_equal(osc.load(tmp_path), checkpoint.load(newest).network)


def test_flipped_bits_of_data_are_never_other_data(tmp_path):
    x, y = np.random.default_rng(0).random((20, 2)), np.arange(20) % 2
    np.savez(tmp_path / "whole.npz", x=x, y=y)
    content, rng = (tmp_path / "whole.npz").read_bytes(), random.Random(1)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "own.npz").write_bytes(damaged)
        try:
            found = osc.datasets.read(tmp_path / "own.npz").train
        except osc.BadValue:
            continue
        np.testing.assert_array_equal(found[0], x)
        np.testing.assert_array_equal(found[1], y)


# Nothing of others is touched.

FOREIGN = (
    *("thesis.tex.part", "film.mp4.part", "a.b.part", "x.part", ".part", "run.osc.part", ".oscsim", ".oscsim.part"),
    *(".oscsim-0-1-2.part", "run.osc.1234", "step-1.osc", "step-notes.osc", "step-000000001.osc.bak", "best.osc"),
    *("step-000000000.osc.1a2b3c4d.part", ".run.123", "notes.txt", "metrics.json", "settings.toml", "zarr.json.bak"),
)


def leftover(folder, process, host=files.HOST):
    path = folder / f".oscsim-{host}-{process}-0123456789abcdef.part"
    path.write_text("half")
    return path


def ended():
    """The number of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_foreign_files_stay_and_what_killed_processes_left_goes(tmp_path):
    assert len(FOREIGN) == 20
    for name in FOREIGN:
        (tmp_path / name).write_text(name)
    process = ended()
    stale = leftover(tmp_path, process)
    kept = [leftover(tmp_path, os.getpid()), leftover(tmp_path, process, "00000000")]
    train(tmp_path)
    assert not stale.exists()
    stale = leftover(tmp_path, process)
    folder = tmp_path / f".oscsim-{files.HOST}-{process}-00000000000000ff.part"
    (folder / "zarr.json").parent.mkdir()
    train(tmp_path, resume=True)
    checkpoint.save(network(), tmp_path / "net.osc")
    osc.sweep(lambda key, a: {"r": a}, {"a": [1.0]}, seeds=1, key=KEY, store=tmp_path / "store")
    assert not stale.exists()
    assert not folder.exists()
    assert {name: (tmp_path / name).read_text() for name in FOREIGN} == {name: name for name in FOREIGN}
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("name", ["metrics.jsonl", "settings.json"])
def test_a_file_of_others_that_would_be_written_is_said(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine")
    if name == "metrics.jsonl":
        with pytest.raises(osc.BadValue, match=r"folder=.* holds a metrics.jsonl .*choose another folder"):
            train(tmp_path)
    else:
        with pytest.raises(SystemExit):
            main(["train", "--out", str(tmp_path), "--epochs", "1"])
        assert "settings.json was not written by oscsim train" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.slow
def test_killed_while_saving_leaves_nothing_after_the_next_start(tmp_path):
    code = "import sys; from oscsim.core import files; from pathlib import Path\nprint(flush=True)\n"
    code += "while True: files.write(Path(sys.argv[1], 'run.osc'), bytes(2**26))"
    rng = random.Random(0)
    left = 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left += len(list(tmp_path.glob(".oscsim-*")))
    assert left > 0
    checkpoint.save(network(), tmp_path / "run.osc")
    assert [path.name for path in tmp_path.iterdir()] == ["run.osc"]


def test_a_bomb_is_no_more_than_what_it_says(tmp_path):
    """An archive that understates what it holds is damaged, and is read no further."""
    path = tmp_path / "own.npz"
    packed(HEADER % 2**20, bytes(2**20), zipfile.ZIP_DEFLATED, "x.npy")(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 2**10)
    path.write_bytes(content)
    with pytest.raises(osc.BadValue, match=r"own\.npz is damaged"):
        osc.datasets.read(path)
