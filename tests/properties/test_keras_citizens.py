"""What Keras does with layers and models of its own, it does with these."""

import shutil

import keras
import numpy as np
import pytest
from cases import numbers, random

from keras_nanode import Checkpoint, bases, layers

X, Y = random((16, 5, 3)), random((16, 1), seed=1)


def build(**compilation):
    """An ODE beside recurrent layers."""
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.TrigDenseODE(1, steps=2, name="ode"),
            keras.layers.GRU(4),
            layers.BucketDenseODE(2, hidden_units=2, solver="heun", steps=2),
            keras.layers.Dense(1),
        ]
    )
    options = {"optimizer": "sgd", "loss": "mse", **compilation}
    model.compile(**options)
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.ode = layers.TrigDenseODE(1, steps=2)
        self.head = keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(self.ode(inputs)[:, -1])


@pytest.mark.parametrize("make", [build, Subclassed])
def test_models_learn_with_the_callbacks_of_keras(make, tmp_path):
    model, file = make(), tmp_path / "best.weights.h5"
    model.compile(keras.optimizers.SGD(0.05), "mse")
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    patience = keras.callbacks.EarlyStopping("loss", min_delta=1e3, patience=2)
    best = keras.callbacks.ModelCheckpoint(
        file, monitor="loss", save_best_only=True, save_weights_only=True
    )
    history = model.fit(X, Y, epochs=9, callbacks=[rates, patience, best], verbose=0)
    # No gain of 1,000 in two epochs after the first.
    assert len(history.history["loss"]) == 3
    assert history.history["loss"][2] < history.history["loss"][0]
    np.testing.assert_allclose(history.history["learning_rate"], [0.1, 0.05, 0.1 / 3])
    again = make()
    again(X)
    again.load_weights(file)
    np.testing.assert_allclose(numbers(again(X)), numbers(model(X)), atol=1e-6)


def test_tensor_board_writes_the_histograms_of_the_coefficients(tmp_path):
    pytest.importorskip("tensorboard")
    model = build()
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    model.fit(X, Y, callbacks=[board], verbose=0)
    (events,) = (tmp_path / "train").iterdir()
    assert b"ode" in events.read_bytes()


class Counting(keras.layers.Dense):
    """Counts how often it is evaluated, where Python runs through it each time."""

    count = 0

    def call(self, inputs):
        Counting.count += 1
        return super().call(inputs)


@pytest.mark.parametrize("trainable", [True, False])
def test_a_frozen_layer_keeps_its_weights_and_has_no_gradients(trainable):
    """Its dynamics are evaluated once a step, and never to find a gradient."""
    dynamics = layers.TimeVarying(Counting(3, "tanh"), bases.Trigonometric(1))
    # All states are kept: nothing but a gradient evaluates them again.
    ode = layers.ODE(dynamics, steps=4, adjoint=Checkpoint(4))
    model = keras.Sequential([keras.Input((3,)), ode, keras.layers.Dense(1)])
    ode.trainable = trainable
    assert len(model.trainable_weights) == (4 if trainable else 2)
    # Eager, so that a loop in Python is one in the machine.
    model.compile("sgd", "mse", run_eagerly=True)
    before = model.get_weights()
    model.fit(X[:, 0], Y, 16, verbose=0)  # the first looks at shapes too
    Counting.count = 0
    model.fit(X[:, 0], Y, 16, verbose=0)
    after = model.get_weights()
    changed = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert changed == [trainable, trainable, True, True]
    if keras.backend.backend() != "jax":  # whose loops Python runs through once
        assert (Counting.count == 4) is not trainable, Counting.count


def test_accumulated_gradients_are_those_of_the_joint_batch():
    learned = []
    for batch_size, accumulated in ((16, None), (4, 4)):
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated)
        model = build(optimizer=optimizer)
        before = model.get_weights()
        model.fit(X, Y, batch_size, epochs=2, shuffle=False, verbose=0)
        learned.append(model.get_weights())
    for one, other, old in zip(*learned, before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert not np.array_equal(one, old)


def test_the_summary_tells_shapes_and_counts():
    lines = []
    build().summary(print_fn=lines.append, line_length=76)
    (row,) = (line for line in "\n".join(lines).splitlines() if "TrigDenseODE" in line)
    name, shape, count = (cell.strip() for cell in row.strip("│").split("│"))
    # Three functions of time for each of 3 x 3 weights and 3 biases.
    assert (name, shape, count) == ("ode (TrigDenseODE)", "(None, 5, 3)", "36")


def test_a_model_is_plotted(tmp_path):
    pytest.importorskip("pydot")
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed")
    keras.utils.plot_model(build(), tmp_path / "model.png", show_shapes=True)
    assert (tmp_path / "model.png").stat().st_size > 1000


def test_a_clone_has_the_configuration_and_weights_of_its_own():
    model = build()
    clone = keras.models.clone_model(model)
    assert clone.get_layer("ode").get_config() == model.get_layer("ode").get_config()
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(numbers(clone(X)), numbers(model(X)), atol=1e-6)
    clone.set_weights([0 * w for w in clone.get_weights()])
    assert np.abs(numbers(model(X))).max() > 0


# Keras says of every layer without weights that it has none to quantize.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize(
    ("make", "inner"),
    [
        (lambda: layers.TrigDenseODE(1, steps=2), "float32"),
        (lambda: layers.ODE(keras.layers.Dense(3, "tanh"), steps=2), "int8"),
        (lambda: layers.ODE(layers.DenseBlock(hidden_units=2), steps=2), "int8"),
        (lambda: layers.ResidualStack(layers.DenseBlock(), depth=2), "int8"),
    ],
    ids=["coefficients", "autonomous", "block", "residual"],
)
def test_quantization_takes_the_layers_of_keras_and_spares_coefficients(
    make, inner, tmp_path
):
    ode, head = make(), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((3,)), ode, head])
    x = X[:, 0]
    y = model.predict(x, verbose=0)
    model.quantize("int8")
    assert {w.dtype for w in head.weights} == {"int8", "float32"}
    assert inner in {w.dtype for w in ode.weights}
    assert ("int8" in {w.dtype for w in ode.weights}) is (inner == "int8")
    quantized = model.predict(x, verbose=0)
    np.testing.assert_allclose(quantized, y, atol=0.05 * np.abs(y).max())
    assert not np.array_equal(quantized, y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), quantized, atol=1e-6)
