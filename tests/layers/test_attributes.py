"""What may be changed after construction, and the weights at a time."""

import keras
import numpy as np
import pytest
from cases import BASES, numbers, random

from keras_nanode import Adaptive, Checkpoint, bases, layers

X = random((4, 3))


def ode(**arguments):
    return layers.TrigDenseODE(2, t_span=(0.0, 2.0), **arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "rk4"},
        {"steps": 20},
        {"solver": "dopri5", "steps": "adaptive"},
        {"solver": "alf", "adjoint": "reversible"},
        {"adjoint": Checkpoint(3)},
        {"steps": None},
    ],
)
def test_what_is_set_later_is_as_if_it_had_been_given(changes):
    changed = ode(steps=4)
    changed(X)
    for name, value in changes.items():
        setattr(changed, name, value)
    given = ode(**{"steps": 4, **changes})
    given.build(X.shape)
    given.set_weights(changed.get_weights())
    np.testing.assert_allclose(numbers(changed(X)), numbers(given(X)), rtol=1e-6)
    for name in ("solver", "steps", "adjoint"):
        assert getattr(changed, name) == getattr(given, name)
    assert changed.get_config()["steps"] == given.get_config()["steps"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("solver", "rk5", "Unknown `solver`.*Received: solver='rk5'"),
        ("solver", 3, "Unknown `solver`.*Received: solver=3"),
        ("steps", 0, "Received: steps=0"),
        ("steps", "adaptive", "no error estimate.*Received: steps='adaptive'"),
        ("adjoint", "reversible", "cannot be run backwards.*Received: solver='heun'"),
        ("adjoint", None, "Unknown `adjoint`.*Received: adjoint=None"),
    ],
)
def test_what_is_set_checks_itself_and_a_refused_value_changes_nothing(
    name, value, message
):
    layer = ode(solver="heun", steps=4)
    before = layer.get_config()
    with pytest.raises(ValueError, match=message):
        setattr(layer, name, value)
    assert layer.get_config() == before


def test_keras_compiles_once():
    """What was compiled keeps the old number of steps until it is compiled again."""
    layer = ode(steps=2)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse")
    coarse = model.predict(X, verbose=0)
    layer.steps = 40
    fine = numbers(model(X))
    assert np.abs(fine - coarse).max() > 1e-2
    model.compile("sgd", "mse")
    np.testing.assert_allclose(model.predict(X, verbose=0), fine, atol=1e-5)


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_the_weights_at_a_time_are_the_sum_over_the_basis(basis):
    layer = layers.DenseODE(basis, t_span=basis.domain, solver="dopri5")
    layer.build(X.shape)
    times = [0.1, 0.3, 0.8]
    z = np.stack([numbers(basis(keras.ops.convert_to_tensor(t))) for t in times])
    for found, alpha in zip(layer.weights_at(times), layer.weights, strict=True):
        np.testing.assert_allclose(
            numbers(found), np.tensordot(z, numbers(alpha), 1), atol=1e-5
        )
    for one, many in zip(layer.weights_at(0.3), layer.weights_at(times), strict=True):
        np.testing.assert_allclose(numbers(one), numbers(many)[1], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "t", "message"),
    [
        (lambda: layers.ODE(keras.layers.Dense(3)), 0.1, "do not vary in time.*Rec"),
        (lambda: layers.TrigDenseODE(2), 0.1, "no weights before it is built.*t=0.1"),
    ],
)
def test_weights_that_are_not_there_are_refused(make, t, message):
    with pytest.raises(ValueError, match=message):
        make().weights_at(t)


def test_more_axes_of_times_are_refused():
    layer = ode()
    layer(X)
    with pytest.raises(ValueError, match=r"number or a sequence.*Received: t=\[\["):
        layer.weights_at([[0.1]])
    assert isinstance(layer.basis, bases.Trigonometric)
    assert layer.steps != Adaptive()
