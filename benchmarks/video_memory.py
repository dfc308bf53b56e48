"""Peak memory of one training step of the video model: convolutions against ODEs.

    python benchmarks/video_memory.py [--quick]

The step is that of `fit` without the optimizer: the loss of `SVG` on 8 videos of 12
frames of 64x64 and its gradients in all weights, in a `tf.function` on TensorFlow's
CPU, in float32. One model has three convolutions in each VGG block. In the others, an
ODE with `Trigonometric(3)` and 3 Euler steps replaces two of the three. Its gradients
are found with `direct` or `checkpoint`.

Every number comes from a separate process, measured as in `memory.py`. Writes
`video_memory.md`. Exits with 1 if the ODE with checkpoints does not need less memory
than the convolutions. `--quick` takes smaller videos and only prints.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from memory import SETTINGS, Peak, peak_of_steps
from reporting import environment, from_process, markdown_table

KINDS = {
    "conv": {"block": "conv"},
    "trig, direct": {"block": "trig", "adjoint": "direct"},
    "trig, checkpoint": {"block": "trig", "adjoint": "checkpoint"},
}
PRESET = "paper"
TIMEOUT = 600


class Videos(NamedTuple):
    batch: int
    time: int
    size: int


FULL, QUICK = Videos(8, 12, 64), Videos(2, 4, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small videos, no file")
    parser.add_argument("--one", metavar="KIND", help="internal")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    videos = QUICK if args.quick else FULL
    if args.one:
        print(json.dumps(measure(args.one, videos)))
        return
    results = {kind: measured_apart(kind, args.quick) for kind in KINDS}
    text = report(results, videos)
    print(text)
    if args.quick:
        return
    (args.output / "video_memory.md").write_text(text)
    if results["trig, checkpoint"][0].step >= results["conv"][0].step:
        sys.exit("The ODE with checkpoints needs as much as the convolutions.")


def measured_apart(kind: str, quick: bool) -> tuple[Peak, int]:
    """The measurement and the number of parameters, from a new process."""
    command = [sys.executable, __file__, "--one", kind, *["--quick"] * quick]
    peak, parameters = from_process(command, SETTINGS, TIMEOUT)
    print(f"{kind}: {peak[0]:.0f} MiB", flush=True)
    return Peak(*peak), parameters


def measure(kind: str, videos: Videos) -> tuple[Peak, int]:
    import tensorflow as tf

    from keras_nanode import models

    frame_shape = (videos.size, videos.size, 1)
    model = models.SVG.from_preset(PRESET, frame_shape=frame_shape, **KINDS[kind])

    @tf.function(input_signature=[tf.TensorSpec((None, videos.time, *frame_shape))])
    def step(x):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y_pred=model(x, training=True))
        return loss, tape.gradient(loss, model.trainable_variables)

    def batch(size):
        return tf.random.uniform((size, videos.time, *frame_shape))

    return peak_of_steps(step, batch(1), lambda: batch(videos.batch)), (
        model.count_params()
    )


def report(results: dict[str, tuple[Peak, int]], videos: Videos) -> str:
    conv = results["conv"][0].step
    rows = [
        [kind, f"{peak.step:.0f}", f"{peak.step / conv:.2f}", f"{parameters:,}"]
        for kind, (peak, parameters) in results.items()
    ]
    about = (
        f"Peak memory of one training step of `SVG.from_preset({PRESET!r})`, forward "
        f"and gradients in all weights, on {videos.batch} videos of {videos.time} "
        f"frames of {videos.size}x{videos.size}, above what was occupied before it. "
        "Trig: two of the three convolutions of each VGG block replaced by an ODE over "
        "`Trigonometric(3)`, 3 Euler steps. Without oneDNN, so that freed memory "
        "returns to the system."
    )
    header = ["block, adjoint", "peak (MiB)", "of conv", "parameters"]
    return "\n\n".join(
        ["# Memory of the video model", environment(), about]
        + [markdown_table(header, rows)]
    ) + ("\n")


if __name__ == "__main__":
    main()
