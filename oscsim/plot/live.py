"""The learning curve while a network learns."""

import os
from collections.abc import Mapping
from pathlib import Path

from oscsim.core import files
from oscsim.core.checks import as_place
from oscsim.core.errors import BadValue
from oscsim.plot.learning import training


class LiveTraining:
    """The learning curve, drawn anew after each epoch: a callback, `Monitor(callbacks=[osc.plot.LiveTraining()])`.

    In a notebook the picture below the cell changes. With a `path` it is written to that file, each time as a whole, so
    that a viewer that follows changes (JupyterLab, VS Code, most image viewers) shows it.

    Attributes:
        path: of a PNG, PDF or SVG file; None for a notebook alone.
        history: the metrics of the epochs that it was shown.

    Raises:
        ValueError: a path of another kind, or in a folder that does not exist.

    Example:
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> live = osc.plot.LiveTraining("live.png")
        >>> trained = osc.train(
        ...     twin, (x, y), osc.Backpropagation(), optax.sgd(0.1),
        ...     epochs=2, batch_size=3, key=key, monitor=osc.Monitor(callbacks=[live]),
        ... )
        >>> len(live.history)
        2
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        self.path = None if path is None else Path(as_place("path", path))
        if self.path is not None and self.path.suffix.lower() not in files.FIGURES:
            raise BadValue(f"path={self.path}: give a name that ends in {', '.join(files.FIGURES)}")
        if self.path is not None and not self.path.parent.is_dir():
            raise BadValue(f"path={self.path}: there is no folder {self.path.parent}; make it first")
        self.history: list[dict[str, float]] = []
        self._shown = None

    def __call__(self, metrics: Mapping[str, float], network: object) -> None:
        """Draw the curve up to this epoch."""
        import matplotlib.pyplot as plt

        self.history.append(dict(metrics))
        figure = training(self.history)[0].figure
        if self.path is not None:
            files.write_figure(self.path, figure, dots=150)
        self._display(figure)
        plt.close(figure)

    def _display(self, figure: object) -> None:
        """Show it below the cell of a notebook, in place of the one before."""
        try:
            from IPython import display, get_ipython
        except ImportError:
            return
        if get_ipython() is None:
            return
        if self._shown is None:
            self._shown = display.display(figure, display_id=True)
        else:
            self._shown.update(figure)
