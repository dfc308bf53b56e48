"""Problems in any unit, and stages that stay inside of their steps."""

import numpy as np
import pytest
from cases import PAIRS, SOLVERS, in_turn, numbers
from keras import ops

from keras_nanode import Adaptive, odeint, tableaus
from keras_nanode.fields.pieces import between
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.stepping import Problem
from keras_nanode.stepping.control import error_norm
from keras_nanode.stepping.fixed import FixedSteps

# Powers of 2 change no digit of a float: they reach from 8e-31 to 1e30.
UNITS = [2.0**e for e in (-100, -60, -20, 20, 60, 100)]


def linear(t, y):
    return -y


def constant_of(unit):
    return lambda t, y: y * 0 + unit


def solve(func, y0, unit, t=(0.0, 2.0), *, solver="dopri5", rtol=1e-4, atol=1e-6):
    """The last states in the unit, and the accepted and the tried steps."""
    y, stats = odeint(
        func(unit) if func is constant_of else func,
        ops.convert_to_tensor(np.array(y0, "float32") * np.float32(unit)),
        list(t),
        solver=solver,
        steps=Adaptive(rtol, atol * unit),
        return_stats=True,
    )
    counts = [int(stats[key]) for key in ("num_accepted", "num_steps", "status")]
    return numbers(y)[-1] / np.float32(unit), counts


@pytest.mark.parametrize("func", [linear, constant_of])
@pytest.mark.parametrize(("solver", "atol"), in_turn(PAIRS, [1e-6, 0.0]))
def test_a_problem_is_solved_alike_in_every_unit(solver, func, atol):
    options = {"solver": solver, "atol": atol}
    y0 = [0.0, 0.0] if func is constant_of else [1.0, 3.0]
    expected, counts = solve(func, y0, 1.0, **options)
    exact = [2.0, 2.0] if func is constant_of else np.exp(-2) * np.array(y0)
    np.testing.assert_allclose(expected, exact, rtol=3e-4)
    assert counts[-1] == 0 and counts[0] > 2
    for unit in UNITS:
        found, again = solve(func, y0, unit, **options)
        np.testing.assert_allclose(found, expected, rtol=4e-6)  # 32 roundings
        assert again == counts


@pytest.mark.parametrize("func", [linear, constant_of])
@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9, 1e30])
def test_any_unit_with_the_default_tolerances(unit, func):
    y0 = np.zeros(1) if func is constant_of else np.ones(1)
    y = odeint(
        func(unit) if func is constant_of else func,
        ops.convert_to_tensor((y0 * unit).astype("float32")),
        [0.0, 1.0],
    )
    exact = unit * (1 if func is constant_of else np.exp(-1))
    np.testing.assert_allclose(numbers(y)[-1], exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_a_leaf_among_others_has_a_unit_of_its_own(unit):
    y0 = {"a": np.ones(2, "float32"), "b": np.full(3, unit, "float32")}
    y, stats = odeint(
        lambda t, y: {"a": -y["a"], "b": -y["b"]},
        {key: ops.convert_to_tensor(x) for key, x in y0.items()},
        [0.0, 2.0],
        steps=Adaptive(1e-4, 0),
        return_stats=True,
    )
    alone, counts = solve(linear, [1.0] * 5, 1.0, atol=0)
    assert int(stats["num_accepted"]) == counts[0]
    np.testing.assert_allclose(numbers(y["a"])[-1], alone[:2], rtol=1e-6)
    np.testing.assert_allclose(numbers(y["b"])[-1] / unit, alone[2:], rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e9, 1e30])
@pytest.mark.parametrize("func", [linear, constant_of])
def test_any_unit_of_time(unit, func):
    rate = np.float32(1 / unit)
    y = odeint(
        (lambda t, y: -rate * y) if func is linear else (lambda t, y: y * 0 + rate),
        ops.ones(1) if func is linear else ops.zeros(1),
        [0.0, unit],
    )
    exact = np.exp(-1) if func is linear else 1
    np.testing.assert_allclose(numbers(y)[-1], exact, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit", [1e-150, 1e-30, 1.0, 1e30, 1e150])
def test_the_norm_of_sizes_whose_squares_are_no_numbers(unit, dtype):
    if dtype == "float32" and not 1e-35 < unit < 1e35:
        pytest.skip("no float32")
    error = ops.convert_to_tensor(np.array([3e-3, -4e-3, 0.0], dtype) * unit)
    y = ops.convert_to_tensor(np.array([1.0, 2.0, 0.0], dtype) * unit)
    norm = error_norm(0.1, 0.0, error, y)
    expected = np.sqrt((0.03**2 + 0.02**2) / 3)
    np.testing.assert_allclose(float(numbers(norm)), expected, rtol=1e-5)
    norm = error_norm(0.0, 0.1 * unit, error, y)
    expected = np.sqrt((0.03**2 + 0.04**2) / 3)
    np.testing.assert_allclose(float(numbers(norm)), expected, rtol=1e-5)


# Stages.

SPANS = [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (-0.3, 1e-3), (1e4, 1e4 + 1), (7.3, -3.1)]


def problem_of(solver, t_span, dtype):
    field = VectorField(lambda t, y, _: y * t)
    return Problem(field, SOLVERS[solver], np.array(t_span), dtype)


@pytest.mark.parametrize("tableau", tableaus.ALL.values(), ids=tableaus.ALL)
def test_no_stage_is_outside_by_the_rounding_of_a_tableau(tableau):
    assert all(0 <= place <= 1 for place in tableau.c)
    np.testing.assert_allclose(tableau.c, [sum(row) for row in tableau.a], rtol=1e-14)


@pytest.mark.parametrize("of", [np.asarray, ops.convert_to_tensor], ids=["np", "ops"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_time_between_is_between(dtype, of):
    rng = np.random.default_rng(0)
    start = rng.normal(size=4000).astype(dtype)
    # Neighbours of it too, and itself.
    end = start + (rng.normal(size=4000) * 10.0 ** rng.integers(-20, 2, 4000))
    end = end.astype(dtype)
    for fraction in np.append(rng.random(20), [0, 1, 1 / 3, 1 - 1e-16]).tolist():
        time = between(of(start), of(end), fraction)
        time = time if isinstance(time, np.ndarray) else numbers(time)
        assert time.dtype == dtype
        assert np.all(np.minimum(start, end) <= time)
        assert np.all(time <= np.maximum(start, end))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t_span", SPANS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_no_stage_of_equal_steps_leaves_its_step(solver, t_span, dtype):
    for steps in (1, 3, 4, 7):
        plan = FixedSteps(problem_of(solver, t_span, dtype), steps, 1)
        times = numbers(plan.times).astype("float64")
        edges = between(*np.array(t_span), np.arange(steps + 1) / steps)
        edges = edges.astype(dtype).astype("float64")
        edges[-1] = np.array(t_span[1], dtype)
        low, high = np.sort([edges[:-1], edges[1:]], axis=0)[..., None]
        assert np.all(low <= times) and np.all(times <= high)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_root_is_seen_up_to_its_end(solver):
    adaptive = [{}] if solver in PAIRS else []
    for options in ({"steps": 4}, {"steps": 5}, *adaptive):
        y = odeint(
            lambda t, y: y * 0 + ops.sqrt(1 - t),
            ops.zeros(()),
            [0.0, 1.0],
            solver=SOLVERS[solver],
            **options,
        )
        assert abs(float(numbers(y)[-1]) - 2 / 3) < 0.2
