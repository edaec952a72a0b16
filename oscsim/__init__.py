"""oscsim: networks of coupled ODE neurons that learn by oscillating."""

from typing import TYPE_CHECKING, Any

from oscsim import datasets, hardware, response
from oscsim.core.errors import (
    BadType,
    BadValue,
    DivergenceError,
    InexactGradientError,
    InexactGradientWarning,
    NotHolomorphicError,
    NotSettledError,
)
from oscsim.dynamics import (
    AbstractDemodulator,
    AbstractRecord,
    AbstractStop,
    Accuracy,
    Boxcar,
    Cycle,
    Exponential,
    GradientError,
    Hann,
    Integration,
    Locked,
    Mean,
    PerCycle,
    Phasors,
    Plateaus,
    Points,
    Run,
    State,
    System,
    advance,
    advance_plastic,
    begin,
    simulate,
)
from oscsim.equilibrium import Equilibria, Equilibrium, States, equilibria, exact_gradient, settle
from oscsim.equilibrium.metrics import cosine, norm_ratio, per_layer, relative_error
from oscsim.estimators import (
    AbstractEstimator,
    AlwaysOn,
    Backpropagation,
    Classic,
    Ensemble,
    Estimate,
    Exact,
    LockIn,
    Phases,
    ensemble,
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
from oscsim.references import citation
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
from oscsim.training.checkpoints import Checkpoints
from oscsim.training.evaluation import evaluate, predict, scores
from oscsim.training.learning import Trained, layerwise, load, train
from oscsim.training.monitor import Monitor, Validation
from oscsim.training.plasticity import Learned, learn

if TYPE_CHECKING:
    from oscsim import lab, paper, plot
    from oscsim.sweeps import load_sweep, studies, summarise, sweep
    from oscsim.training import sklearn

__version__ = "0.2.0"

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
    "AbstractRecord",
    "AbstractStop",
    "AbstractTeaching",
    "AbstractTeachingNoise",
    "Accuracy",
    "Adaptive",
    "AlwaysOn",
    "AveragePooling",
    "Backpropagation",
    "BadType",
    "BadValue",
    "Boxcar",
    "Checkpoints",
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
    "Integration",
    "LayeredNetwork",
    "Layers",
    "Learned",
    "LockIn",
    "Locked",
    "Logistic",
    "MaxPooling",
    "Mean",
    "Monitor",
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
    "System",
    "Tanh",
    "TeachingNoise",
    "TimeScales",
    "Trained",
    "Validation",
    "WhiteNoise",
    "advance",
    "advance_plastic",
    "begin",
    "check_holomorphic",
    "check_time_scales",
    "citation",
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
    "scores",
    "settle",
    "simulate",
    "sklearn",
    "studies",
    "suggest",
    "summarise",
    "sweep",
    "train",
]


_LATER = {
    "lab": "oscsim",
    "paper": "oscsim",
    "plot": "oscsim",
    "sklearn": "oscsim.training",
    "studies": "oscsim.sweeps",
    "load_sweep": "oscsim.sweeps",
    "summarise": "oscsim.sweeps",
    "sweep": "oscsim.sweeps",
}
"""What is imported when it is first asked for, and from where: it brings matplotlib, pandas and xarray."""


def __getattr__(name: str) -> Any:
    """Import what stands in `_LATER`."""
    if name not in _LATER:
        raise AttributeError(f"module 'oscsim' has no attribute {name!r}")
    import importlib

    room = _LATER[name]
    if room in ("oscsim", "oscsim.training"):
        return importlib.import_module(f"{room}.{name}")
    return getattr(importlib.import_module(room), name)
