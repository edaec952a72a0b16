"""Whatever an argument holds, an error of oscsim's own names it, or the result is finite: see `tests/fuzzing.py`.

The long run draws other calls each day; `OSCSIM_FUZZ_SEED=20261129 pytest -m slow tests/test_fuzz.py` repeats one.
"""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 600
"""Seconds for the start, and for each thousand calls: far beyond what they take, in case a program cannot be ended."""


def failures(seed: int, calls: int) -> list[str]:
    """What went wrong in so many calls, made in a process without the import hook of these tests."""
    command = [sys.executable, "-m", "tests.fuzzing", "--seed", str(seed), "--calls", str(calls)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    limit = ALLOWED * (1 + calls / 1000)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=limit)
    assert done.returncode == 0, f"the process ended after {done.stderr[-2000:]}"
    *rows, counts = done.stdout.splitlines()
    print(counts)
    assert json.loads(counts)["uncalled"] == [], "give these a valid call in tests/fuzzing.py, or say who makes them"
    return rows


def test_some_calls():
    found = failures(seed=0, calls=300)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_ten_thousand_calls():
    seed = int(os.environ.get("OSCSIM_FUZZ_SEED", datetime.date.today().strftime("%Y%m%d")))
    found = failures(seed, 10_000)
    assert not found, f"{len(found)} of 10,000 calls, seed {seed}:\n" + "\n".join(found)
