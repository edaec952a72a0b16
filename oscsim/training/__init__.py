"""From gradients to learning: step by step, or with weights that are part of the equation."""

from oscsim.training.evaluation import evaluate, predict
from oscsim.training.learning import Trained, layerwise, load, train
from oscsim.training.plasticity import Learned, learn

__all__ = ["Learned", "Trained", "evaluate", "layerwise", "learn", "load", "predict", "train"]
