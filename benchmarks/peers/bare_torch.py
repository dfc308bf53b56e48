"""The floor on PyTorch, as `bare` is that on TensorFlow: operations one by one."""

import functools
import os

os.environ["KERAS_BACKEND"] = "torch"

import torch

from peers import torch_fields, worker
from peers.nanode_layers import evaluations
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    module = torch_fields.Field(workload, coefficients)
    time = torch.tensor(0.5)
    field = functools.partial(module.evaluate, time)
    theta = [w.detach().requires_grad_() for w in module.theta(time)]
    forwards, backwards = evaluations(workload, x, coefficients)
    x = torch_fields.state(workload, x)

    def step():
        with torch.no_grad():
            y = x
            for _ in range(forwards):
                y = field(y, theta)
        y = x
        for _ in range(backwards):
            y = y.detach().requires_grad_()
            torch.autograd.grad(field(y, theta), [y, *theta], y)
        return ()

    return step


if __name__ == "__main__":
    worker.main(make_step, ["keras_nanode", "keras", "torch"])
