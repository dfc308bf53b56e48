"""Peak memory of one training step: the adjoints against a residual network.

    python benchmarks/memory.py [--quick]

The step is forward, mean(y^2) and the gradients with respect to input and weights, in
a `tf.function` on TensorFlow's CPU, or in eager mode. The model is the convolutional
bottleneck block 64-16-16-64 on a state of shape (32, 16, 16, 64) in float32, which
takes 2 MiB. Euler's method (`reversible`: reversible Heun) integrates it with the basis
`Trigonometric(10)`. The other model is a residual network of as many such blocks.

Every number comes from a separate process. It traces the step on a batch of one. Then
it reads by how much the peak resident memory of a step (Linux's VmHWM, reset before)
exceeds the resident memory before it. So the weights, the input and the traced graph
are not counted. The memory of tracing is reported separately.

TensorFlow chooses its threads. With one operation at a time, it delays the residual
network's weight gradients, which doubles that network's memory.

Writes `memory.md` and `memory.png`. Exits with 1 if the memory does not grow as
expected. `--quick` measures only the two smallest depths, without this check.
"""

import argparse
import ctypes
import gc
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reporting import environment, from_process, markdown_table

SHAPE = (16, 16, 64)
BATCH = 32
STATE_MIB = BATCH * math.prod(SHAPE) * 4 / 2**20
DEPTHS = (10, 50, 100, 400)
DEEPEST = 1000  # of the adjoints whose memory is constant
RESNET = "uncon_resnet"
EAGER = "eager "
FLAT = {"backsolve": 0.1, "reversible": 0.05}
FLAT |= {EAGER + kind: 0.1 for kind in FLAT}
KINDS = (
    *("backsolve", "reversible", "checkpoint", "direct", RESNET),
    *(EAGER + kind for kind in ("backsolve", "reversible", "checkpoint")),
)
REPEATS = 5
TIMEOUT = 900
MMAP_THRESHOLD = 2**16

SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # No GPU: device memory would not show in the process's resident memory.
    "CUDA_VISIBLE_DEVICES": "-1",
    # With oneDNN TensorFlow's CPU allocator is a pool that never gives memory back, so
    # that a step would be measured against what the pool held before it.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # malloc takes every tensor from the system and returns it when it is freed. By
    # itself it raises the threshold as it goes and keeps freed memory in its heap.
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD),
    # One heap: how many there are depends on which threads happened to meet.
    "MALLOC_ARENA_MAX": "1",
}


class Peak(NamedTuple):
    """In MiB."""

    step: float  # peak of a step, the median of REPEATS
    tracing: float  # what tracing left occupied


Peaks = dict[tuple[str, int], Peak | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two depths only")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "DEPTH"), help="internal")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    depths = DEPTHS[:2] if args.quick else (*DEPTHS, DEEPEST)
    peaks = {
        (k, n): measured_apart(k, n)
        for k in KINDS
        for n in depths
        if n != DEEPEST or (k in FLAT and not k.startswith(EAGER))
    }
    verdicts = list(judge(peaks, depths))
    text = report(peaks, depths, verdicts)
    (args.output / "memory.md").write_text(text)
    plot(peaks, depths, args.output / "memory.png")
    print(text)
    if not args.quick and not all(good for good, _ in verdicts):
        sys.exit(1)


def measured_apart(kind: str, depth: int) -> Peak | None:
    """The measurement in a new process; None if it takes too long."""
    command = [sys.executable, __file__, "--one", kind, str(depth)]
    try:
        peak = Peak(*from_process(command, SETTINGS, TIMEOUT))
    except subprocess.TimeoutExpired:
        print(f"{kind} {depth}: given up after {TIMEOUT} s", flush=True)
        return None
    print(f"{kind} {depth}: {peak.step:.1f} MiB", flush=True)
    return peak


def measure(kind: str, depth: int) -> Peak:
    import tensorflow as tf

    step = make_step(kind, depth)
    return peak_of_steps(
        step,
        tf.random.normal((1, *SHAPE)),
        lambda: tf.random.normal((BATCH, *SHAPE)),
    )


def peak_of_steps(step, example, make_batch) -> Peak:
    """Of `step`, which is traced on `example` and returns a loss and gradients."""
    start = status("VmRSS")
    step(example)
    tracing = status("VmRSS") - start
    x = make_batch()
    fill_holes()
    steps = []
    for _ in range(REPEATS):
        before = status("VmRSS")
        reset_peak()
        loss, gradients = step(x)
        # Reading a value waits for the step's end.
        float(loss)
        steps.append(status("VmHWM") - before)
        del loss, gradients
    return Peak(statistics.median(steps), tracing)


def make_step(kind: str, depth: int):
    """The training step of a built layer, not yet traced."""
    import tensorflow as tf

    from keras_nanode import bases, layers

    is_eager, kind = kind.startswith(EAGER), kind.removeprefix(EAGER)
    if kind == RESNET:
        block = layers.ConvBlock(hidden_filters=16)
        layer = layers.ResidualStack(block, depth, shared=False)
    else:
        layer = layers.ConvODE(
            bases.Trigonometric(10),
            hidden_filters=16,
            solver="reversible_heun" if kind == "reversible" else "euler",
            steps=depth,
            adjoint=kind,
        )
    layer.build((None, *SHAPE))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(layer(x, training=True)))
        return loss, tape.gradient(loss, [x, *layer.trainable_variables])

    if is_eager:
        return step
    return tf.function(step, input_signature=[tf.TensorSpec((None, *SHAPE))])


def fill_holes() -> None:
    """Takes what malloc has free but in small pieces, and keeps it.

    Tracing leaves holes in the heap. A tensor in one of them would add nothing to the
    resident memory; now it must come from the system.
    """
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    gc.collect()
    end = libc.sbrk(0)
    while libc.sbrk(0) == end:
        libc.malloc(MMAP_THRESHOLD - 64)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def status(field: str) -> float:
    """A size in MiB from what Linux knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (size,) = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(size) / 1024


def judge(peaks: Peaks, depths: tuple[int, ...]) -> Iterator[tuple[bool, str]]:
    """Whether each expectation is met, and in which words."""

    def growth(kind: str, few: int, many: int) -> float:
        least, most = peaks[kind, few], peaks[kind, many]
        return most.step - least.step if least and most else math.nan

    first, last = depths[0], depths[-1]
    for kind, allowed in FLAT.items():
        # Python frees the garbage of several eager steps at once: not of the first ten.
        some = depths[1:] if kind.startswith(EAGER) else depths
        flat = {n: peak.step for n in some if (peak := peaks.get((kind, n)))}
        spread = max(flat.values()) / min(flat.values()) - 1
        yield (
            spread <= allowed,
            f"{kind} is flat: {min(flat)} to {max(flat)} steps within {spread:.1%}",
        )
    depths = tuple(n for n in depths if n != DEEPEST)

    # The first of sqrt(n) legs, each a step shorter than the one before.
    ratios = [
        growth("checkpoint", first, n)
        / (1.5 * STATE_MIB * (math.sqrt(n) - math.sqrt(first)))
        for n in depths[1:]
    ]
    yield (
        all(abs(ratio - 1) <= 0.2 for ratio in ratios),
        "checkpoint grows like 1.5 sqrt(n) states: "
        + ", ".join(f"{ratio:.2f}" for ratio in ratios)
        + f" of that from {first} to {', '.join(map(str, depths[1:]))} steps",
    )

    last = depths[-1]
    factor = growth(EAGER + "checkpoint", first, last) / growth(
        "checkpoint", first, last
    )
    words = f"{EAGER}checkpoint grows {factor:.2f} times the compiled one's"
    yield factor <= 1.3, f"{words} from {first} to {last} steps"

    # A depth whose tracing was given up is left out.
    known = [n for n in depths if peaks[RESNET, n]]
    pairs = list(zip(known, known[1:], strict=False))
    slopes = [growth(RESNET, a, b) / (b - a) for a, b in pairs] or [math.nan]
    yield (
        max(slopes) <= 1.15 * min(slopes),
        f"{RESNET} grows linearly: "
        + ", ".join(f"{s:.2f}" for s in slopes)
        + f" MiB a block between {', '.join(map(str, known))} blocks",
    )

    if 100 in depths:
        factor = growth(RESNET, 10, 100) / growth("checkpoint", 10, 100)
        words = f"{RESNET} grows {factor:.1f} times checkpoint's from 10 to 100"
        yield factor >= 10, words


def report(
    peaks: Peaks, depths: tuple[int, ...], verdicts: list[tuple[bool, str]]
) -> str:
    def rows(field: str, kinds: tuple[str, ...]) -> list[list[str]]:
        def cell(kind: str, depth: int) -> str:
            if (kind, depth) not in peaks:
                return ""
            peak = peaks[kind, depth]
            return f"{getattr(peak, field):.1f}" if peak else f"> {TIMEOUT} s"

        return [[kind, *(cell(kind, n) for n in depths)] for kind in kinds]

    header = ["steps or blocks", *map(str, depths)]
    about = (
        f"Peak memory in MiB of one training step on a batch of {BATCH} states of "
        f"{SHAPE[0]}x{SHAPE[1]} with {SHAPE[2]} channels ({STATE_MIB:g} MiB), "
        f"above what was occupied before it; the median of {REPEATS} steps. "
        "Convolutional bottleneck 64-16-16-64, `Trigonometric(10)`, Euler's method "
        f"(`reversible`: reversible Heun); `{RESNET}` is the residual network of as "
        "many blocks. Without oneDNN, so "
        "that freed memory returns to the system."
    )
    return "\n\n".join(
        [
            "# Memory",
            environment(),
            about,
            markdown_table(header, rows("step", KINDS)),
            "\n".join(
                f"- {'holds' if good else 'VIOLATED'}: {text}"
                for good, text in verdicts
            ),
            "What tracing the step leaves occupied, in MiB, is not counted above:",
            markdown_table(header, rows("tracing", KINDS)),
        ]
    ) + ("\n")


def plot(peaks: Peaks, depths: tuple[int, ...], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    # Direct and the residual network nearly coincide: other markers and dashes.
    styles = {"direct": "^-", RESNET: "D--", "reversible": "v--"}
    for kind in KINDS:
        known = [(n, peak.step) for n in depths if (peak := peaks.get((kind, n)))]
        axes.plot(*zip(*known, strict=True), styles.get(kind, "o-"), label=kind)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="Euler steps, or residual blocks",
        ylabel="peak memory of a training step (MiB)",
    )
    axes.set_xticks(depths, [str(n) for n in depths])
    axes.minorticks_off()
    ticks = [10, 20, 50, 100, 200, 500, 1000]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
