"""Learning on CIFAR-10: time-dependent weights against the residual network.

Trains the classifier of the paper's section 3.1, narrowed so that a CPU takes minutes:
64 channels at 16x16, a bottleneck of 16, and 10 Euler steps or residual blocks unless a
row says otherwise.

    python benchmarks/learning.py --data-dir ~/tensorflow_datasets

Each row of the table is a model. Its learning rate is found with the first seed: from
3e-3 on, both neighbours in `RATES` of the rate that is best on held-out images are
tried too. The other seeds use the best rate. No choice depends on the test images.

Writes `learning.csv`, one line for each run, and `learning.md`, one line for each row.
A run is written when it ends and is not repeated by a later call, so an interrupted
benchmark can resume.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
from reporting import (  # noqa: E402
    environment,
    markdown_table,
    mean_and_farthest,
    or_dash,
    read_csv,
    write_csv,
)

from keras_nanode import bases, datasets, models  # noqa: E402

STEPS = 10
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FIRST_RATE = 3e-3
SEEDS = (1, 2, 3)
BATCH_SIZE = 64
# Images are chosen from the end of the training set, of which no model trains on the
# last 20,000: the official test set stays unseen.
HELD_OUT_SPLIT = "train[30000:33000]"
TEST_SPLIT = "train[40000:]"


class Row(NamedTuple):
    """A model: a line of the table.

    Attributes:
        block: As in `models.classifier`.
        size: The number K of basis functions, 0 where there is no basis.
        period: That of a trigonometric basis, 0 of another.
        horizon: The flow runs over (0, horizon); 0 for a residual network.
        start: How coefficients start, `"-"` where there are none.
        normalization: `"group"`, or `"-"` for none.
        steps: Euler steps, or residual blocks.
    """

    block: str
    size: int = 0
    period: float = 0.0
    horizon: float = 0.0
    start: str = "-"
    normalization: str = "group"
    steps: int = STEPS


# The horizons: that of `models.classifier`, that of a residual network, and 1.
ROOT, DEPTH = round(math.sqrt(STEPS), 2), STEPS
PERIOD = round(2 * math.pi, 4)
RESNET = Row("uncon_resnet")
BUCKETS = Row("bucket", STEPS, 0.0, ROOT, "independent")
COSINES = Row("cosine", STEPS, 0.0, ROOT, "independent")
TRIG = Row("trig", 21, PERIOD, ROOT, "independent")
LEGENDRE = Row("legendre", STEPS, 0.0, ROOT, "independent")
# Monomials at sqrt(10) go up to 3e4: their default ends at 1. Over (0, sqrt(10)) one
# seed read 18 % at the rate 0.003, and 10 % at 0.001.
POLY = Row("poly", STEPS, 0.0, 1.0, "independent")
PAPER = TRIG._replace(horizon=1.0, start="constant")

# The groups of the table.
GROUPS: dict[str, tuple[Row, ...]] = {
    "Equal depth": (
        RESNET,
        BUCKETS,
        TRIG,
        COSINES,
        Row("auto", horizon=1.0),
        Row("con_resnet"),
        LEGENDRE,
        Row("app", horizon=1.0),
        TRIG._replace(period=ROOT),
        POLY,
    ),
    "Half of the parameters": tuple(
        row._replace(size=5) for row in (BUCKETS, COSINES, TRIG)
    ),
    "A quarter of the parameters": tuple(
        row._replace(size=3) for row in (BUCKETS, COSINES, TRIG)
    ),
    "Horizon and start": (
        PAPER,
        BUCKETS._replace(horizon=DEPTH),
        COSINES._replace(horizon=DEPTH),
        BUCKETS._replace(horizon=1.0),
        COSINES._replace(horizon=1.0),
        BUCKETS._replace(start="constant"),
        # The default of five sets of weights.
        BUCKETS._replace(size=5, horizon=round(math.sqrt(5), 2)),
    ),
    "Without normalization": tuple(
        row._replace(normalization="-") for row in (RESNET, BUCKETS, TRIG, COSINES)
    ),
    # `memory.py` measures the training step of both: 31.0 and 32.0 MiB.
    "Equal memory": (
        BUCKETS._replace(size=40, steps=40, horizon=round(math.sqrt(40), 2)),
        RESNET._replace(steps=7),
    ),
}


class Run(NamedTuple):
    """How a row is trained: with it, all that a result depends on."""

    learning_rate: float
    seed: int
    images: int
    epochs: int


class Result(NamedTuple):
    parameters: int
    train_accuracy: float
    held_out_accuracy: float
    test_accuracy: float
    seconds: float


def basis_of(row: Row) -> bases.Basis | None:
    domain = (0.0, row.horizon)
    match row.block:
        case "bucket":
            return bases.Bucket(row.size, domain=domain)
        case "cosine":
            return bases.Cosine(row.size, domain=domain)
        case "bspline":
            return bases.BSpline(row.size, domain=domain)
        case "legendre":
            return bases.Legendre(row.size - 1, domain=domain)
        case "poly":
            return bases.Polynomial(row.size - 1, domain=domain)
        case "trig":
            return bases.Trigonometric(row.size // 2, row.period, domain=domain)
    return None


def build(row: Row, run: Run, data: datasets.ImageDataset) -> keras.Model:
    """The compiled classifier; pixels are brought to mean 0 and variance 1, roughly."""
    classifier = models.classifier(
        data.input_shape,
        data.classes,
        row.block,
        basis_of(row),
        steps=row.steps,
        filters=64,
        hidden_filters=16,
        stem_strides=2,
        normalization=None if row.normalization == "-" else row.normalization,
        start="constant" if row.start == "-" else row.start,
        t_span=(0.0, row.horizon or 1.0),
        adjoint="direct",  # exact as the default is, and faster at this depth
    )
    rescaling = keras.layers.Rescaling(4.0, offset=-2.0)
    model = keras.Sequential([rescaling, classifier])
    batches = run.epochs * -(-run.images // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(run.learning_rate, batches)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(row: Row, run: Run, data_dir: Path) -> Result:
    keras.utils.set_random_seed(run.seed)

    def read(test_split: str) -> datasets.ImageDataset:
        return datasets.cifar10(
            data_dir,
            batch_size=BATCH_SIZE,
            augment=False,
            seed=run.seed,
            train_split=f"train[:{run.images}]",
            test_split=test_split,
        )

    data, held_out = read(TEST_SPLIT), read(HELD_OUT_SPLIT)
    model = build(row, run, data)
    begin = time.perf_counter()
    options = {"epochs": run.epochs, "shuffle": False, "verbose": 0}
    history = model.fit(data.train, **options).history
    seconds = time.perf_counter() - begin
    held_out_accuracy, test_accuracy = (
        model.evaluate(images, verbose=0, return_dict=True)["accuracy"]
        for images in (held_out.test, data.test)
    )
    return Result(
        model.count_params(),
        round(history["accuracy"][-1], 4),
        round(held_out_accuracy, 4),
        round(test_accuracy, 4),
        round(seconds, 1),
    )


Results = dict[tuple[Row, Run], Result]


def best_rate(row: Row, results: Results, recipe: tuple[int, int]) -> float | None:
    """The rate whose first seed did best on the held-out images, of all that ran."""
    tried = {rate: results.get((row, Run(rate, SEEDS[0], *recipe))) for rate in RATES}
    found = {rate: result for rate, result in tried.items() if result}
    if not found:
        return None
    return max(found, key=lambda rate: found[rate].held_out_accuracy)


def untried_rate(row: Row, results: Results, recipe: tuple[int, int]) -> float | None:
    """The rate to try next: the first one, then a neighbour of the best."""
    best = best_rate(row, results, recipe)
    if best is None:
        return FIRST_RATE
    place = RATES.index(best)
    for rate in RATES[max(place - 1, 0) : place + 2]:
        if (row, Run(rate, SEEDS[0], *recipe)) not in results:
            return rate
    return None


def planned(
    rows: list[Row], results: Results, recipe: tuple[int, int]
) -> Iterator[tuple[Row, Run]]:
    """The runs of rows that `results` lacks, one row after the other; the later ones of
    a row depend on what its first ones gave."""
    for row in rows:
        while (rate := untried_rate(row, results, recipe)) is not None:
            yield row, Run(rate, SEEDS[0], *recipe)
        best = best_rate(row, results, recipe) or FIRST_RATE
        for seed in SEEDS[1:]:
            if (row, Run(best, seed, *recipe)) not in results:
                yield row, Run(best, seed, *recipe)


def complete(
    path: Path, data_dir: Path, plan: Callable[[Results], Iterator[tuple[Row, Run]]]
) -> Results:
    """Trains the runs that the file at `path` lacks, and adds them to it. `plan` gives
    them, and sees the results so far."""
    results = read_results(path)
    for row, run in plan(results):
        results[row, run] = train(row, run, data_dir)
        print(*row, *run, *results[row, run], flush=True)
        write_csv(path, [(*key, result) for key, result in results.items()])
    return results


def read_results(path: Path) -> Results:
    lines = read_csv(path, Row, Run, Result)
    return {(row, run): result for row, run, result in lines}


def spread(values: list[float]) -> str:
    """The mean in percent, and the distance of the farthest value from it."""
    mean, farthest = mean_and_farthest(values)
    if len(values) == 1:
        return f"{mean:.1%}"
    return f"{mean:.1%} ± {100 * farthest:.1f}"


def at_best_rate(
    row: Row, results: Results, recipe: tuple[int, int]
) -> dict[Run, Result]:
    """What the seeds gave at the row's best rate; nothing if the row never ran."""
    best = best_rate(row, results, recipe)
    return {
        run: result
        for (other, run), result in results.items()
        if other == row and run[2:] == recipe and run.learning_rate == best
    }


SUMMARY = ("rate", "train", "test", "seeds")


def summary(runs: dict[Run, Result]) -> tuple[str, str, str, int]:
    """Cells under `SUMMARY`, of runs that differ in their seeds."""
    train, test = (
        spread([getattr(result, name) for result in runs.values()])
        for name in ("train_accuracy", "test_accuracy")
    )
    return f"{next(iter(runs)).learning_rate:g}", train, test, len(runs)


def table(rows: tuple[Row, ...], results: Results, recipe: tuple[int, int]) -> str:
    header = (
        *("block", "steps", "K", "period", "T", "start", "norm", "parameters"),
        *SUMMARY,
    )
    lines: list[tuple[float, tuple]] = []
    for row in rows:
        runs = at_best_rate(row, results, recipe)
        if not runs:
            continue
        found = list(runs.values())
        sizes = (row.size, row.period, row.horizon)
        cells = [row.block, str(row.steps), *map(or_dash, sizes)]
        cells += [row.start, row.normalization, f"{found[0].parameters:,}"]
        accuracy = statistics.mean(result.test_accuracy for result in found)
        lines.append((accuracy, (*cells, *summary(runs))))
    best_first = [line for _, line in sorted(lines, key=lambda x: x[0], reverse=True)]
    return markdown_table(header, best_first)


def report(results: Results, recipe: tuple[int, int]) -> str:
    images, epochs = recipe
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    text = (
        f"CIFAR-10: {images:,} training images, {epochs} epochs, no augmentation. Stem "
        f"of stride 2, 64 channels at 16x16, bottleneck of 16, Euler steps or residual "
        f"blocks. Adam in batches of {BATCH_SIZE}, with a cosine decay to 0. The rate "
        f"of each row was found with seed {SEEDS[0]}: on 3,000 held-out images it is "
        f"better than its neighbours in ({rates}). Accuracy is that on 10,000 other "
        "images: the mean over the seeds ± the distance of the farthest. Training "
        "accuracy is the mean over the last epoch. T is where the flow ends, K the "
        "number of basis functions. A row with fewer seeds is not finished."
    )
    parts = ["# Learning", environment(), text]
    for name, rows in GROUPS.items():
        if any(best_rate(row, results, recipe) for row in rows):
            parts += [f"## {name}", table(rows, results, recipe)]
    return "\n\n".join(parts) + "\n"


def options(description: str | None, images: int) -> argparse.ArgumentParser:
    """What every benchmark of learning can be told."""
    parser = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the TFDS dataset cifar10")
    add("--images", type=int, default=images, help="images to train on")
    add("--epochs", type=int, default=8)
    add("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    return parser


def main() -> None:
    parser = options(__doc__, images=3_000)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    args = parser.parse_args()
    recipe = (args.images, args.epochs)
    rows = [row for group in args.groups for row in GROUPS[group]]
    results = complete(
        args.output / "learning.csv",
        args.data_dir,
        lambda results: planned(rows, results, recipe),
    )
    text = report(results, recipe)
    (args.output / "learning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
