"""The distributed example, run as a user runs it, and with a worker that is killed."""

import csv
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nanode import layers

SCRIPT = Path(__file__).parents[2] / "examples" / "train_distributed.py"
EPOCHS = 4

BACKEND = keras.backend.backend()

pytestmark = pytest.mark.slower


def command(output: Path, *args) -> list[str]:
    options = ["--backend", BACKEND, "--epochs", EPOCHS, "--output", output, *args]
    return [sys.executable, str(SCRIPT), *map(str, options)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder), capture_output=True, text=True)


def history(folder: Path) -> np.ndarray:
    with (folder / "history.csv").open() as lines:
        rows = [[*map(float, row.values())] for row in csv.DictReader(lines)]
    return np.array(rows)


def weights(folder: Path) -> list[np.ndarray]:
    model = keras.models.load_model(folder / "model.keras")
    assert isinstance(model.layers[1], layers.TrigConvODE)
    return model.get_weights()


def assert_same_training(one: Path, other: Path) -> None:
    np.testing.assert_allclose(history(one), history(other), atol=1e-5)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_two_workers_learn_what_one_learns(finished, folder):
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    if BACKEND == "tensorflow":
        assert finished.stderr == ""
    assert len(history(folder / "2 workers")) == EPOCHS
    assert_same_training(folder / "1 worker", folder / "2 workers")


def test_the_table_has_a_row_for_each_number_of_workers(finished):
    header, _, one, two = finished.stdout.splitlines()[-4:]
    assert header.split("  ")[0] == "trained by"
    assert [re.split(r"  +", row)[0] for row in (one, two)] == ["1 worker", "2 workers"]
    assert re.split(r"  +", two)[1] == re.split(r"  +", one)[1]
    assert float(one.split("%")[0].split()[-1]) > 90


def test_nothing_is_lost_when_a_worker_is_killed(finished, folder, tmp_path):
    """Its training ends with the weights and the history of one that ran through."""
    with subprocess.Popen(
        command(tmp_path, "--workers", 2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line == f"Epoch 3/{EPOCHS}\n" and printed.count(line) == 1:
                (pid,) = re.findall(r"worker 1 is process (\d+)", "".join(printed))
                os.kill(int(pid), signal.SIGKILL)
        assert process.wait() == 0, process.stderr.read()
    assert "worker 1 was killed: all start again from the last backup\n" in printed
    started = [printed.count(f"Epoch {n + 1}/{EPOCHS}\n") for n in range(EPOCHS)]
    assert started == [1, 1, 2, 1]
    assert_same_training(tmp_path / "2 workers", folder / "2 workers")
    assert not (tmp_path / "2 workers" / "backup.npz").exists()


def test_what_cannot_be_done_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    example = importlib.import_module("train_distributed")

    def refused(*args) -> str:
        monkeypatch.setattr(sys, "argv", command(tmp_path, *args)[1:])
        with pytest.raises(SystemExit) as end:
            example.main()
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "--cluster and --index go together" in refused("--index", 1)
    uneven = refused("--workers", 3)
    assert "3 workers need a batch that they can divide" in uneven
    assert "Received: --batch-size 64" in uneven
    assert "Received: --batch-size 2000" in refused("--batch-size", 2000)
