"""How much a flow with random weights stretches its input, before any learning.

    python benchmarks/initialization.py

It divides the variance of the output of the classifier's block (64 channels, a
bottleneck of 16) by that of its input. The flows have 10, 40 and 100 Euler steps over
(0, T), with weights that start constant in time or independent, with and without
normalization. A network trains badly if this ratio is far from 1 at its depth.

Writes `initialization.md`.
"""

import argparse
import math
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from reporting import environment, markdown_table  # noqa: E402

from keras_nanode import bases, layers  # noqa: E402

DEPTHS = (10, 40, 100)
HORIZONS = {"1": lambda n: 1.0, "sqrt n": math.sqrt, "n": float}
BASES = ("bucket", "cosine")
SHAPE = (8, 8, 8, 64)
HIDDEN = 16
SEEDS = (0, 1, 2)


def stretch(basis: str, start: str, norm: str | None, n: int, end: float) -> float:
    """Var(y) / Var(x), the mean over the seeds."""
    return statistics.mean(
        one_stretch(basis, start, norm, n, end, seed) for seed in SEEDS
    )


def one_stretch(basis, start, norm, n, end, seed) -> float:
    keras.utils.set_random_seed(seed)
    functions = {"bucket": bases.Bucket, "cosine": bases.Cosine}[basis]
    block = layers.ConvBlock(hidden_filters=HIDDEN, normalization=norm)
    dynamics = layers.TimeVarying(block, functions(n, domain=(0, end)), start)
    flow = layers.ODE(dynamics, "euler", n, (0, end))
    x = np.random.default_rng(seed).normal(size=SHAPE).astype("float32")
    return float(keras.ops.var(flow(x)) / x.var())


def table(depths) -> str:
    header = ["basis", "start", "norm in f"]
    header += [f"T = {name}, n = {n}" for name in HORIZONS for n in depths]
    rows = [
        [
            *(basis, start, norm or "-"),
            *(
                f"{stretch(basis, start, norm, n, horizon(n)):.3g}"
                for horizon in HORIZONS.values()
                for n in depths
            ),
        ]
        for norm in (None, "group")
        for start in ("independent", "constant")
        for basis in BASES
    ]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--depths", nargs="+", type=int, default=DEPTHS)
    add("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()
    text = (
        f"Var(y) / Var(x) of a flow with random weights: n Euler steps over (0, T), as "
        f"many functions of time, {SHAPE[-1]} channels, a bottleneck of {HIDDEN}, the "
        f"mean over {len(SEEDS)} seeds. Constant weights are the same at every step, "
        "independent ones a draw for each. The sum of n independent changes of size "
        "1/sqrt(n) has the same variance for every n, which is why the classifier's "
        "flows end at the root of the number of independent sets of weights (Marion "
        "et al. 2022, arXiv 2206.06929)."
    )
    parts = ["# Before training", environment(), text, table(args.depths)]
    (args.output / "initialization.md").write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
