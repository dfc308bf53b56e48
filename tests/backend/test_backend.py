"""One conformance test of the seam, run on whichever backend is active."""

import ast
import inspect
import math
import pathlib

import keras
import numpy as np
import pytest
from cases import compiled, numbers
from keras import ops

from keras_nanode import backend

FOLDER = pathlib.Path(backend.__file__).parent
NAMES = {
    "vjp",
    "custom_vjp",
    "per_device",
    "cond",
    "held_by_outputs",
    "while_loop",
    "fori_loop",
    "most_unrolled",
    "add_scaled",
    "cos",
    "sin",
    "take",
    "buffer",
    "write",
    "read",
    "stack",
    "eagerly",
    "is_known",
    "values",
    "shared",
    "is_shape",
    "report",
    "await_reports",
    "as_graph",
    "shielded",
    "converted",
    "require",
}


def functions(path):
    tree = ast.parse(path.read_text())
    found = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return {name for name in found if not name.startswith("_")}


MODULES = [*FOLDER.glob("[a-z]*.py"), *FOLDER.glob("[a-z]*/__init__.py")]


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda p: p.parts[-2:])
def test_every_backend_has_the_same_functions(path):
    assert functions(path) | functions(FOLDER / "_defaults.py") == NAMES
    assert len(path.read_text().splitlines()) <= 200


@pytest.mark.parametrize("name", sorted(NAMES))
def test_arguments_are_those_of_the_contract(name):
    contract = {
        "vjp": ["f", "primals"],
        "custom_vjp": ["forward", "backward", "message", "primals"],
        "per_device": ["f", "primals"],
        "cond": ["condition", "f", "g"],
        "held_by_outputs": ["f", "primals"],
        "while_loop": ["cond", "body", "state"],
        "fori_loop": ["count", "body", "state", "limit"],
        "most_unrolled": [],
        "add_scaled": ["x", "scale", "y"],
        "cos": ["x"],
        "sin": ["x"],
        "take": ["x", "i"],
        "buffer": ["size", "like"],
        "write": ["buffer", "i", "value"],
        "read": ["buffer", "i"],
        "stack": ["buffer"],
        "eagerly": [],
        "is_known": ["x"],
        "values": ["x"],
        "shared": ["x"],
        "is_shape": ["x"],
        "report": ["f", "value", "state"],
        "await_reports": [],
        "as_graph": ["f", "primals"],
        "shielded": ["f", "layer"],
        "converted": ["func"],
        "require": ["holds", "message"],
    }
    assert list(inspect.signature(getattr(backend, name)).parameters) == contract[name]


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="KERAS_BACKEND.*Received: backend='numpy'"):
        backend._load("numpy")


def test_vjp_of_structures_with_zeros_for_what_is_not_used():
    x = {"a": ops.convert_to_tensor([2.0, 3.0]), "b": ops.convert_to_tensor([5.0])}
    outputs, pullback = backend.vjp(
        lambda x, unused: [x["a"] ** 2 * x["b"]], x, ops.ones((3,))
    )
    assert numbers(outputs)[0].tolist() == [20.0, 45.0]
    in_x, in_unused = numbers(pullback([ops.convert_to_tensor([1.0, 1.0])]))
    assert in_x["a"].tolist() == [20.0, 30.0]
    assert in_x["b"].tolist() == [13.0]
    assert in_unused.tolist() == [0.0, 0.0, 0.0]


OUTPUTS = {
    "one constant": lambda x, y: {"a": x["u"] * y, "b": ops.ones((2,))},
    "constants": lambda x, y: [ops.ones((2,)), ops.zeros((2,))],
    "detached": lambda x, y: (ops.stop_gradient(x["u"]), 2 * x["v"]),
    "primals": lambda x, y: {"a": x["u"], "b": y, "c": x["u"]},
    "a primal and a constant": lambda x, y: (y, ops.ones((2,))),
    "like, but not of it": lambda x, y: [ops.ones_like(y), ops.zeros_like(x["v"])],
}
# The derivatives of the sum in u, v and y, where u = 2, v = 3, y = 5.
SLOPES = {
    "one constant": (5, 0, 2),
    "constants": (0, 0, 0),
    "detached": (0, 2, 0),
    "primals": (2, 0, 1),
    "a primal and a constant": (0, 0, 1),
    "like, but not of it": (0, 0, 0),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_vjp_is_zero_for_outputs_that_do_not_depend_on_the_primals(name):
    u, v, y = (n * ops.ones((2,)) for n in (2, 3, 5))

    def gradient(x, y):
        outputs, pullback = backend.vjp(OUTPUTS[name], x, y)
        return pullback(keras.tree.map_structure(ops.ones_like, outputs))

    for f in (gradient, compiled(gradient)):
        in_x, in_y = numbers(f({"u": u, "v": v}, y))
        found = [x.tolist() for x in (in_x["u"], in_x["v"], in_y)]
        assert found == [[slope] * 2 for slope in SLOPES[name]]


def test_vjp_of_a_gather_is_dense():
    x = ops.convert_to_tensor([[1.0], [2.0], [3.0]])
    y, pullback = backend.vjp(lambda x: ops.take(x, 1, axis=0), x)
    (gradient,) = pullback(ops.ones_like(y))
    assert type(gradient) is type(x)
    assert numbers(gradient).tolist() == [[0.0], [1.0], [0.0]]


def test_a_scaled_sum_of_tensors_and_of_symbols():
    x, y = ops.convert_to_tensor([1.0, 2.0]), ops.convert_to_tensor([4.0, 8.0])
    assert numbers(backend.add_scaled(x, 0.25, y)).tolist() == [2.0, 4.0]
    x, y = (keras.KerasTensor((2,)) for _ in range(2))
    assert backend.add_scaled(x, 0.25, y).shape == (2,)


@pytest.mark.parametrize("i", [2, [2, 0], [[1], [2]]])
def test_rows_and_their_gradient(i):
    x = ops.reshape(ops.arange(6.0), (3, 2))
    taken, pullback = backend.vjp(
        lambda x: backend.take(x, ops.convert_to_tensor(i, "int32")), x
    )
    assert numbers(taken).tolist() == numbers(x)[np.array(i)].tolist()
    (gradient,) = pullback(ops.ones_like(taken))
    expected = np.zeros((3, 2))
    expected[np.array(i).ravel()] = 1
    assert numbers(gradient).tolist() == expected.tolist()


def _tripled(x, y):
    """x * y with a gradient that is three times the true one."""

    def forward(x, y):
        return {"product": x * y}, (x, y)

    def backward(residuals, cotangents):
        x, y = residuals
        return 3 * cotangents["product"] * y, 3 * cotangents["product"] * x

    return backend.custom_vjp(forward, backward, "once", x, y)["product"]


def test_custom_vjp_replaces_the_gradient():
    x, y = 2 * ops.ones(()), 5 * ops.ones(())
    product, pullback = backend.vjp(_tripled, x, y)
    assert float(numbers(product)) == 10.0
    assert [float(g) for g in numbers(pullback(ops.ones(())))] == [15.0, 6.0]


def test_custom_vjp_inside_a_differentiated_function():
    x = 2 * ops.ones(())
    _, pullback = backend.vjp(lambda x: ops.sin(_tripled(x, x + 1)), x)
    (gradient,) = numbers(pullback(ops.ones(())))
    np.testing.assert_allclose(gradient, np.cos(6.0) * 3 * (3 + 2), rtol=1e-5)


def test_custom_vjp_with_a_count_among_its_outputs_in_a_loop():
    """In a compiled loop nothing comes back for an integer."""

    def forward(x):
        return (x**2, ops.cast(x, "int32")), x

    def backward(x, cotangents):
        return (3 * 2 * x * cotangents[0],)

    def gradient(x):
        def body(i, x):
            return backend.custom_vjp(forward, backward, "once", x)[0]

        y, pullback = backend.vjp(lambda x: backend.fori_loop(2, body, x, 2), x)
        return pullback(ops.ones_like(y))[0]

    x = ops.convert_to_tensor(2.0)
    for f in (gradient, compiled(gradient)):
        assert float(numbers(f(x))) == 9 * 4 * 2.0**3


def test_errors_in_a_custom_vjp_come_through():
    def forward(x):
        raise RuntimeError("the forward pass failed")

    with pytest.raises(RuntimeError, match="the forward pass failed"):
        backend.custom_vjp(forward, lambda *_: None, "once", ops.ones(()))


def test_a_residual_may_be_a_buffer_in_which_the_backward_pass_writes():
    def forward(x):
        saved = backend.write(backend.buffer(2, x), 0, 3 * x)
        return x, saved

    def backward(saved, cotangent):
        saved = backend.write(saved, 1, cotangent * backend.read(saved, 0))
        saved = backend.write(saved, 0, cotangent)
        return (backend.read(saved, 1) + backend.read(saved, 0),)

    def gradient(x):
        y, pullback = backend.vjp(
            lambda x: backend.custom_vjp(forward, backward, "once", x) ** 2, x
        )
        return pullback(ops.ones_like(y))[0]

    x = ops.convert_to_tensor([2.0, 5.0])
    for f in (gradient, compiled(gradient)):
        # 2 x (3 x) + 2 x
        assert numbers(f(x)).tolist() == [28.0, 160.0]


def test_a_gradient_taken_twice_is_the_same():
    """Where a backend can: the first does not spoil the residuals of the second."""
    from keras_nanode import Checkpoint, odeint

    def f(x):
        return odeint(
            lambda t, y: -y * y,
            x,
            [0, 1],
            solver="euler",
            steps=9,
            adjoint=Checkpoint(3),
        )

    x = ops.convert_to_tensor([0.5, 2.0])
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = f(x)
        found = [tape.gradient(y, x), tape.gradient(y, x)]
    elif keras.backend.backend() == "torch":
        import torch

        x.requires_grad_()
        y = ops.sum(f(x))
        found = [torch.autograd.grad(y, x, retain_graph=True)[0] for _ in range(2)]
    else:
        import jax

        _, pullback = jax.vjp(f, x)
        found = [pullback(ops.ones_like(f(x)))[0] for _ in range(2)]
    first, second = numbers(found)
    assert np.all(first != 0) and first.tolist() == second.tolist()


def test_while_loop():
    i, (x, y) = backend.while_loop(
        lambda i, _: i < 4,
        lambda i, xy: (i + 1, (xy[1], xy[0] + xy[1])),
        (
            ops.convert_to_tensor(0),
            (ops.convert_to_tensor(0), ops.convert_to_tensor(1)),
        ),
    )
    assert [int(numbers(v)) for v in (i, x, y)] == [4, 3, 5]


@pytest.mark.parametrize("count", [0, 1, 5, "tensor"])
def test_fori_loop_counts(count):
    times = 5 if count == "tensor" else count
    count = ops.convert_to_tensor(5, "int32") if count == "tensor" else count
    x = backend.fori_loop(count, lambda i, x: x + ops.cast(i, "float32"), ops.zeros(()))
    assert float(numbers(x)) == sum(range(times))


@pytest.mark.parametrize("count", [1, 6])
def test_fori_loop_of_known_length_can_be_differentiated(count):
    x = ops.convert_to_tensor(1.1)
    y, pullback = backend.vjp(
        lambda x: backend.fori_loop(count, lambda i, y: y * x, ops.ones_like(x)), x
    )
    (gradient,) = numbers(pullback(ops.ones_like(y)))
    np.testing.assert_allclose(gradient, count * 1.1 ** (count - 1), rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the others have no such setting"
)
@pytest.mark.parametrize("count", [6, "tensor"])
def test_loops_run_one_iteration_at_a_time(count):
    """Else the states of ten iterations are in memory at once."""

    def f(x):
        length = ops.convert_to_tensor(6) if count == "tensor" else count
        x = backend.fori_loop(length, lambda i, x: x + 1, x)
        return backend.while_loop(lambda x: ops.sum(x) < 9, lambda x: (x + 1,), (x,))

    graph = compiled(f).get_concrete_function(ops.zeros(())).graph
    loops = [op for op in graph.get_operations() if op.type.endswith("While")]
    assert [op.get_attr("parallel_iterations") for op in loops] == [1, 1]


def test_fori_loop_up_to_a_limit_can_be_differentiated():
    x, count = ops.convert_to_tensor(1.1), ops.convert_to_tensor(4, "int32")

    def f(x):
        return backend.fori_loop(count, lambda i, y: y * x, ops.ones_like(x), 6)

    y, pullback = backend.vjp(f, x)
    (gradient,) = pullback(ops.ones_like(y))
    np.testing.assert_allclose(numbers(y), 1.1**4, rtol=1e-5)
    np.testing.assert_allclose(numbers(gradient), 4 * 1.1**3, rtol=1e-5)


def test_a_compiled_function_has_no_values_yet():
    seen = []
    compiled(lambda x: seen.append(backend.is_known(x)) or x)(ops.ones(()))
    assert seen[0] == (keras.backend.backend() == "torch")
    assert backend.is_known(ops.ones(()))


def test_values_and_what_rows_share():
    x = ops.convert_to_tensor([1.0, 3.0, 2.0])
    assert backend.values(x).tolist() == [1.0, 3.0, 2.0]
    assert numbers(backend.shared(x[1])) == 3.0
    found = numbers(ops.vectorized_map(lambda x: x * backend.shared(x), x))
    # PyTorch's map runs one loop for all rows.
    together = keras.backend.backend() == "torch"
    assert found.tolist() == ([3.0, 9.0, 6.0] if together else [1.0, 9.0, 4.0])


def test_buffers_are_loop_state_and_start_as_zeros():
    like = ops.ones((2,))

    def body(i, carry):
        y, saved = carry
        return y * 2, backend.write(saved, i, y)

    _, saved = backend.fori_loop(3, body, (like, backend.buffer(4, like)))
    assert numbers(backend.read(saved, 2)).tolist() == [4.0, 4.0]
    saved = backend.write(saved, 1, 7 * like)
    assert numbers(backend.stack(saved))[:, 0].tolist() == [1.0, 7.0, 4.0, 0.0]


@pytest.mark.skipif(
    not math.isinf(backend.most_unrolled()), reason="its loops are not Python's"
)
def test_a_buffer_of_numbers_grows():
    buffer = backend.buffer(4, 0)
    for i, number in enumerate([3, 5, 7]):
        buffer = backend.write(buffer, i, number)
    assert backend.read(backend.write(buffer, 1, 6), 1) == 6
    assert backend.stack(buffer).tolist() == [3, 6, 7]


def test_values_can_be_read_while_a_function_is_compiled():
    seen = []

    def f(x):
        with backend.eagerly():
            seen.append(numbers(2 * ops.ones(())))
        return x + 1

    compiled(f)(ops.ones(()))
    assert seen[0] == 2.0


def test_the_active_backend_is_the_one_of_keras():
    assert backend._module.__name__.endswith(keras.backend.backend())


def test_what_a_compiled_function_reports_arrives():
    seen = []

    def f(x):
        if not backend.report(seen.append, ops.stack([x, 2 * x]), x):
            seen.append([3.0, 6.0])
        return x

    compiled(f)(ops.convert_to_tensor(3.0))
    backend.await_reports()
    (pair,) = seen
    assert np.asarray(pair).tolist() == [3.0, 6.0]


def test_a_requirement_is_silent_until_it_fails():
    run = compiled(lambda x: backend.require(ops.all(x < 1), "too large") or x)
    run(ops.zeros((2,)))
    with pytest.raises(Exception, match="too large"):
        run(2 * ops.ones((2,)))
        backend.await_reports()
