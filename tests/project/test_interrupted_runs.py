"""An interrupted run of an example is the same run: killed, locked out, out of disk.

With KILLS=5 in the environment each is killed five times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_nanode  # noqa: F401  (registers the layers of the models)

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = int(os.environ.get("KILLS", "2"))
SMALL = {
    "train_classifier": "--block trig --filters 4 --steps 2 --order 1 --epochs 4 "
    "--batch-size 128",
    "train_video": "--block conv --filters 4 --rnn-units 8 --latent-dim 3 "
    "--batch-size 4 --epochs 3 --epoch-steps 2",
    "train_distributed": "--workers 2 --epochs 4",
}
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

pytestmark = pytest.mark.nightly


def start(script: str, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *SMALL[script].split()]
    return subprocess.Popen(
        [*command, "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(script: str, output: Path) -> float:
    """Runs a script to its end and returns the seconds it took."""
    begin = time.perf_counter()
    process = start(script, output)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.perf_counter() - begin


def trained(output: Path) -> tuple[str, list[np.ndarray]]:
    (file,) = output.glob("*/model.keras")
    history = file.with_name("history.csv").read_text()
    return history, keras.models.load_model(file).get_weights()


@pytest.mark.parametrize("script", SMALL)
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_ran_through(
    script, tmp_path
):
    if script == "train_distributed" and not ON_TENSORFLOW:
        pytest.skip("`tf.distribute` is TensorFlow's")
    through, killed = tmp_path / "through", tmp_path / "killed"
    seconds = finish(script, through)
    moments = random.Random(script)
    for _ in range(KILLS):
        process = start(script, killed)
        try:
            process.wait(moments.uniform(0.2, 1) * seconds)
        except subprocess.TimeoutExpired:
            # With all its workers.
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(script, killed)
    history, weights = trained(killed)
    expected_history, expected_weights = trained(through)
    assert history == expected_history
    for weight, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_run_is_told_and_the_first_ends_in_a_line_when_asked_to(
    number, tmp_path
):
    # So many that it is not over before the second has started.
    epochs = ("--epochs", "100000")
    first = start("train_classifier", tmp_path, *epochs)
    assert any("Epoch" in line for line in first.stdout)
    second = start("train_classifier", tmp_path, *epochs)
    _, errors = second.communicate()
    assert second.returncode == 2
    assert len(errors.splitlines()) == 1
    assert f"{tmp_path} is in use by another run." in errors
    first.send_signal(number)
    _, errors = first.communicate()
    assert first.returncode == 1
    assert errors.strip() == (
        "Interrupted. The same command resumes after the last full epoch."
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on_later(tmp_path):
    folder = tmp_path / "trig"
    folder.mkdir()
    # After the first epoch, and at the end.
    for name in ("history.csv", "results.json"):
        unfinished = folder / f"unfinished-{name}"
        unfinished.symlink_to("/dev/full")
        process = start("train_classifier", tmp_path)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert len(errors.splitlines()) == 1
        assert "the disk is full" in errors
        unfinished.unlink()
    finish("train_classifier", tmp_path)
