"""An input that is held between samples: a `Signal`, and a lookup by the time.

Solves y' = A y + B u(t) by rk4 in float64, where u is held between 20 samples, with
equal steps that end on the samples, and compares y at the end with the exact solution.
A `Signal` gives every stage of a step the value of its own piece. Libraries without
held inputs leave it to the user to look u up by t inside of f: the last stage of a step
that ends on a sample then sees the value after the jump.

    python benchmarks/held_inputs.py

Writes `held_inputs.md`.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from keras import ops
from reporting import environment, markdown_table
from scipy.signal import cont2discrete

from keras_nanode import Signal, odeint

SAMPLES, WIDTH = 20, 4
PER_SAMPLE = (1, 2, 4, 8, 16)


def problem(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(WIDTH, WIDTH)) - 2 * np.eye(WIDTH)
    return a, rng.normal(size=(2, WIDTH)), rng.normal(size=(SAMPLES, 2))


def exact(a: np.ndarray, b: np.ndarray, u: np.ndarray, h: float) -> np.ndarray:
    system = (a.T, b.T, np.eye(WIDTH), np.zeros((WIDTH, 2)))
    step, push, *_ = cont2discrete(system, h, "zoh")
    y = np.ones(WIDTH)
    for now in u:
        y = step @ y + push @ now
    return y


def errors(num: int) -> tuple[float, float]:
    """Of a `Signal`, and of a lookup, with `num` steps for each sample."""
    a, b, u = problem()
    h = 0.1
    times = np.arange(SAMPLES + 1) * h
    a_, b_, u_ = map(ops.convert_to_tensor, (a, b, u))
    starts = ops.convert_to_tensor(times[:-1])

    def slope(y, now):
        return y[None] @ a_ + now[None] @ b_

    def seen(t, y, now):
        return slope(y, now)[0]

    def looked_up(t, y):
        passed = ops.sum(ops.cast(ops.cast(t, "float64") >= starts, "int32"))
        return slope(y, ops.take(u_, passed - 1, axis=0))[0]

    signal = Signal(u_, times[:-1])
    y0 = np.ones(WIDTH)
    ys = (
        odeint(seen, y0, times, (signal,), solver="rk4", steps=num),
        odeint(looked_up, y0, times, solver="rk4", steps=num),
    )
    desired = exact(a, b, u, h)
    found = [np.abs(ops.convert_to_numpy(y[-1]) - desired).max() for y in ys]
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().output
    rows, before = [], (math.nan, math.nan)
    for num in PER_SAMPLE:
        now = errors(num)
        orders = [math.log2(b / n) for b, n in zip(before, now, strict=True)]
        cells = [f"{num}"]
        for error, order in zip(now, orders, strict=True):
            cells += [f"{error:.1e}", "" if math.isnan(order) else f"{order:.2f}"]
        rows.append(cells)
        before = now
    header = ["steps a sample", "`Signal`", "order", "looked up by t", "order"]
    text = "\n".join(
        [
            "# Held inputs\n",
            environment() + "\n",
            f"The largest error of y' = A y + B u(t) after {SAMPLES} samples of a held "
            "input, by rk4 in float64 with equal steps that end on the samples; the "
            "reference is SciPy's `cont2discrete`. `python benchmarks/held_inputs.py` "
            "writes this page.\n",
            markdown_table(header, rows),
        ]
    )
    (folder / "held_inputs.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
