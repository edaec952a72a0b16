"""What disturbs the neurons, the teaching signal and the reading."""

from oscsim.noise.base import AbstractForcing, AbstractNoise, AbstractReadoutNoise, AbstractTeachingNoise, as_noises
from oscsim.noise.coloured import OrnsteinUhlenbeck
from oscsim.noise.multiplicative import Multiplicative
from oscsim.noise.readout import ReadoutNoise
from oscsim.noise.steps import StepNoise
from oscsim.noise.teaching import TeachingNoise
from oscsim.noise.white import WhiteNoise

__all__ = [
    "AbstractForcing",
    "AbstractNoise",
    "AbstractReadoutNoise",
    "AbstractTeachingNoise",
    "Multiplicative",
    "OrnsteinUhlenbeck",
    "ReadoutNoise",
    "StepNoise",
    "TeachingNoise",
    "WhiteNoise",
    "as_noises",
]
