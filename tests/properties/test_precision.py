"""What a classifier of real images learns in each precision."""

import keras
import pytest

from keras_nanode import datasets, layers

EPOCHS = 12


def classifier(policy, data):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input(data.input_shape),
            keras.layers.Conv2D(16, 3, 2, padding="same"),
            layers.TrigConvODE(3, activation="tanh", steps=3),
            keras.layers.Flatten(),
            keras.layers.Dense(data.classes),
        ]
    )
    policy = keras.DTypePolicy(policy)
    assert model.outputs[0].dtype == policy.compute_dtype
    coefficients = model.layers[1].dynamics.coefficients
    assert coefficients[0].dtype == policy.variable_dtype
    return model


def accuracy(model, data):
    # Under mixed_float16 Keras scales the loss by itself.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * len(data.train))
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(data.train_from(0), epochs=EPOCHS, shuffle=False, verbose=0)
    return model.evaluate(data.test, return_dict=True, verbose=0)["accuracy"]


@pytest.mark.nightly
def test_every_precision_learns_as_float32_does():
    keras.utils.set_random_seed(0)
    data = datasets.digits(batch_size=64)
    model = classifier("float32", data)
    # A precision may draw other numbers from the same seed.
    start = model.get_weights()
    known = accuracy(model, data)
    assert known > 0.95
    for policy in ("mixed_float16", "mixed_bfloat16", "float64"):
        model = classifier(policy, data)
        model.set_weights(start)
        assert abs(accuracy(model, data) - known) <= 0.01, policy
