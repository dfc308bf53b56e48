"""Layers as graphs of PyTorch's operations.

A solver calls one layer again and again. Most of the time of a small one goes into
Keras' way to its operations: a dense layer of 64 units takes 290 us by `layer(x)` and
20 us as the four operations that it consists of.
"""

import dis
import types
import weakref

import keras
import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from keras_nanode import tree

# Forms of arguments that are recorded for a layer. Where each batch has another, as
# sentences have, recording would cost more than it saves.
MOST = 32
# Instructions that name what is neither an argument nor an attribute.
_NAMING = ("LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_DEREF", "IMPORT_NAME")
# For each layer what its calls depended on, and its graphs.
_RECORDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def recorded(layer, f, vjp):
    """`f(t, y, *others)`, a pure function that calls the layer, as a graph.

    There is one for each form of the arguments. Where the layer has code of the user,
    which may do anything, f is called as it is.
    """
    parts = _constants(layer)
    if parts is None:
        return f
    before, graphs = _RECORDED.get(layer, (None, {}))
    if before != parts:
        graphs = {}
        _RECORDED[layer] = parts, graphs

    def run(*inputs):
        if torch.compiler.is_compiling() or torch.is_autocast_enabled():
            return f(*inputs)
        leaves = tree.flatten(inputs)
        key = tuple(map(_form, leaves))
        if key not in graphs and len(graphs) < MOST:
            graphs[key] = _graph(f, inputs, vjp)
        graph = graphs.get(key)
        if graph is None:
            return f(*inputs)
        return tree.pack_sequence_as(inputs[1], graph(*leaves))

    return run


def check_not_recording():
    """A graph has no gradients of its own, only those of its operations."""
    if get_proxy_mode() is not None:
        raise NotImplementedError("a gradient of its own")


def _form(x):
    # With strides, since a view of other memory may be none.
    return x.shape, x.stride(), x.dtype, x.device


def _constants(layer) -> list | None:
    """What the calls of a layer depend on beside tensors.

    None if that is not known, because it has code that is not Keras' or ours.
    """
    found: list = [keras.config.floatx()]
    for part in layer._flatten_layers():
        if not _is_known(type(part)):
            return None
        for name, value in vars(part).items():
            if callable(value) and not (_is_known(value) or _is_formula(value)):
                return None
            plain = isinstance(value, (bool, int, float, str, type(None)))
            found.append((name, value if plain else id(value)))
    return found


def _is_known(code) -> bool:
    module = getattr(code, "__module__", None) or type(code).__module__
    return module.partition(".")[0] in ("keras", "keras_nanode")


def _is_formula(function) -> bool:
    """Whether a function of the user, as `lambda x: ops.sin(x) ** 3`, reads nothing but
    its argument, and names nothing but operations of Keras."""
    if not isinstance(function, types.FunctionType):
        return False
    if function.__defaults__ or function.__kwdefaults__:
        return False
    code = function.__code__
    names = [
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in _NAMING
    ]
    inner = any(isinstance(constant, types.CodeType) for constant in code.co_consts)
    return not inner and all(function.__globals__.get(x) is keras.ops for x in names)


def _graph(f, inputs, vjp):
    """What gives the leaves of `f(*inputs)` from those of the inputs.

    None if f is more than operations on its inputs: if it reads other tensors, or the
    values of tensors, or has a gradient of its own.
    """

    def flat(*leaves):
        return tuple(tree.flatten(f(*tree.pack_sequence_as(inputs, leaves))))

    try:
        with torch.inference_mode(False):
            examples = [_example(x) for x in tree.flatten(inputs)]
            with torch.no_grad():
                graph = make_fx(flat, tracing_mode="fake")(*examples)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            pairs = zip(
                *(_with_gradients(g, examples, vjp) for g in (flat, graph)), strict=True
            )
            return graph.forward if all(_are_near(x, y) for x, y in pairs) else None
    except Exception:  # of many kinds, for all that cannot be recorded
        return None


def _example(x):
    """Numbers of no meaning in the form of x."""
    numbers = torch.arange(1, x.numel() + 1, device=x.device).sin()
    return torch.empty_like(x).copy_(numbers.reshape(x.shape))


def _with_gradients(f, examples, vjp) -> list:
    outputs, pullback = vjp(f, *examples)
    return [*outputs, *pullback(tuple(map(_example, outputs)))]


def _are_near(x, y) -> bool:
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    return torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
