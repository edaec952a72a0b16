"""Units of nature: numbers out of quantities, and names of units in what is exported."""

import hypothesis.strategies as st
import numpy as np
import pint
import pytest
from hypothesis import given

import oscsim as osc
from tests.helpers import toy

UNITS = osc.Units(time="ms", potential="mV")


@given(st.floats(-1e6, 1e6), st.sampled_from([-2, -1, -0.5, 0, 0.5, 1, 2]), st.sampled_from([-1, 0, 0.5, 1, 2]))
def test_products_of_powers(number, of_time, of_potential):
    """A second is 1000 ms, a volt 1000 mV."""
    found = UNITS(pint.Quantity(number, f"s**{of_time} * V**{of_potential}"))
    assert found == pytest.approx(number * 1000.0 ** (of_time + of_potential), rel=1e-12)


def test_text_and_quantities_of_another_registry():
    assert UNITS("2 kHz") == 2.0
    assert UNITS("7") == 7.0
    assert UNITS(pint.UnitRegistry().Quantity(0.5, "V * s**0.5")) == pytest.approx(500 * 1000**0.5)
    np.testing.assert_allclose(UNITS(pint.Quantity(np.array([3.0, 4.0]), "V")), [3000.0, 4000.0])
    assert osc.Units("ns", "uA")("3 mA") == pytest.approx(3000)  # currents, in a circuit of currents


@pytest.mark.parametrize("quantity", ["10 A", "1 mV/A", "10 foo", "", "mV (", "10 mV + 3 ms"])
def test_what_is_no_quantity_of_the_model(quantity):
    with pytest.raises(osc.BadValue, match=r"^quantity="):
        UNITS(quantity)


@pytest.mark.parametrize("quantity", [3, None, b"10 mV", np.ones(3)])
def test_what_is_no_quantity(quantity):
    with pytest.raises(osc.BadType, match=r"^quantity=.*such as \"10 mV\""):
        UNITS(quantity)


@pytest.mark.parametrize(
    ("time", "potential", "named"), [("mV", "mV", "time=mV"), ("ms", "s", "potential=s"), ("ms", "1", "potential=1")]
)
def test_units_of_the_wrong_kind(time, potential, named):
    with pytest.raises(osc.BadValue, match=f"^{named}: this is no unit of"):
        osc.Units(time, potential)


@pytest.mark.parametrize("amplitude", ["10 mV", pint.Quantity(10, "mV"), pint.Quantity(np.array([1.0, 2.0]), "mV")])
def test_a_quantity_in_place_of_a_number_is_refused(amplitude):
    """NumPy would drop its unit with a warning."""
    with pytest.raises(osc.BadType, match=r"^amplitude=.*units\(\"10 mV\"\)"):
        osc.Rotating(amplitude, 100.0)


def test_exported_readings_name_their_units(tmp_path):
    net, x, y = toy()
    record = osc.PerCycle(neurons=5, potentials=True)
    run = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=2, record=record)
    data = run.to_xarray(UNITS)
    assert data.time.attrs["units"] == data.attrs["time_unit"] == "ms"
    assert data.potential_1.attrs["units"] == data.signal.attrs["units"] == data.teaching.attrs["units"] == "mV"
    assert "units" not in data.activity_1.attrs
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(run.export(tmp_path / "run.nc", UNITS), engine="scipy") as read:
        assert read.time.attrs["units"] == "ms"
    with pytest.raises(osc.BadType, match=r"^units='ms': use units such as Units\("):
        run.to_xarray("ms")
