"""The video example, run as a user runs it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import EXPORTS
from PIL import Image

from keras_nanode import models

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"filters": 4, "rnn-units": 8, "latent-dim": 3, "batch-size": 4}
FILES = (
    "options.json",
    "prediction.png",
    "prediction.gif",
    "trig/model.keras",
    "trig/history.csv",
    "trig/results.json",
    "trig/samples.npz",
)
COMPARED = "the frames of" if EXPORTS else "skipped"

pytestmark = pytest.mark.slower


def run(output: Path, *args, **changes) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(EXAMPLES / "train_video.py")]
    options = {**SIZES, "epochs": 2, "epoch-steps": 2, "output": output, **changes}
    flat = [str(x) for name, value in options.items() for x in (f"--{name}", value)]
    return subprocess.run(
        [*script, *flat, *map(str, args)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips in colour, of squares that move to the right."""
    video = np.zeros((6, 14, 16, 16, 3), "uint8")
    for clip, time in np.ndindex(video.shape[:2]):
        video[clip, time, 4:8, time : time + 3, clip % 3] = 255
    file = tmp_path_factory.mktemp("clips") / "clips.npz"
    np.savez(file, video=video)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(clips: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "--block", "trig", dataset=clips)


def test_a_finished_run_writes_all_files_and_prints_the_table(finished, folder):
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert [name for name in FILES if not (folder / name).exists()] == []
    assert not (folder / "trig" / "backup.npz").exists()
    assert (folder / "trig/generator/saved_model.pb").exists() == EXPORTS
    assert f"SavedModel: {COMPARED}" in finished.stdout
    header, row = (
        next(line for line in finished.stdout.splitlines() if line.startswith(name))
        for name in ("block ", "trig ")
    )
    assert header.split() == (
        "block loss MSE KL nats PSNR dB SSIM parameters s/step peak MB".split()
    )
    results = json.loads((folder / "trig" / "results.json").read_text())
    assert row.split()[4] == f"{results['PSNR dB']:.2f}"
    assert row.split()[6] == f"{results['parameters']:,}"
    with (folder / "trig" / "history.csv").open() as lines:
        assert [row["epoch"] for row in csv.DictReader(lines)] == ["1", "2"]


def test_the_animation_has_a_page_for_each_frame(finished, folder):
    with Image.open(folder / "prediction.gif") as film:
        assert film.n_frames == 12
        pages = []
        for page in range(12):
            film.seek(page)
            pages.append(np.asarray(film.convert("RGB")))
    assert all(map(np.any, np.diff(np.stack(pages).astype(int), axis=0)))


def test_the_best_sample_is_kept_first(finished, folder):
    with np.load(folder / "trig" / "samples.npz") as arrays:
        truth, samples = arrays["truth"], arrays["samples"]
    assert truth.shape == (1, 12, 16, 16, 3)
    assert samples.shape == (1, 3, 10, 16, 16, 3)
    assert truth.dtype == samples.dtype == np.uint8


def test_the_model_that_was_saved_generates(finished, folder):
    model = keras.saving.load_model(folder / "trig" / "model.keras")
    assert isinstance(model, models.SVG)
    assert model.generate(np.zeros((1, 2, 16, 16, 3)), 3).shape == (1, 1, 3, 16, 16, 3)


def test_a_finished_model_is_not_trained_again(finished, folder, clips):
    again = run(folder, "--block", "trig", dataset=clips)
    assert again.returncode == 0, again.stderr
    assert "Epoch" not in again.stdout
    assert again.stdout.split("clips.npz:")[1] == finished.stdout.split("clips.npz:")[1]


def test_a_folder_with_a_run_of_other_options_is_refused(finished, folder, clips):
    other = run(folder, dataset=clips, epochs=3)
    assert other.returncode == 2
    assert "holds a run with other options (epochs=2)" in other.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "mnist"}, "must be moving_digits, moving_mnist, bair, or a file"),
        ({"dataset": "absent.npz"}, "No such file"),
        ({"order": 0, "block": "bucket"}, "Received: num_buckets=0"),
    ],
)
def test_an_error_is_told_without_a_trace(tmp_path, changes, message):
    refused = run(tmp_path, **changes)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}


# The pictures


@pytest.fixture
def film(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import film

    return film


def test_rows_are_the_truth_and_each_sample_after_what_was_given(film):
    truth = np.arange(5, dtype="uint8").reshape(1, 5, 1, 1, 1)
    samples = np.array([[12, 13, 14], [22, 23, 24]], "uint8").reshape(1, 2, 3, 1, 1, 1)
    rows = film.Prediction(truth, samples).rows()[0, ..., 0, 0, 0]
    expected = [[0, 1, 2, 3, 4], [0, 1, 12, 13, 14], [0, 1, 22, 23, 24]]
    assert rows.tolist() == expected


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_are_tiled_in_colour_with_gaps(film, channels):
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, channels), np.uint8)
    image = film.tiled(frames)
    height, width = 4 + film.GAP, 5 + film.GAP
    assert image.shape == (2 * height - film.GAP, 3 * width - film.GAP, 3)
    cell = image[height : height + 4, 2 * width : 2 * width + 5]
    colour = slice(None) if channels == 3 else slice(0, 1)
    np.testing.assert_array_equal(
        cell, np.broadcast_to(frames[1, 2][..., colour], cell.shape)
    )
    assert (image[4:height] == 255).all()


def test_blocks_stand_side_by_side(film, tmp_path):
    truth = np.zeros((1, 5, 4, 4, 1), "uint8")
    one = film.Prediction(truth, np.full((1, 2, 3, 4, 4, 1), 255, "uint8"))
    alone, both = {"conv": one}, {"conv": one, "trig": one}
    titles = [axes.get_title() for axes in film.strips(both, "two").axes]
    assert titles == ["conv", "trig"]
    widths = []
    for blocks in (alone, both):
        film.animate(blocks, "a title", tmp_path / "film.gif")
        with Image.open(tmp_path / "film.gif") as pages:
            widths.append(pages.width)
    assert widths[0] < widths[1] <= 2 * widths[0]
