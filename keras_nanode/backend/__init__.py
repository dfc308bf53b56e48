"""The only place that imports a backend: what `keras.ops` lacks, once for each.

Every module here has exactly these functions, checked by one conformance test that
runs on the active backend (`tests/test_backend.py`). States and primals are any
structure of tensors that `keras.tree` understands.

`vjp(f, *primals) -> outputs, pullback`
    `pullback(cotangents)` gives a tuple of gradients, one per primal, with zeros for a
    primal that `outputs` do not depend on. Call it once.
`custom_vjp(forward, backward, message, *primals) -> outputs`
    `forward(*primals) -> outputs, residuals` runs now and is not recorded;
    `backward(residuals, cotangents) -> gradients`, one per primal, runs when somebody
    differentiates. Only what is passed as a primal gets a gradient. A residual may be a
    buffer, in which `backward` may write. To differentiate the gradients is an error
    with the message.
`while_loop(cond, body, state) -> state`
    `body(*state)` returns the next state while `cond(*state)` holds, one iteration at
    a time (TensorFlow's default of ten at once multiplies the memory).
`fori_loop(count, body, state, limit=None) -> state`
    `state = body(i, state)` for i = 0 ... count-1. It can be differentiated with an int
    `count`, or a tensor that is `limit` at most.
`most_unrolled() -> int | float`
    A solve of so many evaluations of f at most takes no loops, at the price of memory:
    0 where loops cost little, infinity where they are Python's own.
`buffer(size, like) -> buffer`, `write(buffer, i, value) -> buffer`,
`read(buffer, i) -> value`, `stack(buffer) -> tensor`
    `size` slots for tensors shaped as `like`, as a loop's state. What was written last
    is read; slots never written stack as zeros.
`eagerly() -> context manager`
    What is computed inside has values that NumPy can read, also while a function is
    being compiled around it.
`is_known(x) -> bool`
    Whether a tensor has a value now, rather than in a compiled function later.
`report(f, value, state) -> bool`, `await_reports()`
    A compiled function may be unable to assign to variables that it was not given.
    There `f(value)` is called with an array whenever it runs, and the result is True.
    A function for a `state` of any batch size is for export, and reports nothing.
    `await_reports()` returns when all such calls are over.
`as_graph(f, *primals) -> outputs`
    `f(*primals)`. In eager mode TensorFlow traces it first: a graph takes the place of
    the Python loops of a library that f calls.
`shielded(f, layer=None) -> f`
    The function `f(t, y, *others)` such that nothing changes if it writes into t or y,
    or later into what it gave. Writing into the others is an error. If all that f does
    is to call a layer, PyTorch finds once which operations that takes, and runs these.
`require(holds, message)`
    An error with the message, also when a compiled function runs, unless the boolean
    tensor holds (but not under XLA on TensorFlow).
"""

import importlib

import keras

_NAMES = ("tensorflow", "jax", "torch", "openvino")


def _load(name: str):
    if name not in _NAMES:
        raise ValueError(
            f"keras_nanode runs on the Keras backends {_NAMES}, of which openvino "
            "only predicts. Set the environment variable KERAS_BACKEND to one of these "
            f"before importing keras. Received: backend={name!r}"
        )
    return importlib.import_module(f"{__name__}.{name}")


_module = _load(keras.backend.backend())

vjp = _module.vjp
custom_vjp = _module.custom_vjp
while_loop = _module.while_loop
fori_loop = _module.fori_loop
most_unrolled = _module.most_unrolled
buffer = _module.buffer
write = _module.write
read = _module.read
stack = _module.stack
eagerly = _module.eagerly
is_known = _module.is_known
report = _module.report
await_reports = _module.await_reports
as_graph = _module.as_graph
shielded = _module.shielded
require = _module.require
