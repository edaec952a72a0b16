"""oscsim: networks of coupled ODE neurons that learn by oscillating."""

from typing import TYPE_CHECKING, Any

from oscsim import datasets, hardware, paper, plot, response
from oscsim.core.errors import (
    DivergenceError,
    InexactGradientError,
    InexactGradientWarning,
    NotHolomorphicError,
    NotSettledError,
)
from oscsim.dynamics.cycle import advance
from oscsim.dynamics.demodulation import AbstractDemodulator, Boxcar, Exponential, Hann, Plateaus
from oscsim.dynamics.ensembles import Ensemble, ensemble
from oscsim.dynamics.error_bars import GradientError
from oscsim.dynamics.plan import Cycle
from oscsim.dynamics.plastic import advance_plastic
from oscsim.dynamics.readings import Phasors, Points
from oscsim.dynamics.run import Run
from oscsim.dynamics.simulation import Mean, PerCycle, simulate
from oscsim.dynamics.state import State, begin
from oscsim.equilibrium import Equilibria, Equilibrium, States, equilibria, exact_gradient, settle
from oscsim.equilibrium.metrics import cosine, norm_ratio, per_layer, relative_error
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
from oscsim.networks import (
    AbstractActivation,
    AbstractCost,
    AbstractFeedForwardNetwork,
    AbstractNetwork,
    AbstractPooling,
    AveragePooling,
    Convolution,
    ConvolutionalFeedForwardNetwork,
    ConvolutionalNetwork,
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
    MaxPooling,
    RaisedCosine,
    ReLU,
    SiLU,
    SoftmaxPooling,
    SquaredError,
    Tanh,
    check_holomorphic,
    convolve,
    linear,
    models,
    parameters,
)
from oscsim.response.suggestion import Suggestion, suggest
from oscsim.response.time_scales import TimeScales, check_time_scales
from oscsim.signals import (
    AbstractForcing,
    AbstractNoise,
    AbstractReadoutNoise,
    AbstractTeachingNoise,
    Multiplicative,
    OrnsteinUhlenbeck,
    ReadoutNoise,
    StepNoise,
    TeachingNoise,
    WhiteNoise,
)
from oscsim.signals.teaching import AbstractTeaching, Adaptive, Constant, Cosine, Onset, Rotating, Staircase
from oscsim.sweeps import studies
from oscsim.sweeps.grid import sweep
from oscsim.sweeps.store import load_sweep
from oscsim.sweeps.summary import summarise
from oscsim.training.evaluation import evaluate, predict
from oscsim.training.learning import Trained, layerwise, load, train
from oscsim.training.plasticity import Learned, learn

if TYPE_CHECKING:
    from oscsim import lab

__version__ = "0.1.0"

__all__ = [
    "AbstractActivation",
    "AbstractCost",
    "AbstractDemodulator",
    "AbstractEstimator",
    "AbstractFeedForwardNetwork",
    "AbstractForcing",
    "AbstractNetwork",
    "AbstractNoise",
    "AbstractPooling",
    "AbstractReadoutNoise",
    "AbstractTeaching",
    "AbstractTeachingNoise",
    "Adaptive",
    "AlwaysOn",
    "AveragePooling",
    "Backpropagation",
    "Boxcar",
    "Classic",
    "Constant",
    "Convolution",
    "ConvolutionalFeedForwardNetwork",
    "ConvolutionalNetwork",
    "Cosine",
    "CrossEntropy",
    "Cycle",
    "DivergenceError",
    "Ensemble",
    "Equilibria",
    "Equilibrium",
    "Estimate",
    "Exact",
    "Exponential",
    "FeedForwardNetwork",
    "GradientError",
    "Hann",
    "HardTanh",
    "HoloTanh",
    "HopfieldNetwork",
    "Identity",
    "InexactGradientError",
    "InexactGradientWarning",
    "Inputs",
    "LayeredNetwork",
    "Layers",
    "Learned",
    "LockIn",
    "Logistic",
    "MaxPooling",
    "Mean",
    "Multiplicative",
    "NotHolomorphicError",
    "NotSettledError",
    "Onset",
    "OrnsteinUhlenbeck",
    "PerCycle",
    "Phases",
    "Phasors",
    "Plateaus",
    "Points",
    "RaisedCosine",
    "ReLU",
    "ReadoutNoise",
    "Rotating",
    "Run",
    "SiLU",
    "SoftmaxPooling",
    "SquaredError",
    "Staircase",
    "State",
    "States",
    "StepNoise",
    "Suggestion",
    "Tanh",
    "TeachingNoise",
    "TimeScales",
    "Trained",
    "WhiteNoise",
    "advance",
    "advance_plastic",
    "begin",
    "check_holomorphic",
    "check_time_scales",
    "convolve",
    "cosine",
    "datasets",
    "ensemble",
    "equilibria",
    "evaluate",
    "exact_gradient",
    "hardware",
    "lab",
    "layerwise",
    "learn",
    "linear",
    "load",
    "load_sweep",
    "models",
    "norm_ratio",
    "paper",
    "parameters",
    "per_layer",
    "plot",
    "predict",
    "relative_error",
    "response",
    "settle",
    "simulate",
    "studies",
    "suggest",
    "summarise",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """The lab is imported when it is first asked for."""
    if name != "lab":
        raise AttributeError(f"module 'oscsim' has no attribute {name!r}")
    import importlib

    return importlib.import_module("oscsim.lab")
