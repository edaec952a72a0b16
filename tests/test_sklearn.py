"""The estimators of scikit-learn: its own checks, and how well they learn by default."""

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import oscsim as osc

pytestmark = pytest.mark.usefixtures("unchecked")
KINDS = ("Classifier", "Regressor")
QUICK = (
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimators_unfitted",
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_complex_data",
    "check_estimators_empty_data_messages",
)


def model(kind, **settings):
    return getattr(osc.sklearn, kind)((4,), estimator=osc.Exact(), **{"epochs": 3, "random_state": 0, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_quick_checks_of_scikit_learn(kind):
    ran = set()
    for estimator, check in estimator_checks_generator(model(kind)):
        name = check.func.__name__
        if name in QUICK:
            check(estimator)
            ran.add(name)
    assert len(ran) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_checks_of_scikit_learn(kind):
    made = model(kind, epochs=60)
    found = check_estimator(made, expected_failed_checks=osc.sklearn.EXPECTED_FAILED_CHECKS, on_skip=None, on_fail=None)
    assert [(f["check_name"], str(f["exception"])) for f in found if f["status"] == "failed"] == []


@pytest.mark.slow
def test_a_classifier_learns_takes_any_labels_and_can_be_searched():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model("Classifier", epochs=15)), {"classifier__batch_size": [10, 30]}, cv=2
    )
    search.fit(x, names)
    assert search.score(x, names) > 0.9
    shares = search.predict_proba(x)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    best = search.best_estimator_[-1]
    np.testing.assert_array_equal(best.classes_[shares.argmax(axis=1)], search.predict(x))
    assert best.history_[-1]["error"] < 15


@pytest.mark.slow
def test_a_regressor_learns_and_keeps_the_shape_and_scale_of_its_targets():
    x = np.linspace(-3, 3, 60)[:, None]
    y = 100 + 20 * np.tanh(x[:, 0])
    fitted = model("Regressor", epochs=60, batch_size=10).fit(x, y)
    assert fitted.score(x, y) > 0.9
    assert fitted.predict(x).shape == y.shape
    both = model("Regressor").fit(x, np.stack([y, -y], axis=1))
    assert both.predict(x).shape == (60, 2)
    np.testing.assert_array_equal(clone(fitted).fit(x, y).predict(x), fitted.predict(x))
    with pytest.raises(ValueError, match="5 features"):
        fitted.predict(np.zeros((2, 5)))


def test_one_class_is_refused():
    with pytest.raises(osc.BadValue, match="y holds one class, a: give two"):
        model("Classifier").fit(np.eye(3), ["a"] * 3)


def test_the_default_is_the_lock_in():
    x, y = load_iris(return_X_y=True)
    fitted = osc.sklearn.Classifier((4,), epochs=12, random_state=0).fit(x, y)
    assert fitted.score(x, y) > 0.85
    assert "error_bar" in fitted.history_[-1]
    assert jax.config.jax_enable_x64 is False
