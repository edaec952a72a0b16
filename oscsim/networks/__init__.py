"""Networks: the scalar Phi, and the neurons that follow from it."""

from oscsim.networks import models
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
from oscsim.networks.base import AbstractNetwork, Layers, fastest_neuron, linear
from oscsim.networks.convolutional import Convolution, ConvolutionalNetwork, convolve
from oscsim.networks.costs import AbstractCost, CrossEntropy, SquaredError
from oscsim.networks.directed import AbstractDirectedNetwork
from oscsim.networks.feedback import AbstractFeedback, FixedFeedback, OwnFeedback
from oscsim.networks.feedforward import AbstractFeedForwardNetwork, ConvolutionalFeedForwardNetwork, FeedForwardNetwork
from oscsim.networks.holomorphy import check_holomorphic
from oscsim.networks.hopfield import HopfieldNetwork
from oscsim.networks.inputs import Data, Inputs, are_classes
from oscsim.networks.layered import LayeredNetwork
from oscsim.networks.learned import Gradient, parameters, to_dict
from oscsim.networks.moving import Moving, TimeSeries
from oscsim.networks.pooling import AbstractPooling, AveragePooling, MaxPooling, SoftmaxPooling

__all__ = [
    "AbstractActivation",
    "AbstractCost",
    "AbstractDirectedNetwork",
    "AbstractFeedForwardNetwork",
    "AbstractFeedback",
    "AbstractNetwork",
    "AbstractPooling",
    "AveragePooling",
    "Convolution",
    "ConvolutionalFeedForwardNetwork",
    "ConvolutionalNetwork",
    "CrossEntropy",
    "Data",
    "FeedForwardNetwork",
    "FixedFeedback",
    "Gradient",
    "HardTanh",
    "HoloTanh",
    "HopfieldNetwork",
    "Identity",
    "Inputs",
    "LayeredNetwork",
    "Layers",
    "Logistic",
    "MaxPooling",
    "Moving",
    "OwnFeedback",
    "RaisedCosine",
    "ReLU",
    "SiLU",
    "SoftmaxPooling",
    "SquaredError",
    "Tanh",
    "TimeSeries",
    "are_classes",
    "check_holomorphic",
    "convolve",
    "fastest_neuron",
    "linear",
    "models",
    "parameters",
    "to_dict",
]
