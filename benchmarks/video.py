"""Predicting Moving MNIST: blocks of convolutions against ODE blocks.

Trains `models.SVG` on two digits of 16 pixels in frames of 32x32, to predict 10 frames
from 2. Each block has the same budget, and is trained from three seeds. The width is
such that two cores take an hour:

    python benchmarks/video.py --data-dir ~/tensorflow_datasets

Writes `video.csv`, a line for each run and evaluation, `video.md`, a line for each run,
and `video.png`, their curves. The test videos have digits of the test set, and no
choice depends on them. `--only trig` trains one block. Its lines replace those that the
same run wrote before, and the report covers all runs in the file. An interrupted run
resumes after its last evaluation. Finished runs are not repeated.

`--trial` trains every block for a few steps at each of three learning rates and, if it
is a flow, to each of two end times. It tests on videos of other training digits, and
writes `video_trial.csv`. For each block, the benchmark then takes the rate and the end
time with the lowest loss there.
"""

import argparse
import math
import os
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from reporting import (  # noqa: E402
    environment,
    markdown_table,
    mean_and_farthest,
    or_dash,
    read_csv,
    write_csv,
)

from keras_nanode import datasets, metrics, models  # noqa: E402

BLOCKS = ("conv", "auto", "trig")
CONTEXT_FRAMES, NUM_FRAMES = 2, 10
FRAME_SIZE = 32
TEST_VIDEOS = 256
SAMPLES = 5
EVALUATIONS = 10
SEEDS = (1, 2, 3)
TRIAL_RATES = (1e-3, 2e-3, 4e-3)
TRIAL_STEPS = 150
# Where a flow ends: as in the paper, and as the residual network of its three steps.
HORIZONS = (1.0, 3.0)
# Digits to train with and to test with.
SPLITS = ("train", "test")
TRIAL_SPLITS = ("train[:50000]", "train[50000:]")
COLORS = {"conv": "#000000", "auto": "#D55E00", "trig": "#0072B2"}
HERE = Path(__file__).parent


class Run(NamedTuple):
    """What is trained, and how: all that the result depends on.

    `horizon` is where the flows end, 0 without flows.
    """

    block: str
    horizon: float
    learning_rate: float
    steps: int
    batch_size: int
    filters: int
    seed: int
    train_split: str
    test_split: str


class Evaluation(NamedTuple):
    """A line of the CSV file, beside its run: the test videos after some steps.

    `loss` to `nelbo_per_pixel` are as `models.SVG` defines them, `psnr` and `ssim` are
    of the predicted frames, each for the best of a video's samples.
    """

    step: int
    parameters: int
    loss: float
    mse: float
    kl_nats: float
    nelbo_per_frame: float
    nelbo_per_pixel: float
    psnr: float
    ssim: float
    seconds_per_step: float


Results = dict[Run, list[Evaluation]]


# Training


def load(run: Run, data_dir: Path) -> datasets.VideoDataset:
    return datasets.moving_mnist(
        data_dir,
        run.batch_size,
        CONTEXT_FRAMES + NUM_FRAMES,
        FRAME_SIZE,
        # Every training video is seen once.
        train_videos=run.steps * run.batch_size,
        test_videos=TEST_VIDEOS,
        seed=run.seed,
        train_split=run.train_split,
        test_split=run.test_split,
    )


def build(run: Run) -> models.SVG:
    model = models.SVG(
        (FRAME_SIZE, FRAME_SIZE, 1),
        CONTEXT_FRAMES,
        run.block,
        t_span=(0.0, run.horizon or 1.0),
        filters=[run.filters * 2**i for i in range(4)],
        feature_dim=64,
        rnn_units=128,
        normalization="batch",
        seed=run.seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(run.learning_rate, run.steps)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    return model


class Progress(keras.callbacks.Callback):
    """Tests and saves the model after each epoch, and writes the line of the file."""

    def __init__(self, run: Run, videos: np.ndarray, path: Path, saved: Path):
        super().__init__()
        self.run, self.videos, self.path, self.saved = run, videos, path, saved
        # The same noise for all runs.
        size = (len(videos), SAMPLES, NUM_FRAMES, 10)
        self.noise = (
            np.random.default_rng(SEEDS[0]).standard_normal(size).astype("float32")
        )

    def on_train_begin(self, logs=None):
        self.generator = models.VideoGenerator(self.model, NUM_FRAMES, SAMPLES)
        self.batches = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(time.perf_counter() - self.begin)

    def on_epoch_end(self, epoch, logs=None):
        line = Evaluation(
            int(self.model.optimizer.iterations),
            self.model.count_params(),
            **{name: float(f"{value:.5g}") for name, value in self.scores().items()},
            seconds_per_step=round(statistics.median(self.batches), 3),
        )
        print("   ", *line, flush=True)
        unfinished = self.saved.with_name("unfinished.keras")
        self.model.save(unfinished)
        add(self.path, self.run, line)
        unfinished.replace(self.saved)

    def scores(self) -> dict[str, float]:
        size = {"batch_size": self.run.batch_size, "verbose": 0}
        scores = self.model.evaluate(self.videos, return_dict=True, **size)
        context, truth = np.split(self.videos, [CONTEXT_FRAMES], axis=1)
        inputs = {"context": context, "noise": self.noise}
        samples = self.generator.predict(inputs, **size)
        for name, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
            scores[name] = metrics.best_of(metric, truth, samples).values.mean()
        return scores


def train(run: Run, path: Path, data_dir: Path) -> None:
    """Trains what is left to train of a run."""
    keras.utils.set_random_seed(run.seed)
    print(*run, flush=True)
    folder = HERE / "build" / "-".join(map(str, run[:7]))
    saved = folder / "model.keras"
    folder.mkdir(parents=True, exist_ok=True)
    model = keras.saving.load_model(saved) if saved.exists() else build(run)
    data = load(run, data_dir)
    videos = np.concatenate(list(data.test.as_numpy_iterator()))
    done = int(model.optimizer.iterations)
    evaluations = 1 if run.train_split in TRIAL_SPLITS else EVALUATIONS
    every = run.steps // evaluations
    model.fit(
        # Of the first order of the videos in a process, which a seed determines.
        data.train.skip(done),
        steps_per_epoch=every,
        epochs=(run.steps - done) // every,
        shuffle=False,
        verbose=0,
        callbacks=[
            Progress(run, videos, path, saved),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    shutil.rmtree(folder)


# The file


def read(path: Path) -> Results:
    results: Results = {}
    for run, evaluation in read_csv(path, Run, Evaluation):
        results.setdefault(run, []).append(evaluation)
    return results


def add(path: Path, run: Run, line: Evaluation) -> None:
    """Writes a line in place of those that an interrupted run left at this step."""
    results = read(path)
    before = [known for known in results.get(run, ()) if known.step < line.step]
    results[run] = [*before, line]
    write_csv(path, ((run, one) for run, lines in results.items() for one in lines))


def finished(runs: Iterable[Run], path: Path) -> Results:
    """Those of the runs that were trained to their end."""
    results = read(path)
    return {
        run: results[run]
        for run in runs
        if run in results and results[run][-1].step == run.steps
    }


def planned(args: argparse.Namespace) -> Iterator[Run]:
    """The runs of all blocks, every block with a seed before the next seed."""
    best = {block: best_choice(block, args) for block in args.only}
    for seed in SEEDS:
        for block, choice in best.items():
            size = (args.steps, args.batch_size, args.filters, seed)
            yield Run(block, *choice, *size, *SPLITS)


def trials(args: argparse.Namespace, block: str) -> Iterator[Run]:
    """The short runs that choose a block's end time and learning rate."""
    for horizon in (0.0,) if block == "conv" else HORIZONS:
        for rate in TRIAL_RATES:
            size = (TRIAL_STEPS, args.batch_size, args.filters, SEEDS[0])
            yield Run(block, horizon, rate, *size, *TRIAL_SPLITS)


def best_choice(block: str, args: argparse.Namespace) -> tuple[float, float]:
    """The end time and the learning rate with the least loss in a block's trial."""
    asked = list(trials(args, block))
    done = finished(asked, args.output / "video_trial.csv")
    missing = [(run.horizon, run.learning_rate) for run in asked if run not in done]
    if missing:
        raise SystemExit(
            f"The trial of {block} at {missing} (end time, learning rate) is missing: "
            "run with --trial first."
        )
    losses = {run: lines[-1].loss for run, lines in done.items()}
    # A loss that is not a number is less than no other.
    best = min(losses, key=lambda run: (math.isnan(losses[run]), losses[run]))
    return best.horizon, best.learning_rate


def complete(runs: Iterable[Run], path: Path, args: argparse.Namespace) -> None:
    """Trains those of the runs that are asked for and the file at `path` lacks."""
    for run in runs:
        if not finished([run], path):
            train(run, path, args.data_dir)


# The report


def by_recipe(results: Results) -> dict[Run, list[list[Evaluation]]]:
    """The evaluations of each seed, by the run without its seed."""
    groups: dict[Run, list[list[Evaluation]]] = {}
    for run, lines in results.items():
        groups.setdefault(run._replace(seed=0), []).append(lines)
    return groups


def spread(values: list[float], digits: int) -> str:
    """The mean, and the distance of the farthest value from it."""
    mean, farthest = mean_and_farthest(values)
    return f"{mean:.{digits}f} ± {farthest:.{digits}f}"


def results_table(results: Results) -> str:
    header = (
        *("block", "T", "parameters", "rate", "loss", "MSE", "KL nats"),
        *("-ELBO/frame", "-ELBO/pixel", "times trig", "PSNR", "SSIM", "s/step"),
        "seeds",
    )
    groups = by_recipe(results)
    losses = {
        run.block: statistics.mean(lines[-1].loss for lines in seeds)
        for run, seeds in groups.items()
    }
    rows = []
    for run, seeds in groups.items():
        last = [lines[-1] for lines in seeds]
        mean = Evaluation(
            *(statistics.mean(values) for values in zip(*last, strict=True))
        )
        times = f"{losses[run.block] / losses['trig']:.2f}" if "trig" in losses else "-"
        seconds = [line.seconds_per_step for lines in seeds for line in lines]
        rows.append(
            (
                run.block,
                or_dash(run.horizon),
                f"{last[0].parameters:,}",
                run.learning_rate,
                spread([line.loss for line in last], 4),
                f"{mean.mse:.5f}",
                f"{mean.kl_nats:.2f}",
                f"{mean.nelbo_per_frame:.5f}",
                f"{mean.nelbo_per_pixel:.2e}",
                times,
                spread([line.psnr for line in last], 2),
                spread([line.ssim for line in last], 3),
                f"{statistics.median(seconds):.2f}",
                len(seeds),
            )
        )
    return markdown_table(header, rows)


def trial_table(results: Results) -> str:
    """Test loss by block, end time and learning rate."""
    table: dict[tuple, dict[float, float]] = {}
    for run, lines in results.items():
        row = table.setdefault((run.block, run.horizon), {})
        row[run.learning_rate] = lines[-1].loss
    rows = [
        (
            block,
            or_dash(horizon),
            *(f"{row[r]:.4f}" if r in row else "-" for r in TRIAL_RATES),
        )
        for (block, horizon), row in table.items()
    ]
    return markdown_table(("block", "T", *map(str, TRIAL_RATES)), rows)


def report(results: Results, trial: Results) -> str:
    run = next(iter(results))
    recipe = (
        f"Moving MNIST, deterministic, two digits of {FRAME_SIZE // 2} pixels in "
        f"frames of {FRAME_SIZE}x{FRAME_SIZE}: {CONTEXT_FRAMES} given, {NUM_FRAMES} "
        f"predicted. `models.SVG`, widths {run.filters} to {run.filters * 8}, ODE "
        "blocks of 3 Euler steps from 0 to T, trig of order 3, batch normalization. "
        f"{run.steps:,} steps of {run.batch_size} videos, each seen once; Adam, "
        "gradients clipped to norm 1, "
        f"cosine decay to 0. The test: {TEST_VIDEOS} videos of other digits. "
        f"Loss (the sum over {NUM_FRAMES + 1} frames of MSE + 1e-4 KL), MSE, KL and "
        "the negative ELBO with the posterior, as `models.SVG` defines them; `times "
        "trig` is the ratio of the losses. PSNR (dB) and SSIM of the "
        f"{NUM_FRAMES} predicted frames, of each the best of {SAMPLES} samples from "
        "the prior. A step's seconds are the median. The means over the seeds; ± the "
        "distance of the farthest. Bands in the picture are from the least to the "
        "largest."
    )
    parts = ["# Video prediction", environment(), recipe, results_table(results)]
    parts.append("![Test loss, KL, PSNR and SSIM over the training](video.png)")
    if trial:
        parts += [
            f"How rate and T were chosen: the loss after {TRIAL_STEPS} steps, on "
            "videos of training digits that were held out of these runs:",
            trial_table(trial),
        ]
    return "\n\n".join(parts) + "\n"


def curves(results: Results) -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    titles = {
        "loss": "test loss",
        "kl_nats": "KL (nats per frame)",
        "psnr": "PSNR of predicted frames (dB)",
        "ssim": "SSIM of predicted frames",
    }
    for axes, (name, title) in zip(
        figure.subplots(2, 2).flat, titles.items(), strict=True
    ):
        for run, seeds in by_recipe(results).items():
            steps = [line.step for line in seeds[0]]
            values = [[getattr(line, name) for line in lines] for lines in seeds]
            color, mean = COLORS[run.block], np.mean(values, 0)
            axes.plot(steps, mean, marker=".", color=color, label=run.block)
            low, high = np.min(values, 0), np.max(values, 0)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the TFDS dataset mnist")
    add("--only", nargs="+", choices=BLOCKS, default=BLOCKS, help="blocks to train")
    add("--steps", type=int, default=1000, help=f"a multiple of {EVALUATIONS}")
    add("--batch-size", type=int, default=16)
    add("--filters", type=int, default=8, help="the least of the four widths")
    add("--trial", action="store_true", help="compare rates and end times instead")
    add("--output", type=Path, default=HERE, help="folder to write to")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.steps < 1 or args.steps % EVALUATIONS:
        raise SystemExit(f"--steps must be a multiple of {EVALUATIONS}")
    trial_file, file = args.output / "video_trial.csv", args.output / "video.csv"
    asked = [run for block in args.only for run in trials(args, block)]
    if args.trial:
        complete(asked, trial_file, args)
        print(trial_table(finished(asked, trial_file)))
        return
    # All choices are looked up before any block is trained.
    complete(list(planned(args)), file, args)
    done = {
        run: lines for run, lines in read(file).items() if lines[-1].step == run.steps
    }
    text = report(done, read(trial_file))
    (args.output / "video.md").write_text(text)
    curves(done).savefig(args.output / "video.png", dpi=130)
    print(text)


if __name__ == "__main__":
    main()
