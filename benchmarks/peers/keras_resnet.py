"""A plain Keras ResNet: a block with weights of its own for each Euler step."""

import keras
import numpy as np

from peers import nanode, worker
from peers.workloads import Workload, z


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    model = make_model(workload, coefficients)
    if not workload.training:
        return nanode.make_prediction(model, x)
    run = nanode.compiled(model, x)

    def step():
        y, in_x, gradients = run()
        return y, in_x, lambda: in_coefficients(workload, gradients)

    return step


def make_model(workload: Workload, coefficients) -> keras.Model:
    """x -> x + f(x, theta(t_i)) / n, the division being in the last weights."""
    inputs = keras.Input(workload.shape[1:])
    x, convolution = inputs, keras.layers.Conv2D
    hidden, width = workload.hidden, workload.shape[-1]
    for _ in range(workload.steps or 0):
        y = x
        for filters, size in ((hidden, 1), (hidden, 3), (width, 1)):
            y = keras.layers.ReLU()(y)
            y = convolution(filters, size, padding="same")(y)
        x = keras.layers.Add()([x, y])
    model = keras.Model(inputs, x)
    model.set_weights(
        [
            scale * np.tensordot(row, c, 1)
            for row in rows(workload)
            for scale, c in zip(scales(workload), coefficients, strict=True)
        ]
    )
    return model


def rows(workload: Workload) -> list[np.ndarray]:
    """The basis where each block is, at the start of its step."""
    n = workload.steps or 0
    return [z(workload, i / n).astype(np.float32) for i in range(n)]


def scales(workload: Workload) -> list[float]:
    """What each weight of a block is multiplied by: the step's length, in the last."""
    return [1.0] * 4 + [1 / (workload.steps or 1)] * 2


def in_coefficients(workload: Workload, gradients) -> list[np.ndarray]:
    """From the gradients of all blocks' weights to those of the coefficients."""
    z_rows = np.stack(rows(workload))
    return [
        scale * np.tensordot(z_rows.T, np.stack(gradients[i::6]), 1)
        for i, scale in enumerate(scales(workload))
    ]


if __name__ == "__main__":
    worker.main(make_step, ["keras", "tensorflow"])
