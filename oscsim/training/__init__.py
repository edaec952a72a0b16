"""From gradients to learning: step by step, or with weights that are part of the equation."""

from oscsim.training.checkpoints import Checkpoints
from oscsim.training.devices import is_first
from oscsim.training.evaluation import evaluate, predict, scores
from oscsim.training.learning import Trained, layerwise, load, train
from oscsim.training.monitor import Monitor, Validation
from oscsim.training.plasticity import Learned, learn

__all__ = [
    "Checkpoints",
    "Learned",
    "Monitor",
    "Trained",
    "Validation",
    "evaluate",
    "is_first",
    "layerwise",
    "learn",
    "load",
    "predict",
    "scores",
    "train",
]
