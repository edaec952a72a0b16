"""Citations: the publications that a user's own choice of objects rests on."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator

import diffrax

ENTRIES = {
    "Laborieux & Zenke (2022)": r"""@inproceedings{laborieux2022holomorphic,
  author = {Laborieux, Axel and Zenke, Friedemann},
  title = {Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size Oscillations},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {35},
  pages = {12950--12963},
  year = {2022},
  url = {https://arxiv.org/abs/2209.00530},
}""",
    "Laborieux & Zenke (2024)": r"""@inproceedings{laborieux2024improving,
  author = {Laborieux, Axel and Zenke, Friedemann},
  title = {Improving equilibrium propagation without weight symmetry through {J}acobian homeostasis},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
}""",
    "Laborieux et al. (2021)": r"""@article{laborieux2021scaling,
  author = {Laborieux, Axel and Ernoult, Maxence and Scellier, Benjamin and Bengio, Yoshua and Grollier, Julie and
            Querlioz, Damien},
  title = {Scaling Equilibrium Propagation to Deep {ConvNets} by Drastically Reducing Its Gradient Estimator Bias},
  journal = {Frontiers in Neuroscience},
  volume = {15},
  pages = {633674},
  year = {2021},
}""",
    "Scellier & Bengio (2017)": r"""@article{scellier2017equilibrium,
  author = {Scellier, Benjamin and Bengio, Yoshua},
  title = {Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation},
  journal = {Frontiers in Computational Neuroscience},
  volume = {11},
  pages = {24},
  year = {2017},
}""",
    "Lillicrap et al. (2016)": r"""@article{lillicrap2016random,
  author = {Lillicrap, Timothy P. and Cownden, Daniel and Tweed, Douglas B. and Akerman, Colin J.},
  title = {Random synaptic feedback weights support error backpropagation for deep learning},
  journal = {Nature Communications},
  volume = {7},
  pages = {13276},
  year = {2016},
}""",
    "Scellier et al. (2018)": r"""@misc{scellier2018generalization,
  author = {Scellier, Benjamin and Goyal, Anirudh and Binas, Jonathan and Mesnard, Thomas and Bengio, Yoshua},
  title = {Generalization of Equilibrium Propagation to Vector Field Dynamics},
  year = {2018},
  url = {https://arxiv.org/abs/1808.04873},
}""",
    "Stern et al. (2021)": r"""@article{stern2021supervised,
  author = {Stern, Menachem and Hexner, Daniel and Rocks, Jason W. and Liu, Andrea J.},
  title = {Supervised Learning in Physical Networks: From Machine Learning to Learning Machines},
  journal = {Physical Review X},
  volume = {11},
  number = {2},
  pages = {021045},
  year = {2021},
}""",
    "Movellan (1991)": r"""@incollection{movellan1991contrastive,
  author = {Movellan, Javier R.},
  title = {Contrastive {H}ebbian Learning in the Continuous {H}opfield Model},
  booktitle = {Connectionist Models: Proceedings of the 1990 Summer School},
  publisher = {Morgan Kaufmann},
  pages = {10--17},
  year = {1991},
}""",
    "Hopfield (1984)": r"""@article{hopfield1984neurons,
  author = {Hopfield, John J.},
  title = {Neurons with graded response have collective computational properties like those of two-state neurons},
  journal = {Proceedings of the National Academy of Sciences},
  volume = {81},
  number = {10},
  pages = {3088--3092},
  year = {1984},
}""",
    "Govaerts (2000)": r"""@book{govaerts2000numerical,
  author = {Govaerts, Willy J. F.},
  title = {Numerical Methods for Bifurcations of Dynamical Equilibria},
  publisher = {Society for Industrial and Applied Mathematics},
  year = {2000},
}""",
    "Walker & Ni (2011)": r"""@article{walker2011anderson,
  author = {Walker, Homer F. and Ni, Peng},
  title = {Anderson Acceleration for Fixed-Point Iterations},
  journal = {SIAM Journal on Numerical Analysis},
  volume = {49},
  number = {4},
  pages = {1715--1735},
  year = {2011},
}""",
    "Kelley & Keyes (1998)": r"""@article{kelley1998convergence,
  author = {Kelley, C. T. and Keyes, David E.},
  title = {Convergence Analysis of Pseudo-Transient Continuation},
  journal = {SIAM Journal on Numerical Analysis},
  volume = {35},
  number = {2},
  pages = {508--523},
  year = {1998},
}""",
    "Gillespie (1996)": r"""@article{gillespie1996exact,
  author = {Gillespie, Daniel T.},
  title = {Exact numerical simulation of the {O}rnstein-{U}hlenbeck process and its integral},
  journal = {Physical Review E},
  volume = {54},
  number = {2},
  pages = {2084--2091},
  year = {1996},
}""",
    "Kloeden & Platen (1992)": r"""@book{kloeden1992numerical,
  author = {Kloeden, Peter E. and Platen, Eckhard},
  title = {Numerical Solution of Stochastic Differential Equations},
  publisher = {Springer},
  year = {1992},
}""",
}
"""BibTeX by the short name that stands after `Source:` in a docstring."""


def citation(*objects: object) -> None:
    """Print the BibTeX entries of what these objects rest on: those that their docstrings name as sources.

    The paper behind the package comes first. A solver's references are those that `diffrax.citation` knows.

    Args:
        objects: runs, networks, signals, noises, estimators, solvers, classes or functions; what they hold counts too.

    Example:
        >>> osc.citation(osc.OrnsteinUhlenbeck(0.1, 5.0))
        @inproceedings{laborieux2022holomorphic,
          author = {Laborieux, Axel and Zenke, Friedemann},
        ...
        @article{gillespie1996exact,
          author = {Gillespie, Daniel T.},
        ...
    """
    parts = [part for thing in objects for part in _parts(thing)]
    texts = [part.__doc__ or "" for part in parts]
    found = [name for name in ENTRIES if any(name in text for text in texts)]
    for name in dict.fromkeys(["Laborieux & Zenke (2022)", *found]):
        print(ENTRIES[name], end="\n\n")
    solvers = {type(part): part for part in parts if isinstance(part, diffrax.AbstractSolver)}
    for solver in solvers.values():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            diffrax.citation(solver=solver)
        print(printed.getvalue())


def _parts(thing: object) -> Iterator[object]:
    """An object and all that it holds."""
    yield thing
    held = ()
    if isinstance(thing, (tuple, list)):
        held = thing
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        held = vars(thing).values()
    for part in held:
        yield from _parts(part)
