"""From gradients to learning: step by step, or with weights that are part of the equation."""

import importlib
from types import ModuleType

from oscsim.training.devices import is_first
from oscsim.training.evaluation import evaluate, labels_of, predict, scores
from oscsim.training.learning import Trained, layerwise, load, train
from oscsim.training.monitor import Monitor, Validation
from oscsim.training.plasticity import Learned, learn
from oscsim.training.resuming import Checkpoints

__all__ = [
    "Checkpoints",
    "Learned",
    "Monitor",
    "Trained",
    "Validation",
    "evaluate",
    "is_first",
    "labels_of",
    "layerwise",
    "learn",
    "load",
    "predict",
    "scores",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    """Import `sklearn` when it is asked for: it brings scikit-learn, which takes long."""
    if name != "sklearn":
        raise AttributeError(f"module 'oscsim.training' has no attribute {name!r}")
    return importlib.import_module("oscsim.training.sklearn")
