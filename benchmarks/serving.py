"""The prediction time of an exported classifier, and the size of its file.

    python benchmarks/serving.py

It measures the classifier of `learning.md` (64 channels at 16x16, 10 steps or blocks):
the flow, the same flow without loops (`models.materialize`), and the residual network
of equal depth. Each is a SavedModel, LiteRT and ONNX file in its own runtime, with one
thread. Runs are interleaved, and the minimum of each counts.

Writes `serving.md`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from reporting import environment, markdown_table  # noqa: E402

from keras_nanode import models  # noqa: E402

BATCHES = (1, 32)
SHAPE = (32, 32, 3)
STEPS = 10
REPEATS = 30
FORMATS = {"SavedModel": "tf_saved_model", "LiteRT": "litert", "ONNX": "onnx"}
Predict = Callable[[np.ndarray], np.ndarray]


class Served(NamedTuple):
    model: str
    runtime: str
    mib: float
    predict: Predict
    largest_error: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--repeats", type=int, default=REPEATS)
    add("--filters", type=int, default=64)
    add("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        served = [
            export(name, model, runtime, Path(folder))
            for name, model in networks(args.filters).items()
            for runtime in FORMATS
        ]
        least = clock(served, args.repeats)
    text = report(served, least)
    (args.output / "serving.md").write_text(text)
    print(text)


def networks(filters: int) -> dict[str, keras.Model]:
    def network(block: str) -> keras.Model:
        return models.classifier(
            *(SHAPE, 10, block),
            steps=STEPS,
            filters=filters,
            hidden_filters=filters // 4,
            stem_strides=2,
            normalization="group",
        )

    flow = network("trig")
    return {
        "flow": flow,
        "flow, materialized": models.materialize(flow),
        "residual network": network("uncon_resnet"),
    }


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, *SHAPE)).astype("float32")


def export(name: str, model: keras.Model, runtime: str, folder: Path) -> Served:
    suffix = {"SavedModel": "", "LiteRT": ".tflite", "ONNX": ".onnx"}[runtime]
    file = folder / f"{name.replace(', ', '-')}-{runtime}{suffix}"
    model.export(str(file), format=FORMATS[runtime], verbose=False)
    predict = RUNTIMES[runtime](file)
    x = images(BATCHES[-1])
    expected = model.predict(x, verbose=0)
    error = float(np.abs(predict(x) - expected).max())
    size = sum(part.stat().st_size for part in [file, *file.rglob("*")])
    return Served(name, runtime, size / 2**20, predict, error)


def saved_model(file: Path) -> Predict:
    loaded = tf.saved_model.load(str(file))

    def predict(x, loaded=loaded):  # whose variables live as long as it does
        return loaded.serve(x).numpy()

    return predict


def litert(file: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    (given,), (found,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    shape = None

    def predict(x):
        nonlocal shape
        if x.shape != shape:
            shape = x.shape
            interpreter.resize_tensor_input(given["index"], shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return predict


def onnx(file: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


RUNTIMES = {"SavedModel": saved_model, "LiteRT": litert, "ONNX": onnx}


def clock(served: list[Served], repeats: int) -> dict[tuple[int, int], float]:
    """The least seconds of each that is served, by its place and the batch size."""
    least: dict[tuple[int, int], float] = {}
    for batch in BATCHES:
        x = images(batch)
        for one in served:
            one.predict(x)
        for _ in range(repeats):
            for place, one in enumerate(served):
                begin = time.perf_counter()
                one.predict(x)
                seconds = time.perf_counter() - begin
                least[place, batch] = min(least.get((place, batch), seconds), seconds)
    return least


def report(served: list[Served], least: dict[tuple[int, int], float]) -> str:
    header = ["", "runtime", "MiB", *(f"batch of {n}: ms" for n in BATCHES), "error"]
    rows = [
        [
            one.model,
            one.runtime,
            f"{one.mib:.2f}",
            *(f"{1e3 * least[place, batch]:.2f}" for batch in BATCHES),
            f"{one.largest_error:.0e}",
        ]
        for place, one in enumerate(served)
    ]
    text = (
        f"Milliseconds of a prediction by an exported classifier of images of "
        f"{SHAPE[0]}x{SHAPE[1]}, {STEPS} Euler steps or blocks, one thread: the least "
        "of interleaved runs. `models.materialize` gives the flow without loops. The "
        "error is the largest difference of a logit from the model's."
    )
    parts = ["# Serving", environment(), text, markdown_table(header, rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
