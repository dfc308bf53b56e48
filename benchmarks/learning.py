"""Learning on CIFAR-10: time-dependent weights against their alternatives.

Trains the classifier of the paper's section 3.1, narrowed to what a CPU does in
minutes (64 channels at 16x16, a bottleneck of 16, 10 Euler steps), on 10,000 images of
CIFAR-10 with one recipe for all, and tests it on 10,000 others:

    python benchmarks/learning.py --data-dir ~/tensorflow_datasets

Writes `learning.csv`, one line for each run and epoch, and `learning.md`, one line for
each run. Each run is written when it ends and not repeated by a later call with the
same recipe, so that an interrupted benchmark goes on where it was.

`--trial` trains every run for one epoch at each of three learning rates, tests on
images that the benchmark does not use, and writes `learning_trial.csv`. The default
learning rate, 3e-3, was set beforehand and not tuned.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
from reporting import environment, markdown_table, read_csv, write_csv  # noqa: E402

from keras_nanode import datasets, models  # noqa: E402

STEPS = 10
BLOCKS = ("trig", "bucket", "auto", "uncon_resnet")
STARTS = ("constant", "independent")
TRIAL_RATES = (1e-3, 3e-3, 1e-2)
TRIAL_EPOCHS = 1
# The end of the training set, so that the official test set stays unseen.
TEST_SPLIT = "train[40000:]"
TRIAL_SPLIT = "train[30000:35000]"


class Run(NamedTuple):
    """What is trained, and how: all that the result depends on."""

    block: str
    start: str
    seed: int
    images: int
    epochs: int
    batch_size: int
    learning_rate: float
    test_split: str


class Epoch(NamedTuple):
    """A line of the CSV file, beside its run."""

    epoch: int
    parameters: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float


def planned(args: argparse.Namespace, rate: float, trial: bool) -> Iterator[Run]:
    """The runs that the command line asks for, all with one recipe."""
    epochs = TRIAL_EPOCHS if trial else args.epochs
    recipe = (args.images, epochs, args.batch_size, rate)
    split = TRIAL_SPLIT if trial else TEST_SPLIT
    for seed in args.seeds:
        for block in args.blocks:
            # Only coefficients of a basis can start in different ways.
            starts = args.starts if block in ("trig", "bucket") else ("-",)
            for start in starts:
                yield Run(block, start, seed, *recipe, split)


def build(run: Run, data: datasets.ImageDataset) -> keras.Model:
    """The compiled classifier; pixels are brought to mean 0 and variance 1, roughly."""
    classifier = models.classifier(
        data.input_shape,
        data.classes,
        run.block,
        steps=STEPS,
        filters=64,
        hidden_filters=16,
        stem_strides=2,
        solver="euler",
        start="constant" if run.start == "-" else run.start,
    )
    rescaling = keras.layers.Rescaling(4.0, offset=-2.0)
    model = keras.Sequential([rescaling, classifier])
    batches = -(-run.images // run.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        run.learning_rate, run.epochs * batches
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(run: Run, data_dir: Path) -> Iterator[Epoch]:
    """Trains a model and gives each epoch's result."""
    keras.utils.set_random_seed(run.seed)
    data = datasets.cifar10(
        data_dir,
        batch_size=run.batch_size,
        augment=False,
        seed=run.seed,
        train_split=f"train[:{run.images}]",
        test_split=run.test_split,
    )
    model = build(run, data)
    for epoch in range(1, run.epochs + 1):
        begin = time.perf_counter()
        history = model.fit(data.train, shuffle=False, verbose=0).history
        seconds = time.perf_counter() - begin
        test = model.evaluate(data.test, verbose=0, return_dict=True)
        yield Epoch(
            epoch,
            model.count_params(),
            round(history["loss"][0], 4),
            round(history["accuracy"][0], 4),
            round(test["accuracy"], 4),
            round(seconds, 1),
        )


def complete(runs: Iterable[Run], path: Path, data_dir: Path) -> None:
    """Trains the runs that the file at `path` lacks and adds them to it."""
    results = read_csv(path, Run, Epoch)
    known = {run for run, _ in results}
    for run in runs:
        if run in known:
            continue
        print(*run, flush=True)
        for epoch in train(run, data_dir):
            print("   ", *epoch, flush=True)
            results.append((run, epoch))
        write_csv(path, results)


def finished(runs: Iterable[Run], path: Path) -> dict[Run, list[Epoch]]:
    """The epochs of those of the runs that are in the file at `path`."""
    results = read_csv(path, Run, Epoch)
    epochs = {run: [line for key, line in results if key == run] for run in runs}
    return {run: lines for run, lines in epochs.items() if lines}


def results_table(results: dict[Run, list[Epoch]]) -> str:
    header = ("block", "start", "seed", "parameters", "train", "test", "s/epoch")
    rows = []
    for run, epochs in results.items():
        last = epochs[-1]
        # The first epoch traces the graph.
        seconds = statistics.median(epoch.seconds for epoch in epochs[1:] or epochs)
        rows.append(
            (
                run.block,
                run.start,
                run.seed,
                f"{last.parameters:,}",
                f"{last.train_accuracy:.1%}",
                f"{last.test_accuracy:.1%}",
                f"{seconds:.0f}",
            )
        )
    return markdown_table(header, rows)


def trial_table(results: dict[Run, list[Epoch]]) -> str:
    """Test accuracy by run and learning rate, and the means that decide."""
    rates = sorted({run.learning_rate for run in results})
    table: dict[tuple[str, str, str], dict[float, float]] = {}
    for run, epochs in results.items():
        row = table.setdefault((run.block, run.start, str(run.seed)), {})
        row[run.learning_rate] = epochs[-1].test_accuracy
    means = {
        rate: statistics.mean(row[rate] for row in table.values() if rate in row)
        for rate in rates
    }
    rows = [
        (*key, *(f"{row[rate]:.1%}" if rate in row else "-" for rate in rates))
        for key, row in {**table, ("mean", "", ""): means}.items()
    ]
    return markdown_table(("block", "start", "seed", *map(str, rates)), rows)


def report(results: dict[Run, list[Epoch]], trial: dict[Run, list[Epoch]]) -> str:
    run = next(iter(results))
    recipe = (
        f"CIFAR-10: {run.images:,} training images, the last 10,000 of the training "
        f"set for the test, no augmentation. Stem of stride 2, 64 channels at 16x16, "
        f"bottleneck of 16, {STEPS} Euler steps or blocks, gradients by `checkpoint`. "
        f"Adam, batches of {run.batch_size}, learning rate {run.learning_rate} with a "
        f"cosine decay to 0 over {run.epochs} epochs, the same for all runs. Training "
        "accuracy is the mean over the last epoch, while the weights still change; "
        "seconds are for training alone, on a machine with other work beside it."
    )
    parts = ["# Learning", environment(), recipe, results_table(results)]
    if trial:
        first, last = TRIAL_SPLIT[6:-1].split(":")
        parts += [
            f"Learning rates compared: accuracy after {TRIAL_EPOCHS} epoch on the "
            f"training set's images {first} to {last}, which are in neither set above:",
            trial_table(trial),
        ]
    return "\n\n".join(parts) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the TFDS dataset cifar10")
    add("--blocks", nargs="+", choices=models.BLOCKS, default=BLOCKS)
    add("--starts", nargs="+", choices=STARTS, default=STARTS)
    add("--seeds", nargs="+", type=int, default=(1,))
    add("--images", type=int, default=10_000, help="images to train on")
    add("--epochs", type=int, default=12)
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=3e-3)
    add("--trial", action="store_true", help="compare learning rates instead")
    add("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    return parser.parse_args()


def main() -> None:
    args = parse()
    trial_file, file = args.output / "learning_trial.csv", args.output / "learning.csv"
    trials = [run for rate in TRIAL_RATES for run in planned(args, rate, trial=True)]
    if args.trial:
        complete(trials, trial_file, args.data_dir)
        print(trial_table(finished(trials, trial_file)))
        return
    runs = list(planned(args, args.learning_rate, trial=False))
    complete(runs, file, args.data_dir)
    text = report(finished(runs, file), finished(trials, trial_file))
    (args.output / "learning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
