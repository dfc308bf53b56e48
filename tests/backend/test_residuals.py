"""PyTorch: what a solve keeps for its gradient is freed as soon as it is used."""

import keras
import numpy as np
import pytest
from cases import numbers
from keras import ops

from keras_nanode import odeint

if keras.backend.backend() != "torch":
    pytest.skip("the others have no saved tensors", allow_module_level=True)

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 64
SHAPE = (3, 5)


class Census(TorchDispatchMode):
    """Counts how many tensors of the state's shape are in memory."""

    def __init__(self):
        super().__init__()
        self.storages, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        if isinstance(outputs, torch.Tensor) and outputs.shape == SHAPE:
            storage = outputs.untyped_storage()
            self.storages[storage.data_ptr()] = StorageWeakRef(storage)
        alive = {k: ref for k, ref in self.storages.items() if not ref.expired()}
        self.storages, self.most = alive, max(self.most, len(alive))
        return outputs


def solve(adjoint, solver="euler"):
    y = torch.ones(SHAPE, requires_grad=True)
    w = torch.tensor(0.5, requires_grad=True)
    end = odeint(
        lambda t, y, w: ops.tanh(w * y),
        y,
        [0.0, 1.0],
        (w,),
        solver=solver,
        steps=STEPS,
        adjoint=adjoint,
    )[-1]
    return end.sum(), (y, w)


# The rest is what one step computes. Segments of 11, 10, ... steps share 11 slots.
@pytest.mark.parametrize(
    ("adjoint", "solver", "most"),
    [
        ("checkpoint", "euler", 25),
        ("backsolve", "euler", 17),
        ("reversible", "alf", 26),
    ],
)
def test_a_gradient_takes_few_states(adjoint, solver, most):
    with Census() as census:
        loss, sources = solve(adjoint, solver)
        torch.autograd.grad(loss, sources)
    assert census.most <= most
    with Census() as all_kept:
        loss, sources = solve("direct")
        torch.autograd.grad(loss, sources)
    # Or the census sees nothing.
    assert all_kept.most >= STEPS


def test_a_graph_that_is_kept_can_be_used_twice():
    loss, sources = solve("checkpoint")
    first = torch.autograd.grad(loss, sources, retain_graph=True)
    second = torch.autograd.grad(loss, sources)
    for a, b in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, sources)
