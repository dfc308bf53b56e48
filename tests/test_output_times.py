"""Times in every form, and the gradients in them."""

import functools
import itertools

import keras
import numpy as np
import pytest
from cases import (
    ADJOINTS,
    assert_close,
    compiled,
    gradient,
    gradients,
    gradients_of,
    in_turn,
    numbers,
)
from keras import ops
from problems import FLOAT64, scalar

from keras_nanode import Adaptive, odeint
from keras_nanode.stepping import Status

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Each: a solver, its steps and an adjoint.
KINDS = {
    **{
        adjoint: {"solver": "rk4", "steps": 5, "adjoint": adjoint}
        for adjoint in ADJOINTS
        if adjoint != "reversible"
    },
    **{
        f"adaptive {adjoint}": {"steps": Adaptive(1e-6, 1e-8), "adjoint": adjoint}
        for adjoint in ADJOINTS
        if adjoint != "reversible"
    },
    **{
        f"reversible {solver}": {"solver": solver, "steps": 9, "adjoint": "reversible"}
        for solver in ("alf", "reversible_heun")
    },
}
# In the middle a time is repeated, and at the end, as in a padded series.
PADDED = [0.0, 0.5, 0.5, 1.25, 2.0, 2.0, 2.0]
ONCE = [0.0, 0.5, 1.25, 2.0]


def cosine(t):
    """To double precision on every backend, for |t| < 2.5."""
    square, total = t * t, t * 0 + 1
    for n in range(30, 0, -2):
        total = 1 - square * total / (n * (n - 1))
    return total


def forced(t, y):
    return y * cosine(t)


def system(t, y):
    u, v = y[0], y[1]
    return ops.stack([v, -u * u + t * v])


def tensor(values):
    return ops.convert_to_tensor(np.array(values, FLOAT64))


# What a function of times is given, and how these are made from it.
FORMS = {
    "list": lambda times: times,
    "array": np.array,
    "tensor": tensor,
    "variable": lambda times: keras.Variable(times, dtype=FLOAT64),
    "list of tensors": lambda times: [tensor(t) for t in times],
    "mixed list": lambda times: [times[0], *map(tensor, times[1:-1]), times[-1]],
    "list with a variable": lambda times: [
        *times[:-1],
        keras.Variable(times[-1], dtype=FLOAT64),
    ],
}


def solve(t, **options):
    """y' = y cos t at t, and the status."""
    y0 = tensor([1.0, -2.0])
    y, stats = odeint(forced, y0, t, return_stats=True, **options)
    return y, stats["status"]


def argument(form, times):
    """A function of tensors, and what it is given where the form has such."""
    if form == "tensor":
        return (lambda t: t), [tensor(times)]
    if "list" in form and form != "list":
        made = FORMS[form](times)
        tensors = [t for t in made if ops.is_tensor(t)]

        def listed(*given):
            given = iter(given)
            return [next(given) if ops.is_tensor(t) else t for t in made]

        return listed, tensors
    made = FORMS[form](times)
    return (lambda: made), []


@functools.cache
def solved_once(kind, sign):
    """The states at the padded times, from a solve that no time is given to twice."""
    y = compiled(lambda: solve([sign * t for t in ONCE], **KINDS[kind])[0])()
    return numbers(y)[[0, 1, 1, 2, 3, 3, 3]]


MODES = ["eager", "compiled"]


@pytest.mark.parametrize(
    ("kind", "form", "mode"),
    sorted(
        {
            *in_turn(KINDS, FORMS, MODES),
            *itertools.product(["checkpoint"], FORMS, MODES),
            *(("adaptive checkpoint", *both) for both in in_turn(FORMS, MODES)),
        }
    ),
)
def test_times_in_every_form(kind, form, mode):
    exact = np.exp(np.sin(PADDED))[:, None] * [1, -2]
    np.testing.assert_allclose(solved_once(kind, 1), exact, rtol=2e-2)
    for sign in (1, -1):
        to_times, given = argument(form, [sign * t for t in PADDED])

        def run(*given, to_times=to_times):
            return solve(to_times(*given), **KINDS[kind])

        run = compiled(run) if mode == "compiled" else run
        y, status = numbers(run(*given))
        assert status == 0
        np.testing.assert_allclose(y, solved_once(kind, sign), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_times_have_gradients_as_one_has(kind):
    def f(times):
        def run(y0, k):
            return odeint(
                lambda t, y, k: k * forced(t, y), y0, times(k), (k,), **KINDS[kind]
            )

        return gradients(run, np.ones(2), np.array(1.0))

    # A sum over rows counts those that are repeated.
    weights = np.array([1, 2, 1, 3.0])[:, None] ** 0.5

    def once(y0, k):
        y = odeint(lambda t, y, k: k * forced(t, y), y0, ONCE, (k,), **KINDS[kind])
        return y * tensor(weights)

    expected = gradients(once, np.ones(2), np.array(1.0))
    # Of times that are numbers, and of such that depend on a tensor without a gradient.
    for times in (
        lambda k: PADDED,
        lambda k: tensor(PADDED) + ops.stop_gradient(k * 0),
    ):
        assert_close(f(times), expected, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_all_times_equal_is_no_time_at_all(kind):
    for t in ([1.0, 1.0], [1.0] * 4, tensor([1.0] * 4)):
        y, status = numbers(solve(t, **KINDS[kind]))
        np.testing.assert_array_equal(y, [[1.0, -2.0]] * len(t))
        assert status == 0
    y, status = numbers(compiled(lambda t: solve(t, **KINDS[kind]))(tensor([1.0] * 3)))
    np.testing.assert_array_equal(y, [[1.0, -2.0]] * 3)
    assert status == 0


# As many times in each, so that functions of them are compiled once.
DISORDERED = {
    "unsorted": [0.0, 1.0, 0.5, 2.0],
    "there and back": [0.0, 1.0, 1.0, 0.0],
    "nan": [0.0, np.nan, 1.0, 2.0],
    "inf": [0.0, 1.0, 2.0, np.inf],
}


@pytest.mark.parametrize("kind", KINDS)
def test_disorder_is_refused_or_said(kind):
    run = compiled(lambda t: solve(t, **KINDS[kind]))
    slopes = gradients_of(lambda y0, t: odeint(forced, y0, t, **KINDS[kind])[1:])
    for name, times in DISORDERED.items():
        for t in (times, tensor(times), [tensor(x) for x in times]):
            with pytest.raises(ValueError, match="all increasing or all decreasing"):
                solve(t, **KINDS[kind])
        if keras.backend.backend() == "torch":
            continue  # it knows all values
        y, status = numbers(run(tensor(times)))
        assert status == Status.UNORDERED, name
        assert np.isnan(y[1:]).all(), name
        for slope in slopes(np.ones(2), np.array(times, FLOAT64)):
            assert np.isnan(slope).all(), name
    assert len(Status.UNORDERED.message) > 40


@pytest.mark.parametrize(
    ("t", "dtype"),
    [
        (lambda: ops.convert_to_tensor(np.array([0, 1j])), "complex"),
        (lambda: [0.0, ops.convert_to_tensor(np.array(1j))], "complex"),
        (lambda: [0.0, 1j], "1j"),
        (lambda: [tensor(0.0), 1j], "1j"),
        (lambda: ops.convert_to_tensor([False, True]), "bool"),
        (lambda: [False, tensor(1.0)], "False"),
        (lambda: ["0", tensor(1.0)], "'0'"),
    ],
)
def test_only_real_numbers_are_times(t, dtype):
    for adjoint in ("checkpoint", "direct"):
        with pytest.raises(ValueError, match=rf"`t` must be .*Received: .*{dtype}"):
            odeint(forced, np.ones(2), t(), adjoint=adjoint)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="other backends know every shape")
@pytest.mark.parametrize(
    "kind", ["checkpoint", "direct", "adaptive checkpoint", "reversible alf"]
)
def test_an_unknown_number_of_times(kind):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float64)])
    def run(t):
        with tf.GradientTape() as tape:
            tape.watch(t)
            y, status = solve(t, **KINDS[kind])
            loss = tf.reduce_sum(y**2)
        return y, status, tape.gradient(loss, t)

    for times in ([0.0, 1.0], [1.0, 0.5, -0.5, -0.6]):
        y, status, in_times = numbers(run(tensor(times)))
        expected, _ = solve(times, **KINDS[kind])
        np.testing.assert_allclose(y, numbers(expected), rtol=1e-12)
        assert status == 0
        (desired,) = gradients(lambda t: solve(t, **KINDS[kind])[0], np.array(times))
        np.testing.assert_allclose(in_times, desired, rtol=1e-9, atol=1e-12)
    y, _, _ = numbers(run(tensor(PADDED)))
    np.testing.assert_allclose(y[-1], numbers(solve(ONCE, **KINDS[kind])[0])[-1])
    assert run(tensor([0.0, 1.0, 0.5]))[1] == Status.UNORDERED


@pytest.mark.parametrize("kind", KINDS)
def test_times_that_only_float64_tells_apart(kind):
    times = np.array([0.0, 1.0, 1.0 + 1e-9, 2.0])
    for t in (times.tolist(), ops.convert_to_tensor(times)):
        y = odeint(lambda t, y: -y, ops.ones(()), t, **KINDS[kind])
        np.testing.assert_allclose(numbers(y), np.exp(-times), rtol=2e-2)
        # The state shows how long the short interval is.
        y = odeint(lambda t, y: y * 0 + 1e9, ops.zeros(()), t, **KINDS[kind])
        np.testing.assert_allclose(numbers(y)[1], 1e9, rtol=1e-6)
        assert numbers(y)[2] >= numbers(y)[1]
        y = odeint(lambda t, y: y * 0 + 1e9, ops.zeros(()), t[1:], **KINDS[kind])
        np.testing.assert_allclose(numbers(y)[1], 1.0, rtol=1e-6)


# Gradients.


BETWEEN, START = np.array([0.1, 0.5, 1.2]), np.array([1.0, -0.5])


@functools.cache
def differences(func):
    """Of the squares of an accurate solution in the times, central ones."""
    accurate = {"solver": "dopri8", "steps": 20}
    y = compiled(lambda t: odeint(func, tensor(START), t, **accurate))

    def loss(t):
        return np.sum(numbers(y(tensor(t))) ** 2)

    moves = 1e-5 * np.eye(3)
    return [(loss(BETWEEN + m) - loss(BETWEEN - m)) / 2e-5 for m in moves]


@pytest.mark.parametrize(("kind", "func"), in_turn(KINDS, [forced, system]))
def test_the_gradient_in_times_is_that_of_the_solution(kind, func):
    options = {**KINDS[kind]}
    options["steps"] = Adaptive(1e-9, 1e-9) if "adaptive" in kind else 150
    found, _ = gradients(lambda t, y0: odeint(func, y0, t, **options), BETWEEN, START)
    np.testing.assert_allclose(found, differences(func), rtol=1e-3, atol=1e-4)


def test_a_variable_in_a_list_gets_its_gradient():
    (found,) = gradients(
        lambda end: odeint(lambda t, y: y, scalar(1.0), [0.0, end])[-1],
        np.array(0.7),
    )
    # Of the square.
    np.testing.assert_allclose(found, 2 * np.exp(1.4), rtol=1e-4)
    if ON_TENSORFLOW:
        import tensorflow as tf

        for end in (tf.Variable(0.7), keras.Variable(0.7)):
            with tf.GradientTape() as tape:
                y = odeint(lambda t, y: y, tf.constant(1.0), [0.0, end])[-1]
            value = getattr(end, "value", end) if end is not None else end
            value = end if isinstance(end, tf.Variable) else value
            np.testing.assert_allclose(tape.gradient(y, value), np.exp(0.7), rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "func"), [("direct", system), ("adaptive direct", forced)]
)
def test_second_derivatives_in_times(kind, func):
    """Those that have to do with t1 and t2, against differences of the gradient."""
    options = {**KINDS[kind]}
    options["steps"] = Adaptive(1e-7, 1e-7) if "adaptive" in kind else 30
    y0, times = tensor([1.0, -0.5]), np.array([0.1, 0.5, 1.2])

    def first(t, **options):
        return gradient(lambda t: ops.sum(odeint(func, y0, t, **options) ** 2), t)

    accurate = {"solver": "dopri8", "steps": 8, "adjoint": "checkpoint"}
    slope = compiled(lambda t: first(t, **accurate))
    expected = [
        numbers(slope(tensor(times + move))) - numbers(slope(tensor(times - move)))
        for move in 1e-5 * np.eye(3)
    ]
    for i in (1, 2):

        def one(t, i=i):
            return gradient(lambda t: first(t, **options)[i], t)

        # TensorFlow takes long to compile it.
        run = one if i == 1 else compiled(one)
        found = numbers(run(tensor(times)))
        np.testing.assert_allclose(found, expected[i] / 2e-5, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.5, 1.0, 1.0]])
def test_a_singular_end_costs_nothing(adjoint, times, mode):
    """Flow matching: x' = (x1 - x) / (1 - t) ends on x1, and Euler's steps before 1."""
    options = {"solver": "euler", "steps": 10, "adjoint": adjoint}

    def flow(x1, t):
        func = lambda t, x, x1: (x1 - x) / (1 - t)  # noqa: E731
        return odeint(func, tensor([0.3]), t, (x1,), **options)[-1]

    t = tensor(times)
    run = compiled(flow) if mode == "compiled" else flow
    np.testing.assert_allclose(numbers(run(tensor([2.0]), t)), [2.0])
    if adjoint == "backsolve":
        return  # it begins at the end

    def slope(x1, t):
        return gradient(lambda x1: ops.sum(flow(x1, t)), x1)

    run = compiled(slope) if mode == "compiled" else slope
    np.testing.assert_allclose(numbers(run(tensor([2.0]), t)), [1.0])


def test_nothing_is_evaluated_for_a_gradient_that_nobody_asks_for():
    """In eager mode, where calls can be counted."""
    calls = []

    def func(t, y, k):
        calls.append(t)
        return -k * y

    def count(t):
        calls.clear()
        gradient(
            lambda k: ops.sum(
                odeint(func, tensor([1.0]), t, (k,), solver="euler", steps=4)
            ),
            tensor(1.0),
        )
        return len(calls)

    assert count(tensor([0.0, 0.5, 1.0])) == count([0.0, 0.5, 1.0])
