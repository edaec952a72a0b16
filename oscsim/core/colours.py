"""Colours of all figures, those of matplotlib and those of the lab, which needs no matplotlib.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BAR = "#E69F00"
"""Colour of a gradient's own error."""

DRIVE = "black"
"""Colour of the teaching signal."""
