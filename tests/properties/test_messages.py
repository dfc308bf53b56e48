"""What is said to somebody who comes from another library, or counts wrongly."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_nanode import layers, models, odeint

Y0 = np.ones(2, "float32")


def decay(t, y):
    return -y


def solve(func=decay, y0=Y0, t=(0.0, 1.0), *args, **options):
    return odeint(func, y0, t, *args, **options)


# Forms of arguments.


@pytest.mark.parametrize(
    "t", [np.zeros((2, 3)), [[0.0, 1.0], [0.0, 2.0]], ops.zeros((2, 3))]
)
def test_times_of_two_axes(t):
    with pytest.raises(
        ValueError,
        match=r"one series of times for the whole batch, of shape \(times,\)",
    ):
        solve(t=t)


def test_times_of_three_axes():
    with pytest.raises(ValueError, match="one series of times for the whole batch"):
        solve(t=np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.ODE(keras.layers.Dense(3), t_span=10),
        lambda: layers.BucketConvODE(3, t_span=10),
        lambda: layers.DenseODE("trig", t_span=10),
        lambda: models.classifier((8, 8, 1), 3, t_span=10),
        lambda: models.SVG((16, 16, 1), t_span=10),
    ],
)
def test_a_span_of_one_number(make):
    with pytest.raises(
        ValueError,
        match=r"two .*times \(t0, t1\), as in \(0, 10\). Received: t_span=10",
    ):
        make()


@pytest.mark.parametrize("steps", [0.1, 1e-3])
@pytest.mark.parametrize(
    "make",
    [
        lambda steps: layers.TrigDenseODE(2, steps=steps),
        lambda steps: solve(solver="rk4", steps=steps),
    ],
)
def test_a_length_in_place_of_a_number_of_steps(make, steps):
    with pytest.raises(ValueError, match="number of steps and not their length.*Rec"):
        make(steps)


@pytest.mark.parametrize(
    "func",
    [
        lambda y, t: -y,
        lambda state, time: -state,
        lambda y, t, a: -a * y,
    ],
)
def test_a_function_that_takes_the_time_second(func):
    more = ((1.0,),) if func.__code__.co_argcount == 3 else ()
    with pytest.raises(
        ValueError,
        match=r"time first, \(t, y, \*args\).*`lambda t, y: .*Received: func",
    ):
        solve(func, Y0, (0.0, 1.0), *more)


@pytest.mark.parametrize(
    "func",
    [
        lambda t, y: -y,
        lambda t, y: ops.stack([y[1], -y[0]]),
        lambda t, y: y * 2,
        lambda t, y: y @ np.ones((2, 2)),
    ],
)
@pytest.mark.parametrize("y0", [[1.0, 0.0], (1.0, 0.0)])
def test_a_list_of_numbers_in_place_of_a_vector(func, y0):
    with pytest.raises(ValueError, match=r"one vector give `y0` as an array.*Received"):
        solve(func, y0, solver="euler", steps=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.TimeVarying(keras.layers.Dense(3), "trig"),
        lambda: layers.TimeAppended(keras.layers.Dense(3)),
    ],
)
def test_time_twice(make):
    with pytest.raises(ValueError, match="`layer` must need no time.*Received: layer"):
        layers.TimeVarying(make(), "trig")


def test_a_list_of_numbers_is_a_structure():
    y = solve(lambda t, y: [y[1], -y[0]], [1.0, 0.0])
    assert [float(x[-1]) for x in y] == pytest.approx([np.cos(1), -np.sin(1)], abs=1e-3)


# Names.


@pytest.mark.parametrize(
    ("solver", "hint"),
    [
        ("implicit_adams", "Did you mean 'bdf'"),
        ("Kvaerno5", "Did you mean 'bdf'"),
        ("explicit_adams", "Did you mean 'rk4'"),
        ("adaptive_heun", "Did you mean 'bosh3'"),
        ("RK45", "Did you mean 'dopri5'"),
        ("DOP853", "Did you mean 'dopri8'"),
        ("sovler", None),
        ("dorpi5", "Did you mean 'dopri5'"),
        ("eular", "Did you mean 'euler'"),
        ("adaptive", 'give `steps="adaptive"`, with a solver such as "dopri5"'),
        ("symplectic", None),
    ],
)
def test_solvers_of_other_names(solver, hint):
    with pytest.raises(ValueError, match=f"{hint or ''}.*Received: solver=") as caught:
        layers.TrigDenseODE(2, solver=solver)
    assert ("Did you mean" in str(caught.value)) == bool(hint and "mean" in hint)


KEYWORDS = {
    "strides": "keeps the shape of its input",
    "padding": "keeps the shape of its input",
    "step_size": "number of equal steps and not their length",
    "dt0": "number of equal steps and not their length",
    "method": "Did you mean `solver`",
    "sensitivity": "Did you mean `adjoint`",
    "vector_field": None,
    "atol": r"Adaptive\(atol=...\)",
    "options": r"Adaptive\(rtol, atol, max_steps\)",
    "time_regularizer": None,
    "kernel_regulariser": "Did you mean `kernel_regularizer`",
    "actviation": "Did you mean `activation`",
    "hiden_filters": "Did you mean `hidden_filters`",
    "order_of_harmonics": None,
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_keywords_that_a_layer_does_not_take(name):
    hint = KEYWORDS[name] or "Its arguments are order, period"
    with pytest.raises(
        ValueError,
        match=f"`TrigConvODE` takes no argument `{name}`. .*{hint}.*Received",
    ):
        layers.TrigConvODE(3, **{name: 2})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("saveat", "at the times that you give"),
        ("dense_output", "at the times that you give"),
        ("events", "does not look for events"),
        ("event_fn", "does not look for events"),
        ("jac", 'Only `solver="bdf"` needs a Jacobian'),
        ("tfirst", "takes the time first"),
        ("stepsize_controller", r"steps=keras_nanode.Adaptive\(rtol"),
        ("max_step", "number of equal steps"),
        ("terms", "Did you mean `func`"),
        ("throw", "Did you mean `return_stats`"),
        ("adjoint_params", "Gradients flow to the weights of a layer"),
    ],
)
def test_keywords_that_odeint_does_not_take(name, hint):
    with pytest.raises(
        ValueError, match=f"`odeint` takes no argument `{name}`. .*{hint}"
    ):
        solve(**{name: 1})


# Positions.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.TrigConvODE(32, 3), "1 argument by position, `order`"),
        (lambda: layers.BucketDenseODE(3, 16), "1 argument by position, `num_buckets`"),
        (lambda: layers.Augment(1, 2), "1 argument by position, `channels`"),
        (lambda: layers.ResidualStack(keras.layers.Dense(3), 2, False, "x"), "3 argum"),
        (
            lambda: solve(decay, Y0, (0, 1), (), "euler"),
            "4 .*`func`, `y0`, `t`, `ar",
        ),
        (lambda: models.classifier(*[3] * 8), "7 arguments by position, `input_shape`"),
        (lambda: models.materialize(1, 2, 3), "2 arguments by position, `model`"),
    ],
)
def test_too_many_arguments_by_position(make, words):
    with pytest.raises(
        ValueError, match=f"takes.*{words}.*by their names.*Received: arguments="
    ):
        make()
