"""This library on PyTorch, with each of its adjoints, in eager mode."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import torch

from peers import worker
from peers.nanode_layers import make_layer
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    return training_step(make_layer(workload, variant, coefficients), x)


def training_step(layer, x) -> worker.Step:
    x = torch.tensor(x, requires_grad=True)
    weights = [v.value for v in layer.trainable_variables]

    def step():
        y = layer(x, training=True)
        in_x, *gradients = torch.autograd.grad(y.square().mean(), [x, *weights])
        return y.detach(), in_x, gradients

    return step


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "torch"])
