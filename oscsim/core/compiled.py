"""Compiled programs, kept on disk for the next process."""

import hashlib
import os
import platform
import shutil
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

MOST = 2**29
"""Bytes of compiled programs that are kept; beyond it they are begun anew."""


def keep_compiled() -> None:
    """Keep compiled programs for the next start of a command; in JAX's own folder where the user has set one.

    JAX tells programs and its own releases apart. Processors have folders of their own, for homes that machines share.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    programs = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oscsim" / "programs"
    try:
        sizes = {file: file.stat().st_size for file in programs.rglob("*-cache")}
        for file in (file for file, size in sizes.items() if size == 0):
            file.unlink(missing_ok=True)  # its writer was killed, and JAX would warn of it for ever
        if sum(sizes.values()) > MOST:
            shutil.rmtree(programs, ignore_errors=True)
        cache = programs / _processor()
        programs.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is run: nobody else may write to it
        cache.mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or it cannot be written
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX looks for the folder once, perhaps before it was named


def _processor() -> str:
    """A name for what this processor can run."""
    known = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    known += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
