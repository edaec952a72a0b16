"""What many test files use: a toy network with a batch, the order at which an error falls, a served lab."""

import asyncio
import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np

import oscsim as osc


def toy(batch=3, **kwargs):
    """The paper's 6-4-4-4 network, with inputs at random and a target for each."""
    net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5, **kwargs)
    return net, jax.random.uniform(jax.random.key(3), (batch, 6)), jnp.array([0, 2, 3, 1])[jnp.arange(batch) % 4]


class OneNeuron(osc.AbstractNetwork):
    r"""One neuron whose activity is its potential, without inputs; a subclass gives $\Phi$."""

    activation = osc.Identity()
    shapes = ((1,),)
    input_shape = (1,)
    outputs = 1

    def clamp(self, x):
        return x


class Quadratic(OneNeuron):
    r"""$F = b + w u^2 - c \beta$, of a cubic $\Phi$, with $c$ = `COST`."""

    b: jax.Array
    w: jax.Array

    def phi(self, clamped, s, y, beta):
        return jnp.sum(self.b * s[0] + self.w * s[0] ** 3 / 3) - beta * COST * jnp.sum(s[0])


COST = 0.7


def order(errors, scales):
    """The slope of log error against log scale."""
    return np.polyfit(np.log(scales), np.log([float(e) for e in errors]), 1)[0]


class Served:
    """A lab that is served from a thread of this process; `labs` are those of its visitors."""

    def __init__(self, guard=None, **options):
        from tornado.ioloop import IOLoop

        from oscsim.lab import server
        from oscsim.lab.guard import Guard
        from oscsim.lab.view import NoiseLab

        self.labs, self.guard = [], guard or Guard("127.0.0.1")
        made, ready = self.labs, threading.Event()

        class Known(NoiseLab):  # not of the class there: that of another server of this process keeps all it makes
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                made.append(self)

        def work():
            asyncio.set_event_loop(asyncio.new_event_loop())
            self.loop = IOLoop.current()
            with contextlib.ExitStack() as stack:
                stack.callback(setattr, server, "NoiseLab", server.NoiseLab)
                server.NoiseLab = Known
                self.server = server.make_server(0, guard=self.guard, loop=self.loop, **options)
                self.loop.add_callback(server._ignore_departures)
                self.server.start()
                self.loop.add_callback(ready.set)
                self.loop.start()

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert ready.wait(60)
        self.port = self.server.port
        self.url = f"http://127.0.0.1:{self.port}/?token={self.guard.token}"

    def stop(self):
        for lab in self.labs:
            lab.runner.close(wait=True)
        self.loop.add_callback(self.server.stop)
        self.loop.add_callback(self.loop.stop)
        self.thread.join(30)
        assert not self.thread.is_alive()
