"""What every test shares: precision, strictness, checked shapes, and the data beside the repository.

Tests run in float32 unless they say otherwise:

    pytestmark = pytest.mark.usefixtures("x64")   # the whole file in float64
    @pytest.mark.usefixtures("x64")               # one test in float64
    def test_both(precision): ...                 # once in float32, once in float64

Shapes and types are checked at every call, but in tests that use `unchecked`.

A fixture of wider scope than the test is made before these take hold: it must enter `jax.enable_x64` itself.
"""

import gzip
import importlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ["MPLBACKEND"] = "Agg"  # read when matplotlib is first imported

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "tests" / "benchmarks"

QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
if platform.machine() in ("x86_64", "AMD64"):
    # Without instructions that fuse a product with a sum: with them, the last bit of a number depends on what else the
    # program holds, and some tests compare bits between programs.
    QUICK_COMPILATION += " --xla_cpu_max_isa=AVX"

collect_ignore = ["benchmarks"]  # measured only where named: `pytest tests/benchmarks`


def measures_speed(config: pytest.Config) -> bool:
    """Whether benchmarks were asked for: they run alone, in one process, on the code as users run it."""
    paths = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return any(path.is_relative_to(BENCHMARKS) for path in paths)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    # Each worker compiles for itself what the others compile too, so many workers do not pay.
    return 0 if measures_speed(config) else min(os.cpu_count() or 1, 4)


def pytest_configure(config):
    jax.config.update("jax_enable_x64", False)
    hypothesis.settings.load_profile("fresh" if config.option.markexpr == "slow" else "same")
    if measures_speed(config):
        return
    # Most of the suite's time goes into compiling programs that run once: they, and those of the commands that tests
    # start, are compiled without optimisation, by the emitters that take half the time. Set it to test what users run.
    os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
    share_compiled_programs(config)
    if "JAX_PLATFORMS" not in os.environ:  # set it to test on an accelerator
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if "oscsim" in sys.modules:
        raise pytest.UsageError("oscsim is imported already, so its shapes go unchecked: import it in tests only")
    importlib.import_module("tests.typechecks")
    jaxtyping.install_import_hook("oscsim", "tests.typechecks.checked")


def share_compiled_programs(config: pytest.Config) -> None:
    """What one process has compiled, its workers and the commands that tests start find in a folder that they share.

    The first process makes it for this session; the others find its name in the environment.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="oscsim-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        config.add_cleanup(lambda: os.environ.pop("JAX_COMPILATION_CACHE_DIR"))
    # jax was imported already, and has read the environment before
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    seconds = float(os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 1))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


DRAWN = {
    "max_examples": 30,
    "deadline": None,  # a first example compiles and the others do not
    "suppress_health_check": [  # `x64` is meant to hold for all examples of a test
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
}
hypothesis.settings.register_profile("same", derandomize=True, **DRAWN)
hypothesis.settings.register_profile("fresh", derandomize=False, database=None, print_blob=True, **DRAWN)


@pytest.hookimpl(tryfirst=True)  # before they are told apart by their marks
def pytest_collection_modifyitems(config, items):
    """With the slow tests run those that draw examples, on new ones."""
    if config.option.markexpr == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """The test runs twice, in float32 and in float64; the value is the name of the dtype."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def unchecked():
    """Shapes and types go unchecked, as for users: for tests of an error of our own that an annotation anticipates."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def oscsim(tmp_path, monkeypatch, capsys):
    """`oscsim("demo")` runs the command in an empty folder, in this process; what it gives has what was printed."""
    from oscsim.cli.commands import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        main(list(map(str, arguments)))
        return capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def _room_for_compiled_code():
    """Compiled functions take memory maps, of which Linux allows a process 65,530; beyond, the compiler crashes."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, which holds data too large for it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder `shared` beside the repository")
    return path


class Split(NamedTuple):
    images: np.ndarray  # float32 (n, 784), in [0, 1]
    labels: np.ndarray  # int32 (n,)


class Mnist(NamedTuple):
    train: Split
    test: Split


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of bytes: two zeros, the type, the rank, the sizes, the data."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it begins with {content[:4]!r}")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


@pytest.fixture(scope="session")
def mnist(shared) -> Mnist:
    """MNIST: `mnist.train` and `mnist.test`, each with `images` and `labels`."""
    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("needs shared/data/mnist")

    def split(name):
        images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
        return Split(images.reshape(len(images), -1) / np.float32(255), labels.astype(np.int32))

    return Mnist(train=split("train"), test=split("t10k"))


@pytest.fixture(scope="session")
def paper(shared) -> dict:
    """The numbers that the authors of the method published, by figure and table (arXiv 2209.00530)."""
    path = shared / "reference" / "hep_paper_results.json"
    if not path.is_file():
        pytest.skip("needs shared/reference/hep_paper_results.json")
    return json.loads(path.read_text())
