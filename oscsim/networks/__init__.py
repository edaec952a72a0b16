"""What the neurons are: the scalar Phi and what follows from it."""

from oscsim.networks.activations import (
    AbstractActivation,
    HardTanh,
    HoloTanh,
    Identity,
    Logistic,
    RaisedCosine,
    ReLU,
    SiLU,
    Tanh,
)
from oscsim.networks.base import AbstractNetwork, Layers, linear, parameters
from oscsim.networks.costs import AbstractCost, CrossEntropy, SquaredError
from oscsim.networks.feedforward import FeedForwardNetwork
from oscsim.networks.holomorphy import check_holomorphic
from oscsim.networks.hopfield import HopfieldNetwork
from oscsim.networks.inputs import Inputs
from oscsim.networks.layered import LayeredNetwork

__all__ = [
    "AbstractActivation",
    "AbstractCost",
    "AbstractNetwork",
    "CrossEntropy",
    "FeedForwardNetwork",
    "HardTanh",
    "HoloTanh",
    "HopfieldNetwork",
    "Identity",
    "Inputs",
    "LayeredNetwork",
    "Layers",
    "Logistic",
    "RaisedCosine",
    "ReLU",
    "SiLU",
    "SquaredError",
    "Tanh",
    "check_holomorphic",
    "linear",
    "parameters",
]
