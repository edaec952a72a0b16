r"""The same gradients as a paper's repository computes them, to compare with: plain jax, complex64 throughout.

Complex weights and inputs, the force by `jax.grad` of the complex $\Phi$, the input layer's product in every step, a
Python loop of jitted steps, and every synapse's $\partial\Phi/\partial\theta$ accumulated while it oscillates: the
structure of the authors' code (github.com/Laborieux-Axel/holomorphic_eqprop: `models/mlp.py`, `outer_dynamics.py`).

Next to each Python loop stands one compiled loop, without a dispatch per step: the stronger opponent. The input passes
through its carry, or XLA would move the input layer out of the loop and no longer do the same work.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

POTENTIALS = (256, 256)
CLASSES = 10


def complex_parameters(net):
    """The weights and biases of a `LayeredNetwork`, as complex arrays."""
    return [(w.astype(jnp.complex64), b.astype(jnp.complex64)) for w, b in zip(net.weights, net.biases, strict=True)]


def activation(u):
    return 1 / (1 + jnp.exp(-4 * (u - 0.5)))


def phi(parameters, x, s, y, beta):
    """A whole batch at once; its samples do not interact."""
    total = 0.0
    for (w, b), (below, above) in zip(parameters, pairwise((x, *s)), strict=False):
        total += jnp.sum((below @ w.T + b) * above)
    w, b = parameters[-1]
    logits = s[-1] @ w.T + b
    return total + beta * jnp.sum(y * (logits - jnp.log(jnp.sum(jnp.exp(logits), axis=1, keepdims=True))))


def force(parameters, x, s, y, beta):
    return jax.grad(phi, argnums=2, holomorphic=True)(parameters, x, s, y, beta)


def plasticity(parameters, x, s, y, beta):
    return jax.grad(phi, argnums=0, holomorphic=True)(parameters, x, s, y, beta)


def rest(x):
    return tuple(jnp.zeros((len(x), n), jnp.complex64) for n in POTENTIALS)


def prepared(net, x, y):
    """Parameters, inputs and one-hot targets, all complex."""
    return complex_parameters(net), jnp.asarray(x, jnp.complex64), jax.nn.one_hot(y, CLASSES, dtype=jnp.complex64)


def anchored(x, u):
    """`x` itself, but seen by the compiler as a value that may change in every step."""
    return x * (1 + 0 * u[0][0, 0])


# Oscillation: Euler steps of length tau, accumulating the first Fourier coefficient of dPhi/dtheta.


@jax.jit
def step(parameters, x, u, y, beta):
    return force(parameters, x, tuple(activation(a) for a in u), y, beta)


def oscillate(data, amplitude, period, cycles, discard):
    """The gradient after `cycles` periods, the first `discard` left out, by a Python loop of jitted steps."""
    parameters, x, y = data
    u, total = rest(x), jax.tree.map(jnp.zeros_like, parameters)
    signal = np.exp(2j * np.pi * np.arange(cycles * period + 1) / period).astype(np.complex64)
    betas = np.complex64(amplitude) * signal
    for k in range(cycles * period):
        if k < discard * period:
            u = step(parameters, x, u, y, betas[k])
        else:  # the force acts at the start of a step, the synapses are read at its end
            u, total = _read(parameters, x, u, y, betas[k], betas[k + 1], signal[k + 1].conj(), total)
    return _normalised(total, amplitude, period * (cycles - discard), len(x))


@jax.jit
def _read(parameters, x, u, y, beta, beta_end, back, total):
    u = force(parameters, x, tuple(activation(a) for a in u), y, beta)
    new = plasticity(parameters, x, tuple(activation(a) for a in u), y, beta_end)
    return u, jax.tree.map(lambda t, g: t + g * back, total, new)


@partial(jax.jit, static_argnums=(2, 3, 4))
def oscillate_compiled(data, amplitude, period, cycles, discard):
    """`oscillate` as one compiled loop."""
    parameters, x, y = data

    def signal(k):
        return jnp.exp(2j * jnp.pi * (k % period) / period).astype(jnp.complex64)

    def free(k, u):
        return step(parameters, anchored(x, u), u, y, amplitude * signal(k))

    def reading(k, carry):
        u, total = carry
        end = signal(k + 1)
        return _read(parameters, anchored(x, u), u, y, amplitude * signal(k), amplitude * end, jnp.conj(end), total)

    u = lax.fori_loop(0, discard * period, free, rest(x))
    total = jax.tree.map(jnp.zeros_like, parameters)
    _, total = lax.fori_loop(discard * period, cycles * period, reading, (u, total))
    return _normalised(total, amplitude, period * (cycles - discard), len(x))


def _normalised(total, amplitude, count, batch):
    return jax.tree.map(lambda t: -t.real / (amplitude * count * batch), total)


# Settling: the plain iteration, one point of the teaching circle after the other, each from the free equilibrium.


@jax.jit
def settling_step(parameters, x, u, y, beta):
    new = force(parameters, x, tuple(activation(a) for a in u), y, beta)
    return new, jnp.max(jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in zip(new, u, strict=True)]))


@jax.jit
def _point(parameters, x, u, y, beta, total):
    new = plasticity(parameters, x, tuple(activation(a) for a in u), y, beta)
    return jax.tree.map(lambda t, g: t + g / beta, total, new)


def _iterate(parameters, x, u, y, beta, tolerance):
    while True:
        u, residual = settling_step(parameters, x, u, y, beta)
        if residual.item() <= tolerance:
            return u


@jax.jit
def _iterate_compiled(parameters, x, u, y, beta, tolerance):
    def one(carry):
        return settling_step(parameters, anchored(x, carry[0]), carry[0], y, beta)

    return lax.while_loop(lambda carry: carry[1] > tolerance, one, (u, jnp.asarray(jnp.inf, jnp.float32)))[0]


def phases(data, amplitude, points, tolerance, iterate=_iterate):
    """The N-point estimate, each point settled to `tolerance`."""
    parameters, x, y = data
    free = iterate(parameters, x, rest(x), y, np.complex64(0), tolerance)
    total = jax.tree.map(jnp.zeros_like, parameters)
    for k in range(points):
        beta = np.complex64(amplitude * np.exp(2j * np.pi * k / points))
        total = _point(parameters, x, iterate(parameters, x, free, y, beta, tolerance), y, beta, total)
    return jax.tree.map(lambda t: -t.real / (points * len(x)), total)


def phases_compiled(data, amplitude, points, tolerance):
    """`phases` with each settling as one compiled loop."""
    return phases(data, amplitude, points, tolerance, _iterate_compiled)


def noisy_network(net, inputs, teaching, q, steps):
    """Euler-Maruyama steps of a `LayeredNetwork` under white noise, in numpy: a function of the cycles."""
    weights = [np.asarray(w, np.float32) for w in net.weights]
    biases = [np.asarray(b, np.float32) for b in net.biases]
    x, y = np.asarray(inputs.x), np.eye(len(biases[-1]), dtype=np.float32)[np.asarray(inputs.y)]
    dt = float(teaching.period) / steps
    beta = np.asarray(jax.vmap(teaching)(jnp.arange(steps) * dt))
    generator = np.random.default_rng(0)
    drive = x @ weights[0].T + biases[0]

    def run(cycles):
        u = [np.zeros((len(x), len(b)), np.complex64) for b in biases[:-1]]
        for number in range(cycles * steps):
            s = [activation_in_numpy(a) for a in u]
            logits = s[-1] @ weights[-1].T + biases[-1]
            share = np.exp(logits)
            teach = beta[number % steps] * (y - share / share.sum(axis=1, keepdims=True))
            above = [*(s[i + 1] @ weights[i + 1] for i in range(len(u) - 1)), teach @ weights[-1]]
            below = [drive, *(s[i] @ weights[i + 1].T + biases[i + 1] for i in range(len(u) - 1))]
            for i, a in enumerate(u):
                kick = np.float32(q * dt**0.5) * generator.standard_normal(a.shape, np.float32)
                u[i] = a + np.float32(dt) * (below[i] + above[i] - a) + kick
        return u

    return run


def activation_in_numpy(u):
    return 1 / (1 + np.exp(-4 * (u - np.float32(0.5))))
