"""Every python block of the README and of the documentation runs, in order, one namespace for each file."""

import re
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest

from tests.marks import slow_except

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = "<!-- not run -->"  # on the line before a block: it is shown only
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")


class Block(NamedTuple):
    line: int  # of its first line of code, from 0
    code: str


def python_blocks(text: str) -> list[Block]:
    """The ```python blocks of a Markdown text, but for those marked `<!-- not run -->`."""
    blocks, opened, before = [], None, ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None and fence:
            runs = fence["language"] == "python" and before != NOT_RUN
            opened, start = fence["fence"], number + 1
        elif opened is not None and line.startswith(opened) and not line.strip(opened[0] + " "):
            if runs:
                blocks.append(Block(start, "\n".join(lines[start:number])))
            opened = None
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


DOCUMENTS = documents()
LONG = {"docs/accuracy.md", "docs/learning.md"}
"""Over a minute each; what they show has tests of its own."""


@pytest.mark.parametrize("name", slow_except(DOCUMENTS.keys() - LONG, DOCUMENTS))
def test_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: None)  # the Agg backend would warn
    namespace = {"__name__": "__main__"}
    for block in DOCUMENTS[name]:
        # The empty lines make a traceback name the line in the document.
        exec(compile("\n" * block.line + block.code, str(ROOT / name), "exec"), namespace)


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
