"""The backend functions on PyTorch, which runs every loop in Python."""

import functools
import math

import torch

from keras_nanode import tree
from keras_nanode.backend import _eager
from keras_nanode.backend.torch import closures, recording, transforms
from keras_nanode.backend.torch.saved import put, saved_by

_WRITTEN = (
    "`func` must not write into `args`: a solver evaluates it often. Compute a new "
    "tensor, `w * 2` for `w.mul_(2)`. Received: an argument that a call has changed"
)


def vjp(f, *primals):
    # `Step.linearize` gives a function of a layer with the time filled in.
    if isinstance(f, functools.partial) and isinstance(f.func, recording.Recorded):
        found = f.func.vjp(f.args, primals)
        if found is not None:
            return found
    with torch.enable_grad():
        primals = tree.map_structure(lambda x: x.detach().requires_grad_(), primals)
        outputs = f(*primals)

    def pullback(cotangents):
        pairs = zip(tree.flatten(outputs), tree.flatten(cotangents), strict=True)
        # PyTorch has no gradient of an output that depends on nothing.
        moving = [(y, a) for y, a in pairs if y.requires_grad]
        if not moving:
            return tree.map_structure(torch.zeros_like, primals)
        gradients = torch.autograd.grad(
            [y for y, _ in moving],
            tree.flatten(primals),
            [a for _, a in moving],
            allow_unused=True,
            materialize_grads=True,
        )
        return tree.pack_sequence_as(primals, gradients)

    return tree.map_structure(torch.Tensor.detach, outputs), pullback


class _CustomVJP(torch.autograd.Function):
    """Takes and gives flat tensors. `structure` receives the form of the outputs."""

    @staticmethod
    def forward(ctx, forward, backward, message, primals, structure, *flat_primals):
        outputs, residuals = forward(*tree.pack_sequence_as(primals, flat_primals))
        ctx.outputs = tree.map_structure(lambda _: 0, outputs)
        ctx.closure, ctx.message = closures.put(backward), message
        # PyTorch frees saved tensors after use, and its hooks may keep them elsewhere.
        saved: list = list(flat_primals)
        ctx.number = len(saved)
        ctx.residuals = tree.map_structure(functools.partial(put, saved), residuals)
        ctx.save_for_backward(*saved)
        structure.append(ctx.outputs)
        return tuple(tree.flatten(outputs))

    @staticmethod
    def backward(ctx, *flat_cotangents):
        with torch.no_grad():
            cotangents = tree.pack_sequence_as(ctx.outputs, flat_cotangents)
            primals, residuals = saved_by(ctx)
            closure = ctx.closure()
            gradients = tree.flatten(closure.function(residuals, cotangents))
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            # Of use no more. A sum of the result may still hold the graph.
            closure.function = None
        sources = (*flat_cotangents, *primals)
        return *(None,) * 5, *_Once.apply(
            ctx.message, len(gradients), *gradients, *sources
        )


class _Once(torch.autograd.Function):
    """Passes gradients through. Differentiating them again raises an error."""

    @staticmethod
    def forward(ctx, message, number, *tensors):
        ctx.message = message
        return tensors[:number]

    @staticmethod
    def backward(ctx, *_):
        raise ValueError(ctx.message)


def custom_vjp(forward, backward, message, *primals):
    recording.check_not_recording()
    structure: list = []
    shape, flat = tree.map_structure(lambda _: 0, primals), tree.flatten(primals)
    try:
        outputs = _CustomVJP.apply(forward, backward, message, shape, structure, *flat)
    except (RuntimeError, NotImplementedError) as error:
        # In a transform of `torch.func`, or in forward mode.
        if "setup_context" in str(error) or "jvp function" in str(error):
            raise ValueError(message) from error
        raise
    return tree.pack_sequence_as(structure[0], outputs)


def held_by_outputs(f, *primals):
    return closures.held_by_outputs(f, *primals)


def cond(condition, f, g):
    return f() if condition else g()


def while_loop(cond, body, state):
    return _eager.while_loop(cond, body, state)


def fori_loop(count, body, state, limit=None):
    return _eager.fori_loop(count, body, state)


def most_unrolled():
    return math.inf  # loops are Python's own


def add_scaled(x, scale, y):
    if isinstance(x, torch.Tensor):
        return torch.add(x, y, alpha=scale)
    return x + scale * y  # symbolic


def buffer(size, like):
    return _eager.buffer(size, like, torch.zeros_like, torch.stack)


def is_known(x):
    return not torch.compiler.is_compiling()


def values(x):
    return transforms.values(x)


def shared(x):
    return transforms.shared(x)


def is_shape(x):
    return x.is_meta


def report(f, value, state):
    # Within a transform of `torch.func`, nothing is written to tensors from outside.
    if not transforms.within():
        return False
    f(values(value))
    return True


def require(holds, message):
    if not holds:
        raise ValueError(message)


def shielded(f, layer=None):
    def run(t, y, *others):
        versions = tree.map_structure(_version, others)
        outputs = f(*tree.map_structure(torch.clone, (t, y)), *others)
        require(versions == tree.map_structure(_version, others), _WRITTEN)
        # A result may be a buffer, and be written to again, unseen if by NumPy.
        return tree.map_structure(
            lambda x: x.clone() if isinstance(x, torch.Tensor) else x, outputs
        )

    return run if layer is None else recording.recorded(layer, run, vjp)


def _version(x):
    """How often a tensor was written to; -1 if PyTorch does not count this."""
    if not isinstance(x, torch.Tensor):
        return 0
    return -1 if x.is_inference() or torch.compiler.is_compiling() else x._version
