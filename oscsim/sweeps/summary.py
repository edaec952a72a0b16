"""Summaries over the seeds of a sweep: averages, spreads, and how sure they are."""

import warnings
from typing import Literal

import numpy as np
import xarray

from oscsim.core.checks import as_count, as_index, as_share, checked, choice, instance
from oscsim.core.errors import BadValue

SWEEP = instance(xarray.Dataset, "use what sweep or load_sweep returned")
"""The kind of arguments that are results of a sweep."""


@checked(data=SWEEP, average=choice("mean", "rms"), confidence=as_share, seed=as_index)
def summarise(
    data: xarray.Dataset,
    *,
    average: Literal["mean", "rms"] = "mean",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> xarray.Dataset:
    r"""Average, spread and bootstrap interval over the seeds, of every real result of a sweep.

    The dimension `seed` gives way to `statistic`: `average`; `spread`, the standard deviation; `low` and `high`, the
    percentile bootstrap interval of the average; `count`, how many seeds are finite. Seeds that are not are left out:
    look at `count`. What holds no seeds, such as predictions, stays.

    Args:
        data: what `sweep` returned.
        average: `"mean"`, or `"rms"`, the root mean square, which predictions of errors are.
        confidence: of the interval.
        resamples: drawn for it, with replacement.
        seed: of these draws.

    Raises:
        ValueError: no seeds, a confidence that is not between 0 and 1, an unknown average.

    Example:
        >>> def study(key, mean):
        ...     return {"drawn": mean + jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=3, key=jax.random.key(0))
        >>> print(osc.summarise(data).drawn.sel(statistic="count").values)  # seeds at each point
        [3. 3.]
    """
    if "seed" not in data.dims:
        raise BadValue(f"data has the dimensions {sorted(map(str, data.dims))}: a summary needs `seed`, as from sweep")
    seeds = data.sizes["seed"]
    draws = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), as_count("resamples", resamples))
    tails = 50 * (1 - confidence), 50 * (1 + confidence)

    def of_values(values: np.ndarray) -> np.ndarray:
        """(..., seeds) -> (..., statistics)."""
        finite = np.isfinite(values)
        kept = np.where(finite, values, 0.0)
        power = kept**2 if average == "rms" else kept

        def averaged(weights):  # (seeds, n) -> (..., n)
            mean = (power @ weights) / (finite @ weights)
            return np.sqrt(mean) if average == "rms" else mean

        count = finite.sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # points where no seed is finite give nan
            middle = averaged(np.ones((seeds, 1)))
            spread = np.nanstd(np.where(finite, values, np.nan), axis=-1, ddof=1)
            low, high = np.nanpercentile(averaged(draws.T), tails, axis=-1)
        return np.stack([middle[..., 0], spread, low, high, count], axis=-1)

    seeded = [name for name, a in data.data_vars.items() if "seed" in a.dims and np.isrealobj(a)]
    found = data.drop_vars([name for name, a in data.data_vars.items() if "seed" in a.dims] + ["seed"])
    for name in seeded:
        summary = xarray.apply_ufunc(
            of_values, data[name].astype(float), input_core_dims=[["seed"]], output_core_dims=[["statistic"]]
        )
        found[name] = summary.assign_attrs(data[name].attrs)
    return found.assign_coords(statistic=["average", "spread", "low", "high", "count"]).assign_attrs(
        data.attrs | {"average": average, "confidence": confidence}
    )
