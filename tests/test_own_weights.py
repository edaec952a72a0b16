"""Weights of one's own, where a network is made and later; what networks and gradients print, and their diagram."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import oscsim as osc
from tests.helpers import toy

KEY = jax.random.key(0)
W = [np.arange(6.0).reshape(3, 2) / 6, np.array([[0.5, -1.0, 2.0]])]


def test_a_network_of_given_weights_is_the_network_of_these_weights():
    biases = [np.array([0.1, 0.2, 0.3]), [-1]]
    for kind in (osc.LayeredNetwork, osc.FeedForwardNetwork):
        net = kind((2, 3, 1), weights=W, biases=biases)
        for mine, theirs in zip((*W, *biases), (*net.weights, *net.biases), strict=True):
            np.testing.assert_array_equal(theirs, np.asarray(mine, np.float32))
            assert theirs.dtype == jnp.float32
    x = np.array([[0.3, -0.7]])
    expected = W[1] @ np.maximum(W[0] @ x[0] + biases[0], 0) + biases[1]
    np.testing.assert_allclose(
        osc.FeedForwardNetwork((2, 3, 1), weights=W, biases=biases)(jnp.asarray(x[0], jnp.float32)), expected, rtol=1e-6
    )


def test_what_is_not_given_is_drawn_as_it_would_be():
    whole = osc.LayeredNetwork((2, 3, 1), key=KEY)
    part = osc.LayeredNetwork((2, 3, 1), key=KEY, weights=[None, W[1]])
    np.testing.assert_array_equal(part.weights[0], whole.weights[0])
    np.testing.assert_array_equal(part.weights[1], np.asarray(W[1], np.float32))
    np.testing.assert_array_equal(part.biases[0], np.zeros(3))
    ring = np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1)
    all_drawn = osc.HopfieldNetwork((2, 4, 2), key=KEY)
    coupled = osc.HopfieldNetwork((2, 4, 2), key=KEY, coupling=ring, readout_bias=[1, 2])
    np.testing.assert_array_equal(coupled.coupling, ring)
    np.testing.assert_array_equal(coupled.readout_bias, [1, 2])
    np.testing.assert_array_equal(coupled.weights, all_drawn.weights)
    np.testing.assert_array_equal(coupled.readout_weights, all_drawn.readout_weights)
    given = osc.HopfieldNetwork((2, 4, 2), cost=osc.SquaredError(), coupling=ring, weights=np.ones((4, 2)))
    assert given.readout_weights is None


@pytest.mark.parametrize("coupling", [np.roll(np.eye(4), 1, axis=1), np.eye(4)])
def test_couplings_that_do_not_act_as_they_are_given_are_said(coupling):
    with pytest.warns(UserWarning, match=r"what acts is \(coupling \+ coupling.T\) / 2 without its diagonal"):
        osc.HopfieldNetwork((2, 4, 2), key=KEY, coupling=coupling)


@pytest.mark.usefixtures("x64")
def test_given_weights_have_the_precision_of_jax():
    assert osc.LayeredNetwork((2, 3, 1), weights=W).dtype == np.float64


def test_weights_are_replaced_by_name():
    net, x, y = toy()
    new = net.replace(weights=[None, 2 * np.eye(4), None], biases=[jnp.ones(4)] * 3)
    np.testing.assert_array_equal(new.weights[1], 2 * np.eye(4))
    assert new.weights[0] is net.weights[0]
    expected = eqx.tree_at(lambda n: (n.weights[1], n.biases), net, (2 * jnp.eye(4), (jnp.ones(4),) * 3))
    assert eqx.tree_equal(new, expected)
    imperfect = osc.hardware.spread(net, KEY, gain=0.1)
    assert eqx.tree_equal(imperfect.replace(network=osc.parameters(new)).network, new)
    images = osc.ConvolutionalNetwork((osc.Convolution(2, 3),), (4, 4, 1), 2, key=KEY)
    assert float(jnp.sum(images.replace(weights=[np.ones((3, 3, 1, 2)), None]).weights[0])) == 18
    assert float(osc.FeedForwardNetwork((2, 3, 1), weights=W).replace(biases=[None, [4]]).biases[1][0]) == 4
    jax.jit(lambda w: osc.settle(net.replace(weights=[None, w, None]), x, y, throw=False))(jnp.eye(4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda net: net.replace(weights=[np.ones((6, 4)), None, None]), r"weights\[0\] has shape \(6, 4\).*\.T"),
        (lambda net: net.replace(biases=[np.ones(3), None, None]), r"biases\[0\] has shape \(3,\): give .*\(4,\)"),
        (lambda net: net.replace(weights=[W[0]]), r"weights has 1 entries: give 3 arrays, of shapes \(4, 6\)"),
        (lambda net: net.replace(weights=W[0]), r"weights is a ndarray: give a list of 3 arrays"),
        (lambda net: net.replace(biases=["a", None, None]), r"biases\[0\]='a': use real numbers"),
        (lambda net: net.replace(biases=[np.full(4, np.nan), None, None]), r"biases\[0\] holds .* not finite"),
        (lambda net: net.replace(activation=osc.Tanh()), r"activation is no parameter of .* are weights, biases;"),
        (lambda net: net.replace(weight=W), r"weight is no parameter"),
        (lambda net: osc.LayeredNetwork((2, 3, 1)), r"key is None.*or all weights"),
        (lambda net: osc.LayeredNetwork((2, 3, 1), weights=[None, W[1]]), r"key is None"),
        (lambda net: osc.LayeredNetwork((2, 3, 1), weights=W, scale=1.0), r"scale=1.0: all weights are given"),
        (lambda net: osc.LayeredNetwork((2, 4, 1), weights=W), r"weights\[0\] has shape \(3, 2\)"),
        (lambda net: osc.LayeredNetwork((2, 3, 1), weights=[1j * W[0], W[1]]), r"use real numbers"),
        (lambda net: osc.HopfieldNetwork((2, 4, 1), key=KEY, couplings=1), r"couplings is no parameter.*coupling"),
        (
            lambda net: osc.HopfieldNetwork((2, 4, 1), key=KEY, cost=osc.SquaredError(), readout_bias=[1]),
            r"readout_bias is no parameter of this HopfieldNetwork: give weights, coupling, bias",
        ),
        (lambda net: osc.hardware.spread(net, KEY, gain=0.1).replace(network=3), r"network is a int.*LayeredNetwork"),
    ],
)
def test_wrong_weights_are_refused_in_words(make, said):
    net, _, _ = toy()
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        make(net)
    assert isinstance(caught.value, (osc.BadValue, osc.BadType))


def test_a_network_prints_as_a_summary():
    net = osc.LayeredNetwork((64, 32, 10), key=KEY)
    lines = str(net).splitlines()
    assert lines[0] == "LayeredNetwork, 2,410 parameters of float32"
    assert [line.split() for line in lines[1:5]] == [
        ["input", "64"],
        ["neurons", "32"],
        ["outputs", "10"],
        ["activation", "Logistic(slope=4,", "centre=0.5)"],
    ]
    assert lines[-1].split() == ["layer", "1", "weights[1]", "(10,", "32),", "biases[1]", "(10,)", "330"]
    assert repr(net) == str(net)
    page = net._repr_html_()
    assert page.count("<tr>") == len(lines) - 1
    assert "2,410 parameters" in page
    hopfield = str(osc.HopfieldNetwork((2, 4, 2), key=KEY))
    assert "coupling         (4, 4)  16" in hopfield
    assert "output" in repr(osc.FeedForwardNetwork((2, 3, 1), weights=W))


@pytest.mark.slow
def test_a_gradient_says_that_it_is_one():
    net, x, y = toy()
    gradient = osc.exact_gradient(net, x, y)
    assert "Logistic" not in str(gradient)
    title, *rows = str(gradient).splitlines()
    assert title.startswith("Gradient of a LayeredNetwork, or its parameters, norm ")
    norms = {row.split()[0]: float(row.split()[-1]) for row in rows}
    assert norms["weights[1]"] == pytest.approx(np.linalg.norm(gradient.weights[1]), rel=1e-2)
    assert float(title.split()[-1]) == pytest.approx(np.linalg.norm(list(norms.values())), rel=1e-2)
    assert "norm" in gradient._repr_html_()
    twin = osc.FeedForwardNetwork((6, 4, 4), key=KEY)
    for estimate in (osc.Phases(0.1, 4)(net, x, y), osc.Backpropagation()(twin, x, y)):
        assert str(estimate).startswith("Estimate at loss ")
        assert f"Gradient of a {type(estimate.gradient).__name__}" in str(estimate)


def test_networks_print_whatever_stands_in_their_leaves():
    net, _, _ = toy()
    seen = []
    jax.jit(lambda n: (seen.append(repr(n)), n)[1])(osc.parameters(net))
    eqx.filter_jit(lambda n: seen.append(repr(n)))(net)
    assert seen[0].startswith("Gradient of a LayeredNetwork")
    assert seen[1].startswith("LayeredNetwork, 68 parameters")
    for other in (
        jax.tree.map(lambda _: "label", net),
        jax.eval_shape(lambda: net),
        eqx.partition(net, lambda _: 0)[1],
    ):
        assert "LayeredNetwork" in repr(other)


@pytest.mark.parametrize(
    ("net", "columns"),
    [
        (osc.LayeredNetwork((64, 32, 10), key=KEY), ["input\n64", "layer 1\n32", "readout\n10"]),
        (osc.LayeredNetwork((2, 3, 1), weights=W, cost=osc.SquaredError()), ["input\n2", "layer 1\n3", "layer 2\n1"]),
        (osc.HopfieldNetwork((3, 8, 2), key=KEY), ["input\n3", "layer 1\n8", "readout\n2"]),
        (
            osc.ConvolutionalNetwork((osc.Convolution(2, 3),), (4, 4, 1), 2, key=KEY),
            ["input\n4×4×1", "layer 1\n4×4×2", "readout\n2"],
        ),
    ],
    ids=lambda a: type(a).__name__,
)
def test_the_diagram_of_a_network(net, columns):
    ax = osc.plot.network(net)
    assert [text.get_text() for text in ax.texts if "\n" in text.get_text()] == columns
    assert len(ax.collections) == 2 * len(columns) - 1 + (type(net) is osc.HopfieldNetwork)


@pytest.mark.usefixtures("unchecked")
def test_the_diagram_is_of_networks_with_dynamics():
    with pytest.raises(osc.BadType, match="an instance of a network with dynamics"):
        osc.plot.network(osc.FeedForwardNetwork((2, 3, 1), weights=W))


def test_the_diagram_shows_the_signs_of_weights():
    ax = osc.plot.network(osc.LayeredNetwork((2, 3, 1), weights=W), plt.figure().add_subplot())
    lines = ax.collections[-2]
    assert len(lines.get_segments()) == 3  # of one readout
    blue, orange, _ = lines.get_colors()
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
