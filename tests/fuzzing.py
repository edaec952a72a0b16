"""Calls with one or two arguments that cannot be right, and what becomes of them: `python -m tests.fuzzing --help`.

Every public callable has a valid call in `calls`. Call number `n` of a seed takes one of them, and puts hostile values
in the place of one argument, or of two: it is the same however many calls are made. It is `refused`, where an error of
oscsim's own says the argument's name, or `accepted`, where nothing that is not finite comes out without a word; all
else is a failure. This runs in a plain process, as a user's is, where shapes and types go unchecked.
"""

import argparse
import array
import collections
import contextlib
import datetime
import decimal
import faulthandler
import fractions
import functools
import inspect
import io
import json
import os
import pathlib
import pickle
import random
import re
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

os.environ["MPLBACKEND"] = "Agg"

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
import scipy.sparse
import xarray

import oscsim as osc
from oscsim.datasets.batches import Batch
from oscsim.sweeps import studies

nan, inf = float("nan"), float("inf")
KEY = jax.random.key(0)
LIMIT = 300
"""Seconds after which a call hangs; a compiled program that cannot be interrupted has twice as many."""


class Theirs(Exception):
    """Raised by a user's own function, and so the user's."""


def fails(*_, **__):
    raise Theirs("of the user's own function")


# The toy.


@functools.cache
def net() -> osc.LayeredNetwork:
    return osc.LayeredNetwork((6, 5, 4), activation=osc.Logistic(), key=KEY)


@functools.cache
def twin() -> osc.FeedForwardNetwork:
    return osc.FeedForwardNetwork((6, 5, 4), key=KEY)


@functools.cache
def neurons() -> osc.LayeredNetwork:
    """Two layers of neurons, of which the last is the output."""
    return osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=KEY)


@functools.cache
def two_ways() -> osc.OwnFeedback:
    return osc.OwnFeedback(neurons(), angle=60.0, key=KEY)


SIGNAL = osc.Rotating(0.2, 100.0)
FIT = {"hidden": (4,), "estimator": osc.Exact(), "epochs": 1}
STEPS = osc.Integration(diffrax.Heun(), steps_per_cycle=64)
X, Y = jax.random.uniform(jax.random.key(1), (3, 6)), jnp.array([0, 1, 2])


@functools.cache
def orbit() -> osc.PeriodicOrbit:
    return osc.periodic_orbit(net(), X, Y, SIGNAL, harmonics=2)


@functools.cache
def run() -> osc.Run:
    return osc.simulate(net(), X, Y, SIGNAL, cycles=2, integration=STEPS, progress=False)


@functools.cache
def lock_in() -> osc.LockIn:
    return osc.LockIn(SIGNAL, integration=STEPS)


@functools.cache
def exact():
    return osc.exact_gradient(net(), X, Y)


@functools.cache
def settled() -> osc.Equilibrium:
    return osc.settle(net(), X, Y)


@functools.cache
def trained() -> osc.Trained:
    own = {"epochs": 1, "key": KEY, "batch_size": 3, "monitor": osc.Monitor(progress=False)}
    return osc.train(twin(), (X, Y), osc.Backpropagation(), optax.sgd(0.1), **own)


def study(key, mean=0.0):
    return {"drawn": mean + jax.random.normal(key)}


def pixels(_):
    return Batch(np.arange(4 * 3072, dtype=np.uint8).reshape(4, 3072), np.zeros(4, np.int32))


@functools.cache
def swept() -> xarray.Dataset:
    return osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=2, key=KEY, progress=False)


@functools.cache
def files() -> pathlib.Path:
    """A folder with a run, a training and a sweep on disk."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="oscsim-fuzz-"))
    run().save(folder / "run.osc")
    osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=2, key=KEY, progress=False, store=folder / "sweep")
    own = {"epochs": 1, "key": KEY, "batch_size": 3, "monitor": osc.Monitor(progress=False)}
    kept = osc.Checkpoints(folder / "training")
    osc.train(twin(), (X, Y), osc.Backpropagation(), optax.sgd(0.1), checkpoints=kept, **own)
    (folder / "val_data").write_bytes(pickle.dumps({"data": np.eye(2, 3072, dtype=np.uint8), "labels": [1, 1000]}))
    pd.DataFrame({"a": [0.1, 0.2, 0.3], "b": [1.0, 2.0, 3.0], "label": ["u", "v", "u"]}).to_csv(
        folder / "table.csv", index=False
    )
    return folder


# The calls: arguments by name; those left out have defaults, and are replaced as well.

Arguments = dict[str, Any]


class Call(NamedTuple):
    """A callable with valid arguments.

    `passes_on` says that nan comes out where nan went in: of functions that work on numbers one by one, of metrics,
    and of what only holds data until they are used.
    """

    function: Callable
    arguments: Arguments
    passes_on: bool = False


def calls() -> dict[str, Call]:
    """A valid call of every public callable, by its name."""
    data, keyed = {"net": net(), "x": X, "y": Y}, {"net": net(), "x": X, "y": Y, "key": KEY}
    found = {**constructors(), **functions(data, keyed), **methods(), **learning(data), **rooms(data), **plots()}
    return {name: Call(*call) for name, call in found.items()}


def constructors() -> dict[str, tuple]:
    sized = {"sizes": (6, 5, 4), "key": KEY}
    image = {"convolutions": [osc.Convolution(2)], "image": (4, 4, 1), "outputs": 2, "key": KEY}
    signal, real = {"amplitude": 0.2, "period": 100.0}, {"intensity": 0.1}
    return {
        **{name: (getattr(osc, name), {}) for name in ("Boxcar", "Exponential", "Hann", "HardTanh", "HoloTanh")},
        **{name: (getattr(osc, name), {}) for name in ("Logistic", "RaisedCosine", "Mean", "PerCycle", "Integration")},
        **{name: (getattr(osc, name), {}) for name in ("AveragePooling", "MaxPooling", "SoftmaxPooling", "Monitor")},
        **{name: (getattr(osc, name), {}) for name in ("Exact", "Tanh", "SiLU", "ReLU", "Identity", "Plateaus")},
        **{name: (getattr(osc, name), {}) for name in ("Backpropagation", "CrossEntropy", "SquaredError")},
        "FeedForwardNetwork": (osc.FeedForwardNetwork, sized),
        "LayeredNetwork": (osc.LayeredNetwork, sized, True),
        "HopfieldNetwork": (osc.HopfieldNetwork, sized | {"cost": osc.CrossEntropy()}, True),
        "ConvolutionalNetwork": (osc.ConvolutionalNetwork, image, True),
        "ConvolutionalFeedForwardNetwork": (osc.ConvolutionalFeedForwardNetwork, image),
        "Convolution": (osc.Convolution, {"channels": 2}),
        "Accuracy": (osc.Accuracy, {"error": 0.01}),
        "Units": (osc.Units, {"time": "ms", "potential": "mV"}),
        "Locked": (osc.Locked, {"residual": 1e-3}),
        "Rotating": (osc.Rotating, signal),
        "Cosine": (osc.Cosine, signal),
        "Staircase": (osc.Staircase, signal | {"points": 4}),
        "Adaptive": (osc.Adaptive, signal),
        "Constant": (osc.Constant, {"value": 0.1, "period": 100.0}),
        "Onset": (osc.Onset, {"teaching": SIGNAL, "cycles": 2}),
        "WhiteNoise": (osc.WhiteNoise, real),
        "OrnsteinUhlenbeck": (osc.OrnsteinUhlenbeck, real | {"correlation_time": 1.0}),
        "Multiplicative": (osc.Multiplicative, real),
        "ReadoutNoise": (osc.ReadoutNoise, {"standard_deviation": 0.1}),
        "StepNoise": (osc.StepNoise, {"standard_deviation": 0.1}),
        "TeachingNoise": (osc.TeachingNoise, {"amplitude": 0.1, "correlation_time": 1.0}),
        "RecordedNoise": (osc.RecordedNoise, {"series": osc.TimeSeries(np.zeros(8), 1.0, repeat=True)}),
        "TimeSeries": (osc.TimeSeries, {"values": np.zeros((8, 6)), "interval": 1.0}),
        "Moving": (osc.Moving, {"function": lambda t, cycle: X}),
        "LockIn": (osc.LockIn, {"teaching": SIGNAL}),
        "AlwaysOn": (osc.AlwaysOn, {"lock_in": lock_in()}),
        "Phases": (osc.Phases, {"amplitude": 0.1}),
        "Orbit": (osc.Orbit, {"period": 100.0}),
        "Classic": (osc.Classic, {"amplitude": 0.1}),
        "OwnFeedback": (osc.OwnFeedback, {"network": neurons(), "angle": 60.0, "key": KEY}, True),
        "FixedFeedback": (osc.FixedFeedback, {"network": neurons(), "feedback": [None, np.zeros((4, 5))]}, True),
        "CorrectedNetwork": (osc.CorrectedNetwork, {"network": two_ways()}, True),
        "MeasuredCorrection": (osc.MeasuredCorrection, {"network": two_ways(), "filter_time": 1000.0}, True),
        "Homeostatic": (osc.Homeostatic, {"estimator": osc.Exact(), "strength": 1.0}),
        "CoupledLearning": (osc.CoupledLearning, {"step": 0.5}),
        "Checkpoints": (osc.Checkpoints, {"folder": "run"}),
        "Validation": (osc.Validation, {"x": X, "y": Y}, True),
        "hardware.DistortedTeaching": (osc.hardware.DistortedTeaching, {"teaching": SIGNAL, "harmonics": (0.1,)}),
        "hardware.ImperfectDemodulator": (osc.hardware.ImperfectDemodulator, {"demodulator": osc.Boxcar()}),
        "hardware.Quantised": (osc.hardware.Quantised, {"function": osc.Tanh(), "resolution": 0.1}),
        "studies.FunctionStudy": (studies.FunctionStudy, {"function": study}),
        "studies.Quantity": (studies.Quantity, {"label": "drawn"}, True),
        "datasets.ArraySource": (osc.datasets.ArraySource, {"x": X, "y": Y}),
        "datasets.FileSource": (osc.datasets.FileSource, {"paths": ["here"], "read": pixels}),
        "sklearn.Classifier.fit": (
            osc.sklearn.Classifier(**FIT).fit,
            {"X": np.asarray(X), "y": np.array([0, 1, 1])},
        ),
        "sklearn.Regressor.fit": (osc.sklearn.Regressor(**FIT).fit, {"X": np.asarray(X), "y": np.ones(3)}),
        "sklearn.Classifier": (fitted(osc.sklearn.Classifier, np.array([0, 1, 1])), FIT),
        "sklearn.Regressor": (fitted(osc.sklearn.Regressor, np.ones(3)), FIT),
    }


def fitted(kind: Callable, y: np.ndarray) -> Callable:
    """The estimator of scikit-learn, which looks at its arguments when it is fitted."""

    def made(**arguments):
        return kind(**arguments).fit(np.asarray(X), y)

    made.__signature__ = inspect.signature(kind)
    return made


def functions(data: Arguments, keyed: Arguments) -> dict[str, tuple]:
    grads = {"estimate": exact(), "exact": exact()}
    noisy = osc.LockIn(
        SIGNAL, integration=osc.Integration(diffrax.Heun(), steps_per_cycle=512), noise=osc.WhiteNoise(1e-6)
    )
    system, inputs = run().system, run().inputs
    now = {"system": system, "state": run().state, "inputs": inputs}
    return {
        "periodic_orbit": (osc.periodic_orbit, data | {"teaching": SIGNAL, "harmonics": 2}),
        "simulate": (osc.simulate, data | {"teaching": SIGNAL, "cycles": 2, "integration": STEPS, "progress": False}),
        "settle": (osc.settle, data),
        "equilibria": (osc.equilibria, keyed | {"starts": 4}),
        "exact_gradient": (osc.exact_gradient, data),
        "suggest": (osc.suggest, data),
        "check_time_scales": (osc.check_time_scales, data | {"teaching": SIGNAL, "cycles_per_input": 3}),
        "check_holomorphic": (osc.check_holomorphic, {"subject": net(), "points": 1}),
        "System.of": (osc.System.of, {"network": net(), "teaching": SIGNAL}),
        "System.with_network": (system.with_network, {"network": net()}),
        "Inputs.of": (osc.Inputs.of, data),
        "begin": (osc.begin, {"system": system, "inputs": inputs}),
        "advance": (osc.advance, now),
        "advance_plastic": (osc.advance_plastic, now | {"rate": 1e-4}),
        "ensemble": (osc.ensemble, keyed | {"lock_in": noisy, "realisations": 2}),
        "cosine": (osc.cosine, grads, True),
        "relative_error": (osc.relative_error, grads, True),
        "norm_ratio": (osc.norm_ratio, grads, True),
        "per_layer": (osc.per_layer, grads | {"metric": osc.cosine}, True),
        "to_dict": (osc.to_dict, {"gradient": exact()}, True),
        "parameters": (osc.parameters, {"network": net()}),
        "linear": (osc.linear, {"weight": jnp.ones((2, 3)), "s": jnp.ones(3)}, True),
        "convolve": (osc.convolve, {"weight": jnp.ones((3, 3, 1, 2)), "s": jnp.ones((4, 4, 1))}, True),
        "register": (osc.register, {"value": study}),
        "citation": (lambda it: osc.citation(it), {"it": SIGNAL}),
        "load": (osc.load, {"path": files() / "training"}),
        "Run.load": (osc.Run.load, {"path": files() / "run.osc"}),
        "load_sweep": (osc.load_sweep, {"path": files() / "sweep"}),
        "accept_changes": (osc.accept_changes, {"store": files() / "sweep"}),
        "summarise": (osc.summarise, {"data": swept(), "resamples": 10}),
        "sweep": (osc.sweep, {"study": study, "axes": {"mean": [0.0, 1.0]}, "seeds": 2, "key": KEY, "progress": False}),
    }


def methods() -> dict[str, tuple]:
    u, output = {"u": jnp.zeros(3)}, {"output": jnp.ones(3), "y": jnp.array(1)}
    activations = (osc.Tanh(), osc.SiLU(), osc.ReLU(), osc.Identity(), osc.Logistic(), osc.HoloTanh(), osc.HardTanh())
    wrapped = (osc.RaisedCosine(), osc.hardware.Quantised(osc.Tanh(), 0.1))
    pools = (osc.AveragePooling(), osc.MaxPooling(), osc.SoftmaxPooling())
    estimators = (
        lock_in(),
        osc.AlwaysOn(lock_in()),
        osc.Phases(0.1, 4),
        osc.Classic(0.1),
        osc.Exact(),
        osc.Orbit(100.0),
    )
    signals = (SIGNAL, osc.Cosine(0.2, 100.0), osc.Staircase(0.2, 100.0, 4), osc.Constant(0.1, 100.0))
    signals += (osc.Onset(SIGNAL, 2), osc.Adaptive(100.0, 0.2), osc.hardware.DistortedTeaching(SIGNAL, (0.1,)))
    time, z = {"t": 0.5}, {"z": jnp.ones((4, 4, 2))}
    return {
        **{f"{type(f).__name__}()": (f, u, True) for f in (*activations, *wrapped)},
        **{f"{type(f).__name__}()": (f, output, True) for f in (osc.CrossEntropy(), osc.SquaredError())},
        **{f"{type(f).__name__}()": (f, z, True) for f in pools},
        **{f"{type(f).__name__}()": (f, {"net": net(), "x": X, "y": Y}) for f in estimators},
        **{f"{type(f).__name__}()": (f, time) for f in signals},
        "Homeostatic()": (osc.Homeostatic(osc.Phases(0.1, 4)), {"net": two_ways(), "x": X, "y": Y}),
        "CoupledLearning()": (osc.CoupledLearning(0.5), {"net": neurons(), "x": X, "y": Y}),
        "Backpropagation()": (osc.Backpropagation(), {"net": twin(), "x": X, "y": Y}),
        "FeedForwardNetwork()": (twin(), {"x": X[0]}, True),
        "StepNoise()": (osc.StepNoise(0.1), {"u": (jnp.zeros((3, 5)),), "key": KEY}, True),
        "LayeredNetwork.replace": (net().replace, {"biases": [np.zeros(5), np.zeros(4)]}),
        "LayeredNetwork.rest": (net().rest, {"batch": 3}),
        "Run.gradient": (run().gradient, {}),
        "PeriodicOrbit.gradient": (orbit().gradient, {}),
        "PeriodicOrbit.multipliers": (orbit().multipliers, {"integration": osc.Integration(steps_per_cycle=64)}),
        "PeriodicOrbit.potentials_at": (orbit().potentials_at, {"time": 10.0}),
        "PeriodicOrbit.activities_at": (orbit().activities_at, {"time": 10.0}),
        "Run.error": (run().error, {}),
        "Run.compare": (run().compare, {}),
        "Run.discarded": (run().discarded, {}),
        "Run.inputs_in": (run().inputs_in, {"cycle": 0}),
        "Run.save": (run().save, {"path": "run.osc"}),
        "Run.export": (run().export, {"path": "run.nc"}),
        "Run.phasors[]": (lambda n: run().phasors[n], {"n": 1}),
        "Phasors.response": (run().phasors.response, {"n": 1}),
        "Equilibria.at": (osc.equilibria(net(), X, starts=4, key=KEY).at, {"choice": 0}),
        "LockIn.system": (lock_in().system, {"net": net()}),
        "ArraySource.batches": (
            lambda **arguments: list(osc.datasets.ArraySource(X, Y).batches(**arguments)),
            {"key": KEY, "epoch": 0, "batch_size": 2, "start": 0},
        ),
        "ArraySource.first": (osc.datasets.ArraySource(X, Y).first, {"count": 1}),
        "FunctionStudy()": (studies.FunctionStudy(study), {"key": KEY}),
    }


def learning(data: Arguments) -> dict[str, tuple]:
    epochs = {"epochs": 1, "key": KEY, "batch_size": 3, "monitor": osc.Monitor(progress=False)}
    rule = {"estimator": osc.Backpropagation(), "optimizer": optax.sgd(0.1)}
    slow = {"teaching": osc.Rotating(0.2, 100.0), "rate": 1e-5, "cycles": 1, "integration": STEPS, "progress": False}
    studied = {"estimator": lambda **_: osc.Backpropagation(), "optimizer": lambda rate: optax.sgd(rate)}
    return {
        "train": (osc.train, {"net": twin(), "data": (X, Y)} | rule | epochs),
        "learn": (osc.learn, {"net": net(), "data": (X, Y)} | slow),
        "layerwise": (osc.layerwise, {"net": net(), "rates": [0.1, 0.2]}),
        "evaluate": (osc.evaluate, data),
        "predict": (osc.predict, {"net": net(), "x": X}),
        "scores": (osc.scores, {"net": net(), "x": X}),
        "studies.training": (
            studies.training,
            {"network": lambda key: twin(), "data": (X, Y), "validation": (X, Y), "epochs": 1, "batch_size": 3}
            | studied,
        ),
        "studies.gradient_quality": (studies.gradient_quality, data),
        "sklearn.Classifier.predict": (_fitted(osc.sklearn.Classifier).predict, {"X": np.asarray(X)}),
        "sklearn.Classifier.predict_proba": (_fitted(osc.sklearn.Classifier).predict_proba, {"X": np.asarray(X)}),
        "sklearn.Regressor.predict": (_fitted(osc.sklearn.Regressor).predict, {"X": np.asarray(X)}),
    }


def _fitted(kind):
    return kind(**FIT).fit(np.asarray(X), np.array([0, 1, 1]))


def rooms(data: Arguments) -> dict[str, tuple]:
    noisy = data | {"noise": osc.WhiteNoise(0.1), "cycles": 3}
    hardware, response, datasets = osc.hardware, osc.response, osc.datasets
    return {
        "hardware.mismatch": (hardware.mismatch, {"net": net(), "key": KEY, "deviation": 0.1}),
        "hardware.quantise": (hardware.quantise, {"net": net(), "resolution": 0.1}),
        "hardware.spread": (hardware.spread, {"net": net(), "key": KEY, "gain": 0.1}),
        "response.anchor_rates": (
            response.anchor_rates,
            {"net": osc.MeasuredCorrection(two_ways(), 1000.0), "x": X, "y": Y},
        ),
        "response.branch_points": (response.branch_points, data | {"directions": 1}),
        "response.convergence_radius": (response.convergence_radius, data),
        "response.optimal_amplitude": (response.optimal_amplitude, noisy | {"period": 100.0}),
        "response.predict_bias": (response.predict_bias, data | {"period": 100.0}),
        "response.predict_gradient": (response.predict_gradient, data | {"period": 100.0}),
        "response.predict_spread": (response.predict_spread, noisy | {"teaching": SIGNAL}),
        "response.stability_map": (response.stability_map, data | {"grid": [0.1, 0.1j], "steps": 4}),
        "response.susceptibility": (response.susceptibility, data | {"omega": 0.1}),
        "datasets.as_labels": (datasets.as_labels, {"y": ["u", "v", "u"]}),
        "datasets.augment": (datasets.augment, {"x": jnp.ones((2, 8, 8, 3)), "key": KEY}),
        "datasets.load": (datasets.load, {"name": "digits"}),
        "datasets.read": (datasets.read, {"path": files() / "table.csv", "target": "label"}),
        "datasets.read_inputs": (datasets.read_inputs, {"path": files() / "table.csv", "target": "label"}),
        "datasets.read_imagenet32": (datasets.read_imagenet32, {"path": files() / "val_data"}),
        "datasets.imagenet32_files": (datasets.imagenet32_files, {"data_dir": files(), "split": "test"}),
        "datasets.stream": (datasets.stream, {"name": "imagenet32", "data_dir": files(), "split": "test"}),
        "models.vgg4": (osc.models.vgg4, {"classes": 2, "width": 0.02, "key": KEY}),
        "models.vgg4_feedforward": (osc.models.vgg4_feedforward, {"classes": 2, "width": 0.02, "key": KEY}),
        "models.vgg6": (osc.models.vgg6, {"classes": 2, "width": 0.02, "key": KEY}),
    }


def plots() -> dict[str, tuple]:
    plot, drawn = osc.plot, {"run": run()}
    history = {"result": trained()}
    return {
        "plot.orbits": (plot.orbits, drawn),
        "plot.traces": (plot.traces, drawn),
        "plot.spectrum": (plot.spectrum, drawn),
        "plot.summary": (plot.summary, drawn | {"exact": exact()}),
        "plot.gradient_error": (plot.gradient_error, drawn | {"exact": exact()}),
        "plot.running_errors": (plot.running_errors, drawn | {"exact": exact()}),
        "plot.running_bars": (plot.running_bars, drawn),
        "plot.animate": (plot.animate, drawn | {"frames": 2}),
        "plot.components": (plot.components, {"estimates": exact(), "exact": exact()}),
        "plot.layers": (plot.layers, {"estimates": exact(), "exact": exact()}),
        "plot.network": (plot.network, {"net": net()}),
        "plot.weights": (plot.weights, {"net": net(), "shape": (2, 3)}),
        "plot.training": (plot.training, history),
        "plot.LiveTraining": (plot.LiveTraining, {"path": "live.png"}),
        "plot.gradient_cosines": (plot.gradient_cosines, {"result": [{"epoch": 1, "cosine/weights[0]": 0.5}]}),
        "plot.learning_curves": (plot.learning_curves, {"results": trained(), "metric": "loss"}),
        "plot.stability": (
            plot.stability,
            {"grid": np.array([[0.1, 0.2], [0.1 + 1j, 0.2 + 1j]]), "settled": np.eye(2) > 0},
        ),
        "plot.sweep_curves": (plot.sweep_curves, {"data": swept(), "name": "drawn"}),
        "plot.sweep_map": (plot.sweep_map, {"data": two_axes(), "name": "drawn"}),
        "plot.use_style": (plot.use_style, {}),
    }


def two_axes() -> xarray.Dataset:
    return osc.sweep(
        lambda key, a, b: {"drawn": a * b}, {"a": [0.1, 0.2], "b": [1.0, 2.0]}, seeds=1, key=KEY, progress=False
    )


MADE = {"Cycle", "Ensemble", "Equilibria", "Equilibrium", "Estimate", "GradientError", "Inputs", "Layers", "Learned"}
MADE |= {
    "PeriodicOrbit",
    "Phasors",
    "Points",
    "RESULTS",
    "Run",
    "State",
    "States",
    "Suggestion",
    "System",
    "TimeScales",
    "Trained",
}
MADE |= {"hardware.MismatchedNetwork", "hardware.UnequalGains", "response.OptimalAmplitude", "response.Spectra"}
MADE |= {"response.BranchPoints", "response.StabilityMap", "response.VarianceTerms"}
MADE |= {"datasets.OwnData", "datasets.Samples", "datasets.Split"}
"""What oscsim gives and nobody makes by hand, and types; how a `System` or `Inputs` is made is called `of`."""


def uncalled(table: Mapping[str, Call]) -> list[str]:
    """Public callables that the table has no call of."""
    rooms = {"": osc, "sklearn.": osc.sklearn, "models.": osc.models, "studies.": studies}
    rooms |= {f"{name}.": getattr(osc, name) for name in ("hardware", "response", "datasets", "plot")}
    missing = []
    for prefix, room in rooms.items():
        names = room.__all__ if hasattr(room, "__all__") else [n for n, it in vars(room).items() if is_own(it, room)]
        for name in names:
            it = getattr(room, name)
            made_by_us = prefix + name in MADE or name.startswith(("Abstract", "_"))
            raised = inspect.isclass(it) and issubclass(it, Exception | Warning)
            if callable(it) and not (inspect.ismodule(it) or made_by_us or raised or prefix + name in table):
                missing.append(prefix + name)
    return missing


def is_own(it: Any, room: Any) -> bool:
    """Whether something is defined in this module."""
    return getattr(it, "__module__", "") == room.__name__


# The values. Functions, so that each call has its own.


class Traced(NamedTuple):
    """A value that the call sees while jax traces it."""

    value: Any


class Duck:
    """An array by its methods, that fails when it is asked for."""

    shape, ndim, dtype, size = (3, 6), 2, np.dtype(float), 18

    def __array__(self, *_, **__):
        raise Theirs("of the user's own array")

    def __len__(self):
        return 3


def halved(network, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, network)


def values() -> dict[str, Callable[[], Any]]:
    """The hostile values, by what they are."""
    numbers = (
        0,
        1,
        -1,
        3,
        2.5,
        0.1,
        -0.1,
        nan,
        inf,
        -inf,
        1e30,
        -1e30,
        1e308,
        1e-30,
        5e-324,
        1j,
        complex(nan, 0),
        True,
    )
    numbers += (False, 2**31, 2**40, 2**63, -(2**63), 10**30)
    numpys = (np.float16(0.5), np.float32(0.1), np.float64(nan), np.float64(0.3), np.int8(-1), np.int64(2**40))
    numpys += (np.uint8(200), np.bool_(True), np.complex64(1j), np.datetime64("2026-01-01"), np.timedelta64(3, "s"))
    numpys += (np.str_("x"), np.bytes_(b"x"), np.longdouble(0.1), fractions.Fraction(1, 3), decimal.Decimal("0.1"))
    texts = ("", "x", "0", "nan", "rest ", "a/b/c", "s3://bucket/key", "~nobody_here/x", "\0", "x" * 5000, b"x", "é")
    plain = (
        None,
        Ellipsis,
        NotImplemented,
        (),
        [],
        {},
        (1,),
        (1, 2),
        [1, 2, 3],
        (0.1, 0.2),
        [None],
        (None, None),
        ["a"],
    )
    plain += ({"a": 1}, {0: [0]}, {1: [0, 99]}, {0: "all"}, {None: None}, [[1, 2], [3]], range(3), slice(None), {1, 2})
    plain += ((2, 3, 4), (nan, nan), ((), ()), datetime.date(2026, 1, 1), datetime.timedelta(1), object, int, type)
    found = {repr(v)[:60]: functools.partial(lambda v: v, v) for v in (*numbers, *numpys, *texts, *plain)}
    return found | arrays() | objects() | traced()


def arrays() -> dict[str, Callable[[], Any]]:
    x = np.asarray(X)
    rows = {
        "jnp scalar": lambda: jnp.array(0.3),
        "jnp nan": lambda: jnp.array(nan),
        "jnp int": lambda: jnp.array(2),
        "jnp bool": lambda: jnp.array(True),
        "zeros(3)": lambda: jnp.zeros(3),
        "ones((2, 3))": lambda: jnp.ones((2, 3)),
        "ones((3, 6))": lambda: np.ones((3, 6), np.float32),
        "x.T": lambda: X.T,
        "zeros(0)": lambda: np.zeros(0),
        "zeros((0, 6))": lambda: np.zeros((0, 6)),
        "zeros((3, 0))": lambda: jnp.zeros((3, 0)),
        "seven axes": lambda: jnp.zeros((1,) * 7),
        "x with nan": lambda: X.at[1, 2].set(nan),
        "x with inf": lambda: np.where(x > 0.5, inf, x),
        "all nan": lambda: np.full(3, nan),
        "1e300": lambda: np.full((3, 6), 1e300),
        "labels from -1": lambda: np.array([-1, 0, 1]),
        "large labels": lambda: jnp.array([0, 1, 99]),
        "float labels": lambda: np.array([0.0, 1.0, 2.0]),
        "one label": lambda: jnp.array([0]),
        "bools": lambda: np.array([True, False, True]),
        "int64": lambda: np.array([0, 1, 2**40]),
        "uint8": lambda: np.array([0, 1, 255], np.uint8),
        "complex": lambda: X + 1j,
        "float16": lambda: X.astype(jnp.float16),
        "bfloat16": lambda: X.astype(jnp.bfloat16),
        "other bytes": lambda: x.astype(">f4"),
        "masked": lambda: np.ma.masked_greater(x, 0.5),
        "structured": lambda: np.zeros(3, [("a", float), ("b", int)]),
        "datetimes": lambda: np.array(["2026-01-01"] * 3, "datetime64[D]"),
        "timedeltas": lambda: np.array([1, 2, 3], "timedelta64[s]"),
        "objects": lambda: np.array([None, "a", 1], object),
        "numbers in objects": lambda: x.astype(object),
        "ragged objects": lambda: np.array([np.zeros(1), np.zeros(2), None], object),
        "text": lambda: np.array([["a", "b"], ["c", "d"]]),
        "array of None": lambda: np.array(None),
        "not contiguous": lambda: np.ones((6, 12))[::2, ::2],
        "memory": lambda: memoryview(b"abc"),
        "array.array": lambda: array.array("d", [1.0, 2.0]),
        "sparse": lambda: scipy.sparse.csr_array(x),
        "frame": lambda: pd.DataFrame(x),
        "frame with gaps": lambda: pd.DataFrame([[1, None], [2, 3]], dtype="Int64"),
        "series": lambda: pd.Series(["a", None, "b"]),
        "categories": lambda: pd.Categorical(["u", "v", "u"]),
        "labelled": lambda: xarray.DataArray(x, dims=("a", "b")),
        "dataset": lambda: xarray.Dataset({"a": ("b", np.zeros(2))}),
        "no data": lambda: xarray.Dataset(),
        "of a shape": lambda: jax.ShapeDtypeStruct((3, 6), jnp.float32),
        "float0": lambda: np.zeros(3, jax.dtypes.float0),
        "duck": Duck,
    }
    keys = {
        "key": lambda: jax.random.key(1),
        "keys": lambda: jax.random.split(KEY),
        "old key": lambda: jax.random.PRNGKey(0),
        "other key": lambda: jax.random.key(0, impl="rbg"),
        "key of zero": lambda: jnp.array(0),
    }
    return rows | keys


def objects() -> dict[str, Callable[[], Any]]:
    ours = {
        "LayeredNetwork": net,
        "FeedForwardNetwork": twin,
        "other sizes": lambda: osc.LayeredNetwork((3, 4, 2), key=KEY),
        "Hopfield": lambda: osc.HopfieldNetwork((6, 5, 4), key=KEY),
        "bfloat16 network": lambda: halved(net(), jnp.bfloat16),
        "float16 network": lambda: halved(net(), jnp.float16),
        "nan network": lambda: jax.tree.map(lambda a: a * nan, net()),
        "complex network": lambda: jax.tree.map(lambda a: a * 1j, net()),
        "network of NumPy": lambda: jax.tree.map(np.asarray, net()),
        "not holomorphic": lambda: osc.LayeredNetwork((6, 5, 4), activation=osc.ReLU(), key=KEY),
        "mismatched": lambda: osc.hardware.mismatch(net(), KEY, deviation=0.1),
        "two ways": two_ways,
        "corrected": lambda: osc.CorrectedNetwork(two_ways()),
        "gradient": exact,
        "parameters": lambda: osc.parameters(net()),
        "gradient of none": lambda: jax.tree.map(lambda _: None, exact()),
        "gradient of nan": lambda: jax.tree.map(lambda a: a * nan, exact()),
        "zero gradient": lambda: jax.tree.map(jnp.zeros_like, exact()),
        "run": run,
        "state": lambda: run().state,
        "inputs": lambda: run().inputs,
        "system": lambda: run().system,
        "phasors": lambda: run().phasors,
        "equilibrium": settled,
        "activities": lambda: settled().activities,
        "trained": trained,
        "estimate": lambda: osc.Estimate(exact(), jnp.zeros(()), settled().activities, jnp.zeros(()), osc.RESULTS.lag),
        "sweep": swept,
        "Rotating": lambda: SIGNAL,
        "fast": lambda: osc.Rotating(0.1, 1.0),
        "Staircase": lambda: osc.Staircase(0.2, 100.0, 4),
        "Adaptive": lambda: osc.Adaptive(100.0, 0.2),
        "Constant": lambda: osc.Constant(0.1, 100.0),
        "WhiteNoise": lambda: osc.WhiteNoise(0.1),
        "StepNoise": lambda: osc.StepNoise(0.1),
        "ReadoutNoise": lambda: osc.ReadoutNoise(0.1),
        "Boxcar": lambda: osc.Boxcar(),
        "Plateaus": lambda: osc.Plateaus(),
        "LockIn": lock_in,
        "Phases": lambda: osc.Phases(0.1, 2),
        "Tanh": osc.Tanh,
        "CrossEntropy": osc.CrossEntropy,
        "MaxPooling": osc.MaxPooling,
        "Integration": lambda: osc.Integration(),
        "Mean": lambda: osc.Mean(),
        "Locked": lambda: osc.Locked(1e-3),
        "Monitor": lambda: osc.Monitor(progress=False),
        "Moving": lambda: osc.Moving(lambda t, cycle: X),
        "result": lambda: osc.RESULTS.lag,
        "the package": lambda: osc,
    }
    kinds = ("LayeredNetwork", "Rotating", "Hann", "LockIn", "Tanh", "Integration", "Run", "WhiteNoise", "CrossEntropy")
    ours |= {f"class {name}": functools.partial(getattr, osc, name) for name in kinds}
    others = {
        "Heun": diffrax.Heun,
        "class Tsit5": lambda: diffrax.Tsit5,
        "Kvaerno3": lambda: diffrax.Kvaerno3(),
        "PID": lambda: diffrax.PIDController(1e-3, 1e-3),
        "sgd": lambda: optax.sgd(0.1),
        "class sgd": lambda: optax.sgd,
        "Linear": lambda: eqx.nn.Linear(6, 4, key=KEY),
        "axes": lambda: plt.subplots()[1],
        "polar axes": lambda: plt.subplots(subplot_kw={"projection": "polar"})[1],
        "several axes": lambda: plt.subplots(2)[1],
        "figure": lambda: plt.figure(),
        "path": lambda: pathlib.Path("missing") / "x",
        "here": lambda: pathlib.Path("."),
        "random": lambda: np.random.default_rng(0),
        "file": lambda: io.StringIO("x"),
        "object": object,
        "error": lambda: ValueError("x"),
        "lock": threading.Lock,
        "generator": lambda: (i for i in range(3)),
        "iterator": lambda: iter([0.1, 0.2]),
    }
    callables = (print, len, fails, jnp.tanh, jnp.abs, np.sin, osc.simulate, lambda: None, lambda *_, **__: None)
    callables += (lambda *_, **__: "x", lambda *_, **__: jnp.full(3, nan))
    others |= {f"function {i}": functools.partial(lambda f: f, f) for i, f in enumerate(callables)}
    return ours | others


def traced() -> dict[str, Callable[[], Any]]:
    return {
        "traced number": lambda: Traced(0.3),
        "traced integer": lambda: Traced(2),
        "traced bool": lambda: Traced(True),
        "traced row": lambda: Traced(jnp.ones(3)),
        "traced x": lambda: Traced(X),
        "traced labels": lambda: Traced(Y),
        "traced key": lambda: Traced(KEY),
        "traced network": lambda: Traced(net()),
        "traced gradient": lambda: Traced(exact()),
        "traced state": lambda: Traced(run().state),
        "traced inputs": lambda: Traced(run().inputs),
    }


# What becomes of a call.


class Hang(BaseException):
    """The time limit."""


class Outcome(NamedTuple):
    """What became of a call: `accepted`, `refused`, or the kind of its failure; where, and in which words."""

    kind: str
    site: str = ""
    words: str = ""


def drawn(
    seed: int, number: int, table: Mapping[str, Call], hostile: Mapping[str, Callable]
) -> tuple[str, dict[str, str]]:
    """The call of that number: its name, and which values replace which arguments."""
    rng = random.Random(f"{seed}/{number}")
    name, argument = rng.choice([(name, a) for name, call in table.items() for a in arguments_of(call)])
    chosen = [argument]
    others = [a for a in arguments_of(table[name]) if a != argument]
    if others and rng.random() < 0.11:
        chosen.append(rng.choice(others))
    return name, {a: rng.choice(list(hostile)) for a in chosen}


def arguments_of(call: Call) -> list[str]:
    """The names of all arguments of a callable."""
    parameters = inspect.signature(call.function).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return list(dict.fromkeys([*call.arguments, *(p.name for p in parameters if p.kind not in kinds)]))


STARTS_PROCESSES = {("sweep", "workers"): ("3", "1", "jnp int", "np.uint8(200)", "200")}
"""What is right, and takes long: processes of their own."""


def outcome(call: Call, replaced: Mapping[str, Any]) -> Outcome:
    """What becomes of a call with other arguments."""
    arguments = call.arguments | replaced
    traced = {name: value.value for name, value in arguments.items() if type(value) is Traced}
    fixed = {name: value for name, value in arguments.items() if name not in traced}

    try:
        with warnings.catch_warnings(record=True) as told, quiet():
            warnings.simplefilter("always")
            if traced:
                parts, still = eqx.partition(traced, lambda a: eqx.is_array_like(a))
                jax.eval_shape(lambda parts: (call.function(**fixed, **eqx.combine(parts, still)), None)[1], parts)
                return Outcome("accepted")
            result = call.function(**arguments)
    except Theirs:
        return Outcome("refused")
    except Hang:
        return Outcome("hang", where(sys.exc_info()[1])[1])
    except Exception as error:
        return judged(call, replaced, error)
    warned = any(issubclass(one.category, UserWarning) for one in told)
    said = call.passes_on or warned or tells(result)
    if not said and (lost := not_finite(result) - not_finite(base(call)) - UNKNOWN.get(type(result), set())):
        return Outcome("silent nan", f"{sorted(lost)[:3]}", type(result).__name__)
    return Outcome("accepted")


UNKNOWN: dict[type, set[str]] = {osc.Run: {".change"}}
"""What is nan where it is unknown, as its documentation says."""

BASES: dict[int, Any] = {}


def base(call: Call) -> Any:
    """What the valid call gives."""
    if id(call) not in BASES:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            BASES[id(call)] = call.function(**call.arguments)
    return BASES[id(call)]


def judged(call: Call, replaced: Mapping[str, Any], error: Exception) -> Outcome:
    """Whether an error is ours, and names an argument."""
    inside, site = where(error)
    words = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, PHYSICS) or (isinstance(error, OSError) and (inside or error.filename is not None)):
        return Outcome("refused")
    functions = [value.__qualname__ for value in replaced.values() if inspect.isroutine(value)]
    if any(str(error).startswith(f"{name}() takes") for name in functions) or raised_by(replaced.values(), error):
        return Outcome("refused")  # of a function of the user's own
    if type(error).__module__ != "oscsim.core.errors":
        return Outcome("bare" if inside else "foreign", site, words)
    if not any(named(name, str(error)) for name in replaced):
        other = any(named(name, str(error)) for name in arguments_of(call))
        return Outcome("names another" if other else "unnamed", site, words)
    return Outcome("refused")


def raised_by(given: Iterable[Any], error: Exception) -> bool:
    """Whether an error was raised within an object that was given to be called, or a copy of it."""
    called = set()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        match frame.f_code.co_name, frame.f_locals:
            case "__call__", {"self": it}:
                called.add(type(it))
            case "with_checks", {"args": (it, *_), "call": call} if call.__name__ == "__call__":
                called.add(type(it))
    return any(type(value) in called for value in given)


PHYSICS = (
    osc.DivergenceError,
    osc.MaxStepsError,
    osc.NotSettledError,
    osc.NotHolomorphicError,
    osc.InexactGradientError,
)
"""What comes of arguments that are right one by one; these name layers, cycles and samples."""

PARTS = {"net": "weights|biases|phi|activation|time_constant|coupling", "data": "x|y", "until": "error|residual"}
PARTS |= {"validation": "x|y", "name": "data_dir|split", "subject": PARTS["net"] + "|points"}
PARTS |= {"network": f"net|{PARTS['net']}", "study": "at mean", "z": "image", "data_dir": "path", "path": "store|data"}
PARTS |= {"demodulator": "Plateaus", "teaching": "period|amplitude", "activation": "weight"}
"""What is named in the place of a whole."""


def named(name: str, message: str) -> bool:
    """Whether a message speaks of an argument."""
    names = f"{name}|{PARTS[name]}" if name in PARTS else name
    words = "is|has|have|holds|are|was|must|needs|of|cannot|and|with|takes|belongs|on|asks|gives|or"
    after = rf"(?=[=\[:(,;]|'s | ({words}) |$)"
    ends = after if len(name) == 1 else r"(?!\w)"
    return re.search(rf"(?<![\w'])({names}){ends}", message) is not None


def where(error: BaseException | None) -> tuple[bool, str]:
    """Whether an error was raised in a line of oscsim, and the last such line."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    package = str(pathlib.Path(osc.__file__).parent)
    ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(package)]
    if not ours:
        return False, "outside"
    last = frames[ours[-1]]
    return ours[-1] == len(frames) - 1, f"{pathlib.Path(last.filename).relative_to(package)}:{last.lineno} {last.name}"


def tells(result: Any) -> bool:
    """Whether a result says by its own flags that it is not right."""
    match result:
        case object(valid=valid):
            return not bool(valid)
        case object(diverged=diverged):
            return bool(np.any(diverged))
        case osc.response.StabilityMap(settled=settled):
            return not bool(np.all(settled))
    return False


def not_finite(result: Any) -> set[str]:
    """The parts of a result that hold nan or infinity."""
    if isinstance(result, xarray.Dataset):
        result = {str(name): array.values for name, array in result.items()}
    leaves = jax.tree_util.tree_leaves_with_path(result)
    return {jax.tree_util.keystr(path) for path, leaf in leaves if _is_broken(leaf)}


def _is_broken(leaf: Any) -> bool:
    match leaf:
        case jax.core.Tracer():
            return False
        case float() | complex() | np.inexact():
            return not np.isfinite(leaf)
        case np.ndarray() | jax.Array() if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return not bool(jnp.all(jnp.isfinite(leaf)))
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed, no figure left open, an empty folder, and a time limit."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    there = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        signal.alarm(LIMIT)
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            os.chdir(there)
            plt.close("all")


def main() -> None:
    """Make the calls; print each failure as a line of JSON, and the counts in the end."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=int(datetime.date.today().strftime("%Y%m%d")))
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    options = parser.parse_args()
    jax.config.update("jax_traceback_filtering", "off")
    table, hostile, counts = calls(), values(), collections.Counter()
    for number in range(options.first, options.first + options.calls):
        name, chosen = drawn(options.seed, number, table, hostile)
        if any(value in STARTS_PROCESSES.get((name, argument), ()) for argument, value in chosen.items()):
            counts["left out"] += 1
            continue
        print(f"\r{number} {name} {chosen}", end="", file=sys.stderr, flush=True)
        found = outcome(table[name], {argument: hostile[value]() for argument, value in chosen.items()})
        counts[found.kind] += 1
        if found.kind not in ("accepted", "refused", "names another"):
            print(json.dumps({"number": number, "call": name, "replaced": chosen, **found._asdict()}), flush=True)
        if number % 500 == 499:
            jax.clear_caches()
    print(json.dumps({"seed": options.seed, "counts": counts, "uncalled": uncalled(table)}), flush=True)


if __name__ == "__main__":
    main()
