"""Units of nature: numbers out of quantities, and the names of units in what is exported."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np

from oscsim.core.checks import Given, require_instance, shown
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings

if TYPE_CHECKING:
    import pint


class Units(AbstractSettings):
    r"""The units that the numbers of a model are in: one for times, one for potentials.

    Called with a quantity, it gives the number: `units("4 s")` is 4000 where times are in ms. A quantity may be a
    product of powers of the two, such as a noise intensity in mV √ms. `Run.to_xarray` and `Run.export` take it to name
    the units of what they give.

    Attributes:
        time: such as `"ms"`.
        potential: such as `"mV"`.

    Raises:
        TypeError: no text.
        ValueError: an unknown unit, a unit of time that is none, a quantity that has other dimensions.

    Example:
        >>> units = osc.Units(time="ms", potential="mV")
        >>> units("4 s"), units("10 mV"), units("0.5 mV * ms**0.5")
        (4000.0, 10.0, 0.5)
        >>> run.to_xarray(units).layer_1.dims
        ('cycle', 'harmonic', 'sample', 'neuron_1')
    """

    time: str = eqx.field(static=True)
    potential: str = eqx.field(static=True)

    def __check_init__(self):
        for name, unit in (("time", self.time), ("potential", self.potential)):
            if not isinstance(unit, str):
                raise BadType(f'{name}={shown(unit)}: use the name of a unit, such as "{EXAMPLES[name]}"')
        if not _quantity("time", f"1 {self.time}").check("[time]"):
            raise BadValue(f'time={self.time}: this is no unit of time; use one such as "ms"')
        if dict(_quantity("potential", f"1 {self.potential}").dimensionality).keys() <= {"[time]"}:
            raise BadValue(f'potential={self.potential}: this is no unit of potentials; use one such as "mV"')

    def __call__(self, quantity: "str | pint.Quantity") -> float | np.ndarray:
        """The number of this quantity in these units; an array of an array. Text without a unit is a pure number."""
        given = _quantity("quantity", quantity)
        units = [_quantity(name, f"1 {unit}") for name, unit in (("time", self.time), ("potential", self.potential))]
        dimensions = [dict(q.dimensionality) for q in (*units, given)]
        rows = sorted(set().union(*dimensions))
        *columns, wanted = np.array([[float(d.get(row, 0)) for row in rows] for d in dimensions])
        found = np.linalg.lstsq(np.transpose(columns), wanted, rcond=None)[0]
        powers = [Fraction(p).limit_denominator(12) for p in found.tolist()]
        unit = units[0] ** powers[0] * units[1] ** powers[1]
        if unit.dimensionality != given.dimensionality:
            raise BadValue(
                f"quantity={shown(quantity)}: this is no product of powers of {self.time} and {self.potential}; "
                "convert it to one, or leave it a plain number"
            )
        number = np.asarray((given / unit).to("dimensionless").magnitude, float)
        return number if number.ndim else float(number)


def as_units(name: str, units: Given) -> Units | None:
    """Units, or None where they have no names; or an error that names what are none."""
    if units is not None:
        require_instance(name, units, Units, 'use units such as Units(time="ms", potential="mV")')
    return units


EXAMPLES = {"time": "ms", "potential": "mV"}


def _quantity(name: str, value: Given) -> Any:  # pint's own types say less
    """A quantity of pint, or an error that names it."""
    import pint

    registry: Any = pint.get_application_registry().get()
    try:
        if isinstance(value, str):
            return registry.Quantity(value)
        if isinstance(value, pint.Quantity):  # perhaps of a registry of the user's own
            return registry.Quantity(value.magnitude, str(value.units))
    except Exception as error:  # pint parses by Python's own tokenizer, whose errors are many
        reason = " ".join(str(error).split())
        raise BadValue(f'{name}={shown(value)}: not understood ({reason}); use a text such as "10 mV"') from error
    raise BadType(f'{name}={shown(value)}: use a text such as "10 mV", or a quantity of pint')
