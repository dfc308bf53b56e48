"""PyTorch: a view into a tensor is solved as a copy of its entries is."""

import functools
import itertools

import keras
import numpy as np
import pytest
from cases import ADJOINTS, LAYERS
from keras import ops

from keras_nanode import Adaptive, layers, odeint

if keras.backend.backend() != "torch":
    pytest.skip("the others have no views", allow_module_level=True)

import torch


def numbers(*shape):
    x = np.random.default_rng(0).normal(size=shape)
    return torch.tensor(x, dtype=torch.float32)


def cut(shape):
    return numbers(*(n + 3 for n in shape))[tuple(slice(1, n + 1) for n in shape)]


def strided(shape):
    return numbers(*(2 * n for n in shape))[tuple(slice(1, None, 2) for _ in shape)]


def expanded(shape):
    return numbers(*shape[1:]).expand(shape)


def repeated(shape):
    """Each sample is the same, and each channel."""
    return numbers(*shape[:-1], 1)[:1].expand(shape)


def overlapping(shape):
    """As windows of a series are."""
    return numbers(1000).as_strided(shape, [1] * len(shape))


def shifted(shape):
    size = int(np.prod(shape))
    return numbers(size + 5)[5:].view(shape)


def transposed(shape):
    return numbers(*reversed(shape)).permute(*reversed(range(len(shape))))


def channels_first(shape):
    return numbers(shape[0], shape[-1], *shape[1:-1]).movedim(1, -1)


def channels_last(shape):
    x = numbers(*shape)
    return x.to(memory_format=torch.channels_last) if len(shape) == 4 else x.mT.mT


def real(shape):
    return torch.view_as_complex(numbers(*shape, 2)).real


def negated(shape):
    """Its entries are in memory with the other sign."""
    return torch.view_as_complex(numbers(*shape, 2)).conj().imag


VIEWS = [
    cut,
    strided,
    expanded,
    repeated,
    overlapping,
    shifted,
    transposed,
    channels_first,
    channels_last,
    real,
    negated,
]


def with_gradients(f, x, weights=()):
    x = x.detach().requires_grad_()
    y = f(x)
    gradients = torch.autograd.grad((y**2).sum(), [x, *weights])
    return [z.detach() for z in (y, *gradients)]


def assert_like_copy(f, view, weights=()):
    copy = view.resolve_neg().clone(memory_format=torch.contiguous_format)
    results = (with_gradients(f, x, weights) for x in (view, copy))
    for a, b in zip(*results, strict=True):
        scale = 1e-5 * max(1, float(abs(b).max()))
        np.testing.assert_allclose(a.resolve_neg(), b, rtol=1e-4, atol=scale)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_takes_every_view(name):
    make, shape = LAYERS[name]
    layer = getattr(layers, name)(**make())
    named = {"t": 0.7} if name in ("TimeVarying", "TimeAppended") else {}
    layer.build(shape)
    weights = [v.value for v in layer.trainable_variables]
    # Each order of the axes in memory is recorded, which takes most of the time.
    views = VIEWS if len(shape) == 2 else [cut, expanded, overlapping, channels_last]
    for view in views:
        assert_like_copy(
            lambda x: layer(x, training=True, **named), view(shape), weights
        )


STEPS = {"fixed": 2, "adaptive": Adaptive(1e-2, 1e-2)}


@pytest.mark.parametrize(("adjoint", "steps"), list(itertools.product(ADJOINTS, STEPS)))
def test_every_adjoint_takes_every_view(adjoint, steps):
    if (adjoint, steps) == ("reversible", "adaptive"):
        pytest.skip("reversible solvers take fixed steps")
    solver = "alf" if adjoint == "reversible" else "bosh3"
    layer = keras.layers.Dense(3, "tanh")
    layer.build((2, 4, 3))
    weights = [v.value for v in layer.trainable_variables]

    def solved(f, args, x):
        options = {"solver": solver, "steps": STEPS[steps], "adjoint": adjoint}
        return odeint(f, x, [0.0, 1.0], args, **options)

    for view in VIEWS:
        x = view((2, 4, 3))
        assert_like_copy(functools.partial(solved, layer, ()), x, weights)
        # A state and an argument.
        function = functools.partial(solved, lambda t, y, w: ops.tanh(y + w) * t)
        assert_like_copy(lambda x: function((x,), x), x)  # noqa: B023


def test_models_take_every_view():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, layers.ODE(keras.layers.Dense(3), "rk4", 2)(inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    for view in VIEWS:
        x = view((2, 4, 3)).resolve_neg()
        copy = x.clone(memory_format=torch.contiguous_format)
        losses = []
        for batch in (x, copy, x.numpy(), copy.numpy()[:, ::-1]):
            model.predict_on_batch(batch)
            losses.append(model.evaluate(batch, batch, verbose=0))
        np.testing.assert_allclose(losses[:-1], losses[1], rtol=1e-5)
        assert np.isfinite(model.train_on_batch(x, x))
