"""Gradients of our own that are freed with their results.

The function of a gradient may lead back to a result: a layer may keep what it gave.
Python's collector follows a tensor to its own node, if nobody else has either, and no
further into a graph. So the last node holds the function, and inner ones refer to it.
"""

import contextvars
import weakref
from collections.abc import Callable
from typing import Any

import torch

from keras_nanode import tree
from keras_nanode.tree import Structure

# Where the functions of the gradients go that are now being made.
_OPEN: contextvars.ContextVar = contextvars.ContextVar("open", default=None)


class Closure:
    """A function that can be let go of."""

    __slots__ = ("__weakref__", "function")

    def __init__(self, function: Callable):
        self.function: Callable | None = function


def put(function: Callable) -> Callable[[], Closure | None]:
    """Gives what finds the function again, as long as a result is there."""
    closure, found = Closure(function), _OPEN.get()
    if found is None:
        return lambda: closure
    found.append(closure)
    return weakref.ref(closure)


def held_by_outputs(f: Callable, *primals: Any) -> Structure:
    """`f(*primals)`, where the outputs hold the functions of the gradients."""
    token = _OPEN.set([])
    try:
        outputs, closures = f(*primals), _OPEN.get()
    finally:
        _OPEN.reset(token)

    def held(x: Any) -> Any:
        moves = isinstance(x, torch.Tensor) and x.requires_grad
        return _Holder.apply(closures, x) if closures and moves else x

    return tree.map_structure(held, outputs)


class _Holder(torch.autograd.Function):
    """Passes a tensor and its gradient through."""

    @staticmethod
    def forward(ctx, closures, x):
        ctx.closures = closures
        return x.detach()  # one that may be written to, which x itself would not be

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient
