"""Layers and their gradients, recorded as graphs of PyTorch operations.

A solver calls one layer again and again. A small layer spends most of its time in Keras
code around its operations: a dense layer of 64 units takes 290 us as `layer(x)` and
20 us as the four operations that it consists of. Its vjp takes 190 us with autograd,
which records a graph that is differentiated only once, and 80 us as operations.
"""

import functools
import weakref
from collections.abc import Callable

import keras
import torch
from torch.utils._device import DeviceContext

from keras_nanode import tree
from keras_nanode.backend.torch import graphs, transforms
from keras_nanode.backend.torch.fingerprint import fingerprint, is_same
from keras_nanode.tree import Structure

# At most this many graphs per layer: one for each form of its arguments, and one for
# its vjp. If each batch has another form, as with sentences, recording would cost more
# than it saves.
MOST = 32
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_PROBE = keras.layers.Layer()
# For each layer: its fingerprint when recorded, and its graphs in each setting, or None
# if it has changed since the solve before.
_RECORDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def recorded(layer, f, vjp):
    """Turns `f(t, y, *others)`, a pure function that calls the layer, into graphs.

    There is one graph for each form of the arguments. If the layer contains user code,
    which may do anything, or has just been changed, which may happen again with each
    solve, f is returned unchanged.
    """
    now = fingerprint(layer)
    if now is None:
        _RECORDED.pop(layer, None)
        return f
    before, found = _RECORDED.get(layer, (now, {}))
    if not is_same(before, now):
        found = None
    elif found is None:
        found = {}
    _RECORDED[layer] = now, found
    if found is None:
        return f
    return Recorded(f, found.setdefault(_settings(), {}), vjp)


def _settings() -> tuple:
    """What holds for all layers, and acts on what their calls compute."""
    attention = torch.backends.cuda
    return (
        _training(),
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
        keras.config.is_flash_attention_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        attention.flash_sdp_enabled(),
        attention.mem_efficient_sdp_enabled(),
        attention.math_sdp_enabled(),
        attention.cudnn_sdp_enabled(),
        *(getattr(mode, "device", None) for mode in _function_modes()),
    )


def _training() -> bool | None:
    """What a layer that is called now takes for `training`."""
    training = _PROBE._get_call_context().get_value("training")
    _PROBE._maybe_reset_call_context()
    return training


def _function_modes() -> list:
    # The list alone takes 1 us.
    if torch._C._len_torch_function_stack() == 0:
        return []
    return torch.overrides._get_current_function_mode_stack()


def _shows_calls() -> bool:
    """Whether something sees or changes more of a call than PyTorch's operations."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_any_autocast_enabled()
        or transforms.within()
        or not all(isinstance(mode, DeviceContext) for mode in _function_modes())
    )


class Recorded:
    """A function with graphs of itself and of its vjp.

    Args:
        f: The function.
        graphs: A dict of graphs, or of None where there is none. A key is the number of
            leaves that are not differentiated, and the forms of all leaves of the
            arguments. The number is None for the function itself.
        vjp: `backend.vjp`.
    """

    def __init__(self, f: Callable, graphs: dict, vjp: Callable):
        self._f, self._graphs, self._vjp = f, graphs, vjp

    def __call__(self, *inputs):
        graph, leaves = self._find(None, inputs)
        if graph is None:
            return self._f(*inputs)
        return tree.pack_sequence_as(inputs[1], graph(*leaves))

    def vjp(self, given: tuple, primals: tuple) -> tuple[Structure, Callable] | None:
        """The `backend.vjp` of `f(*given, *primals)` in the primals. None if there is
        no graph."""
        inputs, number = (*given, *primals), len(tree.flatten(given))
        graph, leaves = self._find(number, inputs)
        if graph is None:
            return None
        outputs, pullback = graph(*leaves)

        def packed(cotangents):
            gradients = pullback(*tree.flatten(cotangents))
            return tree.pack_sequence_as(primals, gradients)

        return tree.pack_sequence_as(inputs[1], outputs), packed

    def _find(self, number, inputs):
        """A graph or None, and the leaves that it takes."""
        leaves = tree.flatten(inputs)
        if _shows_calls():
            return None, leaves
        kinds = (number, *map(type, inputs))
        graph = self._graphs.get((*kinds, *map(_form, leaves)), self)
        if graph is not self:
            return graph, leaves
        if not all(map(_is_plain, leaves)):
            return None, leaves
        leaves = [x if _is_dense(x) else x.contiguous() for x in leaves]
        key = (*kinds, *map(_form, leaves))
        graph = self._graphs.get(key, self)
        if graph is self:
            # What watches operations is not to see those of the recording.
            watched = torch._C._len_torch_dispatch_stack() > 0
            if watched or len(self._graphs) >= MOST:
                return None, leaves
            graph = _record(self._f, inputs, leaves, number, self._vjp)
            self._graphs[key] = graph
        return graph, leaves


def check_not_recording():
    """Raises an error while recording: a graph cannot hold a custom gradient."""
    if graphs.is_recording():
        raise NotImplementedError("a gradient of its own")


def _form(x):
    # Include strides, since a view of a tensor with other strides may be impossible.
    strides = x.stride() if x.layout is torch.strided else None
    return type(x), x.shape, strides, x.dtype, x.device


def _is_plain(x: torch.Tensor) -> bool:
    """Whether x is but numbers in memory."""
    return type(x) in _PLAIN and x.layout is torch.strided and not x.is_meta


def _is_dense(x: torch.Tensor) -> bool:
    """Whether the entries of x fill a piece of memory, each once, in any order of
    axes."""
    if x.is_contiguous():
        return True
    size = 1
    for stride, length in sorted(zip(x.stride(), x.shape, strict=True)):
        if length != 1 and stride != size:
            return False
        size *= length
    return True


def _record(f, inputs, leaves, number, vjp):
    """A graph from the leaves of the inputs to those of `f(*inputs)`. With a number, it
    also gives a pullback to all leaves after the first `number`.

    None if f is more than operations on its inputs: if it reads other tensors or the
    values of tensors, or has a custom gradient.
    """

    def flat(*leaves):
        return tuple(tree.flatten(f(*tree.pack_sequence_as(inputs, leaves))))

    def linearize(f, *leaves):
        given, primals = leaves[: number or 0], leaves[number or 0 :]
        return vjp(lambda *primals: f(*given, *primals), *primals)

    def differentiated(f, *leaves):
        outputs, pullback = linearize(f, *leaves[:size])
        return *outputs, *pullback(leaves[size:])

    try:
        with torch.inference_mode(False):
            inner = [_example(x) for x in leaves]
            size = len(inner)
            outer = [_example(y) for y in linearize(flat, *inner)[0]]
            expected = differentiated(flat, *inner, *outer)
            if number is None:
                graph = graphs.operations(flat, inner).forward
                found = differentiated(graph, *inner, *outer)
            else:
                whole = functools.partial(differentiated, flat)
                graph = graphs.Halves(
                    graphs.operations(whole, [*inner, *outer]), size, outer
                )
                outputs, pullback = graph(*inner)
                found = *outputs, *pullback(*outer)
            return graph if all(map(_are_near, expected, found)) else None
    except Exception:  # functions that cannot be recorded raise many kinds of errors
        return None


def _example(x):
    """Arbitrary numbers in the form of x."""
    numbers = torch.arange(1, x.numel() + 1, device=x.device).sin()
    return torch.empty_like(x).copy_(numbers.reshape(x.shape))


def _are_near(x: torch.Tensor, y: torch.Tensor) -> bool:
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    return torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
