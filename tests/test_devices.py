"""Several devices: the same training as on one, in one process and in two; and what happens when one is lost."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

import oscsim as osc
from oscsim.training.devices import as_mesh
from tests.test_cli_train import ENVIRONMENT, command, last_step, metrics, wait_for, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]  # they compile in fresh processes


PHASES = (
    "digits",
    "--estimator",
    "phases",
    "--hidden",
    8,
    6,
    "--amplitude",
    0.05,
    "--points",
    4,
    "--samples",
    400,
    "--probe",
    0,
    "--precision",
    "float64",
    "--tolerance",
    1e-10,
)
BOUND = 120
"""Seconds; the tests below lose a process after five."""


def python(code, devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**ENVIRONMENT, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_two_devices_make_the_updates_of_one():
    """In float64; SGD with rate one leaves the gradient in the weights."""
    found = python(
        """
        import jax, numpy as np, optax
        jax.config.update("jax_enable_x64", True)
        import oscsim as osc

        key = jax.random.key(0)
        images = jax.random.normal(key, (16, 8, 8, 1)), np.arange(16) % 3
        flat = images[0].reshape(16, 64), images[1]
        layers = osc.Convolution(2, pooling=osc.SoftmaxPooling()), osc.Convolution(3, 2, pooling=osc.AveragePooling())
        convolutional = osc.ConvolutionalNetwork(layers, (8, 8, 1), 3, key=key)
        layered = osc.LayeredNetwork((64, 6, 5, 3), key=key)
        cases = (
            (convolutional, images, osc.Phases(0.5, 4), osc.datasets.augment),
            (layered, flat, osc.Classic(0.1), None),
            (layered, flat, osc.Exact(), None),
            (osc.FeedForwardNetwork((64, 6, 3), key=key), flat, osc.Backpropagation(), None),
        )
        for net, data, estimator, augment in cases:
            ended = [
                osc.train(
                    net, data, estimator, optax.sgd(1.0), epochs=1, batch_size=8, key=key, augment=augment,
                    validation=(data[0][:5], data[1][:5]), devices=jax.devices()[:n], monitor=osc.Monitor(probe=4),
                )
                for n in (1, 2)
            ]
            one, two = (jax.tree.leaves(osc.parameters(run.network)) for run in ended)
            start = jax.tree.leaves(osc.parameters(net))
            moved = max(float(abs(a - b).max()) for a, b in zip(one, start))
            apart = max(float(abs(a - np.asarray(b)).max()) for a, b in zip(one, two))
            rows = [run.history[0] for run in ended]
            told = max(abs(rows[0][k] - rows[1][k]) for k in rows[0] if "second" not in k and k != "error_bar")
            print(apart / moved, told)
            # Each device knows the bar of its own samples alone: the row has their mean.
            bars = [row["error_bar"] for row in rows if "error_bar" in row]
            print(0.0 if not bars or 0.3 < bars[1] / bars[0] < 3 else 1.0)
        """,
        devices=2,
    )
    assert max(map(float, found)) < 1e-9


def test_what_devices_cannot_do_is_said():
    found = python(
        """
        import jax, optax, numpy as np, oscsim as osc

        net = osc.LayeredNetwork((64, 8, 10), key=jax.random.key(0))
        x, y = osc.datasets.load("digits")
        always_on = osc.AlwaysOn(osc.LockIn(osc.Rotating(0.3, 60.0), cycles=2))
        noisy = osc.Classic(0.1, steps=(5, 5), noise=osc.StepNoise(0.1, shared_over_batch=True))
        shaken = osc.LockIn(osc.Rotating(0.3, 60.0), noise=osc.TeachingNoise(0.1, correlation_time=1.0))
        both = jax.devices()
        for estimator, batch_size, devices in (
            (osc.Exact(), 5, both), (always_on, 4, both), (noisy, 4, both), (always_on, 4, both[:1]), (shaken, 4, both)
        ):
            try:
                run = osc.train(net, (x[:40], y[:40]), estimator, optax.sgd(0.1), epochs=1, batch_size=batch_size,
                                devices=devices, key=jax.random.key(0))
                print(len(run.history))
            except ValueError as error:
                print(str(error).replace(" ", "_"))
        """,
        devices=2,
    )
    assert found[0].startswith("batch_size=5_cannot_be_shared_equally_by_2_devices:_use_a_multiple_of_2")
    assert found[1].startswith("AlwaysOn_carries_one_state")
    assert found[2].startswith(
        "StepNoise_is_shared_over_the_batch,_but_each_of_2_devices_draws_its_own;_use_one_device"
    )
    assert found[3] == "1"
    assert found[4].startswith("TeachingNoise_is_shared_over_the_batch")
    with pytest.raises(ValueError, match="devices is empty"):
        as_mesh([], 4)


def start(folder, *arguments, processes=2):
    """So many processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    together = ("--coordinator", coordinator, "--processes", processes, "--lost-after", 5)
    return [
        subprocess.Popen(
            command("train", *arguments, *together, "--process-id", k),
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(processes)
    ]


def finish(processes):
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def assert_close(a, b):
    for left, right in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-8)


def test_two_processes_train_like_one_and_a_run_goes_on_with_another_number(tmp_path):
    (said, _), (silent, _) = finish(start(tmp_path, *PHASES, "--epochs", 1, "--out", "two"))
    assert "validation error" in said
    assert "validation error" not in silent
    one = subprocess.run(command("train", *PHASES, "--epochs", 1, "--out", "one"), cwd=tmp_path, env=ENVIRONMENT)
    assert one.returncode == 0
    assert_close(tmp_path / "two", tmp_path / "one")
    rows = [metrics(tmp_path / name) for name in ("one", "two")]
    np.testing.assert_allclose(*([row["validation_loss"] for row in of] for of in rows), rtol=1e-8)

    finish(start(tmp_path, "--resume", "one", "--epochs", 2))
    alone = subprocess.run(command("train", "--resume", "two", "--epochs", 2), cwd=tmp_path, env=ENVIRONMENT)
    assert alone.returncode == 0
    assert_close(tmp_path / "two", tmp_path / "one")
    assert [row["epoch"] for row in metrics(tmp_path / "one")] == [1, 2]


@pytest.mark.parametrize("lost", [0, 1], ids=["the first", "the second"])
def test_a_lost_process_ends_the_other_and_the_run_goes_on(tmp_path, lost):
    endless = ("--amplitude", 0.01, "--epochs", 10_000, "--checkpoint-seconds", 0.1, "--out", "run")
    processes = start(tmp_path, *PHASES, *endless)
    wait_for(lambda: last_step(tmp_path / "run") > 40, *processes)
    processes[lost].send_signal(signal.SIGKILL)
    processes[lost].communicate()
    other = processes[1 - lost]
    _, said = other.communicate(timeout=BOUND)  # raises if it does not end
    assert other.returncode != 0
    assert said
    stood = last_step(tmp_path / "run")
    epochs = stood // 20 + 1
    alone = subprocess.run(command("train", "--resume", "run", "--epochs", epochs), cwd=tmp_path, env=ENVIRONMENT)
    assert alone.returncode == 0
    assert last_step(tmp_path / "run") == 20 * epochs
    assert jax.tree.all(jax.tree.map(lambda a: bool(np.isfinite(a).all()), osc.parameters(osc.load(tmp_path / "run"))))


def test_ctrl_c_ends_all_of_them_and_leaves_a_checkpoint(tmp_path):
    endless = ("--amplitude", 0.01, "--epochs", 10_000, "--checkpoint-seconds", 0.1, "--out", "run")
    processes = start(tmp_path, *PHASES, *endless)
    wait_for(lambda: last_step(tmp_path / "run") > 40, *processes)
    for process in processes:
        process.send_signal(signal.SIGINT)
    said = [process.communicate(timeout=BOUND)[1] for process in processes]  # raises if one does not end
    assert processes[0].returncode == 130, said
    assert "oscsim: stopped by Ctrl-C; go on with: oscsim train --resume run\n" in said[0]
    assert last_step(tmp_path / "run") > 40
