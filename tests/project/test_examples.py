"""The examples, run as a user runs them."""

import argparse
import csv
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from cases import EXPORTS

from keras_nanode import layers

SCRIPT = Path(__file__).parents[2] / "examples" / "train_classifier.py"
EPOCHS = 5
TINY = {"--block": "trig", "--filters": 4, "--steps": 2, "--order": 1}
FILES = (
    "options.json",
    "training.png",
    "weights.png",
    "trig/model.keras",
    "trig/history.csv",
    "trig/results.json",
    "trig/weights.csv",
)
COMPARED = "the logits of the test set differ by" if EXPORTS else "skipped"

pytestmark = pytest.mark.slower


def command(output: Path, script: Path = SCRIPT, **changes) -> list[str]:
    options = {**TINY, "--epochs": EPOCHS, "--batch-size": 256, "--output": output}
    options |= {f"--{name}": value for name, value in changes.items()}
    flat = [str(x) for option in options.items() for x in option]
    return [sys.executable, str(script), *flat]


def run(*args, **changes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args, **changes), capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def interrupted(folder: Path) -> Path:
    """The folder of a run that was killed in its third epoch."""
    with subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, text=True
    ) as process:
        lines: Iterator[str] = iter(process.stdout or ())
        assert any(line == f"Epoch 3/{EPOCHS}\n" for line in lines)
        process.kill()
    return folder


@pytest.fixture(scope="module")
def resumed(interrupted: Path) -> subprocess.CompletedProcess[str]:
    """The same command again, and its output."""
    return run(interrupted)


def test_a_killed_run_resumes_after_its_last_full_epoch(resumed, folder):
    assert resumed.returncode == 0, resumed.stderr
    assert f"Epoch 1/{EPOCHS}" not in resumed.stdout
    assert f"Epoch {EPOCHS}/{EPOCHS}" in resumed.stdout
    with (folder / "trig" / "history.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)


def test_a_finished_run_writes_all_files_and_prints_the_table(resumed, folder):
    assert [name for name in FILES if not (folder / name).exists()] == []
    assert not (folder / "trig" / "backup.npz").exists()
    assert (folder / "trig/saved_model/saved_model.pb").exists() == EXPORTS
    assert f"SavedModel: {COMPARED}" in resumed.stdout
    header, row = (
        next(line for line in resumed.stdout.splitlines() if line.startswith(name))
        for name in ("block ", "trig ")
    )
    assert header.split() == (
        "block test accuracy test loss parameters s/epoch peak MB".split()
    )
    accuracy = json.loads((folder / "trig" / "results.json").read_text())[
        "test accuracy"
    ]
    assert row.split()[1] == f"{accuracy:.1%}"
    assert resumed.stderr == ""


def test_a_finished_model_is_not_trained_again(resumed, folder):
    again = run(folder)
    assert again.returncode == 0, again.stderr
    assert "Epoch" not in again.stdout
    assert again.stdout.split("digits:")[1] == resumed.stdout.split("digits:")[1]


def test_a_folder_with_a_run_of_other_options_is_refused(resumed, folder):
    other = run(folder, epochs=EPOCHS + 1)
    assert other.returncode == 2
    assert f"holds a run with other options (epochs={EPOCHS})" in other.stderr
    assert "Received: epochs=6" in other.stderr


def test_an_error_of_the_library_is_told_without_a_trace(tmp_path):
    refused = run(tmp_path, block="bucket", order=0)
    assert refused.returncode == 2
    assert "Received: num_buckets=0" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("text", ["", '{"epochs": ', "loss,accuracy\n0.5\n"])
@pytest.mark.parametrize("name", ["options.json", "results.json", "history.csv"])
def test_a_damaged_file_ends_in_one_line(name, text, tmp_path, monkeypatch, capsys):
    if name == "history.csv" and not text:
        pytest.skip("a table without rows")
    monkeypatch.syspath_prepend(SCRIPT.parent)
    runs, fitting = map(importlib.import_module, ("runs", "fitting"))
    read = fitting.read_history if name == "history.csv" else runs.read
    (tmp_path / name).write_text(text + "\n...")
    with pytest.raises(SystemExit):
        read(tmp_path / name)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is damaged. Delete the folder {tmp_path} to begin anew." in line


def test_training_that_ends_in_nan_fails_and_saves_no_model(tmp_path):
    text = SCRIPT.read_text()
    rate = "32, 1e-2,"
    assert rate in text
    diverging = tmp_path / "diverging.py"
    diverging.write_text(text.replace(rate, "32, 1e38,"))
    for shared in ("runs.py", "fitting.py"):
        shutil.copy(SCRIPT.with_name(shared), tmp_path)
    failed = run(tmp_path / "run", diverging)
    assert failed.returncode == 1
    assert "The training of trig ended in NaN in epoch 1." in failed.stderr
    written = {file.name for file in (tmp_path / "run" / "trig").iterdir()}
    assert written == {".lock", "history.csv"}


def test_a_recipe_for_images_of_another_kind_is_refused(tmp_path):
    refused = run(tmp_path, recipe="full")
    assert refused.returncode == 2
    assert "--recipe full is for cifar10 and cifar100" in refused.stderr
    assert "Received: --dataset digits" in refused.stderr


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("train_classifier")


def options_of(example, *args) -> argparse.Namespace:
    parser = example.argument_parser()
    return example.chosen(parser, parser.parse_args([*map(str, args)]))


FULL = ("--dataset", "cifar10", "--recipe", "full", "--block", "bucket")
SMALL = ("--filters", 8, "--batch-size", 4)


@pytest.mark.skipif(not EXPORTS, reason="the example writes a SavedModel")
def test_the_full_recipe_trains(example, tmp_path):
    options = options_of(example, *FULL, *SMALL, "--epochs", 6, "--output", tmp_path)
    with tfds.testing.mock_data(num_examples=8):
        example.train("bucket", options)
    with (tmp_path / "bucket" / "history.csv").open() as lines:
        losses = [float(row["loss"]) for row in csv.DictReader(lines)]
    assert len(losses) == 6 and np.isfinite(losses).all()
    model = keras.saving.load_model(tmp_path / "bucket" / "model.keras")
    flows = [x for x in model.layers[-1].layers if isinstance(x, layers.ODE)]
    assert [flow.t_span for flow in flows] == [(0.0, 10**0.5)] * 3
    assert {flow.compute_dtype for flow in flows} <= {"bfloat16", "float16"}


def test_the_full_recipe_warms_up_and_spares_norms_from_decay(example):
    options = options_of(example, *FULL)
    adam = example.optimizer(options, batches=100)
    rates = [float(adam._learning_rate(step)) for step in (0, 250, 500, 20_000)]
    np.testing.assert_allclose(rates, [0, 5e-4, 1e-3, 0], atol=1e-9)

    layer = layers.TimeVarying(
        layers.ConvBlock(4, normalization="group"), basis="bucket"
    )
    layer(np.ones((1, 4, 4, 4)), t=0.0)
    before = [keras.ops.copy(w) for w in layer.trainable_variables]
    for _ in range(3):
        adam.apply([keras.ops.zeros_like(w) for w in before], layer.trainable_variables)
    for old, w in zip(before, layer.trainable_variables, strict=True):
        same = np.array_equal(*map(keras.ops.convert_to_numpy, (old, w)))
        assert same == ("kernel" not in w.name), w.name


def test_the_wide_block_has_as_many_weights_as_the_one_that_varies(example):
    data = example.datasets.digits()
    plain, normalized = ((1, 8), (3, 32), (10, 64)), ((2, 16), (3, 32), (10, 64))
    cases = [(None, *sizes) for sizes in plain]
    for norm, order, filters in cases + [("group", *sizes) for sizes in normalized]:
        options = options_of(example, "--order", order, "--filters", filters)
        options.normalization = norm
        trig = example.network_of("trig", filters // 4, options, data)
        wide = example.as_large_as(trig, options, data)
        assert wide.count_params() == pytest.approx(trig.count_params(), rel=0.05)


GROWN = ("--block", "bucket", "--filters", 4, "--batch-size", 256, "--grow", 1, 2)


def test_a_model_that_grows_resumes_with_its_last_size(example, tmp_path):
    options = options_of(example, *GROWN, "--epochs", 2, "--output", tmp_path)
    data = example.load(options)
    weights, seconds = [], []
    for _ in range(2):  # the second time nothing is left to train
        keras.utils.set_random_seed(0)
        model = example.build("bucket", options, data)
        model, of_epochs = example.fit(model, data, tmp_path, options)
        weights.append([keras.ops.convert_to_numpy(w) for w in model.weights])
        seconds.append(len(of_epochs))
    assert seconds == [2, 0]
    for first, second in zip(*weights, strict=True):
        assert np.array_equal(first, second)
    flow = model.layers[-1].get_layer("flow_0")
    assert (flow.dynamics.basis.size, flow.steps) == (2, 2)
    assert flow.t_span == (0.0, 2**0.5)
    assert int(model.optimizer.iterations) == 2 * len(data.train)


def test_what_cannot_grow_is_refused(example, capsys):
    with pytest.raises(SystemExit):
        options_of(example, "--block", "trig", "--grow", 1, 2)
    assert "--grow is for --block bucket" in capsys.readouterr().err
