"""The only place that imports a backend. It provides what `keras.ops` lacks.

There is one module per backend, with those of these functions that are not as in
`_defaults.py`. A conformance test checks them on the active backend
(`tests/backend/test_backend.py`). States and primals are any structure of tensors that
`keras.tree` understands.

`vjp(f, *primals) -> outputs, pullback`
    `pullback(cotangents)` gives a tuple of gradients, one per primal. They are zero for
    a primal that `outputs` do not depend on. Call it once.
`custom_vjp(forward, backward, message, *primals) -> outputs`
    `forward(*primals) -> outputs, residuals` runs now and is not recorded.
    `backward(residuals, cotangents) -> gradients`, one per primal, runs when a gradient
    is requested. Only primals get a gradient. A residual may be a buffer, and
    `backward` may write to it. Differentiating the gradients raises an error with the
    message. So does forward mode, where the backend lets it.
`per_device(f, *primals) -> outputs`
    `f(*primals)`. In `jax.shard_map`, the gradients in primals that are equal on all
    devices are summed over these in the end, and not in each round of a loop in f.
`held_by_outputs(f, *primals) -> outputs`
    `f(*primals)`. On PyTorch, the outputs hold the functions of the gradients in f, and
    all are freed together, even if these functions lead back to the outputs.
`cond(condition, f, g) -> results`
    `f()` if the scalar condition holds, else `g()`.
`while_loop(cond, body, state) -> state`
    `body(*state)` returns the next state while `cond(*state)` holds, one iteration at
    a time (TensorFlow's default of ten at once multiplies the memory).
`fori_loop(count, body, state, limit=None) -> state`
    `state = body(i, state)` for i = 0 ... count-1. It can be differentiated if `count`
    is an int, or a tensor of at most `limit`.
`most_unrolled() -> int | float`
    A solve with at most this many function evaluations is unrolled, which costs memory.
    It is 0 if loops cost little, and infinity if loops are Python's own.
`add_scaled(x, scale, y) -> sum`
    x + scale y, for a Python number, in one operation where the backend has one.
`cos(x)`, `sin(x)`
    In the dtype of x, which Keras on JAX would turn from float64 into float32.
`take(x, i) -> rows`
    The rows x[i], for integers i that are inside of x. Those of `keras.ops.take` may
    be negative, and counting these from the end takes several operations.
`buffer(size, like) -> buffer`, `write(buffer, i, value) -> buffer`,
`read(buffer, i) -> value`, `stack(buffer) -> tensor`
    `size` slots for tensors with the shape of `like`, for the state of a loop. `read`
    gives the value written last. Slots never written stack as zeros. Where loops are
    Python's own, `like` may be a number. Then there is one slot, more are added when
    they are written in order, and they stack as an array.
`eagerly() -> context manager`
    Tensors computed inside have values that NumPy can read, even while an outer
    function is being compiled.
`is_known(x) -> bool`
    Whether a tensor has a value now, not only later in a compiled function.
`values(x) -> array`
    The values of a tensor that `is_known`. An error if PyTorch's `vmap` maps over them.
`shared(x) -> x`
    A scalar that decides how a loop goes on, for which its gradient is not needed.
    PyTorch's `vmap` runs one loop for all rows: there it is the largest of theirs.
`is_shape(x) -> bool`
    Whether a tensor has no values, as PyTorch's meta tensors, with which Keras infers
    shapes.
`report(f, value, state) -> bool`, `await_reports()`
    A compiled or transformed function may be unable to assign to variables that it was
    not given. There `f(value)` is called with an array whenever it runs, and the result
    is True. A function for a `state` of any batch size is for export, and reports
    nothing. `await_reports()` returns when all such calls are over.
`as_graph(f, *primals) -> outputs`
    `f(*primals)`. In eager mode, TensorFlow traces it first, so that Python loops of a
    library that f calls become loops of a graph.
`shielded(f, layer=None) -> f`
    The function `f(t, y, *others)`, given copies of t and y, and returning copies:
    in-place writes by f, or later by its caller, do no harm. Writing to the others is
    an error. If f only calls a layer, PyTorch records the operations of that layer
    once, and then runs those.
`converted(func)`
    A user's function, in which TensorFlow's AutoGraph rewrites Python's `if` and loops
    where it does so in the function around, as `tf.map_fn` has it.
`require(holds, message)`
    Raises an error with the message unless the boolean tensor holds, even when a
    compiled function runs. It does nothing under XLA on TensorFlow, and on OpenVINO.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import keras

from keras_nanode.backend import _defaults

_NAMES = ("tensorflow", "jax", "torch", "openvino")


def _load(name: str) -> ModuleType:
    if name not in _NAMES:
        raise ValueError(
            f"keras_nanode runs on the Keras backends {_NAMES}, of which openvino "
            "only predicts. Set the environment variable KERAS_BACKEND to one of these "
            f"before importing keras. Received: backend={name!r}"
        )
    return importlib.import_module(f"{__name__}.{name}")


_module = _load(keras.backend.backend())


def _found(name: str) -> Callable:
    return getattr(_module if hasattr(_module, name) else _defaults, name)


vjp = _found("vjp")
custom_vjp = _found("custom_vjp")
per_device = _found("per_device")
held_by_outputs = _found("held_by_outputs")
cond = _found("cond")
while_loop = _found("while_loop")
fori_loop = _found("fori_loop")
most_unrolled = _found("most_unrolled")
add_scaled = _found("add_scaled")
cos = _found("cos")
sin = _found("sin")
take = _found("take")
buffer = _found("buffer")
write = _found("write")
read = _found("read")
stack = _found("stack")
eagerly = _found("eagerly")
is_known = _found("is_known")
values = _found("values")
shared = _found("shared")
is_shape = _found("is_shape")
report = _found("report")
await_reports = _found("await_reports")
as_graph = _found("as_graph")
shielded = _found("shielded")
converted = _found("converted")
require = _found("require")
