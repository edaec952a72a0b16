"""Estimators: from a network, inputs and targets to the gradient of the mean loss, each by its own physics.

Every estimator is called the same way, `estimator(net, x, y, key=None)`, and returns an `Estimate`; one with a past,
such as `AlwaysOn`, takes a state and gives the next.
"""

from oscsim.estimators.base import AbstractEstimator, Estimate
from oscsim.estimators.classic import Classic, one_sided
from oscsim.estimators.coupled import CoupledLearning
from oscsim.estimators.ensembles import Ensemble, ensemble
from oscsim.estimators.exact import Backpropagation, Exact
from oscsim.estimators.homeostasis import Homeostatic
from oscsim.estimators.lock_in import AlwaysOn, LockIn
from oscsim.estimators.orbit import Orbit
from oscsim.estimators.phases import Phases

__all__ = [
    "AbstractEstimator",
    "AlwaysOn",
    "Backpropagation",
    "Classic",
    "CoupledLearning",
    "Ensemble",
    "Estimate",
    "Exact",
    "Homeostatic",
    "LockIn",
    "Orbit",
    "Phases",
    "ensemble",
    "one_sided",
]
