"""How the commands end when they are told to: at random moments, in processes as a user starts them."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import oscsim as osc
from oscsim.cli.commands import main
from tests.test_cli_train import QUICK, assert_same, last_step, metrics, wait_for, weights

COMMAND = Path(sys.executable).with_name("oscsim")
ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
TRAIN = ("train", "digits", "--epochs", 100_000, "--out", "run", *QUICK)
SWEEP = ("sweep", "study.toml", "--store", "store")
STUDY = """
batch = 4
hidden = [8]
seeds = 4
[axes]
amplitude = {from = 0.02, to = 0.64, count = COUNT, scale = "log"}
intensity = [0.01, 0.03, 0.1]
period = 64.0
cycles = 3
"""
COMMANDS = {
    "train": TRAIN,
    "sweep": SWEEP,
    "workers": (*SWEEP, "--workers", 2),
    "reproduce": ("reproduce", "fig2", "--quick"),
    "simulate": ("simulate", "--out", "run", "--cycles", 20_000),
    "lab": ("lab", "--port", 0, "--no-browser"),
}
SIGNALS = (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)
MOMENTS = 20
"""How often each command is told each of them."""


def start(folder, *arguments):
    """The command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process, *signals, group=False, apart=0.0):
    """What a process that is sent these signals says on stderr: one line; its status is that of the first of them.

    Nothing where it was done before them: with a status of 0, or Python's own, which is as good as gone then.
    """
    send = os.killpg if group else os.kill
    try:
        for number in signals:
            send(process.pid, number)
            time.sleep(apart)
    except ProcessLookupError:
        pass  # it was over before the second
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    lines = [line for line in said.splitlines() if not line.startswith("oscsim: warning")]
    if process.returncode in (0, -signals[0]) and not lines:
        return ""
    assert len(lines) == 1, said
    (line,) = lines
    name = "Ctrl-C" if signals[0] == signal.SIGINT else signals[0].name
    assert line.startswith(f"oscsim: stopped by {name}; ")
    assert process.returncode == 128 + signals[0]
    return line


def test_a_signal_before_the_package_is_there(tmp_path):
    """Imports take a second, in which whoever mistyped a command interrupts it."""
    for number, moment in ((signal.SIGINT, 0.4), (signal.SIGTERM, 0.7)):
        process = start(tmp_path, "suggest")
        time.sleep(moment)
        assert ended(process, number).endswith("; the same command starts again")


def test_training_is_saved_and_says_how_to_go_on(tmp_path):
    process = start(tmp_path, *TRAIN)
    wait_for((tmp_path / "run" / "settings.json").exists, process)
    line = ended(process, signal.SIGINT, signal.SIGINT, group=True)
    assert line.endswith("; go on with: oscsim train --resume run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, number):
    process = start(tmp_path, *TRAIN, "--checkpoint-seconds", 1000)
    wait_for(lambda: last_step(tmp_path / "run") > 0, process)
    time.sleep(0.7)
    before = last_step(tmp_path / "run")
    ended(process, number)
    assert last_step(tmp_path / "run") >= before  # saved in the middle of an epoch, or as it began
    epochs = len(metrics(tmp_path / "run")) + 1
    for arguments in (
        ("--resume", "run", "--epochs", epochs),
        ("digits", "--epochs", epochs, "--out", "whole", *QUICK),
    ):
        process = start(tmp_path, "train", *arguments)
        assert process.wait() == 0, process.communicate()
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("signals", SIGNALS, ids=lambda signals: "-".join(number.name for number in signals))
@pytest.mark.parametrize("name", COMMANDS)
def test_at_random_moments(tmp_path, name, signals):
    rng = random.Random(f"{name}{signals}")
    for i in range(MOMENTS):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "study.toml").write_text(STUDY.replace("COUNT", "400"))
        said, latest = "", 20.0
        while not said:  # it was done before; sooner, then
            process = start(folder, *COMMANDS[name])
            time.sleep(rng.uniform(0.5, latest))  # before, Python itself answers
            group = name == "workers" or rng.random() < 0.5
            said, latest = ended(process, *signals, group=group, apart=rng.uniform(0, 0.1)), latest / 2
        assert not list(folder.rglob("*part*"))  # no file is half written
        with pytest.raises(ProcessLookupError):  # no worker is left
            wait_for(lambda process=process: os.killpg(process.pid, 0))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
def test_a_sweep_that_was_stopped_goes_on_with_the_same_call(tmp_path, workers):
    (tmp_path / "study.toml").write_text(STUDY.replace("COUNT", "40"))
    whole = start(tmp_path, "sweep", "study.toml", "--store", "whole")
    assert whole.wait() == 0, whole.communicate()
    rng, store = random.Random(0), tmp_path / "store"
    for _ in range(3):
        process = start(tmp_path, *SWEEP, *workers)
        wait_for((store / "zarr.json").exists, process)
        time.sleep(rng.uniform(0, 10))
        if process.poll() is None:
            assert "the same command goes on" in ended(process, signal.SIGINT, group=True)
    last = start(tmp_path, *SWEEP, *workers)
    assert last.wait() == 0, last.communicate()
    stopped, whole = (osc.load_sweep(tmp_path / name).load() for name in ("store", "whole"))
    assert stopped.identical(whole)
    assert all(np.isfinite(a).all() for a in stopped.data_vars.values())


@pytest.mark.slow
@pytest.mark.parametrize("call", ["NoiseLab()", "NoiseLab().close()", "serve(port=0, browser=False)"])
def test_a_script_with_a_lab_ends_while_it_compiles(call):
    interrupted = call.startswith("serve")
    script = [sys.executable, "-c", f"import oscsim as osc; osc.lab.{call}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, env=ENVIRONMENT, **pipes) as process:
        if interrupted:
            assert "Ctrl-C stops it" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
        assert process.communicate() == ("\nStopped.\n" if interrupted else "", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_compiled_programs_are_kept_for_the_next_start(tmp_path):
    """Also where a kill left an empty file, or nothing can be written."""
    ours = {name: value for name, value in ENVIRONMENT.items() if not name.startswith(("JAX_", "TF_CPP_"))}

    def suggested(cache):
        environment = ours | {"XDG_CACHE_HOME": str(cache)}
        done = subprocess.run([COMMAND, "suggest"], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    first = suggested(tmp_path / "cache")
    kept = sorted((tmp_path / "cache").rglob("*-cache"))
    kept[0].write_bytes(b"")
    assert suggested(tmp_path / "cache") == first
    assert kept == sorted((tmp_path / "cache").rglob("*-cache"))
    assert all(file.stat().st_size for file in kept)
    assert suggested("/proc/nowhere") == first


@pytest.mark.parametrize("megabytes", [600, 1500])
def test_too_little_memory_is_said_at_once(megabytes, tmp_path):
    limited = (
        f"ulimit -v {1024 * megabytes}; exec '{sys.executable}' -m oscsim.cli.entry train digits --out '{tmp_path}'"
    )
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert ended.returncode == 1
    assert re.fullmatch(r"oscsim: error: this process may use .* GB of address space .*\n", ended.stderr)


def test_a_network_larger_than_memory_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["train", "digits", "--hidden", "1000000", "1000000", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"oscsim: error: a weight of shape \(1000000, 1000000\) takes 4,000.0 GB of memory.*\n", said)
