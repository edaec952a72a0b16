"""Sweeps: one study at many settings, a store of the results, and summaries over many seeds."""

from oscsim.sweeps import studies
from oscsim.sweeps.grid import sweep
from oscsim.sweeps.store import load_sweep
from oscsim.sweeps.summary import summarise

__all__ = ["load_sweep", "studies", "summarise", "sweep"]
