"""Imperfect hardware: networks, signals and demodulators as they would be built, wrapped around ideal ones.

Everything at zero strength is the ideal, bit for bit. Deviations are drawn once, from a key: a device keeps its faults.
"""

from oscsim.hardware.drive import DistortedTeaching, ImperfectDemodulator
from oscsim.hardware.neurons import MismatchedNetwork, UnequalGains, mismatch, spread
from oscsim.hardware.precision import Quantised, quantise

__all__ = [
    "DistortedTeaching",
    "ImperfectDemodulator",
    "MismatchedNetwork",
    "Quantised",
    "UnequalGains",
    "mismatch",
    "quantise",
    "spread",
]
