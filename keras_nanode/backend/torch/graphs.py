"""Functions of tensors, recorded as graphs of PyTorch operations.

`make_fx` of PyTorch replaces methods of all modules while it records, which other
threads would see. What is done here stays within the thread.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _python_dispatch

_COPY, _DETACH = torch.ops.aten.clone.default, torch.ops.aten.detach.default
_CONSTANT = torch.ops.aten.lift_fresh.default


class _Pen(_python_dispatch.TorchDispatchMode):
    """Writes each operation into a graph, as a node.

    Args:
        inputs: The tensors from which all others are computed.
    """

    def __init__(self, inputs: Sequence[torch.Tensor]):
        super().__init__()
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        # The tensors are kept, so that none is taken for another in the same place.
        self._nodes: dict[int, tuple[torch.Tensor, fx.Node]] = {}
        for i, x in enumerate(inputs):
            self._name(self.graph.placeholder(f"x{i}"), x)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        outputs = function(*args, **kwargs)
        if function is _CONSTANT:
            node = self._constant(*args)
        else:
            given = fx.node.map_aggregate((args, kwargs), self.node_of)
            node = self.graph.call_function(function, *given)
        self._name(node, outputs)
        return outputs

    def _constant(self, x):
        """A tensor that was made of numbers, copied since it may be written to."""
        name = f"constant{len(self.graph.nodes)}"
        setattr(self.root, name, x)
        copy = torch.ops.aten.lift_fresh_copy.default
        return self.graph.call_function(copy, (self.graph.get_attr(name),))

    def _name(self, node, value):
        if isinstance(value, torch.Tensor):
            node.meta["val"] = value
            self._nodes[id(value)] = value, node
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                self._name(self.graph.call_function(operator.getitem, (node, i)), part)

    def node_of(self, x: Any) -> Any:
        """The node of a tensor. Everything else is written as it is."""
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) not in self._nodes:
            raise ValueError("a tensor that is not computed from the inputs")
        return self._nodes[id(x)][1]


def is_recording() -> bool:
    return any(
        isinstance(mode, _Pen)
        for mode in _python_dispatch._get_current_dispatch_mode_stack()
    )


def operations(f: Callable, examples: list[torch.Tensor]) -> fx.GraphModule:
    """The operations by which `f(*examples)` computes a tuple of tensors.

    An error is raised if it reads other tensors, or the values of tensors.
    """
    with torch.no_grad(), FakeTensorMode() as fake:
        inputs = [fake.from_tensor(x) for x in examples]
        with _Pen(inputs) as pen:
            outputs = f(*inputs)
    graph = pen.graph
    graph.output(tuple(map(pen.node_of, outputs)))
    _drop_copies(graph)
    graph.eliminate_dead_code()
    return fx.GraphModule(pen.root, graph)


def _drop_copies(graph: fx.Graph) -> None:
    """Lets copies out that nothing needs: of tensors that nothing is written into, in
    the layout that they have anyway."""
    copies = [_DETACH]
    if not any(_writes(node) for node in graph.nodes):
        copies.append(_COPY)
    for node in graph.nodes:
        if node.target not in copies:
            continue
        # A copy of a copy: Keras lays out the inputs of a convolution twice.
        while node.kwargs and node.args[0].target in copies:
            node.args = node.args[0].args
        if _strides(node) == _strides(node.args[0]):
            node.replace_all_uses_with(node.args[0])


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
