"""oscsim: networks of coupled ODE neurons that learn by oscillating."""

from oscsim import datasets, plot
from oscsim.cycle import Cycle, State, advance, begin
from oscsim.demodulation import AbstractDemodulator, Boxcar, Exponential, Hann, Plateaus
from oscsim.equilibrium import Equilibrium, exact_gradient, settle
from oscsim.errors import DivergenceError, NotHolomorphicError, NotSettledError
from oscsim.estimators import (
    AbstractEstimator,
    AlwaysOn,
    Backpropagation,
    Classic,
    Estimate,
    Exact,
    LockIn,
    Phases,
)
from oscsim.learning import Trained, evaluate, layerwise, load, predict, train
from oscsim.metrics import cosine, norm_ratio, per_layer, relative_error
from oscsim.networks import (
    AbstractActivation,
    AbstractCost,
    AbstractNetwork,
    CrossEntropy,
    FeedForwardNetwork,
    HardTanh,
    HoloTanh,
    HopfieldNetwork,
    Identity,
    Inputs,
    LayeredNetwork,
    Layers,
    Logistic,
    RaisedCosine,
    ReLU,
    SiLU,
    SquaredError,
    Tanh,
    check_holomorphic,
    linear,
    parameters,
)
from oscsim.noise import StepNoise
from oscsim.readings import Phasors, Points
from oscsim.run import Run
from oscsim.simulate import Mean, PerCycle, simulate
from oscsim.suggestion import Suggestion, suggest
from oscsim.teaching import AbstractTeaching, Constant, Cosine, Onset, Rotating, Staircase

__version__ = "0.1.0"

__all__ = [
    "AbstractActivation",
    "AbstractCost",
    "AbstractDemodulator",
    "AbstractEstimator",
    "AbstractNetwork",
    "AbstractTeaching",
    "AlwaysOn",
    "Backpropagation",
    "Boxcar",
    "Classic",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "Cycle",
    "DivergenceError",
    "Equilibrium",
    "Estimate",
    "Exact",
    "Exponential",
    "FeedForwardNetwork",
    "Hann",
    "HardTanh",
    "HoloTanh",
    "HopfieldNetwork",
    "Identity",
    "Inputs",
    "LayeredNetwork",
    "Layers",
    "LockIn",
    "Logistic",
    "Mean",
    "NotHolomorphicError",
    "NotSettledError",
    "Onset",
    "PerCycle",
    "Phases",
    "Phasors",
    "Plateaus",
    "Points",
    "RaisedCosine",
    "ReLU",
    "Rotating",
    "Run",
    "SiLU",
    "SquaredError",
    "Staircase",
    "State",
    "StepNoise",
    "Suggestion",
    "Tanh",
    "Trained",
    "advance",
    "begin",
    "check_holomorphic",
    "cosine",
    "datasets",
    "evaluate",
    "exact_gradient",
    "layerwise",
    "linear",
    "load",
    "norm_ratio",
    "parameters",
    "per_layer",
    "plot",
    "predict",
    "relative_error",
    "settle",
    "simulate",
    "suggest",
    "train",
]
