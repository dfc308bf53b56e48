"""The number of basis functions against the fit: the paper's Figures 1 and 2.

Trains the classifier of `learning.py`, with 20 Euler steps, for bases of 1 to 21
functions, and plots its training and test accuracy over their number.

    python benchmarks/orders.py --data-dir ~/tensorflow_datasets

Each flow ends at the default of `models.classifier`, sqrt(m) for m sets of weights. m
is the number of functions, or of steps if that is smaller. The learning rate of each is
the one of `RATES` that is better on held-out images, with the first seed.

Writes `orders.csv`, one line for each run, `orders.md` and `orders.png`. A run is
written when it ends and is not repeated by a later call.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import learning
from learning import PERIOD, Results, Row, Run
from reporting import environment, markdown_table

STEPS = 20
RATES = (3e-3, 1e-3)


def flow(block: str, size: int, periods: float | None = None) -> Row:
    """A basis of some size; `periods` is how many times the flow is that of a
    trigonometric basis, None for the paper's 2 pi."""
    horizon = round(math.sqrt(min(size, STEPS)), 2)
    period = 0.0
    if block == "trig":
        period = PERIOD if periods is None else round(periods * horizon, 4)
    return Row(block, size, period, horizon, "independent", "group", STEPS)


LINES: dict[str, tuple[Row, ...]] = {
    "bucket": tuple(flow("bucket", size) for size in (1, 2, 5, 10, 20)),
    # One cosine is one bucket: a constant.
    "cosine": tuple(flow("cosine", size) for size in (2, 5, 10, 20)),
    "trig, period 2π": tuple(flow("trig", size) for size in (5, 11, 21)),
    "trig, period 2T": tuple(flow("trig", size, 2) for size in (5, 11, 21)),
}


def planned(
    rows: list[Row], results: Results, recipe: tuple[int, int]
) -> Iterator[tuple[Row, Run]]:
    """What `results` lacks: all rates with the first seed, then one seed after the
    other at each row's best rate."""
    first, *others = learning.SEEDS
    for row, rate in itertools.product(rows, RATES):
        if (row, Run(rate, first, *recipe)) not in results:
            yield row, Run(rate, first, *recipe)
    for seed, row in itertools.product(others, rows):
        best = learning.best_rate(row, results, recipe) or RATES[0]
        if (row, Run(best, seed, *recipe)) not in results:
            yield row, Run(best, seed, *recipe)


def report(results: Results, recipe: tuple[int, int]) -> str:
    images, epochs = recipe
    rates = " and ".join(f"{rate:g}" for rate in RATES)
    text = (
        f"CIFAR-10: {images:,} training images, {epochs} epochs, no augmentation; the "
        f"model of learning.md with {STEPS} Euler steps, Adam with a cosine decay to "
        f"0. Of the rates {rates} each line has the one that was better on 3,000 "
        f"held-out images with seed {learning.SEEDS[0]}. K is the number of basis "
        f"functions, T = sqrt(min(K, {STEPS})) where the flow ends. Accuracy is that "
        "on 10,000 other images: the mean over the seeds ± the distance of the "
        "farthest. A line with fewer seeds is not finished."
    )
    lines: list[tuple] = []
    for name, rows in LINES.items():
        for row in rows:
            runs = learning.at_best_rate(row, results, recipe)
            if runs:
                lines.append((name, row.size, *learning.summary(runs)))
    table = markdown_table(("basis", "K", *learning.SUMMARY), lines)
    picture = "![Accuracy over the number of basis functions](orders.png)"
    return "\n\n".join(["# Orders", environment(), text, table, picture]) + "\n"


def plot(results: Results, recipe: tuple[int, int], path: Path) -> None:
    from matplotlib.figure import Figure

    kinds = {"train_accuracy": "training", "test_accuracy": "test"}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (kind, title) in zip(axes, kinds.items(), strict=True):
        for name, rows in LINES.items():
            runs = [learning.at_best_rate(row, results, recipe) for row in rows]
            found = [
                (row.size, [getattr(result, kind) for result in seeds.values()])
                for row, seeds in zip(rows, runs, strict=True)
                if seeds
            ]
            means = [sum(values) / len(values) for _, values in found]
            (line,) = axis.plot([size for size, _ in found], means, label=name)
            points = [(size, value) for size, values in found for value in values]
            axis.plot(*zip(*points, strict=True), "o", ms=3, color=line.get_color())
        axis.set(xscale="log", xlabel="basis functions", title=f"{title} accuracy")
        axis.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:.0%}")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = learning.options(__doc__, images=1_500)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    args = parser.parse_args()
    recipe = (args.images, args.epochs)
    rows = [row for name in args.lines for row in LINES[name]]
    results = learning.complete(
        args.output / "orders.csv",
        args.data_dir,
        lambda results: planned(rows, results, recipe),
    )
    text = report(results, recipe)
    (args.output / "orders.md").write_text(text)
    plot(results, recipe, args.output / "orders.png")
    print(text)


if __name__ == "__main__":
    main()
