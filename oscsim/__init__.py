"""oscsim: networks of coupled ODE neurons that learn by oscillating."""

import difflib

import lazy_loader

__version__ = "0.2.0"

# The names are those in `__init__.pyi`. Each is imported when it is first asked for: commands start at once.
_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _imported(name)
    except AttributeError as error:
        close = difflib.get_close_matches(name, __all__, n=1)
        hint = f": did you mean {close[0]}?" if close else "; dir(oscsim) lists what there is"
        raise AttributeError(f"oscsim has no {name!r}{hint}", name=name) from error
