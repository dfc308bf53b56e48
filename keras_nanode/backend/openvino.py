"""The backend functions on OpenVINO, where models trained elsewhere predict.

A model becomes one graph without loops. There are no gradients.
"""

import math

from keras import ops

from keras_nanode.backend import _eager


def vjp(f, *primals):
    raise NotImplementedError(
        "Keras' OpenVINO backend has no gradients, it only runs models. Set "
        'KERAS_BACKEND to "tensorflow", "jax" or "torch" to train. '
        "Received: KERAS_BACKEND='openvino'"
    )


def custom_vjp(forward, backward, message, *primals):
    return forward(*primals)[0]


def cond(condition, f, g):
    return ops.cond(condition, f, g)


def while_loop(cond, body, state):
    raise NotImplementedError(
        "On OpenVINO a model is a graph of known length, which adaptive steps have "
        "not. Give each such layer a number of steps before `predict`, as in "
        "`layer.steps = 20`. Received: KERAS_BACKEND='openvino'"
    )


def fori_loop(count, body, state, limit=None):
    return _eager.fori_loop(count, body, state)


def most_unrolled():
    return math.inf


def buffer(size, like):
    return _eager.Buffer([ops.zeros_like(like)] * size, ops.stack)


def is_known(x):
    return False  # a tensor is a node of a graph


def require(holds, message):
    pass
