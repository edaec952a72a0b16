"""Axes of the lab's figures: how they look, a second one, equal scales."""

# Bokeh's models have properties that take more than their annotations say: a range a number, a font size a string.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportPrivateImportUsage=false
# pyright: reportOptionalMemberAccess=false

from bokeh import models
from bokeh.plotting import figure

INK, PALE_INK, GRID = "#1f2933", "#9aa5b1", "#e6e9ee"
"""Colours of text, of axes, of grids."""


def second_axis(plot: figure, name: str, label: str, span: models.Range1d) -> None:
    """An axis on the right, with a range of its own."""
    plot.extra_y_ranges = {name: span}
    axis = models.LinearAxis(y_range_name=name, axis_label=label)
    style_axis(axis)
    plot.add_layout(axis, "right")


def style_axis(axis: models.Axis) -> None:
    """Quiet lines, upright labels."""
    axis.update(axis_label_text_font_size="12px", axis_label_text_font_style="normal", axis_label_standoff=4)
    axis.update(axis_label_text_color=INK, major_label_text_color=INK, minor_tick_line_color=None)
    axis.update(axis_line_color=PALE_INK, major_tick_line_color=PALE_INK)


def square(plot: figure) -> None:
    """The same scale on both axes, whatever the shape of the frame: the shorter side spans the reach."""
    plot.x_range, plot.y_range = models.Range1d(-1, 1), models.Range1d(-1, 1)
    plot.tags = [1.0]
    code = """
        const reach = plot.tags[0], w = plot.inner_width, h = plot.inner_height;
        if (!(w > 0 && h > 0)) return;
        const x = reach * Math.max(1, w / h), y = reach * Math.max(1, h / w);
        plot.x_range.setv({start: -x, end: x}); plot.y_range.setv({start: -y, end: y});
    """
    callback = models.CustomJS(args={"plot": plot}, code=code)
    for change in ("tags", "inner_width", "inner_height"):
        plot.js_on_change(change, callback)
