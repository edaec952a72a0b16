"""Real targets: judged by their loss, R^2 beside it; labels and outputs by name; optimizers that ask for the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import r2_score

import oscsim as osc
from oscsim.networks.inputs import are_classes
from oscsim.training.session import jumped_to_chance
from oscsim.training.updates import loss_of
from tests.helpers import toy
from tests.marks import slow_except

T = np.linspace(0, 1, 24, dtype=np.float32)[:, None]
SINE = (0.5 + 0.4 * np.sin(2 * np.pi * T)).astype(np.float32)
PAIR = np.concatenate([SINE, 1 - SINE / 2], axis=1)
SILENT = osc.Monitor(probe=0, progress=False)
SGD = optax.sgd(0.1)


def network(outputs=1, **kwargs):
    return osc.LayeredNetwork((1, 5, outputs), cost=osc.SquaredError(), key=jax.random.key(0), **kwargs)


def train(y=SINE, net=None, optimizer=SGD, epochs=4, **kwargs):
    settings = {"key": jax.random.key(1), "monitor": SILENT, "batch_size": 24, "validation": (T, y), **kwargs}
    return osc.train(net or network(), (T, y), osc.Exact(), optimizer, epochs=epochs, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("y", [SINE, SINE[:, 0]], ids=["(n, 1)", "(n,)"])
def test_real_targets_are_judged_by_their_loss(y):
    result = train(y)
    losses = [row["validation_loss"] for row in result.history]
    assert all("validation_error" not in row and "error" not in row for row in result.history)
    assert losses[-1] < losses[0]
    assert osc.evaluate(result.best, T, y)["loss"] == pytest.approx(min(losses), rel=1e-4)
    outputs = osc.predict(result.network, T)
    assert outputs.shape == (24, 1)
    assert result.history[-1]["validation_r2"] == pytest.approx(r2_score(SINE, outputs), abs=1e-4)
    assert result.history[1]["r2"] == pytest.approx(result.history[0]["validation_r2"], abs=1e-4)  # before and after
    assert "held out: loss" in str(result)
    assert "r2" in str(result)


def test_patience_counts_epochs_without_a_better_loss():
    falling = train(validation=osc.Validation(T, SINE, 2), epochs=5)
    assert len(falling.history) == 5
    held = osc.predict(network(), T)  # what it gives untrained: every epoch is worse than the one before
    worse = train(validation=osc.Validation(T, held, 2), epochs=9)
    assert len(worse.history) == 3
    assert worse.stopped == "no better epoch in the last 2"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "net",
    [
        network(2),
        osc.HopfieldNetwork((1, 6, 2), cost=osc.SquaredError(), key=jax.random.key(0)),
        osc.FeedForwardNetwork((1, 5, 2), cost=osc.SquaredError(), key=jax.random.key(0)),
    ],
    ids=lambda net: type(net).__name__,
)
def test_outputs_and_their_r2(net):
    found = osc.predict(net, T)
    if isinstance(net, osc.AbstractNetwork):
        state = osc.settle(net, T, np.zeros((len(T), 2)))
        np.testing.assert_allclose(found, state.activities[-1][:, -2:], atol=1e-3)
    judged = osc.evaluate(net, T, PAIR)
    np.testing.assert_allclose(judged["loss"], np.mean(np.sum((found - PAIR) ** 2, axis=1)) / 2, rtol=1e-5)
    assert judged["r2"] == pytest.approx(r2_score(PAIR, found, multioutput="variance_weighted"), rel=1e-5)
    assert "error" not in judged


def test_outputs_of_neurons_that_are_not_alike_are_what_they_emit():
    net = osc.hardware.spread(network(2), jax.random.key(3), gain=0.2)
    state = osc.settle(net, T, np.zeros((len(T), 2)))
    emitted = net.imperfection[-1][None] * state.activities[-1]
    np.testing.assert_allclose(osc.predict(net, T), emitted, atol=1e-3)
    assert osc.evaluate(net, T, PAIR)["r2"] == pytest.approx(
        r2_score(PAIR, emitted, multioutput="variance_weighted"), rel=1e-2
    )


def test_targets_are_classes_or_numbers():
    assert are_classes(np.array([0, 2]))
    assert are_classes(np.eye(3)[[0, 2]])
    assert are_classes(np.array([[0.2, 0.8], [0.5, 0.5]]))
    for numbers in (np.array([0.5, 1.0]), np.array([[1.0], [1.0]]), np.array([[0.2, 0.9]]), np.array([[1.5, -0.5]])):
        assert not are_classes(numbers)
    assert not are_classes(np.eye(3)[None])


def test_classes_are_told_by_labels_and_by_scores():
    net, x, y = toy(cost=osc.SquaredError())
    for targets in (y, jax.nn.one_hot(y, 4)):
        assert set(osc.evaluate(net, x, targets)) == {"loss", "error", "settle_residual"}
    np.testing.assert_array_equal(osc.predict(net, x, labels=True), osc.scores(net, x).argmax(axis=1))
    np.testing.assert_array_equal(osc.predict(net, x).argmax(axis=1), osc.predict(net, x, labels=True))
    net, x, _ = toy()
    np.testing.assert_array_equal(osc.predict(net, x), osc.scores(net, x).argmax(axis=1))
    logits = osc.predict(net, x, labels=False)
    np.testing.assert_allclose(logits, osc.scores(net, x), atol=1e-5)  # of CrossEntropy both are log-probabilities


def test_a_fit_far_worse_than_the_mean_is_a_divergence():
    def history(*fits):
        return [{"epoch": i, "loss": 1.0, "validation_loss": 1.0, "validation_r2": fit} for i, fit in enumerate(fits)]

    assert jumped_to_chance(history(0.8, -1.5), 1)
    assert not jumped_to_chance(history(0.3, -1.5), 1)
    assert not jumped_to_chance(history(0.8, 0.0), 1)
    assert not jumped_to_chance(history(0.8, 0.6), 1)
    assert not jumped_to_chance(history(0.8, np.nan), 1)


def test_real_targets_are_refused_where_errors_in_percent_are_asked_for():
    with pytest.raises(ValueError, match=r"targets are real.*use train"):
        osc.studies.training(
            lambda key: network(2), (T, PAIR), osc.Exact, lambda: SGD, epochs=1, validation=(T, PAIR), batch_size=4
        )
    with pytest.raises(ValueError, match="give real targets as floats"):
        osc.evaluate(network(), T, np.arange(24))


OPTIMIZERS = {
    "plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "polyak": optax.polyak_sgd(0.1),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(4)),
    "lbfgs": optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_except(("plateau", "backtracking"), OPTIMIZERS))
def test_optimizers_are_told_the_loss(name):
    result = train(optimizer=OPTIMIZERS[name], validation=None)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0]
    assert np.isfinite(losses).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_step_of_polyak_is_that_of_its_formula():
    net = network()
    loss, gradient = osc.evaluate(net, T, SINE)["loss"], osc.exact_gradient(net, T, SINE)
    leaves = jax.tree.leaves(gradient)
    rate = min(1.0, loss / sum(float(jnp.sum(g**2)) for g in leaves))
    stepped = train(net=net, optimizer=optax.polyak_sgd(1.0), epochs=1, validation=None).network
    before, after = (jax.tree.leaves(osc.parameters(n)) for n in (net, stepped))
    for old, new, g in zip(before, after, leaves, strict=True):
        np.testing.assert_allclose(new, old - rate * g, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_loss_that_line_searches_try_has_the_exact_gradient():
    net, x, y = toy()
    learned = osc.parameters(net)
    value, gradient = jax.value_and_grad(loss_of(net, x, y))(learned)
    assert float(value) == pytest.approx(osc.evaluate(net, x, y)["loss"], rel=1e-6)
    assert float(osc.relative_error(gradient, osc.exact_gradient(net, x, y))) < 1e-6


def test_an_optimizer_that_needs_more_is_refused_in_words():
    def update(updates, state, params=None, *, weather, **rest):
        return updates, state

    strange = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    with pytest.raises(osc.BadType, match=r"optimizer needs 'weather'; an update is given .* value_fn"):
        train(optimizer=strange)
