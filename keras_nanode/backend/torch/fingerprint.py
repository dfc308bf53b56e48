"""What the calls of a layer depend on besides tensors.

A layer can be changed in many ways: a hook is registered, an activation or a part is
replaced, a list is written to. So everything that a call may read is looked at anew for
each solve, down to numbers, strings, and the identities of functions and variables.
"""

import collections
import operator
import types
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch.nn.modules import module as modules

from keras_nanode.backend.torch import code

# Attributes that no call reads, though calls and `fit` write to some of them.
_UNREAD = frozenset(
    "build quantize _call_signature _called _parent_path _build_shapes_dict "
    "_tracker _auto_config _inbound_nodes _outbound_nodes "
    "_losses _loss_ids _losses_override _metrics "
    "_state_dict_hooks _state_dict_pre_hooks "
    "_load_state_dict_pre_hooks _load_state_dict_post_hooks "
    "optimizer loss _loss_tracker _compile_loss _compile_metrics _compile_config "
    "_initial_epoch train_function test_function predict_function".split()
)
# Of objects of these types, calls read nothing that can be changed.
_OPAQUE = (
    keras.KerasTensor,
    keras.Initializer,
    keras.Regularizer,
    keras.constraints.Constraint,
    torch.nn.ParameterDict,  # names the values of variables for PyTorch's optimizers
)
_PRIMITIVES = (type(None), bool, int, float, complex, str, bytes)
_ATOMS = (*_PRIMITIVES, slice, torch.dtype, torch.device, torch.Size)
_GLOBAL_HOOKS = [
    hooks
    for name, hooks in vars(modules).items()
    if name.startswith(("_global_forward", "_global_backward"))
]


class _Unknown(Exception):
    """A layer has code or data from outside Keras and this library."""


def fingerprint(layer: keras.Layer) -> list | None:
    """A list of all that the calls of a layer depend on.

    None if this is unknown: the layer has a hook, or code from outside Keras and this
    library. Of objects the list has weak references. So it keeps none of them alive,
    and none is taken for another one that is made later in the same place.
    """
    if any(_GLOBAL_HOOKS):
        return None
    look = _Look()
    try:
        look.at(layer)
    except _Unknown:
        return None
    return look.found


def is_same(before: list, now: list) -> bool:
    """Whether two fingerprints are equal."""
    if len(before) != len(now):
        return False
    # Nearly always all entries are identical, which needs no loop in Python.
    return all(map(operator.is_, before, now)) or all(map(_is_equal, before, now))


def _is_equal(x, y):
    return x is y or (type(x) is type(y) and type(x) in _PRIMITIVES and x == y)


class _Look:
    """Looks at an object and everything in it, and lists what it finds."""

    def __init__(self):
        self.found: list = []
        self._seen: set = set()

    def at(self, value: Any) -> None:
        kind = type(value)
        way = _WAYS.get(kind)
        if way is None:
            way = _WAYS[kind] = _way(kind)
        way(self, value)

    def atom(self, value):
        self.found.append(value)

    def items(self, value):
        self.found += type(value), len(value)
        for item in value:
            self.at(item)

    def mapping(self, value):
        self.items(value)
        for item in value.values():
            self.at(item)

    def array(self, value):
        if value.dtype.hasobject:
            raise _Unknown
        self.found += *value.shape, value.dtype.str, value.tobytes()

    def function(self, value):
        if not code.is_of_library(value) or value.__closure__:
            raise _Unknown
        self.found.append(weakref.ref(value))

    def opaque(self, value):
        self.found.append(weakref.ref(value))

    def variable(self, value):
        self.found += weakref.ref(value), value.trainable, value._autocast

    def object(self, value):
        self.found.append(weakref.ref(value))
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._class(type(value))
        for name, item in vars(value).items():
            if name in _UNREAD:
                continue
            self.found.append(name)
            # A function may be the user's own, but no hook, if it is a formula.
            formula = type(item) is types.FunctionType and code.formula(item)
            if formula:
                self.found += formula
            else:
                self.at(item)

    def _class(self, kind):
        if kind in self._seen:
            return
        for part in kind.__mro__:
            if part not in self._seen:
                self._seen.add(part)
                content = code.content(part)
                if content is None:
                    raise _Unknown
                self.found.append(content)


_Way = Callable[[_Look, Any], None]
_WAYS: dict[type, _Way] = {
    **dict.fromkeys(_ATOMS, _Look.atom),
    **dict.fromkeys((list, tuple, set, frozenset), _Look.items),
    **dict.fromkeys(
        (dict, collections.OrderedDict, collections.defaultdict), _Look.mapping
    ),
    np.ndarray: _Look.array,
    types.FunctionType: _Look.function,
}


def _way(kind: type) -> _Way:
    """How to look at an object of a type."""
    root = kind.__module__.partition(".")[0]
    if issubclass(kind, _OPAQUE):
        return _Look.opaque
    if issubclass(kind, keras.Variable):
        return _Look.variable
    if root == "numpy" and issubclass(kind, np.generic):
        return _Look.atom
    if root not in code.LIBRARY:
        raise _Unknown
    for base, way in ((dict, _Look.mapping), ((list, tuple, set), _Look.items)):
        if issubclass(kind, base):
            return way
    # What this library has beside layers is never changed.
    changes = root == "keras" or issubclass(kind, keras.Layer)
    return _Look.object if changes else _Look.opaque
