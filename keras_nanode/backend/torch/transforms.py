"""Tensors within the transforms of `torch.func`, which wrap them.

A function of autograd gets them unwrapped, by one transform after the other.
"""

from typing import Any

import numpy as np
import torch


def within() -> bool:
    """Whether a transform is running."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def values(x: torch.Tensor) -> np.ndarray:
    """As `backend.values`."""
    found: list = []
    if within():
        # Not the list itself, which PyTorch would copy.
        _Values.apply(x.detach(), found.append)
    else:
        found.append(x.numpy(force=True))
    return found[0]


def shared(x: torch.Tensor) -> torch.Tensor:
    """As `backend.shared`."""
    return _Shared.apply(x.detach()) if within() else x


class _Transformed(torch.autograd.Function):
    """A function without a gradient."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass


class _Values(_Transformed):
    """Gives the values of a tensor away."""

    @staticmethod
    def forward(x, give):
        give(x.numpy(force=True))
        return x.clone()

    @staticmethod
    def vmap(info, in_dims, x, give):
        raise ValueError(
            "The rows of `torch.func.vmap` have times of their own, but one loop takes "
            "the steps of all rows. Give all the same times, and pass to `func` what "
            "differs: a factor for dy/dt, for example. Or solve row by row. "
            f"Received: times for {info.batch_size} rows, of shape {tuple(x.shape)}"
        )


class _Shared(_Transformed):
    """The largest x of the rows that are mapped."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def vmap(info, in_dims, x):
        return _Shared.apply(x.amax(in_dims[0])), None
