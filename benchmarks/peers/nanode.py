"""This library on TensorFlow, with each of its adjoints."""

import keras
import tensorflow as tf

from peers import worker
from peers.nanode_layers import make_layer
from peers.plan import XLA
from peers.workloads import BATCHES, Workload


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


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "tensorflow"])
