"""Properties of fixed-step solutions, through `odeint` and the layers."""

import keras
import numpy as np
import pytest
from cases import BASES, EACH_KIND, SOLVERS, compiled, gradients, numbers, random
from keras import ops
from problems import FLOAT64, forced, forced_solution, scalar, solve

from keras_nanode import bases, layers, odeint
from keras_nanode.fields.vector_field import VectorField
from keras_nanode.fields.weights import BasisWeights, Parts
from keras_nanode.stepping import Problem
from keras_nanode.stepping.fixed import FixedSteps


@pytest.mark.parametrize("solver", SOLVERS)
def test_observed_order_on_a_non_autonomous_problem(solver):
    errors = []
    # With more steps, the higher orders are exact to rounding.
    for steps in (32, 64) if SOLVERS[solver].order < 5 else (8, 16):
        y = solve(forced, scalar(1.0), [0.0, 2.0], solver=solver, steps=steps)
        errors.append(abs(y[-1] - forced_solution(2.0)))
    assert np.log2(errors[0] / errors[1]) >= SOLVERS[solver].order - 0.15


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_output_time_is_reached_exactly(solver):
    # dy/dt = 1 is integrated without error, so that y shows the time.
    times = np.array([0.3, 0.4, 1.7, 5.0])
    y = solve(lambda t, y: y * 0 + 1, scalar(0.3), times, solver=solver, steps=7)
    np.testing.assert_allclose(y, times, rtol=1e-14)


@pytest.mark.parametrize("solver", EACH_KIND)
def test_back_and_forth_meets_at_the_order_of_the_solver(solver):
    def gap(steps):
        there = solve(forced, scalar(1.0), [0.0, 1.0], solver=solver, steps=steps)
        back = solve(forced, scalar(there[-1]), [1.0, 0.0], solver=solver, steps=steps)
        return abs(back[-1] - 1)

    steps = 16 if SOLVERS[solver].order < 8 else 3
    assert np.log2(gap(steps) / gap(2 * steps)) >= SOLVERS[solver].order - 0.2


def test_outputs_at_several_times_are_those_of_restarts():
    together = solve(forced, scalar(1.0), [0.0, 0.5, 2.0], steps=5)
    first = solve(forced, scalar(1.0), [0.0, 0.5], steps=5)[-1]
    second = solve(forced, scalar(first), [0.5, 2.0], steps=5)[-1]
    np.testing.assert_allclose(together, [1.0, first, second], rtol=1e-14)


def test_a_structure_of_states():
    # The circle as a dict of two states.
    y0 = {"x": scalar(1.0), "v": scalar(0.0)}
    y = solve(
        lambda t, y: {"x": y["v"], "v": -y["x"]}, y0, [0.0, np.pi / 2, np.pi], steps=50
    )
    np.testing.assert_allclose(y["x"], [1, 0, -1], atol=1e-6)
    np.testing.assert_allclose(y["v"], [0, -1, 0], atol=1e-6)


def test_args_may_be_any_structure_of_numbers_also_integers():
    def func(t, y, a):
        return y * 0 + a["rate"] * ops.cast(a["times"], "float32")

    args = ({"rate": 0.5, "times": 3},)
    y = odeint(func, ops.zeros(()), [0.0, 1.0], args, steps=1)
    assert float(numbers(y)[-1]) == 1.5


def test_fixed_steps_that_explode_say_so():
    _, stats = odeint(
        lambda t, y: y * y, ops.ones(()), [0.0, 99.0], steps=9, return_stats=True
    )
    assert int(stats["status"]) == 3


def test_numbers_in_args_have_the_precision_of_the_state():
    def decay(y0):
        y = odeint(lambda t, y, k: -k * y, y0, [0.0, 1.0], (0.1,), steps=100)
        return numbers(y)[-1]

    assert abs(decay(scalar(1.0)) - np.exp(-0.1)) < 1e-13
    assert decay(ops.ones(())).dtype == "float32"


@pytest.mark.parametrize("steps", [2, None])
def test_the_state_keeps_its_dtype(steps):
    def func(t, y):
        return {"x": ops.cast(-y["x"], FLOAT64), "v": ops.cast(-y["v"], "float32")}

    y0 = {"x": ops.ones((2,), "float32"), "v": ops.ones((2,), FLOAT64)}
    y = numbers(odeint(func, y0, [0.0, 1.0], steps=steps))
    assert y["x"].dtype == "float32" and y["v"].dtype == FLOAT64


@keras.saving.register_keras_serializable("tests")
class Clock(keras.Layer):
    """dy/dt = w t, called as `odeint` calls a function."""

    def build(self, *_):
        self.w = self.add_weight(shape=(), initializer="ones")

    def call(self, t, y):
        return y * 0 + self.w * t


def test_a_layer_as_the_function():
    y = odeint(Clock(), ops.zeros((3,)), [0.0, 2.0], solver="midpoint", steps=4)
    np.testing.assert_allclose(numbers(y)[-1], [2.0, 2.0, 2.0], rtol=1e-6)


def closing_over(trainable):
    """dy/dt = -w y, as a function that closes over a variable, and this."""
    w = keras.Variable(2.0, trainable=trainable, dtype=FLOAT64, name="rate")
    return lambda t, y: -w * y, w


@pytest.mark.parametrize("steps", [2, "adaptive"])
@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve"])
def test_a_variable_that_would_get_no_gradient_is_refused(adjoint, steps):
    options = {"steps": steps, "adjoint": adjoint}
    func, _ = closing_over(trainable=True)
    message = "not among its arguments.*`args`.*direct.*Received: variable='rate'"
    with pytest.raises(ValueError, match=message):
        odeint(func, scalar(1.0), [0.0, 1.0], **options)
    func, _ = closing_over(trainable=False)
    y = odeint(func, scalar(1.0), [0.0, 1.0], **options)
    np.testing.assert_allclose(numbers(y)[-1], np.exp(-2), rtol=0.1)


def test_direct_finds_the_gradient_of_what_is_closed_over():
    func, w = closing_over(trainable=True)

    def solution(rate):
        with keras.StatelessScope([(w, rate)]):
            y = odeint(func, scalar(1.0), [0.0, 1.0], steps=20, adjoint="direct")
            return y[-1]

    (found,) = gradients(solution, scalar(2.0))
    np.testing.assert_allclose(found, -2 * np.exp(-4.0), rtol=1e-3)


def test_what_a_function_closes_over_has_the_value_of_the_scope_around():
    func, w = closing_over(trainable=False)
    with keras.StatelessScope([(w, scalar(1.0))]):
        y = odeint(func, scalar(1.0), [0.0, 1.0])
    np.testing.assert_allclose(numbers(y)[-1], np.exp(-1), rtol=1e-3)


def test_a_function_that_updates_a_variable_is_refused():
    calls = keras.Variable(0, trainable=False, dtype="int32", name="calls")

    def func(t, y):
        calls.assign_add(1)
        return -y

    with pytest.raises(ValueError, match="pure function.*Received: variable='calls'"):
        odeint(func, scalar(1.0), [0.0, 1.0])


# The grid.


def grid(basis, solver, steps, t_span=(0.0, 1.0), dtype="float32"):
    field = VectorField(lambda t, y, theta: y, Parts(BasisWeights(basis)))
    problem = Problem(field, SOLVERS[solver], np.array(t_span), dtype)
    return FixedSteps(problem, steps, batch_size=1)


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (-3.0, 7.3), (1e4, 1e4 + 1)])
def test_n_euler_steps_visit_each_of_n_buckets_once(t_span):
    # JAX compiles for each n anew.
    few = keras.backend.backend() == "jax"
    for n in (7, 9, 12, 49, 200) if few else range(1, 201):
        basis = bases.Bucket(n, domain=t_span)
        visited = grid(basis, "euler", n, t_span).located[0][:, 0]
        assert numbers(visited).tolist() == list(range(n))
        visited = grid(basis, "euler", n, t_span[::-1]).located[0][:, 0]
        assert numbers(visited).tolist() == list(range(n))[::-1]


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (-3.0, 7.3), (1e4, 1e4 + 1)])
@pytest.mark.parametrize("buckets", [2, 10])
def test_a_step_across_buckets_sees_the_one_that_begins_in_its_middle(t_span, buckets):
    few = keras.backend.backend() == "jax"
    for n in (7, 49) if few else range(1, 101):
        basis = bases.Bucket(n * buckets, domain=t_span)
        begins = [i * buckets + buckets // 2 for i in range(n)]
        visited = grid(basis, "euler", n, t_span).located[0][:, 0]
        assert numbers(visited).tolist() == begins
        visited = grid(basis, "euler", n, t_span[::-1]).located[0][:, 0]
        assert numbers(visited).tolist() == begins[::-1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_step_ends_on_t1(solver):
    for n in (1, 3, 7, 49, 1000):
        g = grid(bases.Constant(), solver, n, (0.1, 0.7), FLOAT64)
        assert abs(numbers(g.h).sum() - 0.6) < 1e-15 * n
        assert numbers(g.times)[0, 0] == 0.1
        nodes = g.problem.solver.nodes
        if 1.0 in nodes:
            assert numbers(g.times)[-1, nodes.index(1.0)] == 0.7


class Sawtooth(bases.Basis):
    """t - 1/2 in the first half of (0, 1), t - 1 in the second: jumps at 1/2."""

    size = 1
    breakpoints = (0.5,)

    def __call__(self, t):
        return ops.expand_dims(t - ops.where(t < 0.5, 0.5, 1.0), 0)

    def get_config(self):
        return {}


@pytest.mark.parametrize("t_span", [(0.0, 1.0), (1.0, 0.0)])
def test_a_stage_on_a_jump_sees_the_side_of_its_step(t_span):
    (located,) = grid(Sawtooth(), "heun", 2, t_span).located
    seen = np.sort(numbers(located)[:, :, 0], axis=1)
    np.testing.assert_allclose(seen, [[-0.5, 0.0], [-0.5, 0.0]], atol=1e-6)


class LinearInTime(keras.Layer):
    """dx/dt = x w, in operations that keep float64 on every backend."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1],) * 2, name="w")

    def call(self, x):
        return x @ self.w.value

    def compute_output_shape(self, input_shape):
        return input_shape


def test_rk4_keeps_its_order_on_aligned_buckets():
    dynamics = layers.TimeVarying(
        LinearInTime(dtype=FLOAT64), bases.Bucket(10), "independent", dtype=FLOAT64
    )
    x = random((4, 3), FLOAT64)

    def solution(steps):
        ode = layers.ODE(dynamics, "rk4", steps, dtype=FLOAT64)
        ode.build(x.shape)
        return numbers(compiled(ode)(ops.convert_to_tensor(x)))

    # 640 aligned steps are exact to rounding.
    errors = [np.abs(solution(n) - solution(640)).max() for n in (10, 20, 40)]
    assert np.log2(errors[0] / errors[1]) >= 3.8
    assert np.log2(errors[1] / errors[2]) >= 3.8


@pytest.mark.parametrize("name", BASES)
def test_a_zero_field_is_the_identity(name):
    ode = layers.DenseODE(BASES[name], steps=5, kernel_initializer="zeros")
    x = random((4, 3))
    np.testing.assert_array_equal(numbers(ode(x)), x)


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": [0.0]}, r"`t` must be at least two.*Received: t=\[0.0\]"),
        ({"t": [0.0, 1.0, 0.5]}, "all increasing or all decreasing"),
        ({"t": [0.0, np.nan]}, "finite times"),
        ({"steps": 0}, "`steps` must be an integer of at least 1. Received: steps=0"),
        ({"steps": 2.5}, "integer.*Received: steps=2.5"),
        ({"steps": None}, "'rk4' has no error estimate.*steps=10.*steps=None"),
        ({"steps": "adaptive"}, "'rk4' has no error estimate.*steps='adaptive'"),
        ({"solver": "rk5"}, "Unknown `solver`.*Received: solver='rk5'"),
        ({"adjoint": "magic"}, "'backsolve'.*Received: adjoint='magic'"),
        ({"adjoint": ["direct"]}, r"'backsolve'.*Received: adjoint=\['direct'\]"),
        ({"y0": 1}, "must be floating.*Received: dtype=int"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"y0": 1.0, "t": [0.0, 1.0], "steps": 2, "solver": "rk4"}
    with pytest.raises(ValueError, match=message):
        odeint(lambda t, y: -y, **{**good, **arguments})


def test_a_slope_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\), dy/dt with shape \(3, 2\)"):
        odeint(lambda t, y: ops.ones((3, 2)) * y, ops.ones((2,)), [0.0, 1.0], steps=1)


@pytest.mark.parametrize("slope", [None, {"a": 1.0}, (1.0,)])
def test_a_slope_of_another_structure_is_refused(slope):
    with pytest.raises(ValueError, match="in the structure of y. Received: y {'a'"):
        odeint(lambda t, y: slope, {"a": 1.0, "b": 2.0}, [0.0, 1.0], steps=1)


@pytest.mark.parametrize("mixed", [{1: 1.0, "a": 2.0}, [{(1, 2): 1.0, "a": 2.0}]])
def test_keys_without_an_order_are_refused(mixed):
    message = "The keys of a dict in `{0}` must be of one type.*strings.*Received: {0}="
    with pytest.raises(ValueError, match=message.format("y0")):
        odeint(lambda t, y: y, mixed, [0.0, 1.0], steps=1)
    with pytest.raises(ValueError, match=message.format("args")):
        odeint(lambda t, y, a: y, 1.0, [0.0, 1.0], (mixed,), steps=1)
    y = odeint(lambda t, y: y, {1: 1.0, 0: 2.0}, [0.0, 1.0], solver="euler", steps=1)
    assert [float(y[key][-1]) for key in (1, 0)] == [2.0, 4.0]
