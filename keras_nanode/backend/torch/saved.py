"""What PyTorch keeps for a gradient: residuals, as a list of tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from keras_nanode import tree
from keras_nanode.backend import _eager


def put(saved: list, x: Any) -> Callable[[Sequence], Any]:
    """Puts the tensors of a residual into a list. Gives a function that finds the
    residual in that list, or in another one of the same form."""
    if isinstance(x, _eager.Buffer):
        places = [_place(saved, slot) for slot in x.slots]
        join = x.join
        return lambda saved: _eager.Buffer([saved[i] for i in places], join)
    if isinstance(x, torch.Tensor):
        place = _place(saved, x)
        return lambda saved: saved[place]
    return lambda _: x


def _place(saved: list, x: torch.Tensor) -> int:
    # Slots that were never written hold one tensor.
    if not saved or x is not saved[-1]:
        saved.append(x)
    return len(saved) - 1


def saved_by(ctx: Any) -> tuple[Sequence, Any]:
    """The flat primals, and the residuals, of a function that is differentiated."""
    saved = ctx.saved_tensors
    # A state is freed when its slot is written, unless the graph is retained. The
    # attribute `clear_saved_tensors_on_access` would break a retained one.
    ctx.maybe_clear_saved_tensors()
    residuals = tree.map_structure(lambda get: get(saved), ctx.residuals)
    return saved[: ctx.number], residuals
