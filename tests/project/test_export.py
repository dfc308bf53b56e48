"""A model is served by other runtimes, where this library is not installed."""

import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from cases import layer_gradients, random

from keras_nanode import Adaptive, bases, layers, models

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="export it from TensorFlow"
    ),
    # Keras patches tf2onnx for NumPy 2 so.
    pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning"),
]

# Each leaves its outputs or gradients for the batch in "x" in a file.
READ = """
import sys
import numpy as np
sys.modules["keras_nanode"] = None  # an import of it would fail
path, batch, results = sys.argv[1:]
x = np.load(batch)
"""
SAVED_MODEL = """
import tensorflow as tf
model = tf.saved_model.load(path)  # kept while it serves
y = {"y": model.serve(x)}
"""
LITERT = """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path)
(source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.resize_tensor_input(source["index"], x.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(source["index"], x)
interpreter.invoke()
y = {"y": interpreter.get_tensor(target["index"])}
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(path)
y = {"y": session.run(None, {session.get_inputs()[0].name: x})[0]}
"""
FINE_TUNING = """
import tensorflow as tf
model = tf.saved_model.load(path)
assert {"serve", "train", "inverse"} <= set(model.signatures)
y = {"back": model.inverse(model.serve(x))}
for endpoint in "serve", "train":
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(getattr(model, endpoint)(x) ** 2)
    for i, g in enumerate(tape.gradient(loss, model.trainable_variables)):
        y[f"{endpoint}{i}"] = g
"""
WRITE = "np.savez(results, **y)\n"


def elsewhere(code, path, x, tmp_path):
    """What `code` makes of an exported model and a batch, in a process of its own."""
    batch, results = tmp_path / "batch.npy", tmp_path / "results.npz"
    np.save(batch, x)
    run = subprocess.run(
        [sys.executable, "-c", READ + code + WRITE, str(path), batch, results],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return dict(np.load(results))


def check_served(code, path, model, tmp_path):
    """With a batch size that was never seen."""
    x = random((11, *model.input_shape[1:]), seed=2)
    y = elsewhere(code, path, x, tmp_path)["y"]
    np.testing.assert_allclose(y, model.predict(x, verbose=0), atol=1e-5)


def trained(model):
    """On batches of 4."""
    model.compile("sgd", "mse")
    x, y = (
        random((8, *shape[1:])) for shape in (model.input_shape, model.output_shape)
    )
    model.fit(x, y, batch_size=4, verbose=0)
    return model


def around(layer, shape=(3,)):
    return trained(keras.Sequential([keras.Input(shape), layer]))


@pytest.mark.parametrize("block", ["bucket", "app"])
def test_a_saved_model_is_served(block, tmp_path):
    # As many steps as the buckets of the default basis.
    model = models.classifier((8, 8, 1), 3, block, filters=8, hidden_filters=4)
    trained(model).export(str(tmp_path / "model"), verbose=False)
    check_served(SAVED_MODEL, tmp_path / "model", model, tmp_path)


def test_adaptive_steps_are_served(tmp_path):
    model = around(layers.DenseODE(bases.Bucket(2), solver="bosh3"))
    model.export(str(tmp_path / "model"), verbose=False)
    check_served(SAVED_MODEL, tmp_path / "model", model, tmp_path)


STARTS = {"start": "independent"}
# Looser steps would differ by the rounding of their error's estimate.
TIGHT = Adaptive(rtol=1e-6, atol=1e-6)
EXPORTED = {
    "app": lambda: layers.ODE(layers.TimeAppended(keras.layers.Dense(3)), "heun", 7),
    "trig": lambda: layers.TrigDenseODE(2, solver="rk4", steps=7, **STARTS),
    "bucket": lambda: layers.BucketDenseODE(3, steps=7, **STARTS),
    "reversible": lambda: layers.BucketDenseODE(
        3, solver="alf", steps=7, adjoint="reversible", **STARTS
    ),
    "adaptive": lambda: layers.BucketDenseODE(2, solver="bosh3", steps=TIGHT, **STARTS),
    "adaptive direct": lambda: layers.PolyDenseODE(
        2, solver="bosh3", steps=TIGHT, adjoint="direct", **STARTS
    ),
}


@pytest.mark.parametrize("name", ["app", "bucket", "adaptive"])
def test_litert_holds_the_loop(name, tmp_path):
    model = around(EXPORTED[name]())
    path = str(tmp_path / "model.tflite")
    model.export(path, format="litert", verbose=False)
    check_served(LITERT, path, model, tmp_path)


@pytest.mark.parametrize("name", ["trig", "reversible", "adaptive direct"])
def test_onnx_holds_the_loop(name, tmp_path):
    model = around(EXPORTED[name]())
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    check_served(ONNX, path, model, tmp_path)


def test_a_convolutional_model_is_served_by_litert_and_onnx(tmp_path):
    model = models.classifier((8, 8, 1), 3, "poly", filters=8, hidden_filters=4)
    paths = [str(tmp_path / f"model.{format}") for format in ("tflite", "onnx")]
    trained(model).export(paths[0], format="litert", verbose=False)
    model.export(paths[1], format="onnx", verbose=False)
    check_served(LITERT, paths[0], model, tmp_path)
    check_served(ONNX, paths[1], model, tmp_path)


@pytest.mark.parametrize(
    ("code", "arguments", "name"),
    [
        (SAVED_MODEL, {}, "model"),
        (LITERT, {"format": "litert"}, "model.tflite"),
        (ONNX, {"format": "onnx"}, "model.onnx"),
    ],
    ids=["saved_model", "litert", "onnx"],
)
def test_the_part_behind_an_augmentation_is_exported(code, arguments, name, tmp_path):
    """The README's recipe, for Keras would serve the augmentation, too."""
    inference = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.BucketConvODE(2, steps=2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    augmentation = keras.layers.RandomTranslation(0.5, 0.5)
    model = trained(keras.Sequential([keras.Input((6, 6, 1)), augmentation, inference]))
    inference.export(str(tmp_path / name), verbose=False, **arguments)
    check_served(code, tmp_path / name, model, tmp_path)


def test_a_materialized_model_needs_no_loops(tmp_path):
    model = around(EXPORTED["bucket"]())
    plain = models.materialize(model)
    paths = [str(tmp_path / f"model.{format}") for format in ("tflite", "onnx")]
    plain(keras.Input((3,)))
    plain.export(paths[0], format="litert", verbose=False)
    plain.export(paths[1], format="onnx", verbose=False)
    check_served(LITERT, paths[0], model, tmp_path)
    check_served(ONNX, paths[1], model, tmp_path)
    operations = {node.op_type for node in onnx.load(paths[1]).graph.node}
    assert "MatMul" in operations or "Gemm" in operations
    assert not operations & {"Loop", "If", "Scan"}


def test_a_saved_model_of_several_signatures_can_be_fine_tuned(tmp_path):
    ode = layers.TrigDenseODE(1, solver="rk4", steps=9, **STARTS)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.BucketDenseODE(2, solver="alf", steps=4, adjoint="reversible"),
            layers.PolyDenseODE(2, steps=4, adjoint="backsolve", **STARTS),
            layers.BucketDenseODE(2, solver="bosh3", **STARTS),
            ode,
        ]
    )
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = [keras.InputSpec(shape=(None, 3), dtype="float32")]
    archive.add_endpoint("serve", lambda x: model(x, training=False), spec)
    archive.add_endpoint("train", lambda x: model(x, training=True), spec)
    archive.add_endpoint("inverse", ode.inverse, spec)
    archive.write_out(str(tmp_path / "model"), verbose=False)

    x = random((11, 3), seed=2)
    found = elsewhere(FINE_TUNING, tmp_path / "model", x, tmp_path)
    in_weights, _ = layer_gradients(model, x)
    assert len(in_weights) == 8
    for i, gradient in enumerate(in_weights):
        for endpoint in ("serve", "train"):
            np.testing.assert_allclose(
                found[f"{endpoint}{i}"],
                gradient,
                atol=1e-5 * np.abs(gradient).max(),
            )
    before = keras.Model(model.inputs, ode.input).predict(x, verbose=0)
    np.testing.assert_allclose(found["back"], before, atol=1e-3)


def test_a_module_that_trains_with_adaptive_steps_is_saved(tmp_path):
    import tensorflow as tf

    class Trainer(tf.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec((None, 2))], autograph=False)
        def __call__(self, x):
            return self.model(x, training=True)

    ode = layers.BucketDenseODE(2, solver="bosh3", steps=Adaptive(1e-3, 1e-3, 50))
    model = keras.Sequential([keras.Input((2,)), ode])
    trainer, x = Trainer(model), random((3, 2))
    y = trainer(x)
    tf.saved_model.save(trainer, str(tmp_path / "trainer"))
    loaded = tf.saved_model.load(str(tmp_path / "trainer"))
    np.testing.assert_allclose(loaded(x), y, rtol=1e-6)
    # The count of evaluations is no part of the model.
    assert len(model.variables) == 2 and not model.metrics
    model.export(tmp_path / "model", verbose=False)
    stored = tf.train.list_variables(str(tmp_path / "model/variables/variables"))
    assert all("tally" not in name for name, _ in stored)
    assert {str(shape) for name, shape in stored if "VARIABLE" in name} == {
        str(list(v.shape)) for v in model.variables
    }
