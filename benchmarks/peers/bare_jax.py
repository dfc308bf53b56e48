"""The floor on JAX, as `bare` is that on TensorFlow."""

import functools
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp

from peers import worker
from peers.diffrax import FIELDS
from peers.nanode_layers import evaluations
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    field = functools.partial(FIELDS[workload.field], 0.5)
    varies = workload.basis is not None
    theta = [jnp.asarray(c[0] if varies else c) for c in coefficients]
    forwards, backwards = evaluations(workload, x, coefficients)

    def backward(i, carry):
        y, _ = carry
        slope, pullback = jax.vjp(field, y, theta)
        return pullback(y)

    # Chained, since XLA takes out of a loop what does not change in it.
    @jax.jit
    def run(x, theta):
        y = jax.lax.fori_loop(0, forwards, lambda i, y: field(y, theta), x)
        return y, jax.lax.fori_loop(0, backwards, backward, (x, theta))

    x = jnp.asarray(x)

    def step():
        jax.block_until_ready(run(x, theta))
        return ()

    return step


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "jax"])
