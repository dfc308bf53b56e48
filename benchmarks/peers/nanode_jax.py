"""This library on JAX, with each of its adjoints, compiled."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp

from peers import worker
from peers.nanode_layers import make_layer
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    return training_step(make_layer(workload, variant, coefficients), x)


def training_step(layer, x) -> worker.Step:
    def loss(x, weights):
        y, _ = layer.stateless_call(weights, [], x, training=True)
        return jnp.mean(y**2), y

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    x, weights = jnp.asarray(x), [v.value for v in layer.trainable_variables]

    def step():
        (_, y), gradients = jax.block_until_ready(run(x, weights))
        return y, *gradients

    return step


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "jax"])
