"""The time of the first training step, for which a user waits before any learning.

    benchmarks/peers/install.sh          # for diffrax, once
    python benchmarks/first_step.py

It compares a flow of DEPTH steps of Euler's method on 64 channels (ten buckets of
weights), the residual network of as many blocks, and the same flow in diffrax. Each
runs in a separate process. The table has the seconds of the first step, which traces
and compiles, and the milliseconds of a later one. Rounds are interleaved, and the
minimum of each counts, since other programs can only add to a time.

Writes `first_step.md`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from peers.plan import python
from reporting import Failed, environment, from_process, markdown_table

FOLDER = Path(__file__).parent
DEPTHS = (10, 100, 1000)
CHANNELS, BATCH, BUCKETS = 64, 64, 10
LATER = 5  # steps, of which the median counts
ROUNDS = 2
TIMEOUT = 600


class Kind(NamedTuple):
    """A line of the table: what is trained, and on what."""

    name: str
    backend: str
    xla: bool = False


KINDS = (
    *(Kind("flow", backend) for backend in ("tensorflow", "jax", "torch")),
    Kind("flow", "tensorflow", xla=True),
    *(Kind("residual network", b) for b in ("tensorflow", "jax", "torch")),
    Kind("diffrax", "jax"),
)
# A thousand blocks take minutes to trace.
DEEPEST = {"residual network": 100}


class Seconds(NamedTuple):
    first: float
    later: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--depths", nargs="+", type=int, default=DEPTHS)
    add("--rounds", type=int, default=ROUNDS)
    add("--output", type=Path, default=FOLDER, help="folder to write to")
    add("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one))))
        return
    found: dict[tuple[Kind, int], Seconds] = {}
    for _ in range(args.rounds):
        for kind in KINDS:
            for depth in args.depths:
                if depth <= DEEPEST.get(kind.name, depth):
                    seconds = measured_apart(kind, depth)
                    print(*kind, depth, seconds or "failed", flush=True)
                    if seconds:
                        best = found.get((kind, depth), seconds)
                        found[kind, depth] = Seconds(*map(min, best, seconds))
    (args.output / "first_step.md").write_text(report(found, args.depths))


def measured_apart(kind: Kind, depth: int) -> Seconds | None:
    """None where the backend or the peer is not installed."""
    interpreter = python("diffrax") if kind.name == "diffrax" else sys.executable
    if not Path(interpreter).exists():
        return None
    settings = {"KERAS_BACKEND": kind.backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [interpreter, __file__, "--one", json.dumps([*kind, depth])]
    try:
        return Seconds(*from_process(command, settings, TIMEOUT))
    except Failed:
        return None


def measure(name: str, backend: str, xla: bool, depth: int) -> Seconds:
    step = diffrax_step(depth) if name == "diffrax" else keras_step(name, xla, depth)

    def timed() -> float:
        begin = time.perf_counter()
        step()
        return time.perf_counter() - begin

    return Seconds(timed(), sorted(timed() for _ in range(LATER))[LATER // 2])


def keras_step(name: str, xla: bool, depth: int) -> Callable[[], object]:
    import keras
    import numpy as np

    from keras_nanode import layers

    if name == "flow":
        layer = layers.BucketDenseODE(BUCKETS, solver="euler", steps=depth)
    else:
        layer = layers.ResidualStack(layers.DenseBlock(), depth)
    model = keras.Sequential([keras.Input((CHANNELS,)), layer])
    # On JAX Keras compiles by itself, on PyTorch never but with `torch.compile`.
    compiles = keras.backend.backend() == "jax" or xla
    model.compile("adam", "mse", jit_compile=compiles)
    x = np.random.default_rng(0).normal(size=(BATCH, CHANNELS)).astype("float32")
    return lambda: model.train_on_batch(x, x)


def diffrax_step(depth: int) -> Callable[[], object]:
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, CHANNELS)), "float32")
    kernel = jnp.asarray(rng.normal(size=(BUCKETS, CHANNELS, CHANNELS)) / 8, "float32")
    weights = (kernel, jnp.zeros((BUCKETS, CHANNELS)))

    def slope(t, y, weights):
        w, b = (jnp.take(v, jnp.floor(t * BUCKETS).astype(int), 0) for v in weights)
        return jnp.tanh(y @ w + b)

    def loss(weights):
        y = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Euler(),
            *(0.0, 1.0, 1 / depth),
            x,
            weights,
            max_steps=depth + 1,
        ).ys[-1]
        return jnp.mean((y - x) ** 2)

    run = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(run(weights))


def report(found: dict[tuple[Kind, int], Seconds], depths) -> str:
    def cells(kind: Kind, depth: int) -> list[str]:
        seconds = found.get((kind, depth))
        if seconds is None:
            return ["-", "-"]
        return [f"{seconds.first:.2f}", f"{1e3 * seconds.later:.1f}"]

    header = ["", "on"]
    for depth in depths:
        header += [f"{depth}: first, s", "later, ms"]
    rows = [
        [
            kind.name,
            kind.backend + (", XLA" if kind.xla else ""),
            *(cell for depth in depths for cell in cells(kind, depth)),
        ]
        for kind in KINDS
    ]
    text = (
        f"Seconds of the first training step, which traces and compiles, and "
        f"milliseconds of a later one, for {', '.join(map(str, depths))} steps of "
        f"Euler's method or blocks, {CHANNELS} channels, batches of {BATCH}. By "
        "`train_on_batch` with Adam; of diffrax loss and gradient alone, by `jax.jit`."
    )
    table = markdown_table(header, rows)
    return "\n\n".join(["# The first step", environment(), text, table]) + "\n"


if __name__ == "__main__":
    main()
