"""The floor: the compiled f n times and its vjp n times, with ready weights.

n is the number of evaluations that this library's solver takes, and that of those which
the gradient needs. A vjp evaluates f again, as far as its gradient asks for it.
"""

import functools

import tensorflow as tf

from peers import worker
from peers.nanode_layers import evaluations
from peers.tf_fields import FIELDS
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    field = functools.partial(FIELDS[workload.field], t=0.5)
    varies = workload.basis is not None
    theta = [tf.constant(c[0] if varies else c) for c in coefficients]
    x = tf.constant(x)
    forwards, backwards = evaluations(workload, x, coefficients)

    # Chained, since TensorFlow takes out of a loop what does not change in it.
    @tf.function
    def forward(x, theta):
        return tf.while_loop(
            lambda i, y: i < forwards,
            lambda i, y: (i + 1, field(y, theta)),
            (0, x),
            parallel_iterations=1,
        )[1]

    @tf.function
    def backward(x, theta):
        def body(i, y, gradients):
            with tf.GradientTape() as tape:
                tape.watch([y, *theta])
                slope = field(y, theta)
            y, *gradients = tape.gradient(slope, [y, *theta], y)
            return i + 1, y, gradients

        return tf.while_loop(
            lambda i, y, _: i < backwards,
            body,
            (0, x, theta),
            parallel_iterations=1,
        )

    def step():
        if variant != "vjp":
            forward(x, theta)
        if variant != "f":
            backward(x, theta)
        return ()

    return step


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "tensorflow"])
