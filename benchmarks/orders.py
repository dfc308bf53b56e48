"""Accuracy over the number of basis functions: the paper's Figures 1 and 2.

The classifier of `learning.py` with 20 Euler steps, on fewer images. Each basis is
trained with each number of functions and each of `RATES`; a point of the picture is the
rate that is best on held-out images.

    python benchmarks/orders.py --data-dir ~/tensorflow_datasets

Writes `orders.csv`, one line for each run, and `orders.png`. A run is written when it
ends and is not repeated by a later call.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from learning import PERIOD, Result, Results, Row, Run, complete, read_results

STEPS = 20
HORIZON = round(math.sqrt(STEPS), 2)
SIZES = (1, 3, 5, 11, 21, 41)
RATES = (3e-3, 1e-3)
# Fewer than in `learning.py`, or they would take longer than the training.
TEST_SPLIT = "train[40000:43000]"
FLOW = Row("", 0, 0.0, HORIZON, "independent", steps=STEPS)
# One line of the picture each. The period of twice the horizon has no two functions
# that are nearly the same on it.
CURVES = {
    "buckets": FLOW._replace(block="bucket"),
    "cosines": FLOW._replace(block="cosine"),
    "trigonometric, period 2π": FLOW._replace(block="trig", period=PERIOD),
    "trigonometric, period 2T": FLOW._replace(block="trig", period=2 * HORIZON),
}


def rows() -> list[Row]:
    """From few functions to many: an interrupted benchmark has whole points."""
    return [row._replace(size=size) for size in SIZES for row in CURVES.values()]


def best(
    row: Row, seeds: list[int], recipe: tuple[int, int], results: Results
) -> list[Result]:
    """A row's results at the rate that is best on held-out images; none if not run."""

    def at(rate: float) -> list[Result]:
        runs = [(row, Run(rate, seed, *recipe)) for seed in seeds]
        return [results[run] for run in runs if run in results]

    tried = [found for rate in RATES if (found := at(rate))]
    return max(tried, key=mean_of("held_out_accuracy"), default=[])


def mean_of(field: str) -> Callable[[list[Result]], float]:
    return lambda found: statistics.mean(getattr(result, field) for result in found)


def plot(
    results: Results, seeds: list[int], recipe: tuple[int, int], path: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True)
    for name, curve in CURVES.items():
        found = {
            size: some
            for size in SIZES
            if (some := best(curve._replace(size=size), seeds, recipe, results))
        }
        for ax, field in zip(axes, ("train_accuracy", "test_accuracy"), strict=True):
            values = [
                [100 * getattr(r, field) for r in some] for some in found.values()
            ]
            means, lows, highs = (
                [of(some) for some in values] for of in (statistics.mean, min, max)
            )
            (line,) = ax.plot(list(found), means, "o-", label=name, markersize=4)
            ax.fill_between(
                list(found), lows, highs, color=line.get_color(), alpha=0.15
            )
    for ax, title in zip(axes, ("training", "test"), strict=True):
        ax.set(xlabel="basis functions K", ylabel="accuracy (%)", xscale="log")
        ax.set_title(f"{title} images")
        ax.set_xticks(SIZES, [str(size) for size in SIZES])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=150)
    print(f"Written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the TFDS dataset cifar10")
    add("--images", type=int, default=1_000, help="images to train on")
    add("--epochs", type=int, default=8)
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()
    recipe = (args.images, args.epochs)
    file = args.output / "orders.csv"
    plan = [
        (row, Run(rate, seed, *recipe))
        for seed in args.seeds
        for rate in RATES
        for row in rows()
    ]
    results = read_results(file)
    complete(plan, results, file, args.data_dir, TEST_SPLIT)
    plot(results, args.seeds, recipe, args.output / "orders.png")


if __name__ == "__main__":
    main()
