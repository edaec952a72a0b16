"""Time scales of neurons, teaching signal, inputs and weights: whether they are far enough apart to learn."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from oscsim.core.arrays import norm
from oscsim.core.checks import as_flag, as_positive, checked, untraced
from oscsim.core.errors import warn
from oscsim.core.printing import AbstractPrinted
from oscsim.equilibrium import exact_solution
from oscsim.equilibrium.modes import slowest_time
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient, parameters
from oscsim.signals.drive import check_drive, turning_coefficient
from oscsim.signals.teaching import AbstractTeaching


class TimeScales(AbstractPrinted):
    r"""The time scales that must stay apart for a network to learn; made by `check_time_scales`. Infinite means never.

    Attributes:
        neurons: the time constant of the network's slowest mode, $\tau_s$.
        period: $T$ of the teaching signal.
        presentation: how long an input stays; infinite if it never changes.
        weights: $|\theta| / (\eta |g|)$, the time in which weights move by their own size; None without a rate.
        swing: $|a_1| |\theta| / (\eta |\partial\Phi/\partial\theta|)$, the same at the speed of their swing to and fro
            within a cycle; None without a rate, and for weights that see demodulated gradients only.
        rate: $\eta$, if one was given.
        fastest_rate: the largest rate that no warning stands against; gradients are true to some percent only well
            below it.

    Example:
        >>> scales = osc.check_time_scales(net, x, y, osc.Rotating(0.2, 100.0), cycles_per_input=None, rate=1e-4)
        >>> scales.neurons < scales.period < scales.weights
        True
    """

    neurons: float
    period: float
    presentation: float
    weights: float | None
    swing: float | None
    rate: float | None
    fastest_rate: float

    @property
    def too_close(self) -> tuple[str, ...]:
        """One message for every two time scales that are too close for learning: values and remedy."""
        found = []
        if not self.period >= 2 * math.pi * self.neurons:
            found.append(
                f"period / neurons = {self.period:.3g} / {self.neurons:.3g} = {self.period / self.neurons:.2g} is "
                "below 2 pi: the slowest mode lags by an eighth of a turn or more, and gradients through several "
                f"layers change sign; use a period of {2 * math.pi * self.neurons:.3g} or more"
            )
        if not self.presentation >= 2 * self.period:
            found.append(
                f"presentation / period = {self.presentation:.3g} / {self.period:.3g} = "
                f"{self.presentation / self.period:.2g} is below 2: what the change of inputs sets off is in every "
                "cycle; show each input for 2 cycles or more"
            )
        slower = f"use a rate of {self.fastest_rate:.2g} or less"
        name, stay = self._stay
        if self.weights is not None and self.weights < stay:
            while_shown = "while one input is shown, and forget the others" if name == "presentation" else "in a cycle"
            found.append(
                f"weights / {name} = {self.weights:.3g} / {stay:.3g} = {self.weights / stay:.2g} is below 1: the "
                f"weights move by their own size {while_shown}; {slower}"
            )
        if self.swing is not None and self.swing < self.period / math.pi:
            found.append(
                f"swing / period = {self.swing:.3g} / {self.period:.3g} = {self.swing / self.period:.2g} is below "
                "1 / pi: within every cycle the weights swing to and fro by half their own size or more, which drowns "
                f"the gradient; {slower}, a larger amplitude or a shorter period"
            )
        return tuple(found)

    @property
    def _stay(self) -> tuple[str, float]:
        """What the weights have to be slower than, with its name."""
        return ("presentation", self.presentation) if self.presentation < math.inf else ("period", self.period)

    def __str__(self) -> str:
        scales = [("neurons", self.neurons), ("period", self.period), ("presentation", self.presentation)]
        if self.weights is not None:
            scales.append(("weights", self.weights))
        chain = " < ".join(f"{name} {value:.3g}" for name, value in scales)
        lines = [f"Time scales: {chain}"]
        if self.swing is not None:
            lines.append(
                f"  swing of the weights {self.swing:.3g}, to be above period / pi = {self.period / math.pi:.3g}"
            )
        lines.append(f"  rate  {'none' if self.rate is None else f'{self.rate:.3g}'}, up to {self.fastest_rate:.2g}")
        return "\n".join([*lines, *(f"  TOO CLOSE: {message}" for message in self.too_close)])


@checked(net=untraced, x=untraced, y=untraced, teaching=untraced, demodulated=as_flag)
def check_time_scales(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    teaching: AbstractTeaching,
    cycles_per_input: float | int | None,
    rate: ArrayLike | None = None,
    *,
    demodulated: bool = False,
) -> TimeScales:
    r"""Whether neurons, teaching signal, inputs and weights move on time scales that let the network learn.

    The order has to be $\tau_s$ < period < the time an input stays < the time in which weights move: a period of
    $2\pi\tau_s$ at least, two cycles per input, $|\theta| / (\eta |g|)$ above the time an input stays. Weights in the
    equation also swing within each cycle, $\partial\Phi/\partial\theta$ at rest being no small thing beside the
    gradient: by $\eta |\partial\Phi/\partial\theta| T / (2\pi |a_1|)$, to be below half of $|\theta|$. (A network that
    learns XOR so stops learning between 0.6 and 0.9 of $|\theta|$, at amplitudes a factor of ten apart.)

    Args:
        net: the neurons, with the weights that learning starts from.
        x: what is shown at the same time, (batch, ...).
        y: its targets, (batch,) labels or (batch, classes).
        teaching: the signal.
        cycles_per_input: how many cycles an input stays; None if it never changes.
        rate: $\eta$ in $\dot\theta = -\eta\, g$, per gradient and time. An optimizer that moves weights by `step` times
            the gradient once per input has the rate `step / (cycles_per_input * period)`.
        demodulated: the weights see demodulated gradients, as in `train`: they do not swing.

    Returns:
        The time scales. Every two that are too close for learning give a warning with values and remedy.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        ValueError: bad inputs; a period, a number of cycles or a rate that is not positive; a signal that does not
            turn.
        TypeError: objects of the wrong kind.

    Example:
        >>> scales = osc.check_time_scales(net, x, y, osc.Rotating(0.2, 100.0), cycles_per_input=None, rate=1e-4)
        >>> scales.fastest_rate > 1e-4
        True
    """
    check_drive(net, teaching)
    stay = math.inf if cycles_per_input is None else as_positive("cycles_per_input", cycles_per_input)
    rate = None if rate is None else as_positive("rate", rate)
    scales = time_scales_of(net, Inputs.of(net, x, y), teaching, stay, rate, demodulated)
    warn_of(scales)
    return scales


def time_scales_of(
    net: AbstractNetwork, inputs: Inputs, teaching: AbstractTeaching, stay: float, rate: float | None, demodulated: bool
) -> TimeScales:
    """The time scales of checked inputs that stay for so many cycles."""
    first = turning_coefficient(teaching, net.dtype)
    gradient, free, _ = exact_solution(net, inputs)
    size, slope, height = (np.float64(a) for a in _sizes(net, inputs, free.activities, gradient))
    period = float(teaching.period)
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing to learn takes forever
        weights, swing = size / slope, abs(first) * size / height
    limits = [float(weights / (stay * period if stay < math.inf else period))]
    if not demodulated:
        limits.append(float(swing * math.pi / period))
    return TimeScales(
        neurons=slowest_time(net, inputs, free.potentials),
        period=period,
        presentation=stay * period,
        weights=None if rate is None else float(weights / rate),
        swing=None if rate is None or demodulated else float(swing / rate),
        rate=rate,
        fastest_rate=min(limits),
    )


@eqx.filter_jit
def _sizes(net: AbstractNetwork, inputs: Inputs, s: Layers, gradient: Gradient) -> tuple[Array, Array, Array]:
    """The norms of the parameters, of the gradient, and of what each synapse sees at rest."""
    product = net.plasticity(inputs.x, s, inputs.y, jnp.zeros((), net.dtype))
    return norm(parameters(net)), norm(gradient), norm(product)


def warn_of(scales: TimeScales) -> None:
    """A warning for every two that are too close."""
    for message in scales.too_close:
        warn(message)
