"""Teaching signals, which turn at the output, and noise: what acts on the neurons from outside."""

from oscsim.signals.coloured_noise import OrnsteinUhlenbeck
from oscsim.signals.multiplicative_noise import Multiplicative
from oscsim.signals.noise import (
    SOLVERS,
    AbstractForcing,
    AbstractNoise,
    AbstractReadoutNoise,
    AbstractTeachingNoise,
    Draw,
    Increment,
    normals,
)
from oscsim.signals.readout_noise import ReadoutNoise
from oscsim.signals.recorded_noise import RecordedNoise
from oscsim.signals.step_noise import StepNoise
from oscsim.signals.teaching import AbstractTeaching, Adaptive, Constant, Cosine, Onset, Rotating, Staircase
from oscsim.signals.teaching_noise import TeachingNoise
from oscsim.signals.white_noise import WhiteNoise

__all__ = [
    "SOLVERS",
    "AbstractForcing",
    "AbstractNoise",
    "AbstractReadoutNoise",
    "AbstractTeaching",
    "AbstractTeachingNoise",
    "Adaptive",
    "Constant",
    "Cosine",
    "Draw",
    "Increment",
    "Multiplicative",
    "Onset",
    "OrnsteinUhlenbeck",
    "ReadoutNoise",
    "RecordedNoise",
    "Rotating",
    "Staircase",
    "StepNoise",
    "TeachingNoise",
    "WhiteNoise",
    "normals",
]
