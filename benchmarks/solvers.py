"""The cost and the accuracy of solvers and adjoints on one problem.

    python benchmarks/solvers.py [--quick]

dy/dt = tanh(y W1(t) + b1(t)) W2(t) + b2(t) with weights over `Trigonometric(3)`, a
state of shape (256, 64), 64 hidden units, t from 0 to 1. A training step is forward,
mean(y^2) and the gradients in input and coefficients, in a `tf.function` on
TensorFlow's CPU. Errors are relative, in the maximum norm, against 200 steps of rk4 in
float64.

Every row is measured in a separate process. Time is the median of several steps, and
memory is read as in `memory.py`.

The second table is for one period of a Kepler orbit of eccentricity 1/2 in float64,
which ends where it starts. Writes `solvers.md`.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

from memory import SETTINGS, fill_holes, reset_peak, status
from reporting import environment, from_process, markdown_table

from keras_nanode import tableaus

SHAPE = (256, 64)
PAIRS = [name for name, tableau in tableaus.ALL.items() if tableau.b_embedded]
# Solver, steps (a number, or the tolerance of adaptive ones), adjoint.
ROWS = [
    ("euler", 40, "checkpoint"),
    ("euler", 40, "backsolve"),
    ("rk4", 10, "checkpoint"),
    ("rk4", 10, "backsolve"),
    ("rk4", 10, "direct"),
    ("alf", 40, "reversible"),
    ("reversible_heun", 40, "reversible"),
    ("reversible(rk4)", 10, "reversible"),
    *(
        (solver, tolerance, "checkpoint")
        for solver in PAIRS
        for tolerance in (1e-3, 1e-5)
    ),
    ("dopri5", 1e-5, "checkpoint(64)"),
    ("dopri5", 1e-5, "backsolve"),
    ("dopri5", 1e-5, "direct"),
]
HEADER = [
    *("solver", "steps or tolerance", "adjoint", "evaluations of f"),
    *("error of y", "error of gradient", "ms a step", "MiB a step"),
]
TOLERANCES = (1e-3, 1e-6, 1e-9)
ORBIT_HEADER = ["solver", *(f"tolerance {tolerance:g}" for tolerance in TOLERANCES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rows only")
    parser.add_argument("--row", type=int, help="internal")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if args.row is not None:
        print(json.dumps(measure(*ROWS[args.row])))
        return
    os.environ.update(SETTINGS)
    rows = []
    for i in (1, 2, 10) if args.quick else range(len(ROWS)):
        rows.append([*map(str, ROWS[i]), *measured_apart(i)])
        print(" ".join(rows[-1]), flush=True)
    about = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    caption = "Evaluations of f and relative error after one round of the orbit:"
    orbit = [[solver, *orbit_errors(solver)] for solver in PAIRS]
    tables = [
        markdown_table(HEADER, rows),
        caption,
        markdown_table(ORBIT_HEADER, orbit),
    ]
    text = "\n\n".join(["# Solvers and adjoints", environment(), about, *tables])
    (args.output / "solvers.md").write_text(text + "\n")


def measured_apart(i: int) -> list[str]:
    cells: list[str] = from_process([sys.executable, __file__, "--row", str(i)])
    return cells


def make(solver, steps, adjoint, dtype):
    """The layer; its weights are the same for all rows."""
    import keras

    from keras_nanode import Adaptive, Checkpoint, Reversible, bases, layers

    keras.utils.set_random_seed(1)
    dynamics = keras.Sequential(
        [
            keras.layers.Dense(64, activation="tanh", dtype=dtype),
            keras.layers.Dense(SHAPE[1], dtype=dtype),
        ]
    )
    basis = bases.Trigonometric(3)
    ode = layers.ODE(
        layers.TimeVarying(dynamics, basis, "independent", dtype=dtype),
        Reversible("rk4") if solver == "reversible(rk4)" else solver,
        steps if isinstance(steps, int) else Adaptive(steps, steps, 1000),
        adjoint=Checkpoint(64) if adjoint == "checkpoint(64)" else adjoint,
        dtype=dtype,
    )
    ode.build((None, SHAPE[1]))
    return ode


def make_step(ode):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, SHAPE[1]), ode.compute_dtype)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ode(x, training=True)
            loss = tf.reduce_mean(tf.square(y))
        return y, tape.gradient(loss, [x, *ode.trainable_variables])

    return step


def measure(solver, steps, adjoint) -> list[str]:
    import numpy as np
    import tensorflow as tf

    x = tf.random.stateless_normal(SHAPE, (0, 0))
    ode = make(solver, steps, adjoint, "float32")
    step = make_step(ode)
    step(x[:1])
    ode.tally.reset()
    y, gradients = step(x)
    nfe = ode.solver.evaluations * steps if isinstance(steps, int) else 0
    if ode.is_adaptive:
        nfe = int(ode.tally.evaluations())
    fill_holes()
    before = status("VmRSS")
    reset_peak()
    float(step(x)[0][0, 0])
    memory = status("VmHWM") - before
    times = []
    for _ in range(30):
        start = time.perf_counter()
        float(step(x)[0][0, 0])
        times.append(1e3 * (time.perf_counter() - start))

    exact = make("rk4", 200, "checkpoint", "float64")
    for ours, theirs in zip(exact.weights, ode.weights, strict=True):
        ours.assign(tf.cast(theirs.value, "float64"))
    exact_y, exact_gradients = make_step(exact)(tf.cast(x, "float64"))

    def error(pairs):
        return max(np.abs(a.numpy() - b).max() / np.abs(b).max() for a, b in pairs)

    return [
        str(nfe),
        f"{error([(y, exact_y)]):.1e}",
        f"{error(zip(gradients, exact_gradients, strict=True)):.1e}",
        f"{statistics.median(times):.1f}",
        f"{memory:.1f}",
    ]


def orbit_errors(solver: str) -> list[str]:
    import numpy as np
    import tensorflow as tf

    from keras_nanode import Adaptive, odeint

    def slope(t, y):
        return tf.concat([y[2:], -y[:2] / tf.norm(y[:2]) ** 3], axis=0)

    y0 = tf.constant([0.5, 0, 0, 3**0.5], tf.float64)

    @tf.function
    def solve(tolerance):
        steps = Adaptive(tolerance, tolerance, 10_000)
        times = [0, 2 * math.pi]
        return odeint(slope, y0, times, solver=solver, steps=steps, return_stats=True)

    found = []
    for tolerance in TOLERANCES:
        y, stats = solve(tolerance)
        error = np.linalg.norm(y[-1] - y0) / np.linalg.norm(y0)
        found.append(f"{int(stats['num_fevals']):,}, {error:.0e}")
    return found


if __name__ == "__main__":
    main()
