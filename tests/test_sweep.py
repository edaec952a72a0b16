"""Sweeps: what is computed, where it is kept, and that nothing is lost however a sweep is stopped."""

import atexit
import io
import logging
import os
import random
import signal
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.sweeps.cluster import connected
from oscsim.sweeps.grid import Grid, Task
from oscsim.sweeps.store import Store, fingerprint
from oscsim.sweeps.studies import FunctionStudy, Quantity

KEY = jax.random.key(3)


def noise(key, scale, shift, power=1, name="none"):
    """A study without a network."""
    z = scale * jax.random.normal(key, (3,)) ** power + shift
    return {"mean": z.mean(), "values": z + 1j * shift, "large": jnp.any(z > 1)}


AXES = {"scale": [0.5, 1.0, 2.0], "power": [1, 2], "shift": [0.0, 1.0, 2.0, 3.0, 4.0]}


def test_every_realisation_is_the_study_with_its_own_key():
    found = osc.sweep(noise, AXES, seeds=4, key=KEY, block=3)
    assert found["values"].dims == ("scale", "power", "shift", "seed", "values_0")
    assert found["values"].dtype == np.complex64
    assert found["large"].dtype == bool
    for p, (i, j, k) in enumerate(np.ndindex(3, 2, 5)):
        settings = {name: AXES[name][n] for name, n in zip(AXES, (i, j, k), strict=True)}
        for seed in range(4):
            key = jax.random.fold_in(jax.random.fold_in(KEY, p), seed)
            expected = noise(key, **settings)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name].values[i, j, k, seed], value, rtol=1e-6, err_msg=name)


def test_blocks_of_any_size_give_the_same():
    whole = osc.sweep(noise, AXES, seeds=4, key=KEY)
    for block in (1, 4, 100):
        again = osc.sweep(noise, AXES, seeds=4, key=KEY, block=block)
        np.testing.assert_allclose(again["mean"], whole["mean"], rtol=1e-6)


def test_a_changed_number_does_not_recompile():
    traces = []

    def study(key, a, n):
        traces.append(n)
        return {"product": a * n + 0 * jax.random.uniform(key)}

    found = osc.sweep(study, {"a": [0.5, 1.5, 2.5, 3.5], "n": [1, 2]}, seeds=3, key=KEY, block=2)
    np.testing.assert_array_equal(found.product.mean("seed"), np.outer([0.5, 1.5, 2.5, 3.5], [1, 2]))
    assert sorted(traces[1:]) == [1, 2]  # after the look at the shapes


def test_labels_units_and_fixed_settings(tmp_path):
    study = FunctionStudy(
        noise, known={"scale": Quantity("spread", "mV"), "values": Quantity("values", "mV", ("sample",))}
    )
    axes = {"scale": np.array([0.5, 1.0]), "name": ["one", "other"], "shift": 0.5}
    found = osc.sweep(study, axes, seeds=2, key=KEY, store=tmp_path / "store")
    assert found["values"].dims == ("scale", "name", "seed", "sample")
    assert found.scale.attrs == {"long_name": "spread", "units": "mV"}
    assert found["values"].attrs["units"] == "mV"
    assert list(found.name.values) == ["one", "other"]
    assert float(found["shift"]) == 0.5
    np.testing.assert_array_equal(osc.load_sweep(tmp_path / "store")["mean"], found["mean"])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


class Calls:
    """What a study was called with: beside it, for what it holds itself makes it another study."""

    scales: ClassVar[list[float]] = []


def test_a_stopped_sweep_goes_on_and_repeats_nothing(tmp_path):
    Calls.scales.clear()

    class Stop(Exception):
        pass

    def study(key, scale, shift):
        def note(scale):
            Calls.scales.append(float(scale))
            if len(Calls.scales) == 5:
                raise Stop
            return np.zeros((), np.float32)

        scale = scale + jax.pure_callback(note, jax.ShapeDtypeStruct((), jnp.float32), scale, vmap_method="sequential")
        return noise(key, scale, shift)

    scales = [0.1 * n for n in range(1, 9)]
    axes = {"scale": scales, "shift": 1.0}
    with pytest.raises(Exception, match="Stop"):
        osc.sweep(study, axes, seeds=1, key=KEY, store=tmp_path / "stopped", block=1)
    done = osc.load_sweep(tmp_path / "stopped")["mean"]
    assert np.isfinite(done[:4]).all()
    assert np.isnan(done[4:]).all()
    osc.sweep(study, axes, seeds=1, key=KEY, store=tmp_path / "stopped", block=1)
    np.testing.assert_allclose(Calls.scales, [*scales[:5], *scales[4:]], rtol=1e-6)
    osc.sweep(study, axes, seeds=1, key=KEY, store=tmp_path / "whole", block=1)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_gradient_quality_is_the_estimator_and_its_prediction():
    net = osc.LayeredNetwork((4, 5, 4, 3), key=jax.random.key(1))
    x, y = np.array([[0.2, 0.9, 0.4, 0.6], [0.8, 0.1, 0.5, 0.3]]), np.array([0, 2])
    axes = {"amplitude": [0.1, 0.2], "intensity": [0.1], "period": 64.0, "cycles": 3}
    found = osc.sweep(osc.studies.gradient_quality(net, x, y), axes, seeds=3, key=KEY)
    exact = osc.exact_gradient(net, x, y)
    lock_in = osc.LockIn(osc.Rotating(0.2, 64.0), cycles=3, discard=1, noise=osc.WhiteNoise(0.1))
    gradient = lock_in(net, x, y, key=jax.random.fold_in(jax.random.fold_in(KEY, 1), 2)).gradient
    np.testing.assert_allclose(found.cosine[1, 0, 2], osc.cosine(gradient, exact), rtol=1e-4)
    flat = np.concatenate([np.ravel(a) for a in jax.tree.leaves(gradient)])
    np.testing.assert_allclose(found.gradient[1, 0, 2], flat, rtol=1e-3, atol=1e-6)
    size = np.linalg.norm([np.linalg.norm(a) for a in jax.tree.leaves(exact)])
    spread = osc.response.predict_spread(net, x, y, osc.Rotating(0.2, 64.0), osc.WhiteNoise(0.1), 2)
    spread = np.linalg.norm([np.linalg.norm(a) for a in jax.tree.leaves(spread)]) / size
    np.testing.assert_allclose(found.predicted_spread[1, 0], spread, rtol=1e-5)


@pytest.mark.slow
def test_training_is_train():
    x, y = osc.datasets.load("digits")
    held_out = osc.datasets.load("digits", split="test")

    def network(key):
        return osc.LayeredNetwork((64, 8, 10), key=key)

    study = osc.studies.training(
        network,
        (x[:200], y[:200]),
        lambda amplitude: osc.Phases(amplitude, 2),
        optax.sgd,
        epochs=3,
        validation=held_out,
    )
    found = osc.sweep(study, {"amplitude": [0.1, 0.2], "learning_rate": [0.1, 0.3]}, seeds=2, key=KEY)
    assert found.validation_error.dims == ("amplitude", "learning_rate", "seed", "epoch")
    assert found.survived.all()
    np.testing.assert_array_equal(found.final_error, found.validation_error[..., -1])
    np.testing.assert_array_equal(found.best_error, found.validation_error.min("epoch"))
    assert (found.final_error.mean("seed")[:, 1] < found.final_error.mean("seed")[:, 0]).all()
    # one of them by hand, through the public `train`, which shuffles by keys of its own: it must learn as well
    one = osc.train(
        network(jax.random.key(0)),
        (x[:200], y[:200]),
        osc.Phases(0.2, 2),
        optax.sgd(0.3),
        epochs=3,
        key=KEY,
        validation=held_out,
        monitor=osc.Monitor(probe=0),
    )
    assert abs(one.history[-1]["validation_error"] - float(found.final_error[1, 1].mean())) < 15


BAD = {
    "result named as a setting": (
        lambda: osc.sweep(lambda key, a: {"a": a}, {"a": [1.0]}, seeds=1, key=KEY),
        "a is both a setting and a result",
    ),
    "no axes": (lambda: osc.sweep(noise, {}, seeds=1, key=KEY), "axes={}: give a dict"),
    "empty axis": (lambda: osc.sweep(noise, {"scale": []}, seeds=1, key=KEY), "axes['scale'] is empty"),
    "value twice": (lambda: osc.sweep(noise, {"scale": [1.0, 1.0]}, seeds=1, key=KEY), "a value stands there twice"),
    "two dimensions": (lambda: osc.sweep(noise, {"scale": np.ones((2, 2))}, seeds=1, key=KEY), "has shape (2, 2)"),
    "reserved name": (lambda: osc.sweep(noise, {"seed": [1]}, seeds=1, key=KEY), "axes names 'seed' or 'key'"),
    "no seeds": (lambda: osc.sweep(noise, AXES, seeds=0, key=KEY), "seeds=0"),
    "unknown setting": (lambda: osc.sweep(noise, {"scal": [1.0]}, seeds=1, key=KEY), "at scal=1.0"),
    "no dict": (lambda: osc.sweep(lambda key, a: a, {"a": [1.0]}, seeds=1, key=KEY), "return a dict from names"),
    "no array": (lambda: osc.sweep(lambda key, a: {"b": "x"}, {"a": [1.0]}, seeds=1, key=KEY), "returns b='x'"),
    "cannot be traced": (
        lambda: osc.sweep(lambda key, a: {"b": 1.0 if a > 0 else 0.0}, {"a": [1.0]}, seeds=1, key=KEY),
        "cannot be traced in a",
    ),
    "handed to NumPy": (
        lambda: osc.sweep(lambda key, a: {"b": jnp.ones(()) * np.sqrt(a)}, {"a": [1.0]}, seeds=1, key=KEY),
        "cannot be traced in a",
    ),
    "error that takes more than a message": (
        lambda: osc.sweep(lambda key, a: {"b": "é".encode().decode("ascii")}, {"a": [1.0]}, seeds=1, key=KEY),
        "UnicodeDecodeError at a=1.0",
    ),
    "workers without a store": (lambda: osc.sweep(noise, AXES, seeds=1, key=KEY, workers=2), "store is None"),
    "too large for memory": (
        lambda: osc.sweep(lambda key, a: {"b": jnp.zeros(10**9)}, {"a": [1.0]}, seeds=10**6, key=KEY),
        "takes 4,000,000.0 GB of memory",
    ),
    "setting that is refused": (
        lambda: osc.sweep(
            lambda key, period: {"c": osc.Rotating(0.1, -period).period}, {"period": [1]}, seeds=1, key=KEY
        ),
        "at period=1: period=-1: use a positive",
    ),
    "setting that nobody takes": (
        lambda: osc.sweep(quick_training(), {"rate": [0.1]}, seeds=1, key=KEY),
        "rate is a setting of neither the estimator, which takes ['amplitude'], nor the optimizer",
    ),
}


def quick_training():
    data = np.zeros((20, 4)), np.arange(20) % 2
    return osc.studies.training(
        lambda key: osc.LayeredNetwork((4, 3, 2), key=key),
        data,
        lambda amplitude: osc.Classic(amplitude),
        optax.sgd,
        epochs=1,
        validation=data,
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    assert message in str(error.value)


def test_axes_in_another_order_or_of_another_kind_are_another_sweep(tmp_path):
    osc.sweep(noise, {"scale": [1.0, 2.0], "shift": [3.0, 4.0]}, seeds=1, key=KEY, store=tmp_path)
    for axes in ({"shift": [3.0, 4.0], "scale": [1.0, 2.0]}, {"scale": [1, 2], "shift": [3.0, 4.0]}):
        with pytest.raises(ValueError, match="holds another sweep: its axes is"):
            osc.sweep(noise, axes, seeds=1, key=KEY, store=tmp_path)


GAIN = 1.0
MODULE = types.ModuleType("elsewhere")
MODULE.factor = lambda: 1.0


def of_its_module(key, a):
    return {"r": GAIN * a}


def of_another_module(key, a):
    return {"r": MODULE.factor() * a}


class Machine:
    def __init__(self, gain):
        self.gain = gain

    def study(self, key, a):
        return {"r": self.gain * a}


def identity(study, a=0.5):
    """What a store knows a study by."""
    task = Task(FunctionStudy(study), Grid({"a": a}), 1, KEY)
    return task.identity(task.first())["study"]


def test_a_study_is_known_by_what_it_computes(monkeypatch):
    def with_power(key, a, power):
        return noise(key, a, 0.0, power)

    def pairs():
        one, two = lambda key, a: {"r": a}, lambda key, a: {"r": 2 * a}
        yield one, two
        yield jax.jit(one), jax.jit(two)
        yield eqx.filter_jit(one), eqx.filter_jit(two)
        yield partial(with_power, power=1), partial(with_power, power=2)
        yield Machine(1.0).study, Machine(2.0).study
        small, large = np.arange(3.0), np.arange(3.0) * 2
        yield (jax.jit(lambda key, a: {"r": a * small}), jax.jit(lambda key, a: {"r": a * large}))

    for (one, two), (again, _) in zip(pairs(), pairs(), strict=True):
        assert identity(one) == identity(again)
        assert identity(one) != identity(two)
    before = identity(of_its_module), identity(of_another_module)
    assert before == (identity(of_its_module), identity(of_another_module))
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    monkeypatch.setattr(MODULE, "factor", lambda: 2.0)
    assert before[0] != identity(of_its_module)
    assert before[1] != identity(of_another_module)


def test_the_way_a_study_is_written_makes_no_difference():
    def study(key, a):
        return {"r": a * 2 + 1}

    first = identity(study)

    def study(key, a):
        """The same, said in another way."""
        doubled = a * 2
        return {"r": doubled + 1}

    assert identity(study) == first


def test_settings_that_are_objects_are_known_by_their_fields():
    same = [osc.Rotating(0.1, 100.0), osc.Rotating(0.1, 100.0)]
    assert len({fingerprint(signal) for signal in same}) == 1
    assert len({fingerprint(v) for v in (*same, osc.Rotating(0.2, 100.0), osc.Cosine(0.1, 100.0), jnp.sin)}) == 4
    assert fingerprint((1, 2.0, "a")) != fingerprint((1, 2.0, "b"))


def test_a_store_of_0_1_goes_on_with_a_warning(tmp_path):
    axes = {"scale": [1.0, 2.0], "shift": 0.0}
    whole = osc.sweep(noise, axes, seeds=1, key=KEY, store=tmp_path / "store")
    group = Store.open(tmp_path / "store").group
    about = {name: value for name, value in group.attrs["oscsim"].items() if name not in ("versions", "checksum")}
    group.attrs["oscsim"] = about | {"format": 1, "study": "of its bytecode"}
    group["block_done"][1] = False
    group["mean"][1] = 7.0
    with pytest.warns(UserWarning, match="was begun by oscsim 0.1: make sure that its study"):
        again = osc.sweep(noise, axes, seeds=1, key=KEY, store=tmp_path / "store")
    np.testing.assert_array_equal(again["mean"], whole["mean"])
    with pytest.raises(ValueError, match="holds another sweep: its seeds is 1, not 2"):
        osc.sweep(noise, axes, seeds=2, key=KEY, store=tmp_path / "store")


def test_stores_and_schedulers_that_cannot_be_used(tmp_path, monkeypatch):
    sweep = {"axes": {"scale": [0.5, 1.0], "shift": 0.0}, "seeds": 2, "key": KEY}
    store = tmp_path / "store"
    osc.sweep(noise, **sweep, store=store)
    before = contents(store)
    others = [
        ("study", lambda key, scale, shift: {"mean": scale}, {}),
        ("study", partial(noise, power=2), {}),
        ("axes", noise, {"axes": {"scale": [0.5], "shift": 0.0}}),
        ("settings", noise, {"axes": {"scale": [0.5, 1.0], "shift": 1.0}}),
        ("seeds", noise, {"seeds": 3}),
        ("key", noise, {"key": jax.random.key(4)}),
    ]
    for name, study, changes in others:
        with pytest.raises(ValueError, match=f"holds another sweep: its {name} is .*nothing was changed"):
            osc.sweep(study, **(sweep | changes), store=store)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"its (key|precision) is"):
        osc.sweep(noise, **sweep, store=store)
    assert contents(store) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds something that is no sweep.*nothing was changed"):
        osc.sweep(noise, **sweep, store=tmp_path / "other")
    with pytest.raises(ValueError, match="is no sweep"):
        osc.load_sweep(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"points with seeds=1000000.*GB are free on the disk"):
        osc.sweep(lambda key, a: {"b": jnp.zeros(10**9)}, {"a": [1.0]}, seeds=10**6, key=KEY, store=tmp_path / "large")
    assert not (tmp_path / "large").exists()
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    monkeypatch.setattr("oscsim.sweeps.cluster.SECONDS_TO_CONNECT", 1)
    with pytest.raises(ValueError, match=r"scheduler=tcp://127.0.0.1:9: nobody answers there"):
        osc.sweep(noise, **sweep, store=tmp_path / "nobody", client="tcp://127.0.0.1:9")
    assert not (tmp_path / "nobody").exists()


# Real processes, really killed.

SCRIPT = """
import sys
import jax
import numpy as np
import oscsim as osc

store, workers, amplitudes, intensities, seeds = sys.argv[1], *map(int, sys.argv[2:])
if __name__ == "__main__":
    net = osc.LayeredNetwork((6, 4, 4), key=jax.random.key(0))
    study = osc.studies.gradient_quality(net, np.full((1, 6), 0.5), [1], steps_per_cycle=128, predict=False)
    axes = {
        "amplitude": np.linspace(0.05, 0.5, amplitudes), "intensity": np.geomspace(0.01, 0.3, intensities),
        "period": 64.0, "cycles": 2,
    }
    osc.sweep(study, axes, seeds=seeds, key=jax.random.key(1), store=store, workers=workers or None)
"""


class Sweep:
    """A sweep in a process of its own."""

    def __init__(self, folder, store, *size, workers):
        script = folder / "script.py"
        script.write_text(SCRIPT)
        self.store = store
        command = [sys.executable, str(script), str(store), str(workers), *map(str, size)]
        environment = os.environ | {"NPROC": "1", "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def blocks_done(self):
        """Finished blocks, by the files that say so."""
        return len(list(self.store.glob("block_done/c/**/*"))) if self.store.exists() else 0

    def wait_for(self, blocks):
        deadline = time.monotonic() + 240
        while self.blocks_done() < blocks:
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the sweep does not move"
            time.sleep(0.01)
        return True

    def finish(self):
        _, errors = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, errors


def killed_and_resumed(tmp_path, size, kills, workers):
    """Kill a driver, or one of its workers, after some more blocks each time, and let it go on to the end."""
    import psutil

    draw = random.Random(0)
    whole = Sweep(tmp_path, tmp_path / "whole", *size, workers=workers)
    whole.finish()
    store = tmp_path / "killed"
    running, deaths = Sweep(tmp_path, store, *size, workers=workers), []
    total = whole.blocks_done()
    assert not Store.open(tmp_path / "whole").unfinished()
    while len(deaths) < kills:
        aim = min(running.blocks_done() + draw.randint(1, max(1, total // (2 * kills))), total - 1)
        alive = running.wait_for(aim)
        assert alive, f"ended after {len(deaths)} kills: {running.process.stderr.read()}"
        offspring = psutil.Process(running.process.pid).children(recursive=True)
        spawned = [p for p in offspring if "spawn_main" in " ".join(p.cmdline())]
        if spawned and len(deaths) % 2:
            draw.choice(spawned).send_signal(signal.SIGKILL)
            deaths.append("worker")
        else:
            running.process.send_signal(signal.SIGKILL)
            running.process.communicate()
            psutil.wait_procs(offspring, timeout=60)
            deaths.append("driver")
            running = Sweep(tmp_path, store, *size, workers=workers)
    running.finish()
    assert running.blocks_done() == total
    assert contents(store) == contents(tmp_path / "whole")
    return deaths


@pytest.mark.slow
def test_killed_in_one_process(tmp_path):
    assert killed_and_resumed(tmp_path, (8, 8, 4), 1, workers=0) == ["driver"]


@pytest.mark.slow
def test_a_thousand_points_killed_five_times_on_workers(tmp_path):
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    deaths = killed_and_resumed(tmp_path, (40, 25, 64), 5, workers=2)
    assert set(deaths) == {"driver", "worker"}


# Summaries, figures, the command.


def known(seeds=200):
    """A sweep whose statistics are known."""

    def study(key, mean, spread):
        return {"value": mean + spread * jax.random.normal(key), "broken": jnp.where(mean > 1.5, jnp.nan, 1.0)}

    return osc.sweep(study, {"mean": [1.0, 2.0, 3.0], "spread": [0.1, 0.2]}, seeds=seeds, key=KEY)


def test_summary_of_known_statistics():
    found = osc.summarise(known())
    value = found.value.sel(statistic=["average", "spread", "low", "high"]).values
    mean, spread = np.meshgrid([1.0, 2.0, 3.0], [0.1, 0.2], indexing="ij")
    error = spread / np.sqrt(200)
    assert np.max(abs(value[..., 0] - mean) / error) < 3.5
    np.testing.assert_allclose(value[..., 1], spread, rtol=0.2)
    np.testing.assert_allclose((value[..., 3] - value[..., 2]) / (2 * 1.96 * error), 1, atol=0.25)
    np.testing.assert_array_equal(found.broken.sel(statistic="count"), [[200, 200], [0, 0], [0, 0]])
    assert np.isnan(found.broken.sel(statistic="average")[1:]).all()
    rms = osc.summarise(known(), average="rms").value.sel(statistic="average")
    np.testing.assert_allclose(rms, np.sqrt(np.mean(known().value.values ** 2, axis=-1)), rtol=1e-5)


def slow_to_end():
    atexit.register(time.sleep, 20)


@pytest.mark.slow
def test_a_worker_that_is_slow_to_end_is_killed_without_a_word():
    said = logging.StreamHandler(heard := io.StringIO())
    nannies = logging.getLogger("distributed.nanny")
    said.setLevel(logging.WARNING)
    nannies.addHandler(said)
    try:
        with connected(None, 1) as client:
            client.run(slow_to_end)
            began = time.monotonic()
            assert not nannies.filters
    finally:
        nannies.removeHandler(said)
    assert 3 < time.monotonic() - began < 15  # it was killed
    assert heard.getvalue() == ""
    assert not nannies.filters


def test_units_stand_with_the_numbers():
    data = known()
    for name, unit in {"mean": "tau", "spread": "potential·√tau", "value": "1"}.items():
        data[name].attrs["units"] = unit
    curves = osc.plot.sweep_curves(data, "value", by="spread")
    assert (curves.get_xlabel(), curves.get_ylabel()) == ("mean (τ)", "value")
    labels = [text.get_text() for text in curves.get_legend().get_texts()]
    assert labels == ["spread 0.1 potential·√τ", "spread 0.2 potential·√τ"]
    other = osc.plot.sweep_curves(data, "value", x="spread")
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["mean 1 τ", "mean 2 τ", "mean 3 τ"]
    assert osc.plot.sweep_map(data, "value").get_ylabel() == "mean (τ)"


def test_figures_show_what_was_measured():
    data = known()
    average = osc.summarise(data).value.sel(statistic="average")
    curves = osc.plot.sweep_curves(data, "value", by="spread")
    drawn = [line.get_ydata() for line in curves.lines]
    np.testing.assert_allclose(drawn, average.transpose("spread", "mean"))
    assert (curves.get_xlabel(), curves.get_ylabel()) == ("mean", "value")
    mesh = osc.plot.sweep_map(data, "value").collections[0]
    np.testing.assert_allclose(mesh.get_array().reshape(3, 2), average)
    with pytest.raises(ValueError, match="the sweep measured"):
        osc.plot.sweep_map(data, "nothing")
    with pytest.raises(ValueError, match="a map needs two"):
        osc.plot.sweep_map(data.sel(mean=1.0), "value")


STUDY = """
seeds = 4
batch = 2
hidden = [6]
estimator = "phases"
points = 4

[axes]
amplitude = {from = 0.1, to = 0.4, count = 3, scale = "log"}
"""


def test_classes_are_those_of_both_splits(tmp_path):
    from oscsim.cli.settings import Network
    from oscsim.cli.sweep import _File

    x = np.zeros((4, 3))
    np.savez(tmp_path / "own.npz", x=x, y=np.array([0, 1, 0, 1]), x_test=x, y_test=np.array([0, 1, 2, 3]))
    file = _File(
        data=str(tmp_path / "own.npz"), study="training", estimator="phases", axes={}, batch=4, network=Network()
    )
    assert file.build().network(jax.random.key(0)).outputs == 4


def test_the_command(tmp_path, capsys):
    from oscsim.cli.commands import main

    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    arguments = ["sweep", str(file), "--store", str(tmp_path / "store"), "--figure", str(tmp_path / "figure.png")]
    main(arguments)
    assert "relative error: average over 4 seeds" in capsys.readouterr().out
    found = osc.load_sweep(tmp_path / "store")
    np.testing.assert_allclose(found.amplitude, [0.1, 0.2, 0.4])
    assert found.relative_error.shape == (3, 4)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    for text, message in {
        STUDY.replace("batch", "bach"): "unknown key bach",
        STUDY.replace('"phases"', '"phase"'): "estimator='phase' is not one of lock-in, phases, classic",
        STUDY.replace("seeds = 4", 'seeds = "4"'): "seeds='4' is not int",
        STUDY.replace("seeds = 4", "seeds = true"): "seeds=True is not int",
        STUDY.replace("[6]", '[6, "a"]'): "hidden=(6, 'a') is not tuple[int, ...]",
        STUDY + "[network]\nslope = true": "network.slope=True is not float | None",
        STUDY.replace("[axes]", "[axis]"): "has no table [axes]",
        "epochs = 3\n" + STUDY: "epochs does nothing in a gradient_quality study of phases over amplitude",
        "readings = 5\n" + STUDY: "readings does nothing in a gradient_quality study of phases",
        "readings = 5\n"
        + STUDY.replace('"phases"', '"classic"').replace("points = 4\n", ""): "readings does nothing in a",
        "shared_over_batch = true\n" + STUDY: "shared_over_batch does nothing",
        STUDY.replace("from = 0.1", "from = -0.1"): "on a log scale: use positive numbers",
        STUDY.replace("amplitude =", "amplitud ="): "amplitud",
        STUDY + "amplitude = 3": "is no TOML file",
    }.items():
        file.write_text(text)
        with pytest.raises(SystemExit) as stop:
            main([*arguments[:2], "--store", str(tmp_path / "other")])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "other").exists()
