"""Stores of sweeps: results of one shape, damage that heals, changes that are asked about, folders that move."""

import json
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc
from oscsim.sweeps import store as stores
from oscsim.sweeps.store import Store
from oscsim.sweeps.studies import FunctionStudy

KEY = jax.random.key(0)
AXES = {"scale": [1.0, 2.0, 3.0], "count": [1, 2]}


def noise(key, scale, count):
    return {"a": scale * jax.random.normal(key, (2,)), "b": jnp.asarray(count > 5), "c": scale + 1j}


def run(store, **changes):
    return osc.sweep(noise, AXES, **({"seeds": 2, "key": KEY, "store": store, "block": 2} | changes))


def chosen(*values):
    """A study that returns the n-th of these at the n-th point."""
    return lambda key, n: values[n]


def one(n):
    return jnp.ones(n)


CHANGING = {
    "longer": (chosen({"a": one(2)}, {"a": one(3)}), r"at n=1: .*a as float32 of shape \(3,\), and as .* \(2,\)"),
    "shorter": (chosen({"a": one(2)}, {"a": one(1)}), r"shape \(1,\), and"),
    "a number": (chosen({"a": one(2)}, {"a": 1.0}), r"shape \(\), and"),
    "an axis more": (chosen({"a": one(2)}, {"a": jnp.ones((2, 2))}), r"shape \(2, 2\), and"),
    "transposed": (chosen({"a": jnp.ones((2, 3))}, {"a": jnp.ones((3, 2))}), r"shape \(3, 2\), and"),
    "complex": (chosen({"a": 1.0}, {"a": 1j}), r"a as complex64 .*and as float32"),
    "real": (chosen({"a": 1}, {"a": 0.5}), r"a as float32 .*and as int32"),
    "fewer": (chosen({"a": 1.0, "b": 1.0}, {"a": 1.0}), r"returns a, and a, b at the first point"),
    "more": (chosen({"a": 1.0}, {"a": 1.0, "b": 1.0}), r"returns a, b, and a at the first point"),
    "another": (chosen({"a": 1.0}, {"b": 1.0}), r"returns b, and a at the first point"),
    "none": (chosen({"a": 1.0}, {}), r"returns (dict|, and a at)"),
    "no dict": (chosen({"a": 1.0}, 1.0), "return a dict from names to arrays"),
    "text": (chosen({"a": 1.0}, {"a": "one"}), "return arrays of numbers"),
    "keys": (chosen({"a": KEY}, {"a": KEY}), "return arrays of numbers"),
    "bfloat16": (lambda key, n: {"a": jnp.ones(2, jnp.bfloat16)}, "return arrays of numbers"),
    "a lookup that fails": (lambda key, n: {"a": {0: 1.0}[n]}, "KeyError at n=1: 1"),
    "an attribute that fails": (lambda key, n: {"a": n.shape}, "AttributeError at n=0"),
    "a path": (lambda key, n: {"a/b": 1.0}, "the study returns 'a/b': name it in letters"),
    "a way out": (lambda key, n: {"..": 1.0}, r"the study returns '\.\.': name it"),
    "a hidden name": (lambda key, n: {"__a": 1.0}, "the study returns '__a': name it"),
    "nothing": (lambda key, n: {"": 1.0}, "the study returns '': name it"),
    "the store's own": (lambda key, n: {"block_done": 1.0}, "the study returns 'block_done': name it"),
    "metadata": (lambda key, n: {"zarr.json": 1.0}, "the study returns 'zarr.json': name it"),
    "no numbers": (lambda key, n: {"a": jnp.ones(0)}, r"a has shape \(0,\): return one number or more"),
    "seed": (lambda key, n: {"seed": 1.0}, "seed is both a setting and a result"),
    "predictions that change": (
        FunctionStudy(chosen({"a": 1.0}, {"a": 1.0}), theory=lambda n: {"p": one(n + 1)}),
        r"returns p as float32 of shape \(2,\), and as float32 of shape \(1,\)",
    ),
    "predictions that go": (
        FunctionStudy(chosen({"a": 1.0}, {"a": 1.0}), theory=lambda n: {"p": 1.0} if n == 0 else {}),
        "returns a, and a, p at the first point",
    ),
    "predictions in words": (
        FunctionStudy(chosen({"a": 1.0}, {"a": 1.0}), theory=lambda n: {"p": np.array("much")}),
        "the study predicts p as <U4: return numbers",
    ),
}


@pytest.mark.parametrize("kind", CHANGING)
def test_results_that_change_are_refused_and_never_cut(kind, tmp_path):
    study, words = CHANGING[kind]
    with pytest.raises((osc.BadValue, osc.BadType), match=words):
        osc.sweep(study, {"n": [0, 1]}, seeds=2, key=KEY, store=tmp_path / "store")
    if (tmp_path / "store").exists():  # what was computed before stays
        assert Store.open(tmp_path / "store").unfinished() == [1]


def test_predictions_may_be_whole_numbers_where_others_have_fractions():
    study = FunctionStudy(chosen({"a": 1.0}, {"a": 1.0}), theory=lambda n: {"p": 0.5 if n == 0 else 1})
    assert osc.sweep(study, {"n": [0, 1]}, seeds=1, key=KEY).p.values.tolist() == [0.5, 1.0]


# Damage.


def removed(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path):
    path.write_bytes(b"")


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["a/c/0/0/0/0", "b/c/1/1/0", "c/c/0/1/0", "scale/c/0", "seed/c/0", "block_done/c/1/0"])
@pytest.mark.parametrize("damage", [removed, cut, emptied, flip])
def test_what_is_lost_or_damaged_is_computed_again(part, damage, tmp_path, whole):
    store = shutil.copytree(whole, tmp_path / "store")
    damage(store / part)
    if part.startswith("block_done"):
        found = run(store)
    else:
        with pytest.raises(osc.DamagedFileError, match="call the same sweep again"):
            osc.load_sweep(store)
        if part.endswith("c/0"):
            found = run(store)
        else:
            with pytest.warns(UserWarning, match="1 of its blocks are missing or damaged, and computed again"):
                found = run(store)
    assert found.identical(run(whole))
    assert osc.load_sweep(store).identical(osc.load_sweep(whole))
    assert contents(store) == contents(whole)


def contents(store):
    return {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "store"
    run(store)
    return store


def test_flipped_bits_never_read_as_other_results(tmp_path, whole):
    right = osc.load_sweep(whole).load()
    rng = random.Random(0)
    paths = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for number in range(40):
        store = shutil.copytree(whole, tmp_path / str(number))
        flip(store / rng.choice(paths), rng.random())
        try:
            found = osc.load_sweep(store).load()
        except osc.BadValue:
            continue
        missing = len(Store.open(store).unfinished())  # a block that no longer says that it is done is read as it is
        assert found.attrs.pop("unfinished", 0) == missing
        assert found.identical(right), missing


CRAFTED = {
    "codecs": lambda about: about["codecs"].append({"name": "numcodecs.pickle", "configuration": {}}),
    "a codec of any name": lambda about: about["codecs"].insert(0, {"name": "beside", "configuration": {}}),
    "transformers": lambda about: about["storage_transformers"].append({"name": "beside"}),
    "a shape of 10^12": lambda about: about.update(shape=[10**12, 2, 2, 2]),
    "a type": lambda about: about.update(data_type="object"),
    "another type": lambda about: about.update(data_type="int32", fill_value=0),
    "nothing": lambda about: about.clear(),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_store_is_refused(kind, tmp_path, whole):
    store = shutil.copytree(whole, tmp_path / "store")
    about = json.loads((store / "a" / "zarr.json").read_text())
    CRAFTED[kind](about)
    (store / "a" / "zarr.json").write_text(json.dumps(about))
    refused(store)


@pytest.mark.parametrize("text", ["", "[" * 10**5, "{}", '{"attributes": {"oscsim": "os.system"}}'], ids=len)
def test_a_store_that_says_nothing_of_itself_is_refused(text, tmp_path, whole):
    store = shutil.copytree(whole, tmp_path / "store")
    (store / "zarr.json").write_text(text)
    refused(store)


@pytest.mark.parametrize("part", ["a/c", "a/c/0/0/0/0", "a/zarr.json"])
def test_links_that_lead_out_of_a_store_are_refused(part, tmp_path, whole):
    store = shutil.copytree(whole, tmp_path / "store")
    (store / part).rename(tmp_path / "elsewhere")
    (store / part).symlink_to(tmp_path / "elsewhere")
    refused(store)


def refused(store):
    before = contents(store)
    for call in (osc.load_sweep, run, osc.accept_changes):
        with pytest.raises(osc.BadValue, match="store="):
            call(store)
    assert contents(store) == before


# Changes, and folders that move.


def test_other_versions_are_asked_about(tmp_path, monkeypatch):
    first = run(tmp_path / "store")
    now = stores.versions()
    monkeypatch.setattr(stores, "versions", lambda: now | {"jax": "99.0"})
    with pytest.raises(osc.ChangedStudyError, match=r"made under .*and this is .*jax 99.0.*osc.accept_changes\('"):
        run(tmp_path / "store")
    osc.accept_changes(tmp_path / "store")
    assert run(tmp_path / "store").identical(first)
    assert Store.open(tmp_path / "store").about["versions"]["jax"] == "99.0"
    monkeypatch.undo()
    with pytest.raises(osc.ChangedStudyError, match="holds another sweep"):
        run(tmp_path / "store")


def test_a_store_that_moves_while_the_sweep_runs(tmp_path):
    def moving(key, n):
        if n == 1:
            (tmp_path / "store").rename(tmp_path / "moved")
        return {"a": jax.random.normal(key)}

    with pytest.raises(FileNotFoundError, match="was moved or removed while the sweep ran: the same call goes on"):
        osc.sweep(moving, {"n": [0, 1, 2]}, seeds=1, key=KEY, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert Store.open(tmp_path / "moved").unfinished() == [1, 2]


def test_two_that_begin_at_once_share_the_store(tmp_path, monkeypatch):
    existing, calls = Store.existing, []

    def late(*args):
        calls.append(args)
        if len(calls) == 1:  # it was not there yet, and then another was faster
            monkeypatch.setattr(Store, "existing", existing)
            run(tmp_path / "store")
            monkeypatch.setattr(Store, "existing", late)
            return None
        return existing(*args)

    monkeypatch.setattr(Store, "existing", late)
    found = run(tmp_path / "store")
    assert len(calls) == 2
    assert found.identical(run(tmp_path / "other"))
    assert sorted(os.listdir(tmp_path)) == ["other", "store"]


def test_a_link_to_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "there")
    found = run(tmp_path / "store")
    assert (tmp_path / "store").is_symlink()
    assert osc.load_sweep(tmp_path / "there").identical(found)


def test_stores_of_before_go_on(tmp_path):
    """Without checksums, and with what is 0, False or nan everywhere left out."""
    first = run(tmp_path / "store")
    store = Store.open(tmp_path / "store")
    about = {name: value for name, value in store.about.items() if name != "checksum"}
    store.group.attrs["oscsim"] = about | {"versions": {n: about["versions"][n] for n in ("oscsim", "jax")}}
    for path in (tmp_path / "store" / "b" / "c").rglob("0"):
        if path.is_file():
            path.unlink()
    assert osc.load_sweep(tmp_path / "store").identical(first)
    assert run(tmp_path / "store").identical(first)


def test_names_that_a_store_has_itself():
    for axes in ({"block_done": [1.0]}, {"a/b": [1.0]}, {"..": [1.0]}, {"": [1.0]}):
        with pytest.raises(osc.BadValue, match="name a setting in letters"):
            osc.sweep(lambda key, **_: {"r": 1.0}, axes, seeds=1, key=KEY)


def test_what_is_wide_reads_as_it_was(tmp_path):
    found = run(tmp_path / "store")
    np.testing.assert_array_equal(found.b, np.zeros((3, 2, 2), bool))
    np.testing.assert_allclose(found.c[:, 0, 0], np.array([1, 2, 3]) + 1j)
