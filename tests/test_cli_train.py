"""`oscsim train` and `oscsim predict` as a user meets them; kills included."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import oscsim as osc
from oscsim.cli.commands import main
from oscsim.cli.learning import Descent
from tests.test_datasets import write_cifar
from tests.test_sources import SIZES, write_all

ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
QUICK = ("--period", "60", "--steps-per-cycle", "60", "--hidden", "12", "--probe", "0")


def command(*arguments):
    return [sys.executable, "-W", "error", "-m", "oscsim.cli", *map(str, arguments)]


def weights(folder):
    return jax.tree.leaves(osc.parameters(osc.load(folder)))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_train_resume_and_predict(oscsim, tmp_path):
    done = oscsim("train", "digits", "--estimator", "lock-in", "--epochs", 2, "--seed", 0, "--out", "run", *QUICK)
    assert done.err == ""
    assert "validation its own   time" in done.out
    assert "error (%)" in done.out
    rows = metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"loss", "validation_error", "validation_loss", "seconds", "step"} <= set(rows[0])
    assert (tmp_path / "run" / "step-000000000.osc").exists()
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert saved["settings"]["epochs"] == 2
    assert saved["versions"]["jax"] == jax.__version__

    more = command("train", "--resume", "run", "--epochs", 3)  # in a process of its own
    done = subprocess.run(more, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == [1, 2, 3]

    (tmp_path / "early").mkdir()  # killed before its first checkpoint
    (tmp_path / "early" / "settings.json").write_bytes((tmp_path / "run" / "settings.json").read_bytes())
    oscsim("train", "--resume", "early", "--epochs", 3)
    assert_same(weights(tmp_path / "early"), weights(tmp_path / "run"))

    x, y = osc.datasets.load("digits", "test")
    np.save(tmp_path / "x.npy", x[:100])
    said = oscsim("predict", "run", "x.npy", "--scores", "scores.npy")
    labels = np.array(list(map(int, said.out.split())))
    assert np.mean(labels != y[:100]) < 0.3
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy").argmax(axis=1), labels)


@pytest.mark.slow
def test_tolerances_alone_make_steps_adapt(oscsim, tmp_path):
    few = ("--samples", 20, "--hidden", 6, "--epochs", 1, "--probe", 0, "--period", 60)
    oscsim("train", *few, "--rtol", 1e-3, "--out", "run")
    oscsim("train", "--config", "run/settings.json", "--out", "again")
    oscsim("train", *few, "--rtol", 1e-3, "--solver", "None", "--steps-per-cycle", "None", "--out", "spelt")
    oscsim("train", *few, "--out", "equal")
    about = [json.loads((tmp_path / name / "settings.json").read_text()) for name in ("run", "again", "equal")]
    adaptive = {"rtol": 1e-3, "atol": None, "solver": None, "steps_per_cycle": None, "ticks": None}
    equal = {"rtol": None, "atol": None, "solver": "euler", "steps_per_cycle": 100, "ticks": None}
    assert [each["settings"]["integration"] for each in about] == [adaptive, adaptive, equal]
    for other in ("again", "spelt"):
        assert_same(weights(tmp_path / "run"), weights(tmp_path / other))
    assert any(np.any(a != b) for a, b in zip(*(weights(tmp_path / n) for n in ("run", "equal")), strict=True))


@pytest.mark.slow
def test_settings_from_before_the_tolerances_go_on(oscsim, tmp_path):
    oscsim("train", "--samples", 20, "--hidden", 6, "--epochs", 1, "--probe", 0, "--out", "run", *QUICK[:4])
    path = tmp_path / "run" / "settings.json"
    old = json.loads(path.read_text())
    for name in ("rtol", "atol"):
        del old["settings"]["integration"][name]
    path.write_text(json.dumps(old))
    oscsim("train", "--resume", "run", "--epochs", 2)
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == [1, 2]


IMAGES = (
    "--estimator",
    "phases",
    "--points",
    2,
    "--amplitude",
    1,
    "--tolerance",
    1e-3,
    "--model",
    "vgg4",
    "--width",
    0.02,
    "--batch-size",
    8,
    "--epochs",
    1,
    "--probe",
    0,
    "--standardise",
    "--learning-rate",
    0.01,
)


def test_weight_decay_is_beside_the_momentum():
    """Of m <- mu m + g and w <- (1 - rate decay) w - rate m, as in the code of the method's authors."""
    rate, decay, mu = 0.1, 0.02, 0.9
    optimizer = Descent(weight_decay=decay, momentum=mu).build(None, (rate,), 1)
    w, expected, m = jnp.array(2.0), 2.0, 0.0
    state = optimizer.init(w)
    for g in (1.0, -0.5, 0.25):
        update, state = optimizer.update(jnp.array(g), state, w)
        w = optax.apply_updates(w, update)
        m = mu * m + g
        expected = (1 - rate * decay) * expected - rate * m
        np.testing.assert_allclose(w, expected, rtol=1e-6)


@pytest.mark.slow
def test_images_and_files_of_them(oscsim, tmp_path):
    write_cifar(tmp_path, packed=True, n=16)
    oscsim("train", "cifar10", "--data-dir", ".", "--augment", *IMAGES, "--samples", 40, "--out", "cifar10")
    assert [row["step"] for row in metrics(tmp_path / "cifar10")] == [5]
    write_all(tmp_path)
    oscsim("train", "imagenet32", "--data-dir", ".", *IMAGES, "--out", "imagenet32")
    assert [row["step"] for row in metrics(tmp_path / "imagenet32")] == [sum(SIZES) // 8]
    assert osc.load(tmp_path / "imagenet32").outputs == 1000


@pytest.mark.slow
def test_a_file_of_options(oscsim, tmp_path, capsys):
    (tmp_path / "options.toml").write_text(
        'data = "digits"\nestimator = "exact"\nhidden = [8, 6]\nlearning_rate = [0.1, 0.2, 0.3]\nepochs = 5\n'
        "samples = 200\n"
    )
    oscsim("train", "--config", "options.toml", "--epochs", 1, "--out", "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert (settings["hidden"], settings["epochs"], settings["dataset"]["samples"]) == ([8, 6], 1, 200)
    assert osc.load(tmp_path / "run").sizes == (64, 8, 6, 10)
    (tmp_path / "bad.toml").write_text("hiden = [8]\n")
    with pytest.raises(SystemExit) as unknown:
        main(["train", "--config", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "other")])
    assert unknown.value.code == 2
    assert "hiden" in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "out is None: give a folder"),
        (("--out", "run", "--estimator", "exact", "--cycles", 5), "cycles belongs to lock-in, not to exact"),
        (("--out", "run", "--learning-rate", -1), "learning_rate=(-1.0,): use positive"),
        (("--out", "run", "--clip", 0), "clip=0: use a positive norm"),
        (("--out", "run", "--samples", 9999), "samples=9999: digits holds 1437"),
        (("--out", "run", "--momentum", 0.9, "--optimizer", "adam"), "momentum=0.9 belongs to sgd"),
        (("--out", f"{sys.executable}/run"), "cannot be written"),
        (("--resume", "nothing"), "resume=nothing: no settings.json there"),
        (("--resume", "nothing", "--seed", 3), "seed cannot change in a resumed run"),
        (("--resume", "nothing", "--batch-size", 20), "batch_size cannot change in a resumed run"),  # the default
        (("--resume", "nothing", "--period", 50), "period cannot change in a resumed run"),
        (("--out", "run", "--batch-size", 0), "batch_size=0: use a positive integer"),
        (("--out", "run", "--batch-size", 9999, "--schedule", "cosine"), "batch_size=9999: the data hold 1437 samples"),
        (("--out", "run", "--weight-decay", -1), "weight_decay=-1: use 0 or a small positive number"),
        (("--out", "run", "--lost-after", 5), "lost_after=5 needs a coordinator"),
        (("--out", "run", "--noise", "step"), "noise=step needs standard_deviation"),
        (("--out", "run", "--intensity", 0.1), "intensity=0.1 belongs to --noise white and --noise ornsteinuhlenbeck"),
        (("--out", "run", "--estimator", "exact", "--noise", "white", "--intensity", 1), "noise belongs to lock-in"),
        (("--out", "run", "--period", 5), "period=5 is shorter than 2 pi tau"),
        (("--out", "run", "--rtol", 1e-6, "--steps-per-cycle", 100), "steps_per_cycle=100 and rtol=1e-06 exclude"),
        (("--out", "run", "--rtol", 1e-6, "--solver", "euler"), "estimates no error, so its steps cannot adapt"),
        (("--out", "run", "--atol", 1e-6, "--noise", "readout", "--standard-deviation", 0.1), "atol=1e-06 with noise"),
        (("--out", "run", "--rtol", 1e-6, "--estimator", "phases"), "rtol belongs to lock-in, not to phases"),
        (("--resume", "nothing", "--rtol", 1e-6), "rtol cannot change in a resumed run"),
        (("--out", "run", "--width", 0.5), "width=0.5 belongs to a convolutional network, not to model=layered"),
        (
            ("--out", "run", "--model", "vgg4", "--slope", 2),
            "slope=2.0 belongs to a layered network, not to model=vgg4",
        ),
        (("--out", "run", "--model", "vgg4", "--hidden", 8), "hidden=(8,) belongs to a layered network"),
        (
            ("--out", "run", "--model", "vgg6", "--estimator", "backpropagation"),
            "model=vgg6 has no feed-forward twin: use vgg4",
        ),
        (("--out", "run", "--process-id", 1), "processes and process_id need a coordinator"),
        (("--out", "run", "--processes", 2), "processes and process_id need a coordinator"),
        (
            ("--out", "run", "--coordinator", "here", "--processes", 2, "--process-id", 0),
            "coordinator=here: use HOST:PORT, or auto",
        ),
        (("--out", "run", "--coordinator", "a:1", "--processes", 2), "needs both --processes N and --process-id K"),
        (
            ("--out", "run", "--coordinator", "a:1", "--processes", 2, "--process-id", 2),
            "process_id=2: use 0 to 1",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "") if isinstance(value, tuple) else "",
)
def test_what_the_user_can_mend_is_said_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["train", "digits", *map(str, arguments)])
    assert done.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("oscsim: error: ")
    assert message in line


def last_step(folder):
    return max((int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.osc")), default=-1)


def wait_for(condition, *processes):
    deadline = time.monotonic() + 300
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def survives(tmp_path, kills, seed):
    """A run killed at random moments and resumed ends with the weights of one that was not."""
    settings = ("digits", "--epochs", 25, "--checkpoint-seconds", 0.001, "--keep", 2, *QUICK)
    environment = {**ENVIRONMENT, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # a kill would leave half a program there
    whole = subprocess.run(command("train", *settings, "--out", "whole"), cwd=tmp_path, env=environment)
    assert whole.returncode == 0
    rng, killed = random.Random(seed), 0
    arguments = ("train", *settings, "--out", "killed")
    while True:
        started_at = last_step(tmp_path / "killed")
        process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        if killed == kills:
            assert process.wait() == 0
            break
        wait_for(lambda s=started_at: last_step(tmp_path / "killed") > s, process)
        time.sleep(rng.uniform(0, 0.15))  # wherever it stands: a checkpoint is being written most of the time
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
        killed += 1
        arguments = ("train", "--resume", "killed")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    strip = [
        [{k: v for k, v in row.items() if "second" not in k} for row in metrics(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert strip[0] == strip[1]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    survives(tmp_path, kills=2, seed=0)


@pytest.mark.slow
def test_killed_ten_times_and_resumed(tmp_path):
    survives(tmp_path, kills=10, seed=1)
