"""Recognises handwritten digits: the quick start of the README as a file."""

import keras

from keras_nanode import datasets, layers

data = datasets.digits()
model = keras.Sequential(
    [
        keras.Input(data.input_shape),
        keras.layers.Conv2D(16, 3, padding="same"),
        layers.TrigConvODE(3, hidden_filters=8, solver="heun", steps=5),
        keras.layers.Flatten(),
        keras.layers.Dense(data.classes),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
model.fit(data.train, validation_data=data.test, epochs=5, shuffle=False)
model.save("digits.keras")
keras.models.load_model("digits.keras").evaluate(data.test)
