"""Masks: what is behind the end of a sequence never reaches what is before it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_nanode import Adaptive, layers, models

WIDTH = 4


def attention(width=None):
    return keras.layers.MultiHeadAttention(2, 3, output_shape=width)


@keras.saving.register_keras_serializable("test_masks")
class Reads(keras.Layer):
    """Attention that finds the mask on its input."""

    def __init__(self, width=None, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attention = attention(width)
        self.supports_masking = True

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)

    def call(self, inputs):
        return ops.tanh(self.attention(inputs, inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width or input_shape[-1])


@keras.saving.register_keras_serializable("test_masks")
class Takes(Reads):
    """Attention that is given the mask."""

    def call(self, inputs, mask=None):
        return ops.tanh(self.attention(ops.copy(inputs), inputs, value_mask=mask))


@keras.saving.register_keras_serializable("test_masks")
class TakesWithTime(Reads):
    def call(self, inputs, t, mask=None):
        y = self.attention(ops.copy(inputs), inputs, value_mask=mask)
        return ops.cast(t, y.dtype) * ops.tanh(y)


@keras.saving.register_keras_serializable("test_masks")
class TakesAfterTime(Reads):
    def build(self, t_shape, y_shape):
        self.attention.build(y_shape, y_shape)

    def compute_output_shape(self, t_shape, y_shape):
        return y_shape

    def call(self, t, y, mask=None):
        dy = self.attention(ops.copy(y), y, value_mask=mask)
        return ops.cast(t, dy.dtype) * ops.tanh(dy)


def model_of_attention():
    x = keras.Input((None, WIDTH))
    return keras.Model(x, attention()(x, x))


def sequential_of_attention():
    return keras.Sequential([Reads(), keras.layers.LayerNormalization()])


DYNAMICS = {
    "reads": Reads,
    "takes": Takes,
    "with time": TakesWithTime,
    "after time": TakesAfterTime,
    "functional": model_of_attention,
    "sequential": sequential_of_attention,
    "varying": lambda: layers.TimeVarying(Reads(), "trig"),
    "varying functional": lambda: layers.TimeVarying(model_of_attention(), "trig"),
    "appended": lambda: layers.TimeAppended(Reads(WIDTH)),
    "stack": lambda: layers.ResidualStack(Reads(), depth=2),
}
LAYERS = {
    **{
        name: lambda make=make: layers.ODE(make(), "rk4", steps=2)
        for name, make in DYNAMICS.items()
    },
    "residual": lambda: layers.ResidualStack(Reads(), depth=3),
    "nested": lambda: layers.ODE(layers.ODE(Reads(), steps=2), steps=2),
}


def sequences(length, seed=0):
    """Two of `length`, the second ending after three, with other values behind."""
    x = np.random.default_rng(5).normal(size=(2, 3, WIDTH))
    behind = np.random.default_rng(seed).normal(size=(2, length - 3, WIDTH))
    x = np.concatenate([x, behind], axis=1).astype("float32")
    mask = np.ones((2, length), bool)
    mask[:, 3:] = False
    return ops.convert_to_tensor(x), ops.convert_to_tensor(mask)


def numbers(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_do_not_depend_on_the_padding(make, training):
    layer = make()
    short, _ = sequences(3)
    expected = numbers(layer(short, training=training))
    for length, seed in [(5, 1), (5, 2), (9, 3)]:
        x, mask = sequences(length, seed)
        y = numbers(layer(x, mask=mask, training=training))
        np.testing.assert_allclose(y[:, :3], expected, atol=1e-6)
    # Without the mask it would.
    unmasked = numbers(layer(x, training=training))
    assert abs(unmasked[:, :3] - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["takes", "with time", "varying", "residual"])
def test_models_train_alike_whatever_the_padding(name):
    """Keras finds the mask behind an Embedding, and so do gradients."""
    embedding = keras.layers.Embedding(9, WIDTH, mask_zero=True)
    layer = LAYERS[name]()

    def model():
        pool = keras.layers.GlobalAveragePooling1D()
        model = keras.Sequential([embedding, layer, pool, keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=False)
        return model

    short = np.array([[1, 2, 3], [4, 5, 6]])
    padded = np.pad(short, [(0, 0), (0, 4)])
    first = model()
    first.build((None, None))
    start = first.get_weights()
    results = []
    for tokens in (short, padded):
        first.set_weights(start)
        first.fit(tokens, np.ones((2, 1)), epochs=2, verbose=0)
        results.append((first.predict(tokens, verbose=0), *first.get_weights()))
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)
    moved = [abs(a - b).max() for a, b in zip(start, results[0][1:], strict=True)]
    assert max(moved) > 1e-4


@pytest.mark.parametrize("adjoint", ["checkpoint", "backsolve", "direct"])
def test_adaptive_steps_see_the_mask(adjoint):
    layer = layers.ODE(Takes(), "dopri5", Adaptive(1e-6), adjoint=adjoint)
    expected = numbers(layer(sequences(3)[0]))
    x, mask = sequences(6)
    y = numbers(layer(x, mask=mask, training=True))
    np.testing.assert_allclose(y[:, :3], expected, atol=1e-4)


def test_the_inverse_takes_the_mask():
    layer = layers.ODE(Takes(), "rk4", steps=20)
    x, mask = sequences(6)
    y = layer(x, mask=mask)
    np.testing.assert_allclose(
        numbers(layer.inverse(y, mask=mask)), numbers(x), atol=1e-4
    )


class MaskOf(keras.Layer):
    """The mask that is on its input."""

    supports_masking = True

    def call(self, inputs, mask=None):
        return ops.zeros_like(inputs[..., 0]) if mask is None else mask


KEEPING = {
    **LAYERS,
    "dense block": layers.DenseBlock,
    "conv block": layers.ConvBlock,
    "dense ode": lambda: layers.DenseODE("trig"),
    "conv ode": lambda: layers.ConvODE("bucket"),
    "augment": lambda: layers.Augment(2),
}


@pytest.mark.parametrize("make", KEEPING.values(), ids=KEEPING)
def test_layers_that_keep_the_axes_pass_the_mask_on(make):
    x, mask = sequences(5)
    x = numbers(x) * numbers(mask)[..., None]
    model = keras.Sequential([keras.layers.Masking(), make(), MaskOf()])
    np.testing.assert_array_equal(numbers(model(x)).astype(bool), numbers(mask))


@pytest.mark.parametrize("t", [0.5, np.float32(0.5), "tensor"])
@pytest.mark.parametrize("name", ["varying", "appended"])
def test_dynamics_alone_take_the_mask(name, t):
    layer = DYNAMICS[name]()
    t = ops.convert_to_tensor(0.5) if isinstance(t, str) else t
    expected = numbers(layer(sequences(3)[0], t=t))
    x, mask = sequences(6)
    np.testing.assert_allclose(
        numbers(layer(x, t=t, mask=mask))[:, :3], expected, atol=1e-6
    )


def test_masks_are_refused_by_materialize():
    """Operations between layers, of which plain models are made, carry none."""
    tokens = keras.Input((5,))
    for x in (
        keras.layers.Embedding(9, WIDTH, mask_zero=True)(tokens),
        keras.layers.Masking()(keras.layers.Embedding(9, WIDTH)(tokens)),
    ):
        model = keras.Model(tokens, layers.DenseODE("cosine", steps=2)(x))
        with pytest.raises(ValueError, match=r"makes a mask.*Received: a model with"):
            models.materialize(model)
