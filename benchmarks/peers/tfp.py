"""TensorFlow Probability's `math.ode`, whose gradient is the continuous adjoint."""

import tensorflow as tf
import tensorflow_probability as tfp

from peers import worker
from peers.plan import XLA
from peers.tf_fields import FIELDS
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    field, tolerance = FIELDS[workload.field], workload.tolerance
    solver = tfp.math.ode.DormandPrince(rtol=tolerance, atol=tolerance)
    x, theta = tf.constant(x), [tf.constant(c) for c in coefficients]

    @tf.function(jit_compile=variant.endswith(XLA))
    def step(x, theta):
        with tf.GradientTape() as tape:
            tape.watch([x, *theta])
            # Its gradients flow to `constants` alone.
            y = solver.solve(
                lambda t, y, theta: field(y, theta, t),
                initial_time=0.0,
                initial_state=x,
                solution_times=[1.0],
                constants={"theta": theta},
            ).states[-1]
            loss = tf.reduce_mean(tf.square(y))
        in_x, *gradients = tape.gradient(loss, [x, *theta])
        return y, in_x, gradients

    return lambda: step(x, theta)


if __name__ == "__main__":
    worker.main(make_step, ["tensorflow-probability", "tensorflow"])
