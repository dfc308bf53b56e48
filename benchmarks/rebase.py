"""Trained models, moved to smaller and smaller bases: what is left of their accuracy?

Trains the classifier of the paper's section 3.1, narrow, on scikit-learn's digits, with
16 buckets and 16 Euler steps, from three starts: independent buckets, equal buckets,
and grown from 2 to 4, 8 and 16 buckets and steps in equal parts of the epochs. Then
`models.rebase` projects it to fewer buckets, without training and with one epoch more
at the rate that the training ended with.

    python benchmarks/rebase.py

Beside it, "every second" keeps every second bucket with twice its time instead of the
mean of two, which is what dropping blocks of a residual network does.

Writes `rebase.csv`, one line for each model, and `rebase.md` and `rebase.png`.
"""

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from reporting import (  # noqa: E402
    environment,
    markdown_table,
    mean_and_farthest,
    read_csv,
    write_csv,
)

from keras_nanode import bases, datasets, models  # noqa: E402

FINEST = 16
STAGES = (2, 4, 8, 16)
SIZES = (16, 8, 4, 2, 1)
STARTS = ("independent", "constant", "grown")
HORIZON = 4.0  # the root of 16: the default of the classifier
RATE, LAST_RATE = 3e-3, 3e-4
EVERY_SECOND = "every second"


class Line(NamedTuple):
    """A projected model.

    Attributes:
        start: One of `STARTS`.
        way: "projected", or "every second".
        buckets: Their number.
        parameters: Of the whole model.
        accuracy: On the test set, without training after the projection.
        trained: The same after one epoch of training.
        moved: The largest of `models.rebase_error`: 0 for what is not projected, and
            for "every second" too.
    """

    start: str
    seed: int
    epochs: int
    way: str
    buckets: int
    parameters: int
    accuracy: float
    trained: float
    moved: float


def build(start: str, buckets: int) -> keras.Model:
    model = models.classifier(
        (8, 8, 1),
        10,
        "bucket",
        bases.Bucket(buckets, (0.0, HORIZON)),
        steps=buckets,
        filters=16,
        hidden_filters=8,
        stem_strides=2,
        normalization="group",
        start="independent" if start == "grown" else start,
        t_span=(0.0, HORIZON),
        adjoint="direct",
    )
    model.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def trained(start: str, data: datasets.ImageDataset, epochs: int) -> keras.Model:
    """The model after its training, whose last quarter has a lower rate."""
    model = build(start, STAGES[0] if start == "grown" else FINEST)
    for part, buckets in enumerate(STAGES):
        if start == "grown" and part:
            model = models.rebase(model, bases.Bucket(buckets), steps=buckets)
        if part == len(STAGES) - 1:
            model.optimizer.learning_rate = LAST_RATE
        model.fit(data.train, epochs=epochs // len(STAGES), verbose=0)
    return model


def accuracy(model: keras.Model, data: datasets.ImageDataset) -> float:
    return model.evaluate(data.test, verbose=0, return_dict=True)["accuracy"]


def every_second(model: keras.Model) -> keras.Model:
    """The model without the second of each two buckets."""
    half = rebased(model, FINEST // 2, FINEST // 2)
    sources, targets = (m.get_layer("flow_0").dynamics for m in (model, half))
    for old, new in zip(sources.coefficients, targets.coefficients, strict=True):
        new.assign(old[::2])
    return half


def rebased(model: keras.Model, buckets: int, steps: int = FINEST) -> keras.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it needs training
        return models.rebase(model, bases.Bucket(buckets), steps=steps)


def lines(start: str, seed: int, epochs: int) -> Iterator[Line]:
    keras.utils.set_random_seed(seed)
    data = datasets.digits(batch_size=32, seed=seed)
    whole = trained(start, data, epochs)
    ways = [("projected", size, rebased(whole, size)) for size in SIZES]
    ways.append((EVERY_SECOND, FINEST // 2, every_second(whole)))
    for way, size, model in ways:
        errors = models.rebase_error(whole, model)["flow_0"].values()
        before = accuracy(model, data)
        model.fit(data.train, epochs=1, verbose=0)
        moved = 0.0 if way == EVERY_SECOND else max(errors)
        after = accuracy(model, data)
        count = model.count_params()
        yield Line(start, seed, epochs, way, size, count, before, after, moved)


HEADER = (
    "start",
    "way",
    "buckets",
    "parameters",
    "no training",
    "one epoch",
    "moved",
    "seeds",
)


def table(found: list[Line]) -> str:
    rows = []
    for start in STARTS:
        for way, size in [*(("projected", s) for s in SIZES), (EVERY_SECOND, 8)]:
            wanted = (start, way, size)
            same = [x for x in found if (x.start, x.way, x.buckets) == wanted]
            if same:
                scores = ([x.accuracy for x in same], [x.trained for x in same])
                moved = max(x.moved for x in same)
                far = "-" if way == EVERY_SECOND else f"{moved:.2f}"
                count = f"{same[0].parameters:,}"
                rows.append((*wanted, count, *map(percent, scores), far, len(same)))
    return markdown_table(HEADER, rows)


def percent(values: list[float]) -> str:
    mean, far = mean_and_farthest(values)
    return f"{mean:.1%} ± {100 * far:.1f}"


def picture(found: list[Line]) -> Figure:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"accuracy": "Without training", "trained": "One epoch more"}
    for axes, (field, title) in zip(panels, titles.items(), strict=True):
        for start in STARTS:
            own = [x for x in found if x.start == start and x.way == "projected"]
            sizes = sorted({x.parameters for x in own})
            means = [
                sum(getattr(x, field) for x in own if x.parameters == size)
                / sum(x.parameters == size for x in own)
                for size in sizes
            ]
            axes.plot(sizes, means, marker="o", label=start)
        axes.set(title=title, xlabel="parameters", xscale="log")
        counts = sorted({x.parameters for x in found})
        axes.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy")
    panels[1].legend(title="start", frameon=False)
    figure.suptitle("One trained model over fewer and fewer buckets (digits)")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    file = options.output / "rebase.csv"
    found = [line for (line,) in read_csv(file, Line)]
    for seed in options.seeds:
        for start in STARTS:
            key = (start, seed, options.epochs)
            if key not in {(x.start, x.seed, x.epochs) for x in found}:
                found += lines(start, seed, options.epochs)
                write_csv(file, [(line,) for line in found])
                print(table(found), flush=True)
    text = (
        f"# Smaller bases\n\n{environment()}\n\nscikit-learn's digits, "
        f"{options.epochs} epochs, {FINEST} buckets and Euler steps over "
        f"(0, {HORIZON:g}), 16 channels at 4x4, bottleneck of 8, group norm. Adam at "
        f"{RATE:g}, in the last quarter at {LAST_RATE:g}. Accuracy on the test images: "
        "the mean over the seeds ± the distance of the farthest. Moved: the largest "
        f"`models.rebase_error`.\n\n{table(found)}\n"
    )
    (options.output / "rebase.md").write_text(text)
    picture(found).savefig(options.output / "rebase.png", dpi=130)


if __name__ == "__main__":
    main()
