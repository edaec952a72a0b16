"""Every python block of the README and of the documentation runs, in order, one namespace for each file.

A ```text block right behind one is what it prints. Numbers may differ in their third digit from machine to machine, and
below 1e-4, where rounding speaks, by a factor of ten; `...` stands for any text.
"""

import contextlib
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest

from tests.marks import slow_except

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = "<!-- not run -->"  # on the line before a block: it is shown only
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")


NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?(?![\w.])")


class Block(NamedTuple):
    line: int  # of its first line of code, from 0
    code: str
    output: str | None = None


def python_blocks(text: str) -> list[Block]:
    """The ```python blocks of a Markdown text, but for those marked `<!-- not run -->`."""
    blocks, opened, before, behind = [], None, "", False  # whether the line before closed a python block
    lines = text.splitlines()
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None and fence:
            runs, prints = fence["language"] == "python" and before != NOT_RUN, fence["language"] == "text" and behind
            opened, start = fence["fence"], number + 1
        elif opened is not None and line.startswith(opened) and not line.strip(opened[0] + " "):
            inside = "\n".join(lines[start:number])
            if runs:
                blocks.append(Block(start, inside))
            if prints:
                blocks[-1] = blocks[-1]._replace(output=inside)
            opened, behind = None, runs
        elif line.strip():
            behind = False
        if line.strip():
            before = line.strip()
    if opened is not None:
        raise ValueError(f"the block that opens on line {start} is never closed")
    return blocks


def documents() -> dict[str, list[Block]]:
    """The blocks of every Markdown file that has some, by its path in the repository."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    paths = [path for path in paths if path.is_file() and "_build" not in path.parts]
    blocks = {path.relative_to(ROOT).as_posix(): python_blocks(path.read_text("utf-8")) for path in paths}
    return {name: found for name, found in blocks.items() if found}


def says(expected: str, printed: str) -> bool:
    """Whether a text is as expected, line by line; numbers may differ in the third digit, `...` stands for anything."""
    lines = [[" ".join(line.split()) for line in text.strip().splitlines()] for text in (expected, printed)]
    return len(lines[0]) == len(lines[1]) and all(_line_says(*pair) for pair in zip(*lines, strict=True))


def _line_says(expected: str, printed: str) -> bool:
    pattern = ".*".join(map(re.escape, NUMBER.sub("0", expected).split("...")))
    if not re.fullmatch(pattern, NUMBER.sub("0", printed)):
        return False
    if "..." in expected:
        return True
    pairs = zip(*([float(n) for n in NUMBER.findall(text)] for text in (expected, printed)), strict=True)
    return all(
        math.isclose(a, b, rel_tol=0.02) or (max(abs(a), abs(b)) < 1e-4 and abs(b) < 10 * abs(a)) for a, b in pairs
    )


DOCUMENTS = documents()
LONG = {f"docs/{name}.md" for name in ("accuracy", "derivatives", "learning", "regression", "sweeps")}
LONG |= {f"docs/{name}.md" for name in ("amplitude", "feedback", "own_data", "paper_figure", "solvers", "export")}
LONG |= {f"docs/{name}.md" for name in ("own_network", "orbit", "moving_inputs", "own_noise", "resuming")}
"""Long to compile; what they show has tests of its own."""


@pytest.mark.parametrize("name", slow_except(DOCUMENTS.keys() - LONG, DOCUMENTS))
def test_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: None)  # the Agg backend would warn
    namespace = {"__name__": "__main__"}
    for block in DOCUMENTS[name]:
        # The empty lines make a traceback name the line in the document.
        code = compile("\n" * block.line + block.code, str(ROOT / name), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.output is not None:
            assert says(block.output, printed.getvalue()), f"line {block.line}:\n{printed.getvalue()}"


def test_blocks_are_found():
    text = """
```python
a = 1
```
```bash
false
```
<!-- not run -->

```python
raise
```
````markdown
```python
raise
```
````
~~~python
b = 2

c = 3
~~~
"""
    assert python_blocks(text) == [Block(2, "a = 1"), Block(18, "b = 2\n\nc = 3")]
    assert python_blocks("```python\nprint(1)\n```\n\n```text\n1\n```\n```text\n2\n```") == [Block(1, "print(1)", "1")]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("good to 0.079 %", "good to 0.0791 %", True),
        ("good to 0.079 %", "good to 0.19 %", False),
        ("residual 3.5e-07", "residual 9e-07", True),
        ("residual 3.5e-07", "residual 9e-03", False),
        ("after ... s, loss 1", "after 2.2 s, loss 1", True),
        ("after ... s, loss", "after 2.2 s, cost", False),
    ],
)
def test_what_is_printed_is_compared(expected, printed, same):
    assert says(expected, printed) is same
