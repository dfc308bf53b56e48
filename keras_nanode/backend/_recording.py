"""Layers and their gradients, recorded as graphs of PyTorch operations.

A solver calls one layer again and again. A small layer spends most of its time in Keras
code around its operations: a dense layer of 64 units takes 290 us as `layer(x)` and
20 us as the four operations that it consists of. Its vjp takes 190 us with autograd,
which records a graph that is differentiated only once, and 80 us as operations.
"""

import dis
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from keras_nanode import tree
from keras_nanode.tree import Structure

# The most graphs that are recorded for a layer: for each form of its arguments one, and
# one of its vjp. If each batch has another form, as with sentences, recording would
# cost more than it saves.
MOST = 32
# Instructions whose names are neither arguments nor attributes.
_NAMING = ("LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_DEREF", "IMPORT_NAME")
# For each layer: what its calls depended on when recorded, and its graphs.
_RECORDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def recorded(layer, f, vjp):
    """Turns `f(t, y, *others)`, a pure function that calls the layer, into graphs.

    There is one graph for each form of the arguments. If the layer contains user code,
    which may do anything, f is returned unchanged.
    """
    parts = _constants(layer)
    if parts is None:
        return f
    before, graphs = _RECORDED.get(layer, (None, {}))
    if before != parts:
        graphs = {}
        _RECORDED[layer] = parts, graphs
    return Recorded(f, graphs, vjp)


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
        leaves = tree.flatten(inputs)
        graph = self._find(None, inputs, leaves)
        if graph is None:
            return self._f(*inputs)
        return tree.pack_sequence_as(inputs[1], graph(*leaves))

    def vjp(self, given: tuple, primals: tuple) -> tuple[Structure, Callable] | None:
        """The `backend.vjp` of `f(*given, *primals)` in the primals. None if there is
        no graph."""
        inputs, number = (*given, *primals), len(tree.flatten(given))
        leaves = tree.flatten(inputs)
        graph = self._find(number, inputs, leaves)
        if graph is None:
            return None
        outputs, pullback = graph(*leaves)

        def packed(cotangents):
            gradients = pullback(*tree.flatten(cotangents))
            return tree.pack_sequence_as(primals, gradients)

        return tree.pack_sequence_as(inputs[1], outputs), packed

    def _find(self, number, inputs, leaves):
        if torch.compiler.is_compiling() or torch.is_autocast_enabled():
            return None
        key = (number, *map(_form, leaves))
        if key not in self._graphs and len(self._graphs) < MOST:
            self._graphs[key] = _record(self._f, inputs, number, self._vjp)
        return self._graphs.get(key)


def check_not_recording():
    """Raises an error while recording: a graph cannot hold a custom gradient."""
    if get_proxy_mode() is not None:
        raise NotImplementedError("a gradient of its own")


def _form(x):
    # Include strides, since a view of a tensor with other strides may be impossible.
    return x.shape, x.stride(), x.dtype, x.device


def _constants(layer: keras.Layer) -> list | None:
    """What the calls of a layer depend on besides tensors.

    None if this is unknown: the layer has code from outside Keras and this library.
    """
    found: list = [keras.config.floatx()]
    for part in layer._flatten_layers():
        if not _is_known(type(part)):
            return None
        for name, value in vars(part).items():
            if callable(value) and not (_is_known(value) or _is_formula(value)):
                return None
            found.append((name, _known(value)))
    return found


def _known(value):
    """A value that is equal to another only if calls with both are the same."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):  # which may be changed in place
        return [_known(x) for x in value]
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return id(value)


def _is_known(code: Any) -> bool:
    module = getattr(code, "__module__", None) or type(code).__module__
    return module.partition(".")[0] in ("keras", "keras_nanode")


def _is_formula(function: Callable) -> bool:
    """Whether a user's function, such as `lambda x: ops.sin(x) ** 3`, reads only its
    argument and names only operations of Keras."""
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


def _record(f, inputs, number, vjp):
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
            inner = [_example(x) for x in tree.flatten(inputs)]
            size = len(inner)
            outer = [_example(y) for y in linearize(flat, *inner)[0]]
            expected = differentiated(flat, *inner, *outer)
            if number is None:
                graph = _operations(flat, inner).forward
                found = differentiated(graph, *inner, *outer)
            else:
                whole = functools.partial(differentiated, flat)
                graph = Halves(_operations(whole, [*inner, *outer]), size, outer)
                outputs, pullback = graph(*inner)
                found = *outputs, *pullback(*outer)
            return graph if all(map(_are_near, expected, found)) else None
    except Exception:  # functions that cannot be recorded raise many kinds of errors
        return None


def _operations(f: Callable, examples: list[torch.Tensor]) -> fx.GraphModule:
    with torch.no_grad():
        module = make_fx(f, tracing_mode="fake")(*examples)
    graph = module.graph
    copies = [torch.ops.aten.detach.default]
    if not any(_writes(node) for node in graph.nodes):
        copies.append(torch.ops.aten.clone.default)
    for node in graph.nodes:
        if node.target not in copies:
            continue
        source = node.args[0]
        # A copy of a copy: Keras lays out the inputs of a convolution twice.
        while source.target in copies:
            source = source.args[0]
        node.args = (source,)
        if not node.kwargs or _strides(node) == _strides(source):
            node.replace_all_uses_with(source)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _strides(node: fx.Node) -> tuple[int, ...]:
    """Those of the node's value when it was recorded."""
    strides: tuple[int, ...] = node.meta["val"].stride()
    return strides


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and (
        node.target._schema.is_mutable
    )


class Halves:
    """A graph from inputs and cotangents to outputs and gradients, split into the part
    that needs no cotangent and the rest.

    Args:
        module: The graph.
        inputs: How many there are.
        cotangents: Those that it was recorded with.
    """

    def __init__(self, module: fx.GraphModule, inputs: int, cotangents: list):
        *nodes, last = module.graph.nodes
        places = [node for node in nodes if node.op == "placeholder"]
        given, behind = places[:inputs], places[inputs:]
        results, outputs = last.args[0], len(behind)
        later = set(behind)
        for node in nodes:
            if not later.isdisjoint(node.all_input_nodes):
                later.add(node)
        needed = {x for node in later for x in node.all_input_nodes}
        needed |= set(results[outputs:])
        kept = [x for x in nodes if x in needed and x not in later and x not in given]
        self._strides = [x.stride() for x in cotangents]
        self._forward = _part(module, given, [*results[:outputs], *kept])
        self._backward = _part(module, [*given, *kept, *behind], results[outputs:])

    def __call__(self, *leaves):
        with torch.no_grad():
            results = self._forward(*leaves)
        number = len(self._strides)
        outputs, kept = results[:number], results[number:]

        def pullback(*cotangents):
            with torch.no_grad():
                arranged = map(_laid_out, cotangents, self._strides)
                return self._backward(*leaves, *kept, *arranged)

        return outputs, pullback


def _part(
    module: fx.GraphModule, inputs: list[fx.Node], outputs: list[fx.Node]
) -> Callable:
    """The part of a graph from some of its nodes to others, as a function."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in module.graph.nodes:
        if node not in copies and all(x in copies for x in node.all_input_nodes):
            if node.op != "placeholder" and node.op != "output":
                copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph).forward


def _laid_out(x, strides):
    """x in another layout: a graph has views, which not every layout has."""
    if x.stride() == strides:
        return x
    same = {"dtype": x.dtype, "device": x.device}
    return torch.empty_strided(x.shape, strides, **same).copy_(x)


def _example(x):
    """Arbitrary numbers in the form of x."""
    numbers = torch.arange(1, x.numel() + 1, device=x.device).sin()
    return torch.empty_like(x).copy_(numbers.reshape(x.shape))


def _are_near(x: torch.Tensor, y: torch.Tensor) -> bool:
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    return torch.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
