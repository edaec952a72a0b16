"""The inside of a training run: the batches of its next steps, their results, the measurements of an epoch."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
from jaxtyping import Array, Key

from oscsim.core.arrays import Count, all_finite
from oscsim.core.errors import BadValue, DivergenceError, InexactGradientWarning, MaxStepsError, NotSettledError, warn
from oscsim.datasets.source import AbstractSource, Samples
from oscsim.dynamics.gradient_error import TOLERANCE
from oscsim.dynamics.run import resting_state
from oscsim.equilibrium import exact_gradient
from oscsim.equilibrium.asymmetry import asymmetry_measures
from oscsim.equilibrium.metrics import cosine, per_layer, relative_error
from oscsim.estimators import Estimate
from oscsim.networks.inputs import Inputs, as_targets
from oscsim.networks.learned import named, parameters
from oscsim.training.devices import agreed, replicate, shard, unreplicate
from oscsim.training.evaluation import EVALUATED, gives_numbers, measured
from oscsim.training.learner import Learner, Metrics, score_name
from oscsim.training.monitor import Monitor, Validation
from oscsim.training.updates import AUGMENTED, Rule, Tally, TrainingState

CHUNK = 64
"""Steps per device call, at most: one compilation serves every number of them."""

CHUNK_BYTES = 2**26
"""Inputs per device call, at most."""

CALL_SECONDS = 0.5
"""About so long a device call takes, so that a run is shown and stopped in time."""


class Session:
    """What stays the same from step to step, and where the run stands in its data.

    `sample` holds the first of them; `variance` is that of real targets.
    """

    def __init__(
        self,
        rule: Rule,
        source: AbstractSource,
        sample: Samples,
        validation: Validation | None,
        batch_size: int,
        monitor: Monitor,
        variance: float,
        *,
        key: Key[Array, ""],
    ):
        self.rule, self.source, self.sample, self.validation = rule, source, sample, validation
        self.batch_size, self.probe, self.variance = batch_size, monitor.probe, variance
        self.order_key, self.step_key = jax.random.split(key)
        self.key = replicate(rule.mesh, self.step_key)
        self.steps_per_epoch = len(source) // batch_size
        bytes_per_step = sample[0][:batch_size].nbytes
        self.chunk = max(1, min(CHUNK, CHUNK_BYTES // max(bytes_per_step, 1)))
        self.coming: Iterator[Samples] = iter(())
        self.position = -1  # the step that the next batch is for
        self.shown: Samples = sample  # the batches of the last call
        self.began = self.call_began = time.perf_counter()
        self.pace, self.warned = 1, False
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Count steps and time anew."""
        self.epoch_began, self.epoch_steps = time.perf_counter(), 0

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return time.perf_counter() - self.began

    def close(self) -> None:
        """Stop whatever prepares batches."""
        if isinstance(self.coming, Generator):
            self.coming.close()

    def next(
        self, learner: Learner
    ) -> tuple[TrainingState, Array | np.ndarray, Array | np.ndarray, Count, Count, np.float32]:
        """What `updates` is called with for the next steps, all of one epoch; batches in buffers of fixed length.

        Raises:
            ValueError: the source gives fewer batches than its samples make, or labels without a class.
        """
        self.call_began, network = time.perf_counter(), learner.network
        epoch, first = divmod(learner.step, self.steps_per_epoch)
        count = min(self.chunk, self.steps_per_epoch - first, self.pace)
        if learner.step != self.position or first == 0:
            self.coming = self.source.batches(self.order_key, epoch, self.batch_size, first)
        given = list(islice(self.coming, count))
        if len(given) < count:
            raise BadValue(
                f"{type(self.source).__name__} gave {first + len(given)} batches in epoch {epoch + 1}: it holds "
                f"{len(self.source)} samples, which make {self.steps_per_epoch} batches of {self.batch_size}"
            )
        self.position = learner.step + count
        buffers = [np.zeros((self.chunk, *a.shape), a.dtype) for a in given[0]]
        for buffer, batches in zip(buffers, zip(*given, strict=True), strict=True):
            buffer[:count] = batches
        x, y = buffers
        as_targets(network, y[:count].reshape(-1, *y.shape[2:]))
        x = x.astype(network.dtype, copy=False)
        self.shown, mesh = (x, y), self.rule.mesh
        now, step = TrainingState(network, learner.optimizer_state, learner.stream), np.int32(learner.step)
        return now, shard(mesh, x, 1), shard(mesh, y, 1), step, np.int32(count), np.float32(learner.rate_scale)

    def after(self, learner: Learner, moved: TrainingState, tally: Tally) -> Learner:
        """The learner after these updates.

        Raises:
            DivergenceError, MaxStepsError: the step after them failed; says why.
        """
        done = int(tally.count)
        self.epoch_steps += done
        total_loss, total_error, largest, bars = learner.totals
        each = (np.asarray(a, float)[:done].tolist() for a in (tally.loss, tally.error, tally.residual, tally.bar))
        for loss, error, residual, bar in zip(*each, strict=True):  # one by one: the same sum however they are grouped
            total_loss, total_error, largest = total_loss + loss, total_error + error, max(largest, residual)
            bars += min(bar, 1.0) ** 2  # a batch that is all wrong counts as one, however small its gradient is
        totals = total_loss, total_error, largest, bars
        learner = replace(learner, **moved._asdict(), step=learner.step + done, totals=totals)
        if bool(tally.failed):
            raise self.diagnosis(learner, *(a[done] for a in self.shown))
        self.pace = agreed(max(1, math.ceil(done * CALL_SECONDS / (time.perf_counter() - self.call_began))))
        return learner

    def diagnosis(self, learner: Learner, x: np.ndarray, y: np.ndarray) -> DivergenceError | MaxStepsError:
        """Why the step after this state failed."""
        at = f"at step {learner.step + 1} (epoch {learner.step // self.steps_per_epoch + 1})"
        key = jax.random.fold_in(self.step_key, learner.step)
        if self.rule.augment is not None:
            x = self.rule.augment(x, jax.random.fold_in(key, AUGMENTED))
        try:
            estimate = self.estimate(unreplicate(self.rule.mesh, learner), x, y, key)
        except MaxStepsError as error:
            return MaxStepsError(f"training stopped {at}: {error}")
        except (DivergenceError, NotSettledError) as error:
            return DivergenceError(f"training diverged {at}: {error}; or lower the learning rate")
        broken = [name for name, a in named(estimate.gradient) if not all_finite(a)]
        what = f"the gradient of {broken[0]}" if broken else "the updated network"
        if not math.isfinite(float(estimate.loss)):
            what = "the loss"
        return DivergenceError(f"training diverged {at}: {what} is not finite; lower the learning rate")

    def estimate(self, learner: Learner, x: Array | np.ndarray, y: np.ndarray, key: Key[Array, ""]) -> Estimate:
        """The estimate of the loss's gradient for one batch, as the learner stands."""
        inputs = Inputs.of(learner.network, x, y)
        return self.rule.estimator.of_loss.estimate(learner.stream, learner.network, inputs, key)[1]

    def finish_epoch(self, learner: Learner) -> Learner:
        """The learner with the epoch's metrics in its history.

        Raises:
            DivergenceError: the error jumped to chance.
        """
        now, steps, rule = time.perf_counter(), self.steps_per_epoch, self.rule
        loss, error, residual, bars = learner.totals
        row: Metrics = {"epoch": learner.step // steps, "step": learner.step, "loss": loss / steps}
        if rule.classes and learner.network.outputs is not None:
            row["error"] = error / steps
        elif gives_numbers(learner.network):
            row["r2"] = 1 - error / steps / self.variance
        if self.validation is not None:
            found = measured(learner.network, self.validation.x, self.validation.y, EVALUATED, rule.mesh)
            row |= {("" if k == "settle_residual" else "validation_") + k: v for k, v in found.items()}
        row["residual"] = residual
        if not math.isnan(bars):
            row["error_bar"] = math.sqrt(bars / steps)
            self.warn_once(row)
        if self.probe and not rule.estimator.feedforward:
            row |= self.probed(unreplicate(rule.mesh, learner))
        row["rate_scale"] = learner.rate_scale
        row["seconds"] = now - self.began
        row["samples_per_second"] = self.epoch_steps * self.batch_size / max(now - self.epoch_began, 1e-9)
        self.begin_epoch()
        score = row[score_name(row)]
        better = score < learner.best_score
        learner = replace(
            learner,
            history=[*learner.history, row],
            totals=(0.0, 0.0, 0.0, 0.0),
            best=learner.network if better else learner.best,
            best_score=score if better else learner.best_score,
        )
        if len(learner.history) > 1 and jumped_to_chance(learner.history, learner.network.outputs):
            what = "the error jumped to chance, after less than half of that"
            what = what if rule.classes else "R^2 fell below -1, from above 0.5"
            raise DivergenceError(
                f"training diverged in epoch {row['epoch']} (step {learner.step}): {what}; lower the learning rate"
            )
        return learner

    def probed(self, learner: Learner) -> Metrics:
        """The estimate on the first samples, against the exact gradient at its own states and by its own measure."""
        size = self.batch_size if self.rule.estimator.streams else self.probe
        x, y = (a[:size] for a in self.sample)
        net = learner.network
        try:
            estimate = self.estimate(learner, x, y, jax.random.fold_in(self.step_key, learner.step))
            inputs = Inputs.of(net, x, y)
            exact = exact_gradient(net, x, y, at=resting_state(net, inputs, estimate.activities))
        except (NotSettledError, DivergenceError, MaxStepsError) as error:
            warn(f"no cosine to the exact gradient at step {learner.step}: {error}")
            return {"cosine": math.nan} | {f"cosine/{name}": math.nan for name, _ in named(parameters(net))}
        each = per_layer(cosine, estimate.gradient, exact)
        row: Metrics = {"cosine": float(cosine(estimate.gradient, exact))}
        row |= {f"cosine/{k}": float(v) for k, v in each.items()}
        if (bar := estimate.error) is not None:
            row["probe_error"] = float(relative_error(estimate.gradient, exact))
            row["probe_error_bar"] = float(bar.total)
            row["outside"] = 100 * float(np.mean(np.asarray(bar.outside)))
            amplitude = np.asarray(bar.amplitude)
            low, median, high = np.quantile(amplitude, [0, 0.5, 1])
            row |= {"amplitude": float(median), "amplitude_lowest": float(low), "amplitude_highest": float(high)}
        if not net.symmetric:
            found = asymmetry_measures(net, Inputs.of(net, x, y), estimate.activities)
            row |= {name: float(value) for name, value in found.items()}
            if bar is not None:
                row["asymmetry_error"] = float(bar.asymmetry)
        return row

    def warn_once(self, row: Metrics) -> None:
        """Say, once in a run, that the gradients of an epoch were further off than `TOLERANCE`."""
        bar = row.get("error_bar", 0.0)
        if self.warned or not bar > TOLERANCE:
            return
        self.warned = True
        warn(
            f"epoch {row['epoch']}: the gradients are off by {100 * bar:.0f} % (root mean square over batches), by "
            f"their own measure; {self.rule.estimator.remedies}",
            InexactGradientWarning,
        )


def jumped_to_chance(history: list[Metrics], classes: int | None) -> bool:
    """Whether the last error is that of guessing, after the one before was less than half of it.

    Real targets have no chance to fall back to: outputs that explained more than half of their variance are lost when
    they are off by more than twice of it.
    """
    fit = next((name for name in ("validation_r2", "r2") if name in history[-1]), None)
    if fit is not None:
        return history[-1][fit] < -1 and history[-2][fit] > 0.5
    name = next((name for name in ("validation_error", "error") if name in history[-1]), None)
    if classes is None or name is None:
        return False
    chance = 100 * (1 - 1 / classes)
    return history[-1][name] > 0.95 * chance and history[-2][name] < 0.5 * chance
