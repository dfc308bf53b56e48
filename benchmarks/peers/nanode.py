"""This library, with each of its adjoints."""

from typing import Any

import keras
import tensorflow as tf

from keras_nanode import Adaptive, Checkpoint, bases, layers
from peers import worker
from peers.plan import XLA
from peers.workloads import BATCHES, Workload

ADJOINTS = {
    "checkpoint": lambda workload: "checkpoint",
    # Where the number of adaptive steps is not known, so many that none is dropped.
    "all states": lambda workload: Checkpoint(num=workload.steps or 32),
    "backsolve": lambda workload: "backsolve",
    "direct": lambda workload: "direct",
    "reversible": lambda workload: "reversible",
}


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    layer = make_layer(workload, variant.removesuffix(XLA), coefficients)
    if not workload.training:
        return make_prediction(layer, x)
    return compiled(layer, x, variant.endswith(XLA))


def compiled(layer, x, xla: bool = False) -> worker.Step:
    """The training step of a layer in a `tf.function`."""
    x = tf.constant(x)

    @tf.function(input_signature=[tf.TensorSpec((None, *x.shape[1:]))], jit_compile=xla)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_mean(tf.square(y))
        in_x, *gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        # The gradient of a bucket that is looked up may come as IndexedSlices.
        return y, in_x, [tf.convert_to_tensor(g) for g in gradients]

    return lambda: step(x)


def make_prediction(layer, x) -> worker.Step:
    """`predict` of a model of this layer, batch after batch; y is the first's."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    images = tf.tile(x, [BATCHES, *[1] * (x.ndim - 1)])

    def predict():
        y = model.predict(images, batch_size=len(x), verbose=0)
        return [y[: len(x)]]

    return predict


def make_layer(workload: Workload, variant: str, coefficients):
    """The built layer with the coefficients given."""
    solver = "reversible_heun" if variant == "reversible" else workload.solver
    tolerance = workload.tolerance
    arguments: dict[str, Any] = {
        "solver": solver,
        "steps": workload.steps or Adaptive(tolerance, tolerance, 1000),
        "adjoint": ADJOINTS[variant](workload),
    }
    if workload.field == "conv":
        layer = layers.ConvODE(
            make_basis(workload), hidden_filters=workload.hidden, **arguments
        )
    elif workload.field == "dense":
        layer = layers.DenseODE(make_basis(workload), **arguments)
    else:
        layer = layers.ODE(make_dynamics(workload), **arguments)
    layer.build((None, *workload.shape[1:]))
    for variable, value in zip(layer.trainable_variables, coefficients, strict=True):
        variable.assign(value)
    return layer


def make_basis(workload: Workload) -> bases.Basis:
    assert workload.basis is not None
    kind, number = workload.basis
    return {"trig": bases.Trigonometric, "bucket": bases.Bucket}[kind](number)


def make_dynamics(workload: Workload):
    """The fields whose weights do not depend on time."""
    channels, hidden = workload.shape[-1], workload.hidden
    dense = keras.layers.Dense
    if workload.field == "spiral":
        first = keras.layers.Activation(lambda x: x**3)
        return keras.Sequential([first, dense(hidden, "tanh"), dense(channels)])
    mlp = [dense(hidden, "tanh"), dense(hidden, "tanh"), dense(channels)]
    return layers.TimeAppended(keras.Sequential(mlp))


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "tensorflow"])
