"""The floor: the compiled f n times and its vjp n times, with ready weights.

n is the number of evaluations that this library's solver takes, and that of those which
the gradient needs. A vjp evaluates f again, as far as its gradient asks for it.
"""

import functools

import tensorflow as tf

from keras_nanode import Adaptive, odeint
from peers import worker
from peers.nanode_layers import make_layer
from peers.tf_fields import FIELDS
from peers.workloads import Workload

STAGES = {"euler": 1, "rk4": 4}
DOPRI5_STAGES = 6  # beside the first, which is the last of the step before


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


def evaluations(workload: Workload, x, coefficients) -> tuple[int, int]:
    """Of f, and of f with its vjp."""
    if workload.steps:
        count = STAGES[workload.solver] * workload.steps
        return count, count
    layer = make_layer(workload, "checkpoint", coefficients)
    dynamics, tolerance = layer.dynamics, workload.tolerance
    takes_time = workload.field == "mlp"
    _, stats = odeint(
        lambda t, y: dynamics(y, t=t) if takes_time else dynamics(y),
        x,
        [0.0, 1.0],
        solver=workload.solver,
        steps=Adaptive(tolerance, tolerance, 1000),
        adjoint="direct",  # the only one that lets a function close over weights
        return_stats=True,
    )
    return int(stats["num_fevals"]), DOPRI5_STAGES * int(stats["num_accepted"])


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "tensorflow"])
