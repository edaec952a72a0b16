"""Networks as estimators of scikit-learn: `fit`, `predict`, `score`; in pipelines, searches and cross-validation.

`Classifier` and `Regressor` pass `sklearn.utils.estimator_checks.check_estimator`, but for what
`EXPECTED_FAILED_CHECKS` says.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence

import diffrax
import jax
import numpy as np
import optax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from oscsim.core.checks import Given, as_count, as_counts, untraced
from oscsim.core.errors import BadType, BadValue
from oscsim.datasets.own import scaling_of
from oscsim.dynamics import Integration
from oscsim.estimators import AbstractEstimator, LockIn
from oscsim.networks import AbstractCost, CrossEntropy, LayeredNetwork, SquaredError
from oscsim.networks.inputs import as_data, as_inputs
from oscsim.signals.teaching import Adaptive
from oscsim.training.evaluation import predict, scores
from oscsim.training.learning import train
from oscsim.training.monitor import Monitor

__all__ = ["EXPECTED_FAILED_CHECKS", "Classifier", "Regressor"]

LOW, HIGH = 0.2, 0.8
"""Where the smallest and the largest target of a regression lie in the range of the output neurons, 0 to 1."""

ADAM = optax.adam(0.01)
"""One object: another one would compile anew at each fit."""

_DIGITS = "a network settles to a tolerance, so the last digits of an output may depend on what else is in its batch"

EXPECTED_FAILED_CHECKS = {
    "check_methods_subset_invariance": _DIGITS,
    "check_methods_sample_order_invariance": _DIGITS,
}
"""What `check_estimator(..., expected_failed_checks=...)` takes: the checks that fail on some machines, and why."""


@contextlib.contextmanager
def _said_of(name: str) -> Iterator[None]:
    """Whatever scikit-learn says within, with the name of the argument that it is about."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        kind = BadValue if isinstance(error, ValueError) else BadType
        raise kind(f"{name}: {error}") from error


class AbstractModel(BaseEstimator, abc.ABC):
    """A layered network with the interface of scikit-learn; `Classifier` and `Regressor` are two."""

    def __init__(
        self,
        hidden: Sequence[int] = (32,),
        *,
        activation: Callable | None = None,
        estimator: AbstractEstimator | None = None,
        optimizer: optax.GradientTransformation | None = None,
        epochs: int = 50,
        batch_size: int = 20,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.hidden = hidden
        self.activation = activation
        self.estimator = estimator
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state

    def _fit(self, x: np.ndarray, y: np.ndarray, outputs: int, cost: AbstractCost) -> None:
        """Train a network on labels from 0, or on targets within the range of its neurons."""
        self.mean_, self.scale_ = scaling_of(x)
        epochs = as_count("epochs", self.epochs)
        batch_size = min(as_count("batch_size", self.batch_size), len(x))
        with _said_of("random_state"):
            seed = check_random_state(self.random_state).randint(2**31 - 1)
        of_weights, of_order = jax.random.split(jax.random.key(seed))
        hidden = as_counts("hidden", self.hidden)
        if not hidden:
            raise BadValue(f"hidden={self.hidden}: give one size or more")
        sizes = (x.shape[1], *hidden, outputs)
        net = LayeredNetwork(sizes, key=of_weights, activation=self.activation, cost=cost)
        estimator, optimizer = untraced("estimator", self.estimator), untraced("optimizer", self.optimizer)
        trained = train(
            net,
            (self._scaled(x), y),
            _default_estimator() if estimator is None else estimator,
            ADAM if optimizer is None else optimizer,
            epochs=epochs,
            key=of_order,
            batch_size=batch_size,
            monitor=Monitor(probe=0, progress=False),
            devices=jax.devices()[:1],
        )
        self.network_, self.history_, self.n_iter_ = trained.network, trained.history, len(trained.history)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean_) / self.scale_

    def _inputs(self, x: Given) -> np.ndarray:
        """Checked against what was fitted, and scaled."""
        check_is_fitted(self)
        with _said_of("X"):
            scaled = self._scaled(np.asarray(validate_data(self, x, reset=False, dtype=np.float64)))
            return np.asarray(as_inputs(self.network_, scaled))


class Classifier(ClassifierMixin, AbstractModel):
    """A `LayeredNetwork` with `CrossEntropy` as a classifier of scikit-learn.

    Inputs are brought to zero mean and unit variance, by those seen in `fit`.

    Attributes:
        network_: the trained network, of scaled inputs.
        history_: what `train` measured after each epoch.
        classes_: the labels, sorted; any that scikit-learn takes.
        mean_: of each input in `fit`.
        scale_: the standard deviation of each input; 1 where it is 0.
        n_features_in_: the number of inputs.
        n_iter_: how many epochs were run.

    Args:
        hidden: sizes of the layers of neurons between inputs and readout.
        activation: of every neuron; `Logistic()` by default.
        estimator: where gradients come from; by default the lock-in of `oscsim train`,
            `LockIn(Adaptive(100.0), cycles=2, start="settled")` with 100 steps of Euler a cycle. `Exact()` is quicker.
        optimizer: from optax; `adam(0.01)` by default.
        epochs: how often to go through the data.
        batch_size: samples per update, at most all there are.
        random_state: for initial weights, the order of the data and noise.

    Raises:
        ValueError: bad data or settings, when fitted.

    Example:
        >>> model = osc.sklearn.Classifier((4,), estimator=osc.Exact(), epochs=2, random_state=0)
        >>> model.fit(np.eye(6)[:4], ["a", "b", "a", "b"]).predict_proba(np.eye(6)).shape
        (6, 2)
    """

    def fit(self, X: Given, y: Given) -> "Classifier":
        """Train a new network on inputs (n, inputs) and labels (n,)."""
        with _said_of("X or y"):
            X, y = validate_data(self, X, y, dtype=np.float64)
            check_classification_targets(y)
            self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise BadValue(f"y holds one class, {self.classes_[0]}: give two or more")
        self._fit(X, labels.astype(np.int32), len(self.classes_), CrossEntropy())
        return self

    def predict(self, X: Given) -> np.ndarray:
        """The most probable label for each input."""
        inputs = self._inputs(X)
        return self.classes_[predict(self.network_, inputs, labels=True)]

    def predict_proba(self, X: Given) -> np.ndarray:
        """The probability of each of `classes_` for each input, (n, classes)."""
        inputs = self._inputs(X)
        shares = np.exp(scores(self.network_, inputs).astype(float))
        return shares / shares.sum(axis=1, keepdims=True)


class Regressor(RegressorMixin, AbstractModel):
    """A `LayeredNetwork` with `SquaredError` as a regressor of scikit-learn.

    Inputs are brought to zero mean and unit variance; the smallest and the largest value of each target to 0.2 and 0.8,
    which lies within the range of the output neurons, 0 to 1. So an output stays within a third of the range of the
    targets beyond them.

    Attributes:
        network_: the trained network, of scaled inputs and outputs.
        history_: what `train` measured after each epoch.
        low_: the smallest value of each target in `fit`.
        range_: what lies between the smallest and the largest; 1 where they are the same.
        mean_: of each input in `fit`.
        scale_: the standard deviation of each input; 1 where it is 0.
        n_features_in_: the number of inputs.
        n_iter_: how many epochs were run.

    Args:
        hidden: sizes of the layers of neurons between inputs and outputs.
        activation: of every neuron; `Logistic()` by default.
        estimator: where gradients come from, as in `Classifier`.
        optimizer: from optax; `adam(0.01)` by default.
        epochs: how often to go through the data.
        batch_size: samples per update, at most all there are.
        random_state: for initial weights, the order of the data and noise.

    Raises:
        ValueError: bad data or settings, when fitted.

    Example:
        >>> model = osc.sklearn.Regressor((4,), estimator=osc.Exact(), epochs=2, random_state=0)
        >>> model.fit(np.eye(6), np.linspace(-1, 1, 6)).predict(np.eye(6)).shape
        (6,)
    """

    def fit(self, X: Given, y: Given) -> "Regressor":
        """Train a new network on inputs (n, inputs) and targets (n,) or (n, outputs)."""
        with _said_of("X or y"):
            X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(as_data("y", y), float)
        self.low_, high = y.min(axis=0), y.max(axis=0)
        self.range_ = np.where(high > self.low_, high - self.low_, 1.0)
        targets = LOW + (HIGH - LOW) * (y - self.low_) / self.range_
        self._fit(X, targets.reshape(len(y), -1), y.size // len(y), SquaredError())
        return self

    def predict(self, X: Given) -> np.ndarray:
        """The outputs for each input, of the shape of the targets."""
        inputs = self._inputs(X)
        found = predict(self.network_, inputs, labels=False).astype(float)
        return self.low_ + self.range_ * (found.reshape(-1, *np.shape(self.low_)) - LOW) / (HIGH - LOW)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _default_estimator() -> LockIn:
    """That of `oscsim train`."""
    steps = Integration(solver=diffrax.Euler(), steps_per_cycle=100)
    return LockIn(Adaptive(period=100.0), cycles=2, start="settled", integration=steps)
