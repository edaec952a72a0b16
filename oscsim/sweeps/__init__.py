"""Sweeps: one study at many settings, a store of the results, and summaries over many seeds."""

from oscsim.sweeps import studies
from oscsim.sweeps.grid import sweep
from oscsim.sweeps.store import accept_changes, load_sweep
from oscsim.sweeps.summary import summarise

__all__ = ["accept_changes", "load_sweep", "studies", "summarise", "sweep"]
