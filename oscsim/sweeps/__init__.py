"""One study at many settings: the grid, the store that survives anything, one number from many seeds."""

from oscsim.sweeps import studies
from oscsim.sweeps.grid import sweep
from oscsim.sweeps.store import load_sweep
from oscsim.sweeps.summary import summarise

__all__ = ["load_sweep", "studies", "summarise", "sweep"]
