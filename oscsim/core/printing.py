"""How objects show themselves: as text, and as a table in notebooks."""

import html
import math
import re
from collections.abc import Sequence
from typing import TypeAlias

import equinox as eqx

from oscsim.core.arrays import describe, described

Row: TypeAlias = tuple[str, ...]
"""The words in one line of a table; the first row holds the title alone."""


def as_text(rows: Sequence[Row]) -> str:
    """A title and columns below it."""
    (title,), *rest = rows
    widths = [max((len(row[i]) for row in rest if len(row) > i + 1), default=0) for i in range(2)]
    lines = [
        "  " + "  ".join(f"{word:{width}}" for word, width in zip(row, (*widths, 0), strict=False)) for row in rest
    ]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def as_html(rows: Sequence[Row]) -> str:
    """The same as a table for notebooks."""
    (title,), *rest = rows
    widest = max((len(row) for row in rest), default=1)

    def cell(word, row):  # a row of one word is as wide as the table
        span = f' colspan="{widest}"' if len(row) == 1 < widest else ""
        return f'<td style="text-align:left"{span}>{html.escape(word)}</td>'

    body = "".join(f"<tr>{''.join(cell(word, row) for word in row)}</tr>" for row in rest)
    return f"<b>{html.escape(title)}</b><table>{body}</table>"


def as_rows(name: str, text: str) -> list[Row]:
    """Printed text as rows: its lines, or the parts of a single sentence; columns stand two spaces apart."""
    title, *lines = text.strip("<>").splitlines()
    if not lines:
        before, colon, after = title.partition(": ")
        title, parts = (before, after) if colon else (name, before)
        first, *sentences = re.split(r"; (?![^(]*\))", parts)
        lines = [*re.split(r", (?![^(]*\))", first), *sentences]
    return [(title,), *(tuple(re.split(r" {2,}", line.strip(), maxsplit=1)) for line in lines)]


def percent(part: float) -> str:
    """Two digits, or all before the point."""
    if not math.isfinite(part):
        return "an unknown share"
    return f"{100 * part:.0f} %" if part >= 0.995 else f"{100 * part:.2g} %"


class AbstractPrinted(eqx.Module):
    """A result: what it prints is for people, and a table in notebooks."""

    def __repr__(self) -> str:
        try:
            return str(self)
        except Exception:  # traced, or with other things than numbers in its fields
            return eqx.tree_pformat(self)

    def _repr_html_(self) -> str:
        return as_html(as_rows(type(self).__name__, repr(self)))


class AbstractSettings(eqx.Module):
    """Settings: they print as one would type them, with their numbers, and as a table in notebooks."""

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return as_html([(type(self).__name__,), *described(self)])
