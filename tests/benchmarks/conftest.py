"""The network of the benchmarks, and the table that is printed at the end."""

from typing import NamedTuple

import jax
import pytest


class Row(NamedTuple):
    claim: str
    bar: str
    measured: str
    met: bool | None


ROWS: list[Row] = []
VERDICT = {True: "met", False: "**missed**", None: ""}


@pytest.fixture
def table():
    """`table(claim, value, bar, unit, detail)` adds a row; nothing fails where a bar is missed, timing is no test.

    A bar of `(most, goal)` is an upper one, `(None, least, goal)` a lower one; without any the number is only reported.
    """

    def add(claim, value, *, most=None, least=None, goal=None, unit="x", detail=""):
        if most is None and least is None:
            ROWS.append(Row(claim, "", f"{value:.2f}{unit}" + (f" ({detail})" if detail else ""), None))
            return
        bar = f"at most {most:g}{unit}" if least is None else f"at least {least:g}{unit}"
        bar += f", goal {goal:g}{unit}" if goal is not None else ""
        met = value <= most if least is None else value >= least
        ROWS.append(Row(claim, bar, f"{value:.2f}{unit}" + (f" ({detail})" if detail else ""), met))

    return add


def pytest_terminal_summary(terminalreporter):
    if not ROWS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("benchmarks")
    write("| what | bar | measured | |\n|---|---|---|---|")
    for row in ROWS:
        write(f"| {row.claim} | {row.bar} | {row.measured} | {VERDICT[row.met]} |")


@pytest.fixture(scope="session")
def batch(mnist):
    """Twenty MNIST images and their labels."""
    return mnist.train.images[:20], mnist.train.labels[:20]


@pytest.fixture(scope="session")
def net():
    """The paper's MNIST network, 784-256-256-10: its scale of weights and its activation."""
    import oscsim as osc

    return osc.LayeredNetwork(
        (784, 256, 256, 10),
        activation=osc.Logistic(slope=4.0, centre=0.5),
        cost=osc.CrossEntropy(),
        scale=0.05,
        key=jax.random.key(0),
    )
