"""The transforms of JAX and of `torch.func` take a solve like any other function."""

import importlib

import keras
import numpy as np
import pytest
from cases import compiled, numbers
from keras import ops

from keras_nanode import Adaptive, layers, odeint

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    pytest.skip("tapes transform no functions", allow_module_level=True)
transforms = importlib.import_module({"jax": "jax", "torch": "torch.func"}[BACKEND])
grad, hessian, jacfwd, jacrev, jvp, vjp, vmap = (
    getattr(transforms, name)
    for name in ("grad", "hessian", "jacfwd", "jacrev", "jvp", "vjp", "vmap")
)

WAYS = {
    "fixed": {"solver": "rk4", "steps": 4},
    "adaptive": {"solver": "bosh3", "steps": Adaptive(1e-6, 1e-6, 64)},
}
OTHERS = {"checkpoint": "euler", "backsolve": "euler", "reversible": "alf"}
Y = np.array([0.3, -0.5, 0.6])
RATES = np.array([1.0, -1.0, 0.5])

in_both_ways = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own")


def tensor(values):
    return ops.convert_to_tensor(np.array(values, "float64"))


def flow(y, rate=1.0, t=(0.0, 1.0), adjoint="direct", **options):
    """y' = rate y^2 / 2."""

    def slope(t, y, rate):
        return rate * y * y / 2

    return odeint(slope, y, t, (rate,), adjoint=adjoint, **options)[-1]


def exact(y, rate=1.0):
    return y / (1 - rate * y / 2)


# Of the flow of one number after one unit of time.
FIRST, SECOND = (1 - Y / 2) ** -2, (1 - Y / 2) ** -3


def summed(f):
    return lambda y: f(y).sum()


TRANSFORMED = {
    "grad": (lambda f, y: grad(summed(f))(y), FIRST),
    "vjp": (lambda f, y: vjp(f, y)[1](ops.ones_like(y))[0], FIRST),
    "jvp": (lambda f, y: jvp(f, (y,), (ops.ones_like(y),))[1], FIRST),
    "jacrev": (lambda f, y: jacrev(f)(y), np.diag(FIRST)),
    "jacfwd": (lambda f, y: jacfwd(f)(y), np.diag(FIRST)),
    "hessian": (lambda f, y: hessian(summed(f))(y), np.diag(SECOND)),
    "grad of grad": (lambda f, y: grad(summed(grad(summed(f))))(y), SECOND),
    "vmap": (lambda f, y: vmap(f)(y), exact(Y)),
    "vmap of grad": (lambda f, y: vmap(grad(f))(y), FIRST),
}


@in_both_ways
@pytest.mark.parametrize(("transform", "found"), TRANSFORMED.values(), ids=TRANSFORMED)
def test_of_the_direct_adjoint_is_right(options, transform, found):
    run = compiled(lambda y: transform(lambda y: flow(y, **options), y))
    np.testing.assert_allclose(numbers(run(tensor(Y))), found, rtol=1e-3, atol=1e-6)


@in_both_ways
def test_rows_of_their_own_speed_are_mapped(options):
    def in_rate(y, rate):
        return jvp(lambda rate: flow(y, rate, **options), (rate,), (rate / rate,))

    ends, slopes = compiled(vmap(in_rate))(tensor(Y), tensor(RATES))
    np.testing.assert_allclose(numbers(ends), exact(Y, RATES), rtol=1e-3)
    np.testing.assert_allclose(numbers(slopes), exact(Y, RATES) ** 2 / 2, rtol=1e-3)


@in_both_ways
def test_in_times_it_is_right(options):
    def in_times(t):
        return jacfwd(lambda t: flow(tensor(Y), 1.0, t, **options))(t)

    actual = numbers(compiled(in_times)(tensor([0.0, 0.4, 1.0])))
    slope = exact(Y) ** 2 / 2
    found = np.stack([-slope, 0 * slope, slope], axis=1)
    np.testing.assert_allclose(actual, found, rtol=1e-3, atol=1e-4)


@in_both_ways
def test_of_a_layer_as_dynamics_it_is_right(options):
    """In its weights and its input at once."""
    layer = keras.layers.Dense(3, use_bias=False, dtype="float64")
    layer.build((1, 3))

    def func(t, y, kernel):
        return layer.stateless_call([kernel], [], y)[0]

    def loss(s):
        y, kernel = s * tensor([Y]), s * tensor(np.diag(RATES))
        end = odeint(func, y, [0.0, 1.0], (kernel,), adjoint="direct", **options)[-1]
        return (end**2).sum()

    first, second = compiled(lambda s: jvp(grad(loss), (s,), (s,)))(tensor(1.0))
    # Of the sum of s^2 y^2 exp(2 s rate).
    parts = Y**2 * np.exp(2 * RATES)
    exact_first = np.sum((2 + 2 * RATES) * parts)
    exact_second = np.sum((2 + 8 * RATES + 4 * RATES**2) * parts)
    np.testing.assert_allclose(float(first), exact_first, rtol=1e-3)
    np.testing.assert_allclose(float(second), exact_second, rtol=1e-3)


def decay():
    """A layer with y' = rate y, and the second derivative of its output's square."""
    rate = keras.layers.Dense(1, use_bias=False, dtype="float64")
    options = {"adjoint": "direct", "dtype": "float64", **WAYS["adaptive"]}
    ode = layers.ODE(rate, **options)
    ode.build((1, 1))
    return ode, 2 * np.exp(2 * rate.get_weights()[0].item())


def test_of_a_layer_in_training_it_is_right_and_counted():
    ode, found = decay()
    second = compiled(jacfwd(grad(lambda x: (ode(x, training=True) ** 2).sum())))
    np.testing.assert_allclose(numbers(second(tensor([[1.0]]))), found, rtol=1e-3)
    assert ode.tally.evaluations() > 4
    assert not ode.tally.failures()


def test_of_a_layer_outside_of_training_it_is_right_or_refused():
    """JAX keeps nothing for it then."""
    ode, found = decay()

    second = compiled(jacfwd(grad(lambda x: (ode(x) ** 2).sum())))
    if BACKEND == "torch":
        np.testing.assert_allclose(numbers(second(tensor([[1.0]]))), found, rtol=1e-3)
    else:
        with pytest.raises(ValueError, match="training=True.*Received: .*Direct"):
            second(tensor([[1.0]]))


@pytest.mark.parametrize("name", ["jvp", "hessian"])
@pytest.mark.parametrize("adjoint", OTHERS)
def test_other_adjoints_say_what_to_use(adjoint, name):
    transform, _ = TRANSFORMED[name]
    with pytest.raises(ValueError, match="Use that. Received: adjoint="):
        options = {"solver": OTHERS[adjoint], "steps": 1, "adjoint": adjoint}
        transform(lambda y: flow(y, **options), tensor(Y))


@on_torch
@pytest.mark.parametrize("name", ["grad", "vjp", "jacrev", "vmap"])
def test_pytorch_maps_no_other_adjoint(name):
    transform, _ = TRANSFORMED[name]
    with pytest.raises(ValueError, match="torch.func.*Received: adjoint="):
        transform(lambda y: flow(y, adjoint="checkpoint", **WAYS["fixed"]), tensor(Y))


@on_torch
@in_both_ways
def test_forward_mode_without_a_transform(options):
    import torch.autograd.forward_ad as forward

    def tangent(**options):
        with forward.dual_level():
            y = forward.make_dual(tensor(Y), ops.ones_like(tensor(Y)))
            return forward.unpack_dual(flow(y, **options)).tangent

    np.testing.assert_allclose(tangent(**options), FIRST, rtol=1e-3)
    with pytest.raises(ValueError, match='adjoint="direct"'):
        tangent(**options, adjoint="checkpoint")


@on_torch
@in_both_ways
def test_rows_with_times_of_their_own_are_refused(options):
    def solve(t):
        return flow(tensor(Y), 1.0, [0.0, t], **options)

    with pytest.raises(ValueError, match="Give all the same times.*Received: times"):
        vmap(solve)(tensor([1.0, 2.0]))
