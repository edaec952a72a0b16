"""Marks that several test files put on their parameters."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(quick: Iterable[str], names: Iterable[str]) -> list[Any]:
    """The names as parameters, all but the quick ones marked `slow`."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
