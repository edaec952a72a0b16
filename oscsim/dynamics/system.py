"""`System`: what stays fixed from cycle to cycle, checked once."""

import equinox as eqx

from oscsim.core.checks import checked, instance
from oscsim.dynamics.demodulation import AbstractDemodulator
from oscsim.dynamics.integration import Integration, Plan, require_integration
from oscsim.networks.base import AbstractNetwork, as_network
from oscsim.signals.drive import check_drive
from oscsim.signals.noise import AbstractNoise, as_noises
from oscsim.signals.teaching import AbstractTeaching


class System(eqx.Module):
    """Neurons, what drives them, what disturbs them, and how they are integrated and read; `System.of` makes one.

    `begin(system, inputs)` is the state before the first cycle, `advance(system, state, inputs)` runs one.

    Attributes:
        network: the neurons.
        teaching: the signal.
        noises: what disturbs them; empty for nothing.
        plan: solver, steps, ticks and demodulator, with every default filled in.

    Example:
        >>> system = osc.System.of(net, osc.Rotating(0.2, 100.0))
        >>> system.plan.ticks, system.plan.demodulator
        (64, Boxcar(harmonics=(-1, 0, 1)))
    """

    network: AbstractNetwork
    teaching: AbstractTeaching
    noises: tuple[AbstractNoise, ...]
    plan: Plan

    @staticmethod
    def of(
        network: AbstractNetwork,
        teaching: AbstractTeaching,
        noise: AbstractNoise | tuple[AbstractNoise, ...] | None = None,
        integration: Integration = Integration(),  # noqa: B008
        demodulator: AbstractDemodulator | None = None,
    ) -> "System":
        """Check everything, and fill in every default.

        Args:
            network: the neurons.
            teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
            noise: what disturbs them, one noise or a tuple.
            integration: solver, steps and ticks.
            demodulator: how coefficients are read; by default `Plateaus()` for a `Staircase`, `Boxcar()` for others.

        Raises:
            NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
            TypeError: objects of the wrong kind.
            ValueError: a period that the neurons cannot follow; settings that contradict each other, the signal or the
                noise.
        """
        check_drive(network, teaching)
        require_integration(integration)
        noises = as_noises(noise)
        return System(network, teaching, noises, Plan.of(integration, demodulator, network, teaching, noises))

    @checked(network=as_network)
    def with_network(self, network: AbstractNetwork) -> "System":
        """The same with other parameters."""
        return eqx.tree_at(lambda system: system.network, self, network)


SYSTEM = instance(System, "use System.of(net, teaching)")
"""The kind of arguments that are systems."""
