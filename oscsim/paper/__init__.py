"""The figures and the table of the paper, computed anew, with the authors' curves beside them.

`fig2`, `fig3` and `table1` compute: each returns a dict of labelled data, one `xarray.Dataset` for each panel.
`draw_fig2`, `draw_fig3` and `draw_table1` draw what they return. `oscsim reproduce` does both from the command line.

Source: A. Laborieux and F. Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
Oscillations*, NeurIPS 2022, arXiv 2209.00530; the authors' curves are those that they published beside their code.
"""

from oscsim.paper.authors import authors
from oscsim.paper.fig2 import draw_fig2, fig2, fig2d
from oscsim.paper.fig3 import draw_fig3, fig3, fig3c
from oscsim.paper.table1 import METHODS, NOISES, PAPERS, draw_table1, table1

__all__ = [
    "METHODS",
    "NOISES",
    "PAPERS",
    "authors",
    "draw_fig2",
    "draw_fig3",
    "draw_table1",
    "fig2",
    "fig2d",
    "fig3",
    "fig3c",
    "table1",
]
