"""The largest number of adaptive steps, between output times and in all."""

import keras
import numpy as np
import pytest
from cases import compiled, gradients, numbers
from keras import ops
from problems import scalar

from keras_nanode import Adaptive, backend, odeint
from keras_nanode.stepping import Status


def decay(t, y):
    return -y


def test_there_may_be_more_output_times_than_steps_between_two():
    """At all defaults, where a graph makes so many steps cheap, and with gradients."""
    in_graphs = keras.backend.backend() != "torch"
    steps, number = (None, 4098) if in_graphs else (Adaptive(max_steps=60), 62)
    times = np.linspace(0, 10, number)

    def f(y0):
        y, stats = odeint(decay, y0, times, steps=steps, return_stats=True)
        return y, stats["num_steps"]

    y, tried = numbers(compiled(f)(scalar(1.0)))
    np.testing.assert_allclose(y, np.exp(-times), rtol=1e-3)
    # All but the first steps end on an output time.
    assert number - 1 <= tried < number + 20
    few = np.linspace(1, 0, 50)
    (found,) = gradients(
        lambda y0: odeint(decay, y0, few, steps=Adaptive(max_steps=9)), np.array(1.0)
    )
    np.testing.assert_allclose(found, 2 * np.sum(np.exp(2 - 2 * few)), rtol=1e-4)


def oscillation(t, y):
    """Of frequency 20, so that it takes many steps."""
    return 20 * ops.stack([y[1], -y[0]])


def count(times, max_steps, **options):
    """y, and the statistics, of a solve in eager mode."""
    y0 = ops.convert_to_tensor(np.array([1.0, 0.0]))
    steps = Adaptive(1e-6, 1e-8, max_steps)
    y, stats = odeint(oscillation, y0, times, steps=steps, return_stats=True, **options)
    return numbers(y), {key: int(x) for key, x in stats.items()}


def test_steps_are_counted_between_output_times():
    _, one = count([0.0, 0.1], 1000)
    most, times = one["num_steps"], [0.0, 0.1, 0.2, 0.3]
    y, stats = count(times, most)
    assert stats["status"] == Status.SUCCESS and stats["num_steps"] > 2 * most
    np.testing.assert_allclose(y[:, 0], np.cos(20 * np.array(times)), atol=1e-3)
    for adjoint in ("checkpoint", "direct"):
        y, stats = count([0.0, 0.001, 0.1, 0.2], most // 2, adjoint=adjoint)
        assert stats["status"] == Status.MAX_STEPS
        assert np.isfinite(y[:2]).all() and np.isnan(y[2:]).all()
        # A few steps lead to the first output time.
        assert most // 2 < stats["num_steps"] <= most // 2 + 3


def test_the_error_says_how_many_output_times_were_reached():
    with pytest.raises(RuntimeError, match=r"`max_steps`.*fewer output times.* 1 of 3"):
        odeint(
            oscillation,
            ops.convert_to_tensor(np.array([1.0, 0.0])),
            [0.0, 0.01, 2.0, 3.0],
            steps=Adaptive(max_steps=5),
        )


# A solution at rest.


def test_steps_at_rest_are_long_and_their_gradient_is_exact_for_them():
    """As `Adaptive` says: -y at y = 0 has no error, so that one step would do."""

    def slope(adjoint, rtol):
        def end(y0):
            steps = Adaptive(rtol, rtol)
            return odeint(decay, y0, [0.0, 1.0], steps=steps, adjoint=adjoint)[-1]

        _, pullback = backend.vjp(end, scalar(0.0))
        return float(numbers(pullback(scalar(1.0))[0]))

    for adjoint, rtol in (("checkpoint", 1e-9), ("direct", 1e-3)):
        np.testing.assert_allclose(slope(adjoint, rtol), 0.3681, atol=1e-4)
    np.testing.assert_allclose(slope("backsolve", 1e-9), np.exp(-1), rtol=1e-8)
