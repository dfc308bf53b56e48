"""Trains video models that differ in one block and shows what they predict.

Usage:

    python examples/train_video.py
    python examples/train_video.py --block conv auto trig bucket --order 5
    python examples/train_video.py --dataset moving_mnist --data-dir ~/tfds \\
        --filters 64 --epochs 300 --output runs/moving_mnist
    python examples/train_video.py --dataset clips.npz --output runs/clips

Without arguments, it compares convolutions with ODE blocks whose weights are
trigonometric functions of time, on moving digits, without a download. The models
predict 10 frames from 2. Each is trained in a separate process, so its peak memory is
measured alone. The output folder gets `prediction.png` and `prediction.gif` (the truth,
the best sample and other samples of a few test videos) and, for each block, a folder
with the model (`model.keras`), its generator as a SavedModel for TensorFlow without
Keras, and the history of the training.

`datasets.bair` describes the file of clips. The test videos are the validation data of
`fit`, and no epoch is selected by them. After an interruption, the same command resumes
after the last full epoch, with the same batches and random numbers, and ends with the
same weights. It does not repeat finished training.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import film
import runs  # before what imports TensorFlow

# isort: split
import fitting
import keras
import numpy as np
import tensorflow as tf

from keras_nanode import bases, datasets, metrics, models


class Recipe(NamedTuple):
    """What suits a dataset; an option of the same name has precedence."""

    filters: int
    rnn_units: int
    latent_dim: int
    epochs: int
    epoch_steps: int
    batch_size: int
    learning_rate: float


RECIPES = {
    "moving_digits": Recipe(4, 128, 10, 6, 200, 8, 4e-3),
    "moving_mnist": Recipe(16, 256, 10, 300, 100, 16, 2e-3),
    "bair": Recipe(16, 256, 64, 300, 100, 16, 2e-3),
    "FILE.npz": Recipe(8, 128, 10, 10, 20, 4, 2e-3),
}
BASES: dict[str, Callable[[int], bases.Basis]] = {
    "trig": bases.Trigonometric,
    "bucket": bases.Bucket,
    "poly": bases.Polynomial,
}
CONTEXT_FRAMES = 2
NUM_FRAMES = 10  # to predict
# Small enough for two cores to learn in minutes where a digit goes.
SMALL: dict[str, Any] = {"num_digits": 1, "frame_size": 32, "digit_size": 14}
# Of the noise that the test videos are predicted with.
NOISE_SEED = 0

TEST_VIDEOS = 64
SAMPLES = 5  # of each of them
SHOWN_VIDEOS = 3
SHOWN_SAMPLES = 3
# How far the frames of a SavedModel may be from the model's. Each frame is made from
# the one before, so that differences of rounding grow.
TOLERANCE = 1e-3

ADVICE = "More --steps, a smaller --order or fewer --filters make it more stable."
COLUMNS = {
    "loss": "{:.4f}",
    "MSE": "{:.5f}",
    "KL nats": "{:.2f}",
    "PSNR dB": "{:.2f}",
    "SSIM": "{:.3f}",
    "parameters": "{:,}",
    "s/step": "{:.2f}",
    "peak MB": "{:,.0f}",
}


# The command line


def main() -> None:
    parser = argument_parser()
    options = parser.parse_args()
    options = runs.completed(options, RECIPES[recipe_of(options.dataset)]._asdict())
    runs.run(train, report, parser, options)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--dataset",
        type=dataset,
        default="moving_digits",
        metavar="{moving_digits,moving_mnist,bair,FILE.npz}",
        help="default: moving_digits",
    )
    add(
        "--seed",
        type=runs.count_from(0),
        default=0,
        help="of the first weights, the noise and the order of videos; default: 0",
    )
    add("--data-dir", type=Path, help="folder of TFDS datasets, for moving_mnist, bair")
    add(
        "--block",
        nargs="+",
        choices=models.VIDEO_BLOCKS,
        default=["conv", "trig"],
        help="what to train, one after the other; default: conv trig",
    )
    add(
        "--order",
        type=runs.count_from(0),
        default=3,
        help="harmonics of trig, buckets of bucket, degree of poly; default: 3",
    )
    add(
        "--steps",
        type=runs.count_from(1),
        default=3,
        help="Euler steps of an ODE block; default: 3",
    )
    counts = (name for name in Recipe._fields if name != "learning_rate")
    runs.add_counts(parser, counts, RECIPES)
    add(
        "--output",
        type=Path,
        default=Path("runs/video"),
        help="folder of the results; default: runs/video",
    )
    return parser


def dataset(text: str) -> str:
    if text not in RECIPES and not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(
            f"must be moving_digits, moving_mnist, bair, or a file of clips that ends "
            f"in .npz. Received: {text}"
        )
    return text


def recipe_of(name: str) -> str:
    return name if name in RECIPES else "FILE.npz"


# Training


def train(block: str, options: argparse.Namespace) -> None:
    """Trains one block and writes its folder, `results.json` last."""
    keras.utils.set_random_seed(options.seed)
    try:
        data = load(options)
        model = build(block, options, data)
    except (ImportError, ValueError) as error:
        runs.fail(error, code=2)
    folder = runs.make_folder(block, options)
    batches = partial(epochs_from, data, options.epoch_steps)
    seconds = fitting.fit(model, batches, data.test, folder, options.epochs)
    print(f"Predicting {TEST_VIDEOS} test videos, {SAMPLES} times each.")
    scores = model.evaluate(data.test, return_dict=True, verbose=0)
    fitting.check_finite(block, scores["loss"], folder, ADVICE)
    epoch_seconds = fitting.mean_after_first(seconds)
    results = {
        "loss": scores["loss"],
        "MSE": scores["mse"],
        "KL nats": scores["kl_nats"],
        "parameters": model.count_params(),
        "s/step": epoch_seconds and epoch_seconds / options.epoch_steps,
        "peak MB": runs.peak_megabytes(),
    }
    model.save(folder / "model.keras")
    results |= predict(model, data.test, folder, options.batch_size)
    runs.finish_folder(folder, results)


def epochs_from(data: datasets.VideoDataset, steps: int, epoch: int) -> tf.data.Dataset:
    """Epochs of `steps` batches: a pass through the data, or as many as it takes."""
    passes = math.ceil(steps / len(data.train))
    return data.train_from(epoch * passes).repeat(passes).take(steps)


def load(options: argparse.Namespace) -> datasets.VideoDataset:
    frames = CONTEXT_FRAMES + NUM_FRAMES
    sizes = {"batch_size": options.batch_size, "num_frames": frames}
    sizes["seed"] = options.seed
    if options.dataset == "moving_digits":
        data = datasets.moving_digits(**sizes, **SMALL)
    elif options.dataset == "moving_mnist":
        data = datasets.moving_mnist(options.data_dir, **sizes)
    elif options.dataset == "bair":
        data = datasets.bair(options.data_dir, **sizes)
    else:
        data = datasets.bair(options.dataset, **sizes)
    return data._replace(test=data.test.take(TEST_VIDEOS // options.batch_size or 1))


def build(
    block: str, options: argparse.Namespace, data: datasets.VideoDataset
) -> models.SVG:
    model = models.SVG(
        data.frame_shape,
        CONTEXT_FRAMES,
        block,
        BASES[block](options.order) if block in BASES else None,
        options.steps,
        filters=[options.filters * 2**i for i in range(4)],
        feature_dim=8 * options.filters,
        latent_dim=options.latent_dim,
        rnn_units=options.rnn_units,
        normalization="batch",
        seed=options.seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate, options.epochs * options.epoch_steps
    )
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    return model


# Prediction


def predict(
    model: models.SVG, test: tf.data.Dataset, folder: Path, batch_size: int
) -> dict[str, float]:
    """Tells how near samples of the test videos are, and keeps a few and the model."""
    videos = np.concatenate([np.asarray(batch) for batch in test])
    context, truth = np.split(videos, [CONTEXT_FRAMES], axis=1)
    generator = models.VideoGenerator(model, NUM_FRAMES, SAMPLES)
    size = (len(videos), SAMPLES, NUM_FRAMES, model.latent_dim)
    noise = np.random.default_rng(NOISE_SEED).standard_normal(size).astype("float32")
    inputs = {"context": context, "noise": noise}
    samples = generator.predict(inputs, batch_size=batch_size, verbose=0)
    scores = {name: metrics.best_of(metric, truth, samples) for name, metric in METRICS}
    keep(folder / "samples.npz", videos, samples, scores["SSIM"].index)
    few = {name: values[:batch_size] for name, values in inputs.items()}
    export(generator, few, samples[:batch_size], folder / "generator")
    return {name: float(score.values.mean()) for name, score in scores.items()}


METRICS = (("PSNR dB", metrics.psnr), ("SSIM", metrics.ssim))


def keep(file: Path, videos: np.ndarray, samples: np.ndarray, best: np.ndarray) -> None:
    """Writes what the pictures show, as bytes, the best sample first."""
    chosen = [
        np.roll(some, -first, axis=0)[:SHOWN_SAMPLES]
        for some, first in zip(samples[:SHOWN_VIDEOS], best, strict=False)
    ]
    shown = {"truth": videos[:SHOWN_VIDEOS], "samples": np.stack(chosen)}
    as_bytes = {name: np.rint(255 * v).astype("uint8") for name, v in shown.items()}
    np.savez_compressed(file, **as_bytes)


def export(
    generator: models.VideoGenerator,
    inputs: dict[str, np.ndarray],
    expected: np.ndarray,
    folder: Path,
) -> None:
    """Writes a SavedModel and compares what it makes of the same noise."""
    backend = keras.backend.backend()
    if backend not in runs.EXPORTING:
        print(f"SavedModel: skipped, Keras cannot write one on the {backend} backend")
        return
    signature = generator.input_signature(noise=True)
    generator.export(str(folder), input_signature=signature, verbose=False)
    loaded = tf.saved_model.load(str(folder))  # its variables live as long as it does
    difference = np.abs(loaded.serve(inputs).numpy() - expected).max()
    print(
        f"SavedModel: the frames of {len(expected)} test videos differ by "
        f"{difference:.1e} at most (allowed: {TOLERANCE})"
    )
    if not difference <= TOLERANCE:
        runs.fail(f"{folder} does not compute what the model does.")


# The report


def report(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    predictions = {
        block: film.read(options.output / block / "samples.npz")
        for block in options.block
    }
    print(
        f"\n{options.dataset}: {options.epochs} epochs of {options.epoch_steps} steps, "
        f"batches of {options.batch_size}, {options.filters} filters, {options.steps} "
        f"Euler steps. Loss, MSE and KL with the posterior; PSNR and SSIM of "
        f"{NUM_FRAMES} predicted frames, the best of {SAMPLES} samples.\n"
    )
    print(runs.table(results, COLUMNS))
    name = Path(options.dataset).stem
    title = f"{name}: {CONTEXT_FRAMES} frames given, {NUM_FRAMES} predicted"
    png, gif = (options.output / f"prediction.{kind}" for kind in ("png", "gif"))
    film.strips(predictions, title).savefig(png, dpi=110)
    film.animate(predictions, title, gif)
    print(f"\nPictures: {png}, {gif}")


if __name__ == "__main__":
    main()
