"""Bad input gets an error of the right type, which names the argument, its value and the remedy, before anything runs.

Run as a script, this file evaluates `REFUSED` in a plain process, as a user's is: warnings are errors, shapes and types
go unchecked. `test_refused` compares that with the table, and with the same calls under the import hook of the tests,
where an annotation may refuse a type before the check of our own does.
"""

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import hypothesis.extra.numpy as npst
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import oscsim as osc
from oscsim.dynamics.integration import Plan

nan, inf = float("nan"), float("inf")
X, Y = np.full((2, 3), 0.5, np.float32), np.array([0, 1])
SIGNAL = osc.Rotating(0.1, 100.0)
FIXED = {"integration": osc.Integration(solver=diffrax.Euler(), steps_per_cycle=64)}
KEY = jax.random.key(0)

positive = st.floats(1e-3, 1e3)
not_positive = st.sampled_from([0.0, nan, inf, -inf]) | st.floats(-1e3, -(2.0**-10), width=32)
few = settings(max_examples=25)


@functools.cache
def network(sizes=(3, 4, 2)):
    return osc.LayeredNetwork(sizes, key=KEY)


@functools.cache
def passing(activation, sizes=(3, 4, 2)):
    return osc.LayeredNetwork(sizes, key=KEY, activation=activation())


def timed(time_constant):
    return osc.LayeredNetwork((3, 4, 4, 2), key=KEY, time_constant=time_constant)


def sim(net=None, x=X, y=Y, teaching=SIGNAL, cycles=1, **kwargs):
    net = network() if net is None else net
    return osc.simulate(net, x, y, teaching, cycles=cycles, progress=False, **kwargs)


@functools.cache
def run():
    return sim(cycles=2, **FIXED)


def broken(value):
    return eqx.tree_at(lambda n: n.weights[0], network(), network().weights[0] * value)


def halved(dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, network())


def sparse(values):
    return scipy.sparse.csr_array(values)


def grad(sizes=(3, 4, 2)):
    return osc.parameters(network(sizes))


@functools.cache
def orbit():
    return osc.periodic_orbit(network(), X, Y, SIGNAL, harmonics=2)


@functools.cache
def fitted():
    return osc.sklearn.Classifier(estimator=osc.Exact(), epochs=1).fit(X, Y)


def masked():
    return jax.tree.map(lambda a: np.ma.masked_less(a, 0), grad())


def nothing():
    """What jax gives as the derivative with respect to an integer."""
    return np.zeros(2, jax.dtypes.float0)


def traced(function, value=2):
    """A call with a value that jax traces."""
    return jax.eval_shape(lambda a: (function(a), None)[1], value)


class Duck:
    """Called like a signal, and none."""

    period = 100.0

    def __call__(self, t, cycle=0):
        return 0.1 * jnp.exp(2j * jnp.pi * t / self.period)


class Signal(osc.AbstractTeaching):
    """A user's own signal."""

    value: Callable
    period: Any = 100.0

    def __call__(self, t, cycle=0):
        return self.value(t)

    def __repr__(self):
        return "Signal()"


class Own(osc.AbstractNetwork):
    """A user's own network, of one layer."""

    form: str = eqx.field(static=True, default="right")
    weights: jax.Array = eqx.field(default_factory=lambda: jnp.ones(4))
    activation = osc.Tanh()
    shapes = ((4,),)
    input_shape = (3,)
    outputs = 2

    def clamp(self, x):
        return jnp.sum(x) * self.weights

    def phi(self, clamped, s, y, beta):
        (s,) = s
        if self.form == "vector":
            return clamped * s
        if self.form == "real":
            return jnp.sum(clamped * s.real)
        size = jnp.abs(s) if self.form == "abs" else s
        return jnp.sum(clamped * size) - beta * jnp.sum((s - y) ** 2)


# What is called: the type of the error, and what the message holds.
REFUSED = {
    # data
    "sim(x=np.ones((2, 5)))": (ValueError, "x has shape (2, 5)", "takes (batch, 3)"),
    "sim(x=np.ones(3))": (ValueError, "x has shape (3,)", "use x[None]"),
    "sim(x=np.ones((2, 3, 1)))": (ValueError, "x has shape (2, 3, 1)", "takes (batch, 3)"),
    "sim(x=1.0)": (ValueError, "x has shape ()", "takes (batch, 3)"),
    "sim(x=Y, y=X)": (ValueError, "x has shape (2,)", "takes (batch, 3)"),
    "sim(x=np.ones((0, 3)), y=[])": (ValueError, "x has shape (0, 3)", "one sample at least"),
    "sim(y=np.array([], int))": (ValueError, "y has shape (0,)", "one sample at least"),
    "sim(y=1)": (ValueError, "y has shape ()", "batch axes come first"),
    "sim(y=[0])": (ValueError, "x holds 2 samples and y holds 1", "one target per input"),
    "sim(y=[0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "sim(y=[0, -1])": (ValueError, "y has labels from -1 to 0", "classes 0 to 1"),
    "sim(y=[0.0, 1.0])": (
        TypeError,
        "y holds float64 labels",
        "use integers, or one-hot or real targets of shape (batch, 2)",
    ),
    "sim(y=[True, False])": (TypeError, "y holds bool labels", "use integers"),
    "sim(y=[[0], [1]])": (ValueError, "y has shape (2, 1)", "labels (batch,), or one-hot or real targets (batch, 2)"),
    "sim(y=np.ones((2, 3)))": (ValueError, "y has shape (2, 3)", "one-hot or real targets (batch, 2)"),
    "sim(x=X * nan)": (ValueError, "x[0, 0] is nan", "remove"),
    "sim(x=jnp.asarray(X) * inf)": (ValueError, "x[0, 0] is inf", "remove"),
    "sim(x=np.full((2, 3), 1e300))": (ValueError, "x[0, 0] is 1e+300, not finite in float32", "remove"),
    "sim(y=[[0.0, 1.0], [nan, 0.0]])": (ValueError, "y[1, 0] is nan", "remove"),
    "sim(x=X + 0j)": (TypeError, "x is complex64", "use x.real"),
    "sim(y=np.eye(2) + 0j)": (TypeError, "y is complex128", "use y.real"),
    "sim(x=[['a', 'b', 'c']] * 2)": (TypeError, "x holds <U1", "give numbers"),
    "sim(x=None)": (TypeError, "x is None", "give numbers"),
    # scikit-learn/scikit-learn#27576: sparse matrices; #25078, #12148: what pandas gives for missing values and names
    "sim(x=sparse(X))": (TypeError, "x is sparse, of type csr_array", "use x.toarray()"),
    "sim(y=sparse(np.eye(2)))": (TypeError, "y is sparse, of type csr_array", "use y.toarray()"),
    "sim(x=pd.DataFrame([[1, 2, None], [1, 2, 3]], dtype='Int64'))": (TypeError, "x[0, 2] is <NA>", "give numbers"),
    "sim(x=np.array([[0, 1.5, 'b'], [0, 1, 2]], object))": (TypeError, "x[0, 2] is 'b'", "give numbers"),
    "sim(y=pd.Categorical(['cat', 'dog']))": (
        TypeError,
        "y[0] is 'cat'",
        "datasets.as_labels(y) makes numbers of names",
    ),
    "sim(y=['0', '1'])": (TypeError, "y holds <U1", "give numbers"),
    "sim(x=[[1, 2, 3], [1, 2]])": (ValueError, "x is no array", "give one of shape (batch, ...)"),
    "sim(x=lambda cycle: jnp.ones((2, 5)))": (ValueError, "x has shape (2, 5)", "takes (batch, 3)"),
    "sim(y=lambda cycle: jnp.array([0, 7]))": (ValueError, "y has labels from 0 to 7", "classes 0 to 1"),
    "osc.settle(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.exact_gradient(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.LockIn(SIGNAL)(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.Phases(0.1)(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.Classic(0.1)(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.Exact()(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.suggest(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.check_holomorphic(network(), X, [0, 2])": (ValueError, "y has labels from 0 to 2", "classes 0 to 1"),
    "osc.check_holomorphic(network(), np.ones(3), [0])": (ValueError, "x has shape (3,)", "use x[None]"),
    # networks
    "network((3, 2))": (ValueError, "sizes=(3, 2)", "an input, one layer of neurons or more, and an output"),
    "network(())": (ValueError, "sizes=()", "an input, one layer of neurons or more, and an output"),
    "network((3, 0, 2))": (ValueError, "sizes=(3, 0, 2)", "as positive integers"),
    "network((3, 4.5, 2))": (ValueError, "sizes=(3, 4.5, 2)", "as positive integers"),
    "network((3, 'a', 2))": (TypeError, "sizes=(3, 'a', 2)", "as positive integers"),
    "network(5)": (TypeError, "sizes=5", "as positive integers"),
    # patrick-kidger/equinox#863: arrays of NumPy for what is fixed when a network is compiled
    "osc.LayeredNetwork(np.array([3, 4, 2]), key=KEY)": (TypeError, "sizes=array([3, 4, 2])", "integers in a tuple"),
    "osc.Boxcar(np.array([0, 1]))": (TypeError, "harmonics=array([0, 1])", "distinct integers in a tuple"),
    # jax-ml/jax#19376: several keys for one
    "osc.LayeredNetwork((3, 4, 2), key=jax.random.split(KEY))": (ValueError, "keys of shape (2,)", "give one of them"),
    "sim(noise=osc.WhiteNoise(0.1), key=jax.random.split(KEY))": (ValueError, "keys of shape (2,)", "give one of them"),
    # pyqtgraph/pyqtgraph#921: an array where a name could stand, compared with it element by element
    "sim(start=np.zeros((2, 4)))": (ValueError, "start is of type ndarray", "with one array per layer"),
    "osc.LockIn(SIGNAL, start=np.zeros(2))": (ValueError, "start=array([0., 0.])", "use 'rest', 'settled' or 'locked'"),
    "osc.PerCycle(neurons=np.array([0, 1]))": (TypeError, "neurons=array([0, 1])", "'all', or {layer: indices}"),
    # brainpy/BrainPy#539, rtqichen/torchdiffeq#255: half precision
    "sim(halved(jnp.bfloat16))": (TypeError, "weights[0] is bfloat16", "use weights[0].astype(jnp.float32)"),
    "osc.settle(halved(jnp.float16), X, Y)": (TypeError, "weights[0] is float16", "use weights[0].astype(jnp.float32)"),
    "osc.HopfieldNetwork((3, 4), key=KEY)": (ValueError, "sizes=(3, 4)", "inputs, neurons and outputs"),
    "osc.HopfieldNetwork((3, 4, 4, 2), key=KEY)": (ValueError, "sizes=(3, 4, 4, 2)", "inputs, neurons and outputs"),
    "osc.HopfieldNetwork((3, 2, 4), key=KEY, cost=osc.SquaredError())": (
        ValueError,
        "sizes=(3, 2, 4)",
        "no more outputs than neurons",
    ),
    "osc.LayeredNetwork((3, 4, 2), key=0)": (TypeError, "key=0", "use jax.random.key"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, scale=-1.0)": (ValueError, "scale=-1", "not negative"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, scale=nan)": (ValueError, "scale=nan", "finite"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, cost='mse')": (TypeError, "cost='mse'", "such as CrossEntropy()"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, cost=osc.CrossEntropy)": (TypeError, "cost=<class", "an instance"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, activation='tanh')": (TypeError, "activation='tanh'", "such as Logistic()"),
    "osc.LayeredNetwork((3, 4, 2), key=KEY, activation=osc.Logistic)": (TypeError, "activation=<class", "an instance"),
    "osc.Logistic(slope='steep')": (TypeError, "slope='steep'", "use real numbers"),
    "osc.Logistic(centre=nan)": (ValueError, "centre=nan", "finite"),
    "osc.HoloTanh(width=0.0)": (ValueError, "width=0", "positive"),
    "osc.HoloTanh(a=inf)": (ValueError, "a=inf", "finite"),
    "osc.HardTanh(width=-1.0)": (ValueError, "width=-1", "positive"),
    "osc.RaisedCosine(1j)": (TypeError, "a=1j", "use real numbers"),
    "sim(timed(0.0))": (ValueError, "time_constant of layer 1 is 0", "positive"),
    "sim(timed((1.0, -1.0)))": (ValueError, "time_constant of layer 2 is -1", "positive"),
    "sim(timed((1.0, jnp.array([1.0, 1.0, 0.0, 1.0]))))": (ValueError, "time_constant of layer 2 is", "positive"),
    "sim(timed((1.0,)))": (ValueError, "time_constant has 1 entries for 2 layers", "one entry per layer"),
    "sim(timed(jnp.ones(3)))": (ValueError, "time_constant of layer 1 has shape (3,)", "one per neuron"),
    "timed('slow')": (TypeError, "time_constant='slow'", "use real numbers"),
    "timed(1j)": (TypeError, "time_constant=1j", "use real numbers"),
    "sim(broken(nan))": (ValueError, "weights[0]", "not finite", "build the network anew"),
    "sim(broken(1j))": (TypeError, "weights[0] is complex64", "use weights[0].real"),
    "osc.settle(broken(nan), X, Y)": (ValueError, "weights[0]", "not finite", "build the network anew"),
    "osc.exact_gradient(broken(1j), X, Y)": (TypeError, "weights[0] is complex64", "use weights[0].real"),
    "osc.LockIn(SIGNAL)(broken(1j), X, Y)": (TypeError, "weights[0] is complex64", "use weights[0].real"),
    "osc.Phases(0.1)(broken(nan), X, Y)": (ValueError, "weights[0]", "not finite", "build the network anew"),
    "osc.Classic(0.1)(broken(1j), X, Y)": (TypeError, "weights[0] is complex64", "use weights[0].real"),
    "osc.suggest(broken(nan), X, Y)": (ValueError, "weights[0]", "not finite", "build the network anew"),
    "osc.check_holomorphic(osc.parameters(network()))": (TypeError, "subject is a gradient", "use the network itself"),
    "osc.cosine(10**400, 1.0)": (TypeError, "estimate=1000", "a float holds"),
    "osc.check_holomorphic(broken(nan))": (ValueError, "weights[0]", "not finite", "build the network anew"),
    "sim('net')": (TypeError, "net='net'", "an instance of a network"),
    "osc.settle(osc.LayeredNetwork, X, Y)": (TypeError, "net=<class", "an instance of a network"),
    "osc.LockIn(SIGNAL)(3, X, Y)": (TypeError, "net=3", "an instance of a network"),
    "osc.Phases(0.1)(3, X, Y)": (TypeError, "net=3", "an instance of a network"),
    "osc.suggest(3, X, Y)": (TypeError, "net=3", "an instance of a network"),
    "sim(Own('vector'))": (TypeError, "phi of Own returns complex64[4]", "return one scalar"),
    "sim(Own('real'))": (TypeError, "phi of Own returns float32[]", "complex for complex activities"),
    "osc.settle(Own('real'), X, Y, 1j)": (TypeError, "phi of Own returns float32[]", "complex for complex activities"),
    # teaching signals
    "osc.Rotating(-1.0, 100.0)": (ValueError, "amplitude=-1", "positive"),
    "osc.Rotating('strong', 100.0)": (TypeError, "amplitude='strong'", "real numbers"),
    "osc.Rotating(1j, 100.0)": (TypeError, "amplitude=1j", "real numbers"),
    "osc.Rotating(jnp.array(1j), 100.0)": (TypeError, "amplitude=", "real numbers"),
    "osc.Rotating([0.1, 0.2], 100.0)": (ValueError, "amplitude has shape (2,)", "use one number"),
    "osc.Rotating(0.1, None)": (TypeError, "period=None", "real numbers"),
    "osc.Rotating(0.1, 100.0, nan)": (ValueError, "phase=nan", "finite"),
    "osc.Constant(nan, 100.0)": (ValueError, "value=nan", "finite"),
    "osc.Constant(0.1, 0.0)": (ValueError, "period=0", "positive"),
    "osc.Staircase(0.1, 100.0, 1)": (ValueError, "points=1", "use 2 (symmetric) or more"),
    "osc.Staircase(0.1, 100.0, 2.5)": (ValueError, "points=2.5", "use 2 (symmetric) or more"),
    "osc.Staircase(0.1, 100.0, 'ten')": (TypeError, "points='ten'", "use 2 (symmetric) or more"),
    "osc.Onset(SIGNAL, 0)": (ValueError, "cycles=0", "positive"),
    "sim(teaching=osc.Rotating(0.1, 3.0))": (ValueError, "period=3", "2 pi tau = 6.28", "use period >= 50"),
    "sim(teaching=osc.Rotating(0.1, 30.0))": (UserWarning, "period=30 is below 50 tau = 50", "biased by O((tau / pe"),
    "osc.LockIn(osc.Rotating(0.1, 3.0))(network(), X, Y)": (ValueError, "period=3", "2 pi tau", "use period >= 50"),
    "osc.LockIn(osc.Rotating(0.1, 60.0), extrapolate=True)(network(), X, Y)": (UserWarning, "period=30 is below 50"),
    "sim(timed((1.0, 20.0)))": (ValueError, "period=100", "2 pi tau = 126", "use period >= 1000"),
    "sim(timed((1.0, jnp.array([1.0, 1.0, 1.0, 3.0]))))": (UserWarning, "period=100 is below 50 tau = 150"),
    "sim(teaching=0.4)": (TypeError, "teaching=0.4", "a signal with a period"),
    "sim(teaching=osc.Rotating)": (TypeError, "teaching=<class", "a signal with a period"),
    "sim(teaching=osc.Phases(0.1))": (TypeError, "teaching=Phases", "a signal with a period"),
    "osc.LockIn('fast')(network(), X, Y)": (TypeError, "teaching='fast'", "a signal with a period"),
    "sim(teaching=osc.Onset(osc.Tanh(), 1))": (TypeError, "teaching=Tanh()", "a signal with a period"),
    "sim(teaching=Duck())": (TypeError, "teaching=<", "a signal with a period", "a class below AbstractTeaching"),
    "osc.LockIn(SIGNAL, integration=diffrax.Heun())": (TypeError, "integration=Heun()", "use Integration(solver="),
    "sim(teaching=Signal(jnp.cos, nan))": (ValueError, "period=nan", "positive, finite"),
    "sim(teaching=Signal(jnp.cos, inf))": (ValueError, "period=inf", "positive, finite"),
    "sim(teaching=Signal(jnp.cos, 'long'))": (TypeError, "period='long'", "real numbers"),
    "sim(teaching=Signal(np.cos))": (TypeError, "teaching=Signal()", "write it with jax.numpy"),
    "sim(teaching=Signal(lambda t: jnp.ones(7)))": (ValueError, "an array of shape (7,)", "return one number"),
    "SIGNAL(nan)": (ValueError, "t=nan", "use finite numbers, up to 1e+30"),
    "SIGNAL(1e38)": (ValueError, "t=1e+38", "use finite numbers, up to 1e+30"),
    "osc.Onset(SIGNAL, 2)(0.0, inf)": (ValueError, "cycle=inf", "use finite numbers"),
    "osc.hardware.DistortedTeaching(SIGNAL, (0.1,))(jnp.array(nan))": (ValueError, "t=", "use finite numbers"),
    "osc.settle(network(), jax.random.key(0), Y)": (osc.BadType, "x holds key", "give numbers"),
    "SIGNAL(nothing())": (TypeError, "t=", "use real numbers"),
    "osc.SquaredError()(nothing(), 0)": (TypeError, "output=", "give an array of numbers"),
    "orbit().potentials_at(inf)": (ValueError, "time=inf", "use finite numbers, up to 1e+30"),
    "orbit().activities_at(nan)": (ValueError, "time=nan", "use finite numbers, up to 1e+30"),
    # counts
    "sim(cycles=0)": (ValueError, "cycles=0", "use a positive integer"),
    "sim(cycles=1.5)": (ValueError, "cycles=1.5", "use a positive integer"),
    "sim(cycles=nan)": (ValueError, "cycles=nan", "use a positive integer"),
    "sim(cycles='3')": (TypeError, "cycles='3'", "use a positive integer"),
    "sim(cycles=None)": (TypeError, "cycles=None", "use a positive integer"),
    "osc.LockIn(SIGNAL, cycles=inf)": (ValueError, "cycles=inf", "use a positive integer"),
    "osc.LockIn(SIGNAL, cycles=3, discard=3)": (ValueError, "discard=3 leaves nothing of 3 cycles", "use 0 to 2"),
    "osc.LockIn(SIGNAL, discard=0.5)": (ValueError, "discard=0.5", "use 0 or a positive integer"),
    "osc.Mean(-1)": (ValueError, "discard=-1", "use 0 or a positive integer"),
    "sim(cycles=3, record=osc.Mean(3))": (ValueError, "Mean(discard=3) leaves nothing of 3", "discard fewer"),
    "osc.PerCycle(-1)": (ValueError, "neurons=-1", "use 0 or a positive integer"),
    "sim(record='mean')": (TypeError, "record='mean'", "use PerCycle() or Mean()"),
    "sim(record=osc.Mean)": (TypeError, "record=<class", "use PerCycle() or Mean()"),
    "run().gradient(2)": (ValueError, "discard=2: 2 cycle(s) were recorded", "use 0 to 1"),
    "run().gradient(-1)": (ValueError, "discard=-1", "use 0 or a positive integer"),
    "run().gradient(0.5)": (ValueError, "discard=0.5", "use 0 or a positive integer"),
    # steps, ticks, solvers, demodulators
    "osc.Integration(ticks=0)": (ValueError, "ticks=0", "use a positive integer"),
    "osc.Integration(ticks=True)": (ValueError, "ticks=True", "use a positive integer"),
    "osc.Integration(ticks=2.5)": (ValueError, "ticks=2.5", "use a positive integer"),
    "osc.Integration(steps_per_cycle=-64)": (ValueError, "steps_per_cycle=-64", "use a positive integer"),
    "osc.Integration(steps_per_cycle='64')": (TypeError, "steps_per_cycle='64'", "use a positive integer"),
    "osc.Integration(steps_per_cycle=100, ticks=64)": (
        ValueError,
        "steps_per_cycle=100",
        "ticks=64",
        "use 128, or leave ticks",
    ),
    "sim(teaching=osc.Staircase(0.1, 100.0, 4), integration=osc.Integration(ticks=6))": (
        ValueError,
        "ticks=6",
        "4 plateaus",
        "use 4",
    ),
    "sim(teaching=osc.Staircase(0.1, 100.0, 4), integration=osc.Integration(ticks=8))": (
        ValueError,
        "ticks=8",
        "Plateaus()",
        "or use Boxcar()",
    ),
    "sim(teaching=osc.Staircase(0.1, 100.0, 4), integration=osc.Integration(steps_per_cycle=6))": (
        ValueError,
        "steps_per_cycle=6",
        "use 8",
    ),
    "sim(demodulator=osc.Plateaus())": (ValueError, "ticks=64 with Plateaus()", "use a Staircase"),
    "sim(demodulator='boxcar')": (TypeError, "demodulator='boxcar'", "such as Boxcar()"),
    "sim(demodulator=osc.Boxcar)": (TypeError, "demodulator=<class", "such as Boxcar()"),
    "osc.Integration(steps_per_cycle=64, stepsize_controller=diffrax.PIDController(1e-3, 1e-3))": (
        ValueError,
        "steps_per_cycle and stepsize_controller exclude each other",
        "give equal steps or a controller",
    ),
    "sim(integration=osc.Integration(stepsize_controller=diffrax.ConstantStepSize()))": (
        ValueError,
        "ConstantStepSize()",
        "use steps_per_cycle",
    ),
    "osc.Integration(stepsize_controller=diffrax.PIDController)": (
        TypeError,
        "stepsize_controller=<class",
        "use an instance",
    ),
    "osc.Integration(solver=diffrax.Kvaerno3())": (
        TypeError,
        "solver=Kvaerno3()",
        "explicit ODE solver, such as diffrax.Tsit5()",
    ),
    "osc.Integration(solver=diffrax.ImplicitEuler(), steps_per_cycle=64)": (
        TypeError,
        "solver=ImplicitEuler()",
        "explicit",
    ),
    "osc.Integration(solver=diffrax.Tsit5)": (TypeError, "solver=<class", "an instance"),
    "osc.Integration(solver='Tsit5')": (TypeError, "solver='Tsit5'", "such as diffrax.Tsit5()"),
    "osc.Integration(solver=diffrax.ItoMilstein(), steps_per_cycle=64)": (
        TypeError,
        "solver=ItoMilstein()",
        "ODE solver",
    ),
    "sim(integration=osc.Integration(solver=diffrax.Euler()))": (
        ValueError,
        "solver=Euler() estimates no error",
        "give steps_per_cycle",
    ),
    "osc.LockIn(SIGNAL, integration=osc.Integration(solver=diffrax.Tsit5))": (
        TypeError,
        "solver=<class",
        "an instance",
    ),
    "sim(integration=diffrax.Tsit5())": (TypeError, "integration=Tsit5()", "use Integration(solver="),
    "osc.LockIn(SIGNAL, integration=osc.Integration(steps_per_cycle=65), extrapolate=True)": (
        ValueError,
        "steps_per_cycle=65",
        "an even number",
    ),
    "osc.Boxcar(harmonics=(0,))": (ValueError, "harmonics=(0,)", "0 and 1 among them"),
    "osc.Exponential(harmonics=(1, 2))": (ValueError, "harmonics=(1, 2)", "0 and 1 among them"),
    "osc.Hann(harmonics=(0, 1, 1))": (ValueError, "harmonics=(0, 1, 1)", "distinct"),
    "osc.Boxcar(harmonics=(0, 1, 1.5))": (TypeError, "harmonics=(0, 1, 1.5)", "integers"),
    "osc.Boxcar(harmonics=2)": (TypeError, "harmonics=2", "integers"),
    "osc.Hann(cycles=1)": (ValueError, "cycles=1", "an integer of 2 or more"),
    "osc.Hann(cycles=2.5)": (ValueError, "cycles=2.5", "an integer of 2 or more"),
    "osc.Exponential(cycles=0.0)": (ValueError, "cycles=0", "positive"),
    "sim(cycles=4, demodulator=osc.Hann(4), record=osc.Mean(1))": (ValueError, "discard=1", "discard=3 or more"),
    "osc.LockIn(SIGNAL, demodulator=osc.hardware.ImperfectDemodulator(osc.Hann(4)))": (
        ValueError,
        "cycles=3: the first 3 readings are not whole",
        "use 4 or more",
    ),
    "osc.ensemble(osc.LockIn(SIGNAL, cycles=(6, 6), discard=1, noise=osc.WhiteNoise(1e-6), demodulator=osc.Hann(4)), "
    "network(), X, Y, realisations=2, key=KEY)": (
        ValueError,
        "discard=1: the first 3 readings of Hann",
        "discard=3 or more",
    ),
    "sim(teaching=osc.Rotating(0.1, 200.0), integration=osc.Integration(steps_per_cycle=100))": (
        ValueError,
        "steps_per_cycle=100 makes steps of 2, and the fastest neurons have a time constant of 1",
        "use 200 or more",
    ),
    "run().phasors[2]": (ValueError, "harmonic 2 was not read, only (-1, 0, 1)", "ask the demodulator for it"),
    "sim(key=0)": (TypeError, "key=0", "use jax.random.key"),
    # where a run starts
    "sim(start='foo')": (ValueError, "start='foo'", "use 'rest', 'settled', 'locked', an Equilibrium, or an earlier"),
    "sim(start=None)": (ValueError, "start=None", "use 'rest', 'settled', 'locked', an Equilibrium, or an earlier"),
    "sim(network((3, 5, 2)), start=run())": (ValueError, "start is a state of another network", "'rest' or 'settled'"),
    "sim(network((3, 5, 2)), start=run().state)": (ValueError, "start is a state of another network", "'rest'"),
    "sim(x=X[:1], y=Y[:1], start=run())": (ValueError, "start is a state of another network, batch", "'rest'"),
    "sim(start=run(), demodulator=osc.Hann())": (ValueError, "start is a state of another", "demodulator", "'rest'"),
    # estimators and oracles
    "osc.Phases(-1.0)": (ValueError, "amplitude=-1", "positive"),
    "osc.Phases([0.1, 0.2])": (ValueError, "amplitude has shape (2,)", "use one number"),
    "osc.Phases(0.1, 1)": (ValueError, "points=1", "the one-sided estimate is Classic"),
    "osc.Phases(0.1, 3.5)": (ValueError, "points=3.5", "use 2 (symmetric) or more"),
    "osc.Phases(0.1, tolerance=0.0)": (ValueError, "tolerance=0", "positive"),
    "osc.Phases(0.1, steps=5)": (ValueError, "steps=5", "two positive integers"),
    "osc.Phases(0.1, steps=(0, 5))": (ValueError, "steps=(0, 5)", "two positive integers"),
    "osc.Phases(0.1, steps=(5, 5), tolerance=1e-3)": (ValueError, "steps=(5, 5) and tolerance=0.001", "one of them"),
    "osc.Phases(0.1, noise=osc.StepNoise(0.1))": (ValueError, "noise needs steps=(T1, T2)"),
    "osc.Phases(0.1, steps=(5, 5), noise=0.1)": (TypeError, "noise=0.1", "use StepNoise"),
    "osc.Phases(0.1, steps=(5, 5), noise=osc.StepNoise(0.1))(network(), X, Y)": (
        ValueError,
        "key is None",
        "random key",
    ),
    "osc.StepNoise(-0.1)": (ValueError, "standard_deviation=-0.1", "not negative"),
    "osc.StepNoise(nan)": (ValueError, "standard_deviation=nan", "finite"),
    "osc.Classic(0)": (ValueError, "amplitude=0", "a finite number other than 0"),
    "osc.Classic(0.1, noise=osc.StepNoise(0.1))": (ValueError, "noise needs steps=(T1, T2)"),
    "osc.Classic(0.1, steps=(5, 5), noise=osc.WhiteNoise(0.1))": (TypeError, "WhiteNoise(", "use StepNoise"),
    "osc.Classic(0.1, steps=(5, 5), readings=3)": (ValueError, "readings=3 without noise", "leave it out"),
    "osc.Classic(0.1, steps=(5, 5), noise=osc.StepNoise(0.1))(network(), X, Y)": (ValueError, "key is None"),
    "osc.Classic(1j)": (TypeError, "amplitude=1j", "real numbers"),
    "osc.Exact('adjoint')": (ValueError, "method='adjoint'", "use 'implicit' or 'bptt'"),
    "osc.exact_gradient(network(), X, Y, 'adjoint')": (ValueError, "method='adjoint'", "use 'implicit' or 'bptt'"),
    "osc.exact_gradient(network(), X, Y, tolerance=-1.0)": (ValueError, "tolerance=-1", "positive"),
    "osc.exact_gradient(network(), X, Y, 'bptt', max_steps=0)": (ValueError, "max_steps=0", "positive integer"),
    "sim(until=osc.Locked(0.0))": (ValueError, "residual=0", "positive"),
    "sim(until=0.0)": (ValueError, "error=0", "positive"),
    "osc.settle(network(), X, Y, tolerance=nan)": (ValueError, "tolerance=nan", "positive"),
    "osc.settle(network(), X, Y, tolerance='tight')": (TypeError, "tolerance='tight'", "real numbers"),
    "osc.settle(network(), X, Y, max_steps=0)": (ValueError, "max_steps=0", "positive integer"),
    "osc.settle(network(), X, Y, method='newton')": (ValueError, "method='newton'", "use 'sweeps', 'flow'"),
    "osc.equilibrium.Sweeps(memory=-1)": (ValueError, "memory=-1", "0 or a positive integer"),
    "osc.settle(network(), X, Y, nan)": (ValueError, "beta=nan", "finite"),
    "osc.settle(network(), X, Y, 'strong')": (TypeError, "beta='strong'", "one real or complex number"),
    "osc.settle(network(), X, Y, [0.1, 0.2, 0.3])": (
        ValueError,
        "beta has shape (3,)",
        "one number, or one per sample",
    ),
    "osc.settle(network(), X, Y, start=(jnp.ones((2, 5)),))": (ValueError, "start has", "((2, 5),)", "((2, 4),)"),
    "osc.settle(network(), X, Y, start=(jnp.full((2, 4), nan),))": (ValueError, "start holds", "leave it out"),
    "osc.suggest(network(), X, Y, bias=0.0)": (ValueError, "bias=0", "a fraction between 0 and 1"),
    "osc.suggest(network(), X, Y, bias=1.0)": (ValueError, "bias=1", "a fraction between 0 and 1"),
    "osc.suggest(network(), X, Y, bias='small')": (TypeError, "bias='small'", "real numbers"),
    "osc.cosine(grad(), grad((3, 5, 2)))": (ValueError, "(4, 3)", "(5, 3)", "gradients of the same network"),
    "osc.relative_error(grad(), None)": (ValueError, "exact has []", "gradients of the same network"),
    "osc.norm_ratio({}, {})": (ValueError, "estimate has shapes []", "gradients of the same network"),
    "osc.per_layer(osc.cosine, grad(), grad((3, 5, 2)))": (ValueError, "(4, 3)", "(5, 3)", "the same network"),
    "osc.relative_error(masked(), grad())": (TypeError, "estimate is a masked array", "use estimate.filled(value)"),
    "osc.plot.components(grad(), masked())": (TypeError, "exact is a masked array", "use exact.filled(value)"),
    "osc.cosine('foo', grad())": (TypeError, "estimate='foo'", "a pytree of arrays"),
    # what has no complex derivative
    "sim(passing(osc.HardTanh))": (
        osc.NotHolomorphicError,
        "HardTanh",
        "the complex signal Rotating",
        "or a real signal",
    ),
    "sim(passing(osc.ReLU))": (osc.NotHolomorphicError, "ReLU", "the complex signal Rotating", "or a real signal"),
    "sim(passing(osc.HardTanh), teaching=osc.Staircase(0.1, 100.0, 4))": (
        osc.NotHolomorphicError,
        "HardTanh",
        "Staircase",
        "Use a",
    ),
    "sim(passing(osc.HardTanh), teaching=osc.Onset(SIGNAL, 1))": (
        osc.NotHolomorphicError,
        "HardTanh",
        "Onset",
        "Use a",
    ),
    "osc.LockIn(SIGNAL)(passing(osc.HardTanh), X, Y)": (osc.NotHolomorphicError, "HardTanh", "Rotating", "Use a"),
    "osc.Phases(0.1, 3)(passing(osc.HardTanh), X, Y)": (
        osc.NotHolomorphicError,
        "HardTanh",
        "3 complex points",
        "points=2",
    ),
    "osc.Phases(0.1, 3, steps=(5, 5))(passing(osc.HardTanh), X, Y)": (
        osc.NotHolomorphicError,
        "HardTanh",
        "3 complex points",
    ),
    "osc.settle(passing(osc.HardTanh), X, Y, 0.5j)": (
        osc.NotHolomorphicError,
        "HardTanh",
        "settling at beta=0.5j",
        "a real signal",
    ),
    "osc.suggest(passing(osc.ReLU), X, Y)": (osc.NotHolomorphicError, "ReLU", "a rotating signal", "Use a"),
    "osc.check_holomorphic(osc.HardTanh(), points=1)": (osc.NotHolomorphicError, "HardTanh by", "Look there for abs"),
    "osc.check_holomorphic(Own('abs'), points=1)": (osc.NotHolomorphicError, "phi in s[0]", "Look there for abs"),
    "osc.check_holomorphic(Own('real'), points=1)": (osc.NotHolomorphicError, "phi in s[0]", "Look there for abs"),
    "osc.check_holomorphic(jnp.abs, points=1)": (osc.NotHolomorphicError, "abs by", "Look there for abs"),
    "osc.check_holomorphic(jnp.real, points=1)": (osc.NotHolomorphicError, "real by", "Look there for abs"),
    "osc.check_holomorphic(jnp.conj, points=1)": (osc.NotHolomorphicError, "conj by", "Look there for abs, conj"),
    "osc.check_holomorphic('tanh')": (TypeError, "subject='tanh'", "use a network, or a function"),
    "osc.check_holomorphic(osc.Tanh(), points=0)": (ValueError, "points=0", "positive integer"),
    "osc.check_holomorphic(osc.Tanh(), spread=nan)": (ValueError, "spread=nan", "positive"),
    # data sets and files
    "osc.datasets.load('mnits')": (ValueError, "name='mnits'", "use 'digits'"),
    "osc.datasets.load('digits', 'validation')": (ValueError, "split='validation'", "use 'train' or 'test'"),
    "osc.Run.load('missing.osc')": (FileNotFoundError, "missing.osc"),
    "osc.load('')": (ValueError, "path=''", "'.' for the folder that Python runs in"),
    "osc.datasets.ArraySource(X, np.array(['2026-01-01'] * 2, 'datetime64[D]'))": (TypeError, "y holds datetime64[D]"),
    "osc.datasets.ArraySource(np.array([None, 'a'], object), Y)": (TypeError, "x[0] is None", "give numbers"),
    "osc.datasets.FileSource(['here'], len)": (TypeError, "read=<built-in function len> cannot be called"),
    # what is asked for is more than there can be
    "osc.response.optimal_amplitude(network(), X, Y, 1e30, osc.WhiteNoise(0.1), 3)": (
        ValueError,
        "period=1e+30 takes",
        "use a shorter one",
    ),
    "osc.response.optimal_amplitude(network(), X, Y, 1e12, osc.WhiteNoise(0.1), 3, ticks=8)": (
        ValueError,
        "ticks=8 in period=1e+12",
        "use a shorter period",
    ),
    # a user's own functions
    "osc.layerwise(network(), [0.1, 0.2], osc.Hann)": (TypeError, "make=<class", "cannot be called with 0.1"),
    "osc.per_layer(len, grad(), grad())": (TypeError, "metric=<built-in function len>", "cannot be called with"),
    "osc.plot.layers(grad(), grad(), metric=lambda *_: None)": (
        TypeError,
        "metric(weights[0])=None",
        "use real numbers",
    ),
    "osc.plot.layers(grad(), grad(), metric=jnp.add)": (ValueError, "metric(weights[0]) has shape", "one number"),
    "sim(passing(lambda: np.sin))": (TypeError, "activation=<ufunc 'sin'> makes no activities"),
    "sim(passing(lambda: repr))": (TypeError, "activation=<built-in function repr> makes no activities"),
    "osc.settle(passing(lambda: sum), X, Y)": (
        ValueError,
        "activation=<built-in function sum>",
        "changes the shape of potentials",
    ),
    "osc.check_holomorphic(len)": (TypeError, "subject=<built-in function len>", "it returns integers"),
    # what is looked at, within a function that jax traces
    "traced(lambda width: osc.models.vgg4(width=width, key=KEY))": (TypeError, "width is traced", "outside"),
    "traced(lambda a: osc.response.stability_map(network(), a, Y, [0.1]), X)": (TypeError, "x is traced", "outside"),
    "traced(lambda a: osc.scores(network(), a), X)": (TypeError, "x is traced", "outside"),
    "traced(lambda a: osc.evaluate(network(), X, a), Y)": (TypeError, "y is traced", "outside"),
    "traced(lambda start: osc.learn(network(), (X, Y), SIGNAL, rate=1e-4, cycles=1, start=start), X)": (
        TypeError,
        "start is traced",
        "outside",
    ),
    "traced(lambda a: osc.equilibria(network(), X, Y, key=KEY, scale=a), 1.0)": (TypeError, "scale is traced"),
    "traced(lambda n: osc.check_holomorphic(network(), shape=n))": (TypeError, "shape=", "give a tuple or a list"),
    "traced(lambda n: osc.sweep(dict, {'a': 1.0}, seeds=1, key=KEY, block=n))": (TypeError, "block=", "integer"),
    "traced(lambda a: osc.sweep(dict, {'a': 1.0}, seeds=1, key=KEY, store=a))": (TypeError, "store=", "give a path"),
    "osc.sklearn.Classifier(()).fit(X, Y)": (ValueError, "hidden=()", "one size or more"),
    "fitted().predict(np.full((2, 3), 1e300))": (ValueError, "X: x[0, 0] is 1e+300, not finite in float32"),
    "osc.sklearn.Regressor().fit(X, np.array([1, 2], 'm8[s]'))": (TypeError, "y holds timedelta64[s]", "give numbers"),
    "traced(lambda n: osc.sklearn.Classifier(epochs=n).fit(X, Y))": (TypeError, "epochs=", "use a positive integer"),
}

COMPILED = {"_run_chunk", "averaged", "_realised", "_settled", "_stepped", "_settled_phases", "_stepped_phases"}
COMPILED |= {"_sweep_inputs", "settle_by_flow", "implicit_gradient", "_bptt_gradient"}
COMPILED |= {"_slowest_gain", "_coefficients", "_backpropagated"}
"""What takes long to compile; a name here counts for all that hold it."""


def outcome(call):
    """The classes and the message of what a call of the table raises."""
    try:
        result = eval(call)
    except Exception as error:
        return [kind.__name__ for kind in type(error).__mro__], str(error)
    return ["accepted"], repr(result)


def main():
    """Print for every call what it raises, and what it compiled on the way."""
    sources = "".join(path.read_text("utf-8") for path in Path(osc.__file__).parent.rglob("*.py"))
    assert [name for name in COMPILED if f"def {name}(" not in sources] == []
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, fun_name="", **_: "backend_compile" in event and compiled.append(fun_name)
    )
    run(), orbit(), fitted()  # outside of the count
    assert any("_run_chunk" in name for name in compiled)
    outcomes = {}
    for call in REFUSED:
        compiled.clear()
        outcomes[call] = *outcome(call), [name for name in COMPILED for c in compiled if name in c]
    print(json.dumps(outcomes))


@pytest.mark.slow
def test_refused():
    root = Path(osc.__file__).resolve().parents[1]  # the same package
    environment = {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    plain = subprocess.run(
        [sys.executable, "-W", "error", __file__], env=environment, check=False, capture_output=True, text=True
    )
    assert plain.returncode == 0, plain.stderr
    outcomes = json.loads(plain.stdout)
    wrong = []
    for call, (error, *words) in REFUSED.items():
        kinds, message, compiled = outcomes[call]
        if error.__name__ not in kinds or not all(word in message for word in words):
            wrong.append(f"{call} is to raise {error.__name__} with {words}, it gave\n    {kinds[0]}: {message}")
        if compiled:
            wrong.append(f"{call} compiles {compiled} before it is refused")
        hooked = outcome(call)
        if hooked != (kinds, message) and hooked[0][0] != "TypeCheckError":
            wrong.append(f"{call} gave\n    {kinds[0]}: {message}\nbut under the import hook\n    {hooked}")
    assert not wrong, "\n".join(wrong)


# Data, drawn.


@given(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
def test_any_other_shape_of_inputs(shape):
    x = np.zeros(shape, np.float32)
    if len(shape) == 2 and shape[0] > 0 and shape[1] == 3:
        assert osc.Inputs.of(network(), x, np.zeros(shape[0], int)).clamped.shape == (shape[0], 4)
    else:
        with pytest.raises(ValueError, match="x has shape") as error:
            osc.Inputs.of(network(), x, Y)
        assert str(shape) in str(error.value)


@given(npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), st.booleans())
def test_any_other_shape_of_targets(shape, one_hot):
    x = np.zeros((2, 3), np.float32)
    y = np.zeros(shape, np.float32 if one_hot else np.int32)
    if shape == (2, 2) or (shape == (2,) and not one_hot):
        osc.Inputs.of(network(), x, y)
    else:
        with pytest.raises((ValueError, TypeError), match="y ") as error:
            osc.Inputs.of(network(), x, y)
        assert str(shape) in str(error.value) or f"y holds {shape[0]}" in str(error.value) or len(shape) == 1


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2).filter(lambda y: not set(y) <= {0, 1}))
def test_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=f"y has labels from {min(labels)} to {max(labels)}, .* classes 0 to 1"):
        osc.Inputs.of(network(), X, np.array(labels))


@given(
    st.integers(0, 1), st.integers(0, 2), st.sampled_from([nan, inf, -inf]), st.sampled_from([np.asarray, jnp.asarray])
)
def test_the_sample_that_is_not_finite_is_named(row, column, value, array):
    x = X.copy()
    x[row, column] = value
    with pytest.raises(ValueError, match=rf"x\[{row}, {column}\] is {value}"):
        osc.Inputs.of(network(), array(x), Y)
    y = np.zeros((2, 2), np.float32)
    y[row, column % 2] = value
    with pytest.raises(ValueError, match=rf"y\[{row}, {column % 2}\] is {value}"):
        osc.Inputs.of(network(), X, array(y))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("to_objects", [lambda a: a.astype(object), lambda a: pd.DataFrame(a).convert_dtypes()])
def test_numbers_in_objects_are_numbers(to_objects):
    """scikit-learn/scikit-learn#27482: pandas gives its own numbers, and columns of several types, as objects."""
    x = np.array([[0.5, 1, 2], [1.5, 3, 4]], np.float32)
    found, expected = osc.Inputs.of(network(), to_objects(x), np.array([0, 1], object)), osc.Inputs.of(network(), x, Y)
    assert found.y.dtype == expected.y.dtype
    jax.tree.map(np.testing.assert_array_equal, (found.x, found.y), (expected.x, expected.y))


def test_one_hot_targets_of_integers_are_one_hot_targets():
    labels = osc.Inputs.of(network(), X, Y)
    for dtype in (np.int32, np.uint8, np.float32, bool):
        one_hot = osc.Inputs.of(network(), X, np.eye(2, dtype=dtype))
        s = network().activities(network().rest(2))
        np.testing.assert_array_equal(
            network().loss(one_hot.clamped, s, one_hot.y), network().loss(labels.clamped, s, labels.y)
        )


# Numbers, drawn.


@given(not_positive, positive, st.sampled_from(["amplitude", "period"]))
def test_signals_with_numbers_that_are_not_positive(bad, good, name):
    numbers = {"amplitude": good, "period": good} | {name: bad}
    for signal in (osc.Rotating, osc.Cosine, functools.partial(osc.Staircase, points=4)):
        with pytest.raises(ValueError, match=f"{name}={bad:g}: use a .*finite number"):
            signal(**numbers)


@given(st.lists(st.floats(1.0, 4.0), min_size=2, max_size=2), st.floats(0.01, 120.0))
@few
def test_periods_against_the_slowest_time_constant(taus, ratio):
    net, slowest = timed(tuple(taus)), max(taus)
    signal = osc.Rotating(0.1, ratio * slowest)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if ratio < 2 * np.pi * 0.999:
            with pytest.raises(ValueError, match=r"is shorter than 2 pi tau .*: use period >= "):
                sim(net, teaching=signal)
        elif ratio > 2 * np.pi * 1.001:
            sim(net, teaching=signal, integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=512))
    messages = [str(w.message) for w in caught]
    assert any("is below 50 tau" in m for m in messages) == (2 * np.pi * 1.001 < ratio < 50 * 0.999) or (
        0.998 < ratio / 50 < 1.002
    )


@given(st.lists(not_positive | positive, min_size=1, max_size=4))
def test_time_constants_that_are_not_positive_or_too_many(taus):
    net = timed(tuple(taus))
    if len(taus) != 2:
        with pytest.raises(ValueError, match=f"time_constant has {len(taus)} entries for 2 layers"):
            osc.settle(net, X, Y)
    elif not all(0 < tau < inf for tau in taus):
        first = next(i for i, tau in enumerate(taus) if not 0 < tau < inf)
        with pytest.raises(ValueError, match=f"time_constant of layer {first + 1} is .*positive"):
            osc.settle(net, X, Y)
    else:
        assert jnp.all(osc.settle(net, X, Y).residual < 1e-3)


@given(st.integers(-5, 0), st.integers(1, 5), st.integers(-5, 12))
def test_counts_of_cycles(too_few, cycles, discard):
    with pytest.raises(ValueError, match=f"cycles={too_few}: use a positive integer"):
        sim(cycles=too_few)
    with pytest.raises(ValueError, match=f"cycles={too_few}: use a positive integer"):
        osc.LockIn(SIGNAL, cycles=too_few)
    if 0 <= discard < cycles:
        assert osc.LockIn(SIGNAL, cycles=cycles, discard=discard).discard == discard
        return
    with pytest.raises(ValueError, match=f"discard={discard}"):
        osc.LockIn(SIGNAL, cycles=cycles, discard=discard)
    with pytest.raises(ValueError, match=f"discard={discard}"):
        sim(cycles=cycles, record=osc.Mean(discard))
    discard += 2 * (discard >= 0)  # this run is of two cycles
    with pytest.raises(ValueError, match=f"discard={discard}"):
        run().gradient(discard)


@given(st.integers(-3, 200), st.integers(-3, 70))
def test_steps_are_a_positive_multiple_of_the_ticks(steps, ticks):
    quick = osc.Rotating(0.1, 10.0)  # eight steps follow it
    if steps > 0 and ticks > 0 and steps % ticks == 0:
        integration = osc.Integration(steps_per_cycle=steps, ticks=ticks)
        if ticks >= 8:
            assert Plan.of(integration, None, network(), quick, ()).ticks == ticks
        else:
            with pytest.raises(ValueError, match=f"ticks={ticks} .* at least 8"):
                Plan.of(integration, None, network(), quick, ())
        return
    with pytest.raises(ValueError, match=f"steps_per_cycle={steps}|ticks={ticks}") as error:
        osc.Integration(steps_per_cycle=steps, ticks=ticks)
    if steps > 0 and ticks > 0:  # the remedy is one
        remedy = int(str(error.value).split("use ")[1].split(",")[0])
        osc.Integration(steps_per_cycle=remedy, ticks=ticks)


@given(st.lists(st.integers(-2, 4), max_size=5))
def test_harmonics_are_distinct_and_hold_0_and_1(harmonics):
    for demodulator in (osc.Boxcar, osc.Exponential, osc.Hann):
        if {0, 1} <= set(harmonics) and len(set(harmonics)) == len(harmonics):
            assert demodulator(harmonics=tuple(harmonics)).harmonics == tuple(harmonics)
        else:
            with pytest.raises(ValueError, match=r"harmonics=.*0 and 1 among them"):
                demodulator(harmonics=tuple(harmonics))


@given(st.lists(st.integers(-2, 6), max_size=5))
@few
def test_sizes_of_networks(sizes):
    right = len(sizes) >= 3 and min(sizes) > 0
    for make, fits in ((osc.LayeredNetwork, right), (osc.HopfieldNetwork, right and len(sizes) == 3)):
        if fits:
            assert make(tuple(sizes), key=KEY).sizes == tuple(sizes)
        else:
            with pytest.raises(ValueError, match=r"sizes=.*positive integers|sizes=.*inputs, neurons and outputs"):
                make(tuple(sizes), key=KEY)


@given(
    st.text(max_size=8).filter(
        lambda name: name not in ("rest", "settled", *osc.datasets.NAMES) and not set(name) & set("./~\\")
    )
)
@few
def test_unknown_names(name):  # those of methods and splits are in the table
    for call in (lambda: sim(start=name), lambda: osc.datasets.load(name)):
        with pytest.raises(ValueError, match="use '") as error:
            call()
        assert f"={name!r}: " in str(error.value)


@given(not_positive)
@few
def test_tolerances_and_nudges_that_are_not_positive(bad):
    with pytest.raises(ValueError, match=f"residual={bad:g}: use a positive, finite number"):
        sim(until=osc.Locked(bad))
    for call in (
        lambda: osc.settle(network(), X, Y, tolerance=bad),
        lambda: osc.exact_gradient(network(), X, Y, tolerance=bad),
        lambda: osc.Phases(0.1, tolerance=bad),
    ):
        with pytest.raises(ValueError, match=f"tolerance={bad:g}: use a positive, finite number"):
            call()
    with pytest.raises(ValueError, match=f"amplitude={bad:g}"):
        osc.Phases(bad)
    with pytest.raises(ValueError, match=rf"bias={bad}: use a f"):
        osc.suggest(network(), X, Y, bias=bad)


# Amplitudes beyond convergence.

# RaisedCosine grows exponentially off the real axis: what runs away meets no pole on its way.
RUNAWAY = {
    "adaptive steps": (300.0, {"integration": osc.Integration(solver=diffrax.Bosh3())}),
    "Euler steps": (50.0, {"integration": osc.Integration(solver=diffrax.Euler(), steps_per_cycle=128)}),
}


@pytest.mark.parametrize(("amplitude", "steps"), RUNAWAY.values(), ids=RUNAWAY)
def test_divergence_is_named_or_flagged(amplitude, steps):
    net, signal = passing(osc.RaisedCosine, (3, 4, 4, 2)), osc.Rotating(amplitude, 100.0)
    with pytest.raises(osc.DivergenceError, match=r"in cycle 1: layer [12] of 2.*lower the amplitude") as error:
        sim(net, teaching=signal, cycles=3, **steps)
    assert f"amplitude={amplitude:g}" in str(error.value)

    diverged = sim(net, teaching=signal, cycles=3, throw=False, **steps)
    assert diverged.diverged
    assert diverged.cycles == 1  # there is no way on
    for layer in (*diverged.phasors[0], *diverged.phasors[1]):
        assert np.all(np.isnan(layer[-1]))
    for layer in diverged.state.potentials:
        assert np.all(np.isfinite(layer))  # the last that were
    assert "DIVERGED" in str(diverged)
    with pytest.raises(ValueError, match=r"start is a state that diverged.*a lower amplitude"):
        sim(net, teaching=osc.Rotating(0.1, 100.0), start=diverged, **steps)

    below = sim(net, teaching=osc.Rotating(1e-3, 100.0), **steps)
    assert not below.diverged


@pytest.mark.slow
def test_estimators_name_the_amplitude_that_diverges():
    net = passing(osc.RaisedCosine, (3, 4, 4, 2))
    signal = osc.Rotating(50.0, 100.0)
    with pytest.raises(osc.DivergenceError, match=r"cycle \d: layer \d.*Rotating\(amplitude=50.*lower the"):
        osc.LockIn(signal, integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=128))(net, X, Y)
    with pytest.raises(osc.DivergenceError, match=r"Phases\(amplitude=50.*lower the amplitude"):
        osc.Phases(50.0, 4, steps=(20, 20))(net, X, Y)
    # The cosine of an imaginary number of this size is beyond float32: no luck can settle it.
    with pytest.raises(osc.NotSettledError, match=r"sample [01] did not settle at beta=.*layer [12] .*lower \|beta\|"):
        osc.Phases(1e6, 4)(passing(lambda: osc.RaisedCosine(0.2), (3, 4, 4, 2)), X, Y)


@given(st.floats(70.0, 150.0), st.floats(0.5, 2.5))
@few
def test_settling_past_the_radius_names_layer_sample_and_beta(radius, angle):
    beta = radius * np.exp(1j * angle)
    net = passing(osc.SiLU, (3, 4, 4, 2))
    found = osc.settle(net, X, Y, beta, throw=False)
    assume(bool(jnp.any(found.residual > 1e-6)))
    with pytest.raises(
        osc.NotSettledError, match=r"sample [01] did not .*layer [12] still moves.*lower \|beta\|"
    ) as error:
        osc.settle(net, X, Y, beta)
    assert f"beta={np.complex64(beta):.4g} " in str(error.value)


# What needs no complex derivative.


@pytest.mark.parametrize("teaching", [osc.Cosine(0.1, 100.0), osc.Constant(0.1, 100.0)], ids=["Cosine", "Constant"])
def test_real_signals_pass_through_networks_that_are_not_holomorphic(teaching):
    driven = sim(passing(osc.HardTanh), teaching=teaching, **FIXED)
    assert not driven.diverged
    if isinstance(teaching, osc.Constant):
        with pytest.raises(ValueError, match=r"Constant\(value=0.1.*no first harmonic.*use Rotating, or Classic"):
            driven.gradient()
    else:
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(driven.gradient()))


def test_real_nudges_pass_through_networks_that_are_not_holomorphic():
    net = passing(osc.HardTanh)
    one_sided, symmetric = (estimator(net, X, Y).gradient for estimator in (osc.Classic(0.02), osc.Phases(0.1, 2)))
    assert float(osc.cosine(one_sided, symmetric)) > 0.9


def test_a_lock_in_on_a_signal_that_does_not_turn():
    with pytest.raises(ValueError, match=r"Constant\(value=0.1.*no first harmonic.*use Rotating, or Classic"):
        osc.LockIn(osc.Constant(0.1, 100.0), **FIXED)(network(), X, Y)


# Files.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return run().save(tmp_path_factory.mktemp("bad") / "run.osc")


@given(fraction=st.floats(0.0, 1.0, exclude_max=True))
def test_truncated_files(fraction, saved):
    content, path = saved.read_bytes(), saved.with_name("truncated.osc")
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"truncated.osc is truncated, or not a file that oscsim wrote"):
        osc.Run.load(path)


@given(fraction=st.floats(0.0, 1.0, exclude_max=True), flips=st.integers(1, 255))
def test_damaged_files(fraction, flips, saved):
    content, path = bytearray(saved.read_bytes()), saved.with_name("damaged.osc")
    content[int(fraction * len(content))] ^= flips
    path.write_bytes(content)
    try:
        loaded = osc.Run.load(path)
    except ValueError as error:
        if "damaged.osc" not in str(error):
            raise
    else:  # a byte that means nothing, such as a date
        np.testing.assert_array_equal(loaded.phasors[1][0], run().phasors[1][0])


def foreign(path, content):
    {
        "bytes": lambda: path.write_bytes(b"hello"),
        "npy": lambda: np.save(path, X),
        "npz": lambda: np.savez(path, X),
        "npz with a structure": lambda: np.savez(path, structure=np.asarray("{}")),
        "npz of this format": lambda: np.savez(path, structure=np.asarray('{"format": "oscsim 1"}')),
    }[content]()


@pytest.mark.parametrize("content", ["bytes", "npy", "npz", "npz with a structure", "npz of this format"])
def test_foreign_files(content, tmp_path):
    path = tmp_path / "foreign.npy" if content == "npy" else tmp_path / "foreign.npz"
    foreign(path, content)
    with pytest.raises(
        ValueError, match=r"foreign\..* (not a file that oscsim wrote|was written in another format|is damaged)"
    ):
        osc.Run.load(path)


def test_files_of_something_else(tmp_path):
    from oscsim.core import checkpoint

    path = checkpoint.save(network(), tmp_path / "network.osc")
    with pytest.raises(ValueError, match=r"network.osc holds a LayeredNetwork, not a Run"):
        osc.Run.load(path)


def test_what_cannot_be_saved_is_named_and_leaves_no_file(tmp_path):
    lambdas = eqx.tree_at(lambda r: r.system.network.activation, run(), lambda u: u)
    with pytest.raises(
        ValueError, match=r"Run.system.network.activation is .*<lambda>.*define it by name, and put @osc.register above"
    ):
        lambdas.save(tmp_path / "run.osc")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="missing"):
        run().save(tmp_path / "missing" / "run.osc")


if __name__ == "__main__":
    main()
