"""What Keras does with layers and models of its own, it does with these."""

import shutil

import keras
import numpy as np
import pytest
from cases import numbers, random

from keras_nanode import bases, layers

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
    """Counts how often Python runs through it."""

    count = 0

    def call(self, inputs):
        Counting.count += 1
        return super().call(inputs)


def evaluations_of(run):
    before = Counting.count
    run()
    return Counting.count - before


def test_a_frozen_layer_keeps_its_weights_and_has_no_gradients():
    """Its dynamics are evaluated as in `predict`, and not once more."""
    counts = {}
    for trainable in (True, False):
        dynamics = layers.TimeVarying(Counting(3, "tanh"), bases.Trigonometric(1))
        ode = layers.ODE(dynamics, steps=4)
        head = keras.layers.Dense(1)
        model = keras.Sequential([keras.Input((3,)), ode, head])
        ode.trainable = trainable
        assert (ode.trainable_weights == []) is not trainable
        model.compile("sgd", "mse")
        before = model.get_weights()
        x = X[:, 0]
        forwards = evaluations_of(lambda m=model: m.predict(x, verbose=0))
        steps = evaluations_of(lambda m=model: m.fit(x, Y, 16, verbose=0))
        moved = [
            not np.array_equal(*pair)
            for pair in zip(before, model.get_weights(), strict=True)
        ]
        assert moved == [trainable, trainable, True, True]
        counts[trainable] = steps / forwards
    assert counts[False] == 1 < counts[True]


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
    model = build()
    model.summary(print_fn=lines.append, line_length=100)
    text = "\n".join(lines)
    row = next(line for line in text.splitlines() if line.strip("│ ").startswith("ode"))
    assert "TrigDenseODE" in row and "(None, 5, 3)" in row
    # Three functions of time for each of 3 x 3 weights and 3 biases.
    assert row.rstrip("│ ").split()[-1] == "36"
    assert f"{model.count_params():,}" in text


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


def test_quantization_spares_the_coefficients_of_an_ode():
    model = build()
    y = numbers(model(X))
    coefficients = [numbers(w) for w in model.get_layer("ode").weights]
    model.quantize("int8")
    quantized = [
        type(l).__name__ for l in model.layers if "int8" in l.dtype_policy.name
    ]
    assert quantized == ["Dense"]
    for weight, old in zip(model.get_layer("ode").weights, coefficients, strict=True):
        np.testing.assert_array_equal(numbers(weight), old)
    np.testing.assert_allclose(numbers(model(X)), y, atol=0.05 * np.abs(y).max())
