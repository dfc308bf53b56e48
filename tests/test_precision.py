"""What a classifier of real images learns in each precision."""

import keras
import pytest

from keras_nanode import datasets, layers


def accuracy(policy):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    data = datasets.digits(batch_size=64)
    model = keras.Sequential(
        [
            keras.Input(data.input_shape),
            keras.layers.Conv2D(8, 3, 2, padding="same"),
            layers.TrigConvODE(3, activation="tanh", steps=3),
            keras.layers.Flatten(),
            keras.layers.Dense(data.classes),
        ]
    )
    # Under mixed_float16 Keras scales the loss by itself.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 8 * len(data.train))
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    assert model.outputs[0].dtype == keras.DTypePolicy(policy).compute_dtype
    assert (
        model.layers[1].dynamics.coefficients[0].dtype
        == keras.DTypePolicy(policy).variable_dtype
    )
    model.fit(data.train, epochs=8, shuffle=False, verbose=0)
    return model.evaluate(data.test, return_dict=True, verbose=0)["accuracy"]


@pytest.mark.slow
def test_every_precision_learns_as_float32_does():
    known = accuracy("float32")
    assert known > 0.95
    for policy in ("mixed_float16", "mixed_bfloat16", "float64"):
        learned = accuracy(policy)
        assert abs(learned - known) <= 0.01, policy
