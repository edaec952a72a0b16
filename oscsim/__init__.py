"""oscsim: networks of coupled ODE neurons that learn by oscillating."""

import lazy_loader

__version__ = "0.2.0"

# The names are those in `__init__.pyi`. Each is imported when it is first asked for: commands start at once.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
