"""Solves within `jax.shard_map` over two devices, and on one device for each part.

    python solve_in_parts.py

Raises an AssertionError unless values and gradients are equal. The second device gets
a larger state, which takes more adaptive steps: neither may wait for the other.
Devices are made before a backend starts: hence a script of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from keras_nanode import Adaptive, layers, odeint

ADAPTIVE = Adaptive(1e-3, 1e-3, 40)
Y = np.linspace(0.1, 3, 8, dtype="float32").reshape(4, 2)
W = np.array([[-0.5, 1.0], [-1.0, -0.2]], "float32")


def swirl(t, y, w):
    return jnp.cos(t) * y * jnp.tanh(y @ w)


def solved(y, w, t=(0.0, 0.5, 1.0), **options):
    return odeint(swirl, y, t, (w,), solver="bosh3", steps=ADAPTIVE, **options)


def nested(y, w):
    def twice(y):
        def once(y, _):
            return solved(y, w, (0.0, 1.0), adjoint="backsolve")[-1], None

        return jax.lax.scan(once, y, None, length=2)[0]

    return jax.vmap(twice)(y)


def of_a_dict(y, w):
    """With a part that is equal on all devices, and times that have a gradient."""

    def func(t, y, w):
        return {"y": swirl(t, y["y"], w), "t": jnp.ones(())}

    t = jnp.array([0.0, 0.3, 0.3, 1.0]) * (1 + w[0, 0] ** 2)
    options = {"solver": "heun", "steps": 6, "adjoint": "direct"}
    return odeint(func, {"y": y, "t": jnp.zeros(())}, t, (w,), **options)


def trained(layer, y, w):
    """In units of w, so that the layer's weights have a gradient."""
    weights = [v.value * (1 + w.sum()) for v in layer.trainable_variables]
    return layer.stateless_call(weights, [], y, training=True)[0]


def layer_cases():
    found = {
        "adaptive": layers.BucketDenseODE(
            2, solver="bosh3", steps=ADAPTIVE, adjoint="direct"
        ),
        "fixed": layers.TrigDenseODE(1, solver="heun", steps=17),
        "reversible": layers.BucketDenseODE(
            2, solver="alf", steps=18, adjoint="reversible"
        ),
    }
    for layer in found.values():
        layer.build(Y.shape)
    return {key: functools.partial(trained, layer) for key, layer in found.items()}


CASES = {
    "checkpoint": solved,
    "nested": nested,
    "dict": of_a_dict,
    **layer_cases(),
}


def main():
    mesh = Mesh(np.array(jax.devices()), ("parts",))
    assert mesh.size == 2
    part, whole = PartitionSpec("parts"), PartitionSpec()
    for name, f in CASES.items():

        def loss(y, w, f=f):
            return sum((x**2).sum() for x in jax.tree.leaves(f(y, w)))

        gradients = jax.value_and_grad(loss, (0, 1))

        def in_part(y, w, gradients=gradients):
            value, found = gradients(y, w)
            return jax.lax.psum(value, "parts"), found

        mapped = jax.shard_map(
            in_part,
            mesh=mesh,
            in_specs=(part, whole),
            out_specs=(whole, (part, whole)),
        )
        value, (of_y, of_w) = jax.jit(mapped)(Y, W)
        alone = jax.jit(gradients)
        (value_0, (y_0, w_0)), (value_1, (y_1, w_1)) = alone(Y[:2], W), alone(Y[2:], W)
        for actual, expected in (
            (value, value_0 + value_1),
            (of_y, np.concatenate([y_0, y_1])),
            (of_w, w_0 + w_1),
        ):
            size = np.abs(expected).max()
            np.testing.assert_allclose(
                actual, expected, rtol=0, atol=1e-5 * size, err_msg=name
            )
            assert size > 1e-2, name


if __name__ == "__main__":
    main()
