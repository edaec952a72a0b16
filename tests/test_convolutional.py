"""Convolutional networks: their parts against plain formulas, their gradients against oracles, their errors."""

import functools
import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import oscsim as osc
from oscsim.core.arrays import norm
from tests.helpers import order
from tests.marks import slow_except

pytestmark = pytest.mark.usefixtures("x64")

SOFT = osc.SoftmaxPooling(2, temperature=0.5)


def network(*layers, image=(8, 8, 1), classes=3, **kwargs):
    """A network and two samples."""
    net = osc.ConvolutionalNetwork(layers, image, classes, key=jax.random.key(0), **kwargs)
    return net, jax.random.normal(jax.random.key(1), (2, *image)), jnp.array([0, 2])


def small(pooling=SOFT, **kwargs):
    """Two convolutions, the second with a pooling through which its feedback passes."""
    return network(osc.Convolution(2, pooling=osc.AveragePooling()), osc.Convolution(3, 2, pooling=pooling), **kwargs)


NETWORKS = {
    "two layers": small,
    "three layers": lambda: network(
        osc.Convolution(2, pooling=SOFT), osc.Convolution(3, pooling=SOFT), osc.Convolution(4, 2, padding="VALID")
    ),
    "strides": lambda: network(osc.Convolution(3, stride=2), osc.Convolution(3, 2, stride=2, scale=0.3)),
    "squared error": lambda: small(cost=osc.SquaredError(), time_constant=(1.0, 2.0, 0.5)),
}
CASES = slow_except(("two layers",), NETWORKS)


def random_complex(key, shape, dtype=complex):
    return jnp.asarray(jax.random.normal(key, shape, complex), dtype)


NATIVE = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("padding", "kernel"), [("SAME", 3), ("VALID", 2)])
def test_convolve_is_the_complex_convolution(stride, padding, kernel):
    s = random_complex(jax.random.key(0), (7, 6, 2))
    weight = jax.random.normal(jax.random.key(1), (kernel, kernel, 2, 3))
    found = osc.convolve(weight, s, stride, padding)
    pads = jax.lax.padtype_to_pads((7, 6), (kernel, kernel), (stride, stride), padding)
    padded = np.pad(np.asarray(s), (*pads, (0, 0)))
    for out in range(3):
        plain = sum(scipy.signal.correlate2d(padded[..., i], weight[..., i, out], mode="valid") for i in range(2))
        np.testing.assert_allclose(found[..., out], plain[::stride, ::stride], atol=1e-13)
    native = jax.lax.conv_general_dilated(s[None].real, weight, (stride, stride), padding, **NATIVE)[0]
    np.testing.assert_allclose(osc.convolve(weight, s.real, stride, padding), native, atol=1e-13)


def test_convolve_is_differentiated_like_the_native_convolution():
    s, weight = jax.random.normal(jax.random.key(0), (5, 5, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 3))

    def native(weight, s):
        return jax.lax.conv_general_dilated(s[None], weight, (1, 1), "SAME", **NATIVE)[0]

    ours, theirs = (
        jax.jit(jax.grad(lambda w, s, f=f: jnp.sum(jnp.sin(f(w, s))), argnums=(0, 1)))(weight, s)
        for f in (osc.convolve, native)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
def test_softmax_pooling_is_its_formula_and_holomorphic(temperature):
    z = np.asarray(random_complex(jax.random.key(2), (4, 6, 3)))
    naive = np.zeros((2, 3, 3), complex)
    for row, column, channel in np.ndindex(naive.shape):
        window = z[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
        weight = np.exp(window / temperature)
        naive[row, column, channel] = np.sum(window * weight) / np.sum(weight)
    pooling = osc.SoftmaxPooling(2, temperature)
    np.testing.assert_allclose(pooling(jnp.asarray(z)), naive, rtol=1e-12)
    osc.check_holomorphic(pooling, shape=(4, 4, 2), spread=0.3 * temperature)


def test_poolings_agree_in_their_limits_and_stay_in_range():
    z = jax.random.normal(jax.random.key(3), (6, 6, 2))
    np.testing.assert_allclose(osc.SoftmaxPooling(3, 1e-3)(z), osc.MaxPooling(3)(z), atol=1e-12)
    np.testing.assert_allclose(osc.SoftmaxPooling(3, 1e9)(z), osc.AveragePooling(3)(z), atol=1e-8)
    for shift in (1e4, -1e4):  # exp alone would overflow, or leave nothing
        np.testing.assert_allclose(SOFT(z + shift), SOFT(z) + shift, rtol=1e-9)
    osc.check_holomorphic(osc.AveragePooling(), shape=(4, 4, 1))
    with pytest.raises(osc.NotHolomorphicError, match="MaxPooling"):
        osc.check_holomorphic(osc.MaxPooling(), shape=(4, 4, 1), points=2)


@pytest.mark.slow
def test_the_force_is_the_drive_from_below_and_the_transposed_one_from_above():
    net, x, y = small()
    inputs = osc.Inputs.of(net, x, y)
    s = tuple(random_complex(jax.random.key(i), a.shape) for i, a in enumerate(net.rest(2)))
    beta = 0.3 + 0.1j

    @jax.jit
    def by_hand(s):
        def drive(i):
            return jax.vmap(lambda s: net.convolutions[i](net.weights[i], net.biases[i], s))

        feedback = jax.vjp(drive(1), s[0])[1](s[1])[0]
        logits = s[1].reshape(2, -1) @ net.weights[-1].T + net.biases[-1][None]
        error = jax.nn.one_hot(y, 3) - jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=1, keepdims=True)
        return drive(0)(x) + feedback, drive(1)(s[0]) + beta * (error @ net.weights[-1]).reshape(s[1].shape)

    found = jax.jit(lambda s: net.force(inputs.clamped, s, inputs.y, beta))(s)
    for a, b in zip(found, by_hand(s), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
def test_the_network_is_holomorphic():
    osc.check_holomorphic(small()[0], points=1)


def test_a_temperature_is_not_learned():
    net, _, _ = small()
    learned = [a.shape for a in jax.tree.leaves(osc.parameters(net))]
    assert learned == [a.shape for a in (*net.weights, *net.biases)]
    assert net.shapes == ((4, 4, 2), (2, 2, 3))
    assert net.outputs == 3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_implicit_gradient_equals_backpropagation_and_finite_differences(case):
    net, x, y = NETWORKS[case]()
    implicit = osc.exact_gradient(net, x, y)
    assert osc.relative_error(implicit, osc.exact_gradient(net, x, y, "bptt", max_steps=100)) < 1e-9
    leaves, structure = jax.tree.flatten(osc.parameters(net))
    directions = [jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]

    def along(step):
        moved = jax.tree.unflatten(structure, [a + step * d for a, d in zip(leaves, directions, strict=True)])
        return osc.evaluate(eqx.combine(moved, net), x, y)["loss"]

    h = 1e-5
    slope = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(implicit), directions, strict=True))
    assert abs((along(h) - along(-h)) / (2 * h) - slope) < 1e-6 * norm(implicit)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_phases_are_exact_to_the_order_of_their_points(case):
    net, x, y = NETWORKS[case]()
    exact = osc.exact_gradient(net, x, y)
    assert osc.relative_error(osc.Phases(0.3, 16)(net, x, y).gradient, exact) < 1e-8
    amplitudes = np.array([0.3, 0.4, 0.5])
    for points in (2,) if case == "two layers" else (2, 4):
        errors = [osc.relative_error(osc.Phases(a, points)(net, x, y).gradient, exact) for a in amplitudes]
        assert abs(order(errors, amplitudes) - points) < 0.1 * points, points


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32"], indirect=True)
def test_float32_stays_float32(precision):
    net, x, y = small()
    estimate = osc.Phases(0.1, 2)(net, x, y)
    assert {a.dtype.name for a in jax.tree.leaves(estimate) if a.dtype != bool} == {precision}
    assert estimate.residual < 1e-6


def test_the_feed_forward_twin_is_backpropagated():
    net, x, y = small()
    twin = osc.ConvolutionalFeedForwardNetwork(net.convolutions, net.input_shape, 3, key=jax.random.key(0))
    for a, b in zip(twin.weights, net.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    estimate = osc.Backpropagation()(twin, x, y)

    @jax.jit
    def loss(weights):
        s = x
        for weight, pool in zip(weights, (osc.AveragePooling(), SOFT), strict=False):
            s = jax.nn.relu(jax.vmap(pool)(jax.lax.conv_general_dilated(s, weight, (1, 1), "SAME", **NATIVE)))
        return -jnp.mean(jax.nn.log_softmax(s.reshape(2, -1) @ weights[-1].T)[jnp.arange(2), y])

    assert float(estimate.loss) == pytest.approx(float(loss(twin.weights)))
    for a, b in zip(estimate.gradient.weights, jax.jit(jax.grad(loss))(twin.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert osc.evaluate(twin, x, y)["loss"] == pytest.approx(float(estimate.loss))


def test_the_models_have_the_layers_of_the_paper():
    four, six, twin = (
        eqx.filter_eval_shape(make, key=jax.random.key(0))
        for make in (osc.models.vgg4, osc.models.vgg6, osc.models.vgg4_feedforward)
    )
    assert four.shapes == ((16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 512))
    assert six.shapes == ((16, 16, 128), (16, 16, 128), (8, 8, 256), (6, 6, 256), (3, 3, 512), (1, 1, 512))
    assert [a.shape for a in twin.weights] == [a.shape for a in four.weights]
    with pytest.raises(ValueError, match=r"width=0.001 leaves no channel of 128: use 1/128"):
        osc.models.vgg4(width=0.001, key=jax.random.key(0))


def model(make):
    """One of the paper's networks at an eighth of its width, and two samples."""
    net = make(10, 1 / 8, key=jax.random.key(0))
    return net, jax.random.normal(jax.random.key(1), (2, 32, 32, 3)), jnp.array([1, 7])


@pytest.mark.slow
@pytest.mark.parametrize("make", [osc.models.vgg4, osc.models.vgg6])
def test_gradients_of_the_models_are_exact_to_the_order_of_their_points(make):
    net, x, y = model(make)
    exact = osc.exact_gradient(net, x, y)
    assert osc.relative_error(osc.Phases(0.5, 16)(net, x, y).gradient, exact) < 1e-8
    amplitudes = np.array([1.0, 1.4, 2.0])
    for points in (2, 4):
        errors = [osc.relative_error(osc.Phases(a, points)(net, x, y).gradient, exact) for a in amplitudes]
        assert abs(order(errors, amplitudes) - points) < 0.1 * points, (points, errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "smaller", "amplitude"),
    [(small, 0.1, 0.3), (lambda: model(osc.models.vgg4), 0.25, 0.5)],
    ids=["two layers", "vgg4"],
)
def test_lock_in_bias_is_second_order_in_frequency_and_does_not_know_the_amplitude(build, smaller, amplitude):
    net, x, y = build()
    exact = osc.exact_gradient(net, x, y)
    periods = np.array([100, 200])

    def gradient(period, amplitude):
        teaching = osc.Rotating(amplitude, float(period))
        return osc.LockIn(teaching, integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=400))(
            net, x, y
        ).gradient

    errors = [osc.relative_error(gradient(period, amplitude), exact) for period in periods]
    assert 1.9 < order(errors, 1 / periods) < 2.1, errors
    assert osc.relative_error(gradient(100, smaller), gradient(100, amplitude)) < 1e-8


def test_what_is_not_holomorphic_declines_complex_signals():
    net, x, y = small(osc.MaxPooling(2))
    with pytest.raises(osc.NotHolomorphicError, match=r"MaxPooling is not holomorphic.*SoftmaxPooling"):
        osc.Phases(0.1, 4)(net, x, y)
    with pytest.raises(osc.NotHolomorphicError, match="MaxPooling"):
        osc.LockIn(osc.Rotating(0.1, 100.0))(net, x, y)
    hard, _, _ = small(activation=osc.HardTanh(width=2.0))
    with pytest.raises(osc.NotHolomorphicError, match="HardTanh"):
        osc.settle(hard, x, y, 0.1j)
    assert osc.settle(net, x, y, 0.1).residual.max() < 1e-12  # real ones pass


def stack(*layers, image=(8, 8, 3), outputs=2):
    return osc.ConvolutionalNetwork(layers, image, outputs, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: osc.SoftmaxPooling(2, 0.0), "temperature=0: use a positive, finite number"),
        (lambda: osc.SoftmaxPooling(2, -1.0), "temperature=-1: use a positive"),
        (lambda: osc.AveragePooling(0), "size=0: use a positive integer"),
        (lambda: osc.Convolution(0), "channels=0: use a positive integer"),
        (lambda: osc.Convolution(4, -3), "kernel=-3: use a positive integer"),
        (lambda: osc.Convolution(4, stride=0), "stride=0: use a positive integer"),
        (lambda: osc.Convolution(4, padding="same"), "padding='same': use 'SAME' or 'VALID'"),
        (lambda: osc.Convolution(4, pooling=osc.SoftmaxPooling), "pooling=.*: use an instance of a pooling"),
        (
            lambda: stack(osc.Convolution(4, 9, padding="VALID")),
            r"convolutions\[0\], on \(8, 8, 3\): kernel=9 "
            "is larger than the image of 8 by 8: use a smaller kernel",
        ),
        (
            lambda: stack(osc.Convolution(4), osc.Convolution(4, pooling=osc.MaxPooling(3))),
            r"convolutions\[1\], on "
            r"\(8, 8, 4\): pooling=MaxPooling\(size=3\): windows of 3 by 3 do not divide the 8 by 8",
        ),
        (
            lambda: stack(osc.Convolution(4, 7, padding="VALID", pooling=osc.AveragePooling(4))),
            "do not divide the 2 by 2",
        ),
        (
            lambda: osc.models.vgg4(temperature=2.0, pooling=osc.MaxPooling(), key=jax.random.key(0)),
            r"temperature=2.0 is that of the softmax pooling, not of MaxPooling",
        ),
        (lambda: stack(osc.Convolution(4, scale=-1.0)), "scale=-1.0: use a finite number"),
        (lambda: stack(), r"convolutions=\(\): give one"),
        (lambda: stack(SOFT), r"convolutions\[0\]=SoftmaxPooling.*: use Convolution"),
        (lambda: stack(osc.Convolution(4), image=(8, 8)), r"image=\(8, 8\): give height, width and channels"),
        (lambda: stack(osc.Convolution(4), outputs=0), "outputs=0: use a positive integer"),
        (
            lambda: osc.settle(stack(osc.Convolution(4)), jnp.zeros((1, 8, 8, 1)), jnp.array([0])),
            r"x has shape \(1, 8, 8, 1\), this network takes \(batch, 8, 8, 3\)",
        ),
        (
            lambda: inspect.unwrap(osc.convolve)(jnp.zeros((3, 3, 2, 4)), jnp.zeros((8, 8, 3))),
            "for images of 2 channels, s has 3",
        ),
        (lambda: osc.MaxPooling(2)(jnp.zeros((3, 4, 1))), "size=2: windows of 2 by 2 do not divide an image of 3 by 4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize(("products", "digits"), [("bfloat16", 2**-9), ("bfloat16x3", 2**-17)])
def test_split_products_round_their_operands_and_so_do_their_derivatives(products, digits):
    samples, weight = jax.random.normal(jax.random.key(0), (3, 5, 4, 2)), jax.random.normal(jax.random.key(1), (18, 3))
    weight, along = weight.reshape(3, 3, 2, 3), jax.random.normal(jax.random.key(2), samples.shape)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def results(dtype, products):
        """The product, its derivatives, and the derivative of one of these: all are linear in each operand."""
        w, s, t = (a.astype(dtype) for a in (weight, samples, along))

        def energy(w, s):
            return jnp.sum(osc.convolve(w, s, products=products) ** 2) / 2

        def force(s):
            return jax.vmap(jax.grad(energy, argnums=1), in_axes=(None, 0))(w, s)

        return (
            jax.vmap(lambda s: osc.convolve(w, s, products=products))(s),
            osc.convolve(w, s[0] + 1j * t[0], products=products),
            force(s),
            jax.jvp(force, (s,), (t,))[1],
            jax.grad(lambda w: jnp.sum(jax.vmap(energy, in_axes=(None, 0))(w, s)))(w),
            jax.vmap(jax.grad(energy), in_axes=(None, 0))(w, s),
            jax.grad(lambda s: jnp.sum(force(s) * t))(s),
        )

    split = results(jnp.float32, products)
    at_once = osc.convolve(weight.astype(jnp.float32), samples[0].astype(jnp.float32), products=products)
    np.testing.assert_allclose(at_once, split[0][0], rtol=1e-5, atol=1e-6)
    for found, exact in zip(split, results(jnp.float64, None), strict=True):
        assert found.dtype in (jnp.float32, jnp.complex64)
        error = float(jnp.max(jnp.abs(found - exact)) / jnp.max(jnp.abs(exact)))
        assert digits / 8 < error < 4 * digits  # below: these were not such products


def test_products_are_those_of_float32_unless_told_otherwise():
    net = osc.ConvolutionalNetwork((osc.Convolution(2),), (4, 4, 1), 3, key=jax.random.key(0))
    s, weight = jax.random.normal(jax.random.key(1), (4, 4, 1)), net.weights[0]
    assert net.products is None
    assert "split_product" not in str(jax.make_jaxpr(osc.convolve)(weight, s))
    with pytest.raises(ValueError, match="'bfloat16' adds up in float32, for activities of float64"):
        osc.convolve(weight, s, products="bfloat16")
    for build in (osc.models.vgg4, osc.models.vgg6, osc.models.vgg4_feedforward):
        assert build(width=1 / 64, products="bfloat16x3", key=jax.random.key(0)).products == "bfloat16x3"
        with pytest.raises(ValueError, match="products='float16': use 'bfloat16', 'bfloat16x3', or None, for float32"):
            build(width=1 / 64, products="float16", key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32"], indirect=True)
def test_gradients_with_products_of_bfloat16_parts(precision):
    x, y = jax.random.normal(jax.random.key(1), (4, 32, 32, 3)), np.arange(4)

    def cosines(model, estimator, products):
        plain, split = (
            estimator(model(width=1 / 16, products=p, key=jax.random.key(0)), x, y).gradient for p in (None, products)
        )
        found = osc.per_layer(osc.cosine, split, plain)
        return np.array([found[f"weights[{layer}]"] for layer in range(5)])

    phases = osc.Phases(1.0, 2, tolerance=1e-4)
    assert np.all(cosines(osc.models.vgg4, phases, "bfloat16x3") > 0.999)
    assert np.all(cosines(osc.models.vgg4_feedforward, osc.Backpropagation(), "bfloat16x3") > 0.999)
    assert cosines(osc.models.vgg4, phases, "bfloat16")[0] < 0.9  # the nudge is lost on the way down
