"""What memory there is, and the refusal of what would take more: said before it happens, in words."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from oscsim.core.errors import BadValue


def free_memory() -> float:
    """Bytes that this process may still take, infinite where the system does not tell.

    The least of what the machine has free, what is left of its control group (containers, cluster jobs) and
    what is left of its address space (`ulimit -v`).
    """
    return min([math.inf, *_machine(), *_control_groups(), *_address_space()])


def require_memory(what: str, needed: float, remedy: str) -> None:
    """Refuse what does not fit.

    Raises:
        ValueError: `what` needs more than there is.
    """
    free = free_memory()
    if needed > free:
        raise BadValue(f"{what} takes {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free: {remedy}")


def require_disk(what: str, needed: float, place: Path, remedy: str) -> None:
    """Refuse what does not fit on the disk of a path, which need not exist.

    Raises:
        ValueError: `what` needs more than there is.
    """
    parents = [place, *place.absolute().parents]
    parent = next((p for p in parents if p.exists()), parents[-1])
    if needed > (free := shutil.disk_usage(parent).free):
        raise BadValue(
            f"{what} takes {needed / 1e9:,.3g} GB, and {free / 1e9:,.3g} GB are free on the disk of {parent}: {remedy}"
        )


def _machine() -> Iterator[float]:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield 1024 * float(line.split()[1])


def _control_groups() -> Iterator[float]:
    """What is left of each group that the process is in, as Linux's second version tells it."""
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            group = Path("/sys/fs/cgroup", line[3:].strip().lstrip("/"))
            for folder in (group, *group.parents):
                most, used = "".join(_lines(folder / "memory.max")).strip(), "".join(_lines(folder / "memory.current"))
                if most.isdecimal() and used:
                    yield float(most) - float(used)


def _address_space() -> Iterator[float]:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = "".join(_lines("/proc/self/statm")).split()
    if most != resource.RLIM_INFINITY and pages:
        yield float(most) - float(pages[0]) * resource.getpagesize()


def _lines(path: str | Path) -> list[str]:
    """The lines of a file of the system; none where it is not there."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
