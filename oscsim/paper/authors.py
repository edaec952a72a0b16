"""The authors' published results, as data."""

import functools
import json
from importlib import resources
from typing import Any


@functools.cache
def authors() -> dict[str, Any]:
    """The published curves behind Figs. 2d, 3a to 3c and Table 1.

    Returns:
        `toy`: the network of Fig. 2 and its sample, drawn from the seeds in their code: `weights`, `x`, `y` (biases
        are 0). `fig2d`: `amplitude`, and `cosine` for `"N=1"` and `"N=30"`. `fig3ab`: for each period, in steps of tau,
        `cosine` and `distance` after 0, 1, ..., 40 periods. `fig3c`: for each of two runs, `amplitude`, and
        `cosine` for `"N=1"` and `"N=15"`. `table1`: validation errors in percent after each of 50
        epochs, three runs of each method, `no_noise` and `noise`. `source`: where they come from.

    Example:
        >>> theirs = osc.paper.authors()
        >>> sorted(theirs["fig2d"]["cosine"])
        ['N=1', 'N=30']
    """
    return json.loads(resources.files("oscsim.paper").joinpath("authors.json").read_text("utf-8"))
