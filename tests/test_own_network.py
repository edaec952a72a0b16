"""The network of docs/own_network.md: as short as it says, and exact."""

import re
from pathlib import Path

import diffrax
import jax
import pytest

import oscsim as osc

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own_network.md"


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_network_of_the_page_in_float64():
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)[0]
    definition = block[block.index("class ") :]
    assert len([line for line in definition.splitlines() if line.strip()]) < 25
    page: dict = {}
    exec(block, page)
    net = page["LateralInhibition"](64, 12, 10, key=jax.random.key(0))
    x, y = (a[:3] for a in osc.datasets.load("digits"))
    exact = osc.exact_gradient(net, x, y)
    assert osc.relative_error(osc.exact_gradient(net, x, y, "bptt"), exact) < 1e-9
    assert osc.relative_error(osc.Phases(0.1, 12)(net, x, y).gradient, exact) < 1e-9
    errors = [
        osc.relative_error(
            osc.LockIn(
                osc.Rotating(0.1, period),
                integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=int(4 * period)),
            )(net, x, y).gradient,
            exact,
        )
        for period in (128.0, 256.0)  # at equal step size: the step is part of the lag
    ]
    assert 3.8 < errors[0] / errors[1] < 4.2  # the lag of a finite period, O(omega^2), and nothing else
    assert osc.check_holomorphic(net, x, y)
    assert jax.tree.structure(osc.parameters(net)) == jax.tree.structure(exact)


@pytest.mark.parametrize("name", ["psi", "force", "clamped"])
def test_a_field_that_hides_what_the_package_calls_is_refused(name):
    class Own(osc.AbstractNetwork):
        __annotations__ = {name: jax.Array}
        activation = osc.Tanh()
        shapes = ((2,),)

        def clamp(self, x):
            return x

        def phi(self, clamped, s, y, beta):
            return (clamped * s[0]).sum() - beta * osc.SquaredError()(s[0], y)

    net = Own(jax.numpy.ones(2))
    with pytest.raises(osc.BadType, match=rf"the field {name} of Own hides AbstractNetwork\.{name}.*another name"):
        osc.settle(net, jax.numpy.ones((1, 2)), jax.numpy.ones((1, 2)))
