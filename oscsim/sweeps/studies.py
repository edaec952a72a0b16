r"""Studies: what a sweep measures at every point of its grid.

A study is a function `study(key, **settings)` that returns a dict of arrays; any such function can be swept. One that
knows more about itself, such as units, or what theory says, is a small final class below `AbstractStudy`. Two are
ready-made: `gradient_quality` and `training`.
"""

import abc
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Key

from oscsim.core.arrays import all_finite, is_traced, norm
from oscsim.core.checks import (
    Given,
    as_builder,
    as_count,
    as_flag,
    as_function,
    as_key,
    as_names,
    as_sequence,
    checked,
    shown,
)
from oscsim.core.errors import BadType, BadValue
from oscsim.dynamics.integration import Integration, steps_under_noise
from oscsim.equilibrium import exact_gradient
from oscsim.equilibrium.metrics import cosine, relative_error
from oscsim.estimators import AbstractEstimator, LockIn
from oscsim.networks.base import AbstractNetwork, as_network, fastest_neuron
from oscsim.networks.inputs import Data, Inputs, are_classes, as_inputs, as_targets
from oscsim.networks.learned import Gradient, as_trainable, parameters, split_parameters
from oscsim.response import predict_bias, predict_spread
from oscsim.signals import WhiteNoise
from oscsim.signals.teaching import Rotating
from oscsim.training.evaluation import checked_data, mean_loss_and_error
from oscsim.training.updates import Rule, TrainingState, updates

__all__ = ["AbstractStudy", "FunctionStudy", "Quantity", "gradient_quality", "training"]


def __dir__() -> list[str]:
    return __all__


Setting: TypeAlias = Any
"""The value of a setting: a float, which is traced, or whatever the study takes."""

Settings = dict[str, Setting]
Results = dict[str, ArrayLike]


class Quantity(NamedTuple):
    """What a setting or a result is.

    Attributes:
        label: in words, for axes.
        unit: such as `"tau"`; empty for a pure number.
        dims: names of the dimensions that a result has of its own, beside those of the grid and the seeds.

    Example:
        >>> osc.studies.Quantity("time until it settles", "tau").unit
        'tau'
    """

    label: str
    unit: str = ""
    dims: tuple[str, ...] = ()


SETTINGS = {
    "amplitude": Quantity("amplitude"),
    "period": Quantity("period", "tau"),
    "intensity": Quantity("noise intensity", "potential·√tau"),
    "cycles": Quantity("cycles"),
    "discard": Quantity("discarded cycles"),
    "learning_rate": Quantity("learning rate"),
    "standard_deviation": Quantity("noise per step", "potential"),
}


class AbstractStudy(eqx.Module):
    """A function to sweep that knows its units, which settings shape its program, and what theory says of its results.

    A store continues only with the same study: the same fields, and the same program at the first point of the grid.

    Example:
        >>> isinstance(osc.studies.gradient_quality(net, x, y), osc.studies.AbstractStudy)
        True
    """

    @abc.abstractmethod
    def __call__(self, key: Key[Array, ""], **settings: Setting) -> Results:
        """The results of one realisation: a dict of arrays. Compiled, and mapped over seeds and points of the grid."""

    @abc.abstractmethod
    def static(self) -> tuple[str, ...]:
        """Float settings that shape the program: they come as plain numbers, and each value compiles anew.

        Settings that are no floats, such as counts, are static in any case.
        """

    @abc.abstractmethod
    def prediction(self, settings: Settings) -> Results:
        """What theory says of a point: a dict of arrays, the same for all seeds; empty if nothing. Not compiled."""

    @abc.abstractmethod
    def quantities(self) -> dict[str, Quantity]:
        """What is known of settings and results, by name."""


def _as_known(known: Given) -> tuple[tuple[str, Quantity], ...]:
    """Quantities by name, as pairs, or an error that names what they are not."""
    match known:
        case Mapping():
            pairs = tuple(known.items())
        case _:  # as a copy of a study has them
            pairs = as_sequence("known", known)
    for pair in pairs:
        match pair:
            case (str(), Quantity(str(), str(), tuple())):
                continue
        raise BadType(f"known={shown(known)}: give a dict from names to Quantity(label, unit)")
    return pairs


class FunctionStudy(AbstractStudy):
    """A plain function as a study.

    Attributes:
        function: from a key and settings to a dict of arrays.
        shaping: what `static` answers.
        theory: from settings to what `prediction` answers; None for nothing.
        known: what `quantities` answers, beside the settings of the ready-made studies.

    Example:
        >>> def response(key, amplitude):
        ...     return {"response": osc.settle(net, x, y, amplitude).activities[0]}
        >>> study = osc.studies.FunctionStudy(response, known={"response": osc.studies.Quantity("activity")})
        >>> osc.sweep(study, {"amplitude": [0.1, 0.2]}, seeds=1, key=jax.random.key(0)).response.long_name
        'activity'
    """

    function: Callable = eqx.field(static=True, converter=functools.partial(as_function, "function"))
    shaping: tuple[str, ...] = eqx.field(static=True, default=(), converter=functools.partial(as_names, "shaping"))
    theory: Callable | None = eqx.field(static=True, default=None)
    known: tuple[tuple[str, Quantity], ...] = eqx.field(static=True, default=(), converter=_as_known)

    @checked(key=as_key)
    def __call__(self, key: Key[Array, ""], **settings: Setting):
        return self.function(key, **settings)

    def static(self) -> tuple[str, ...]:
        return self.shaping

    def prediction(self, settings: Settings) -> Results:
        return {} if self.theory is None else self.theory(**settings)

    def quantities(self) -> dict[str, Quantity]:
        return SETTINGS | dict(self.known)


MOST_PARAMETERS = 1024
"""Up to so many `gradient_quality` keeps the gradient itself."""


@checked(net=as_network, estimator=as_builder, static=as_names, steps_per_cycle=as_count, predict=as_flag)
def gradient_quality(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    estimator: Callable[..., AbstractEstimator] | None = None,
    *,
    static: Sequence[str] = (),
    steps_per_cycle: int | None = None,
    predict: bool = True,
) -> AbstractStudy:
    r"""How good a gradient is: its direction, length and scatter against the exact one.

    Results, for each seed: `cosine` and `relative_error` over all parameters; `error_bar`, the estimate's own error
    (nan where it has none); `gradient`, all parameters in one vector, if they are `MOST_PARAMETERS` or fewer;
    `diverged`.

    Args:
        net: the neurons.
        x: inputs, (batch, ...).
        y: targets.
        estimator: from settings to an estimator; by default `LockIn` under a `Rotating` signal and `WhiteNoise`, with
            the settings `amplitude`, `period`, `intensity` (0 if not given), `cycles` and `discard` (3 and 1).
        static: float settings of `estimator` that shape its program.
        steps_per_cycle: of the default estimator, the same at all periods, so that one program serves them; by default
            steps of a quarter of a time constant under noise, and a program for each period.
        predict: with the default estimator, ask `oscsim.response` at each point for `predicted_bias` and
            `predicted_spread`, both over $|g^*|$, and for `predicted_relative_error`, $\sqrt{b^2 + \sigma^2}$ of them.

    Raises:
        NotSettledError: the network has no free equilibrium.
        ValueError: bad inputs.

    Example:
        >>> study = osc.studies.gradient_quality(net, x, y)
        >>> found = osc.sweep(study, {"amplitude": [0.1, 0.2], "period": 100.0}, seeds=1, key=jax.random.key(0))
        >>> bool((found.cosine > 0.99).all())
        True
    """
    x, y = as_inputs(net, x), as_targets(net, y)
    static = tuple(static)
    if estimator is None:
        static = () if steps_per_cycle else ("period",)
    fastest = fastest_neuron(net.time_constants)
    exact = exact_gradient(net, x, y)
    return _GradientQuality(net, x, y, exact, estimator, static, steps_per_cycle, fastest, predict)


class _GradientQuality(AbstractStudy):
    net: AbstractNetwork
    x: Array
    y: Array
    exact: Gradient
    estimator: Callable | None = eqx.field(static=True)
    shaping: tuple[str, ...] = eqx.field(static=True)
    steps_per_cycle: int | None = eqx.field(static=True)
    fastest: float = eqx.field(static=True)
    predict: bool = eqx.field(static=True)

    def static(self) -> tuple[str, ...]:
        return self.shaping

    def quantities(self) -> dict[str, Quantity]:
        return SETTINGS | {
            "cosine": Quantity("cosine to the exact gradient"),
            "relative_error": Quantity("relative error of the gradient"),
            "error_bar": Quantity("relative error, by the estimate's own measure"),
            "gradient": Quantity("gradient", dims=("parameter",)),
            "predicted_relative_error": Quantity("predicted relative error"),
            "predicted_bias": Quantity("predicted bias over the gradient's norm"),
            "predicted_spread": Quantity("predicted spread over the gradient's norm"),
        }

    def __call__(self, key: Key[Array, ""], **settings: Setting) -> Results:
        make = self._oscillation if self.estimator is None else self.estimator
        try:
            inspect.signature(make).bind(**settings)
        except TypeError as error:
            raise BadType(f"the estimator cannot be made from these settings: {error}") from error
        estimate = make(**settings)(self.net, self.x, self.y, key=key)
        gradient = estimate.gradient
        found = {
            "error_bar": jnp.asarray(jnp.nan) if estimate.error is None else estimate.error.total,
            "cosine": cosine(gradient, self.exact),
            "relative_error": relative_error(gradient, self.exact),
            "diverged": ~all_finite(gradient),
        }
        leaves = jax.tree.leaves(gradient)
        if sum(a.size for a in leaves) <= MOST_PARAMETERS:
            found["gradient"] = jnp.concatenate([jnp.ravel(a) for a in leaves])
        return found

    def _oscillation(self, amplitude, period, intensity=0.0, cycles=3, discard=1) -> LockIn:
        signal, steps = Rotating(amplitude, period), self.steps_per_cycle
        noise = None if not is_traced(intensity) and intensity == 0 else WhiteNoise(intensity)
        if noise is not None and steps is None:
            # where all else is traced, these two are plain numbers
            steps = steps_under_noise(float(period), float(self.fastest))
        integration = Integration(None if steps is None else diffrax.Heun(), steps_per_cycle=steps)
        return LockIn(signal, cycles=cycles, discard=discard, noise=noise, integration=integration)

    def prediction(self, settings: Settings) -> Results:
        if self.estimator is not None or not self.predict:
            return {}
        size, lock_in = float(norm(self.exact)), self._oscillation(**settings)
        bias = float(norm(predict_bias(self.net, self.x, self.y, settings["period"]))) / size
        spread = 0.0
        if lock_in.noises:
            cycles = lock_in.cycles - (lock_in.discard or 0)
            noise = WhiteNoise(settings["intensity"])
            scatter = predict_spread(self.net, self.x, self.y, lock_in.teaching, noise, cycles)
            spread = float(norm(scatter)) / size
        both = math.hypot(bias, spread)
        return {"predicted_bias": bias, "predicted_spread": spread, "predicted_relative_error": both}


@checked(network=as_builder, estimator=as_builder, optimizer=as_builder, static=as_names)
def training(
    network: Callable[[Key[Array, ""]], AbstractNetwork],
    data: tuple[Data, Data],
    estimator: Callable[..., AbstractEstimator],
    optimizer: Callable[..., optax.GradientTransformation],
    *,
    epochs: int,
    validation: tuple[Data, Data],
    batch_size: int = 20,
    static: Sequence[str] = (),
) -> AbstractStudy:
    """How well a network learns: one whole training run per seed; the seeds of a point run in one program.

    Results, for each seed: `loss` and `error` (percent) of the training batches, `validation_loss` and
    `validation_error` after each epoch (dimension `epoch`); `final_error` and `best_error`, the validation error after
    the last and after the best epoch; `survived`, whether all numbers stayed finite.

    Args:
        network: from a key to a network with its initial weights.
        data: inputs and targets, `(x, y)`.
        estimator: from settings to an estimator.
        optimizer: from settings to an optimizer of optax. Estimator and optimizer are each given the settings that
            they name.
        epochs: how often to go through the data.
        validation: held-out data.
        batch_size: samples per update.
        static: float settings that shape the program.

    Raises:
        ValueError: bad data, a network without outputs; when swept, a setting that neither of the two names.

    Example:
        >>> def network(key):
        ...     return osc.LayeredNetwork((6, 5, 4), key=key)
        >>> def optimizer(learning_rate):
        ...     return optax.sgd(learning_rate)
        >>> study = osc.studies.training(
        ...     network, (x, y), lambda: osc.Exact(), optimizer, epochs=2, validation=(x, y), batch_size=3
        ... )
        >>> found = osc.sweep(study, {"learning_rate": [0.1, 0.3]}, seeds=2, key=jax.random.key(0))
        >>> found.validation_error.dims
        ('learning_rate', 'seed', 'epoch')
    """
    try:
        pattern = network(jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise BadType(f"network={shown(network)} makes no network of a key: {error}") from error
    pattern = as_trainable("network", pattern)
    if pattern.outputs is None:
        raise BadValue("outputs is None: a network needs its number of classes to be judged by its error")
    x, y = checked_data(pattern, "data", data)
    x_held, y_held = checked_data(pattern, "validation", validation)
    if not (are_classes(y) and are_classes(y_held)):
        raise BadValue("data: targets are real; a study judges by errors in percent: use train, and evaluate each run")
    epochs, batch_size = as_count("epochs", epochs), as_count("batch_size", batch_size)
    if batch_size > len(x):
        raise BadValue(f"batch_size={batch_size}: the data hold {len(x)} samples, use fewer")
    return _Training(
        *(jnp.asarray(x), jnp.asarray(y), jnp.asarray(x_held), jnp.asarray(y_held)),
        *(network, estimator, optimizer, epochs, batch_size, tuple(static)),
    )


class _Training(AbstractStudy):
    x: Array
    y: Array
    x_held: Array
    y_held: Array
    network: Callable = eqx.field(static=True)
    estimator: Callable = eqx.field(static=True)
    optimizer: Callable = eqx.field(static=True)
    epochs: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    shaping: tuple[str, ...] = eqx.field(static=True)

    def static(self) -> tuple[str, ...]:
        return self.shaping

    def quantities(self) -> dict[str, Quantity]:
        return SETTINGS | {
            "loss": Quantity("training loss", dims=("epoch",)),
            "error": Quantity("training error", "%", ("epoch",)),
            "validation_loss": Quantity("validation loss", dims=("epoch",)),
            "validation_error": Quantity("validation error", "%", ("epoch",)),
            "final_error": Quantity("validation error, final epoch", "%"),
            "best_error": Quantity("validation error, best epoch", "%"),
        }

    def __call__(self, key: Key[Array, ""], **settings: Setting) -> Results:
        key_weights, key_order, key_steps = jax.random.split(key, 3)
        net = self.network(key_weights)
        estimator, optimizer = self._built(settings)
        rule = Rule(estimator, optimizer, None, None)
        steps = len(self.x) // self.batch_size
        learned, fixed = split_parameters(net)

        def epoch(carry, number):
            order = jax.random.permutation(jax.random.fold_in(key_order, number), len(self.x))
            order = order[: steps * self.batch_size].reshape(steps, self.batch_size)
            now = TrainingState(eqx.combine(carry[0], fixed), carry[1], carry[2])
            count, scale = jnp.asarray(steps, jnp.int32), jnp.ones(())
            moved, tally = updates(rule, now, self.x[order], self.y[order], number * steps, count, scale, key=key_steps)
            net, state, stream = moved
            loss, error = mean_loss_and_error(net, self.x_held, self.y_held)
            failed = jnp.where(tally.failed, jnp.nan, 0.0)  # a failed step ends the epoch, and leaves the one before it
            return (parameters(net), state, stream), {
                "loss": jnp.mean(tally.loss) + failed,
                "error": jnp.mean(tally.error) + failed,
                "validation_loss": loss + failed,
                "validation_error": error + failed,
            }

        state = jax.tree.leaves(optimizer.init(learned))
        stream = estimator.init(net, Inputs.of(net, self.x[: self.batch_size], self.y[: self.batch_size]), key_steps)
        _, rows = lax.scan(epoch, (learned, state, stream), jnp.arange(self.epochs))
        error = rows["validation_error"]
        best = jnp.where(jnp.all(jnp.isnan(error)), jnp.nan, jnp.nanmin(error))
        return rows | {"final_error": error[-1], "best_error": best, "survived": all_finite(rows)}

    def prediction(self, settings: Settings) -> Results:
        return {}

    def _built(self, settings: Settings) -> tuple[AbstractEstimator, optax.GradientTransformation]:
        """Estimator and optimizer, each from the settings that it names."""
        taken = [set(inspect.signature(make).parameters) for make in (self.estimator, self.optimizer)]
        for name in settings:
            if not any(name in names for names in taken):
                raise BadValue(
                    f"{name} is a setting of neither the estimator, which takes {sorted(taken[0])}, nor "
                    f"the optimizer, which takes {sorted(taken[1])}"
                )
        of_estimator, of_optimizer = ({n: v for n, v in settings.items() if n in names} for names in taken)
        return self.estimator(**of_estimator), self.optimizer(**of_optimizer)
