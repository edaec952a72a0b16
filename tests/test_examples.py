"""Every public name has an example in its docstring, and the examples do what they say."""

import doctest
import importlib
import inspect
from types import ModuleType

import pytest

import oscsim as osc
from tests.test_readme import DOCUMENTS

MODULES = ("datasets", "hardware", "response", "plot", "sweeps", "studies", "models", "lab", "paper")
ELSEWHERE = {"models": "networks.models", "studies": "sweeps.studies"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public(module: ModuleType, name: str) -> dict[str, object]:
    """The public classes and functions of a module, by the names that they are called by."""
    found = {f"{name}.{key}": getattr(module, key) for key in module.__all__}
    return {key: it for key, it in found.items() if inspect.isclass(it) or inspect.isroutine(it)}


def names() -> dict[str, object]:
    """Every public class and function, once: what is in `osc` itself is called by the shorter name."""
    modules = {"osc": osc} | {
        f"osc.{name}": importlib.import_module(f"oscsim.{ELSEWHERE.get(name, name)}") for name in MODULES
    }
    found: dict[int, tuple[str, object]] = {}
    for name, module in modules.items():
        for key, it in public(module, name).items():
            found.setdefault(id(it), (key, it))
    return dict(found.values())


PUBLIC = names()


@pytest.fixture(scope="session")
def toy():
    """What every example begins with: the code is that of the reference."""
    namespace = {"__name__": "__main__"}
    exec(DOCUMENTS["docs/api/index.md"][0].code, namespace)
    return namespace


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of(name, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    found = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs=toy)
    assert found, f"{name} has no docstring"
    (test,) = found
    assert test.examples, f"{name} has no example in its docstring"
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)
