"""
Title: A first layer
Author: The authors of keras_nanode
Date created: 2026/12/01
Last modified: 2026/12/01
Description: A layer that solves an ODE, in a model that tells two spirals apart.
"""

"""
## What such a layer is

A dense layer maps x to tanh(W x + b) at once. An ODE layer starts at x and follows

dx/dt = tanh(W(t) x + b(t))

for a while. Its output is where x has arrived. It keeps the shape of its input, so it
stands where a stage of residual blocks would stand. Its weights are functions of time,
W(t) = Σₖ zₖ(t) Wₖ. The functions zₖ are a *basis*, and the Wₖ are what `fit` learns.
"""

import pathlib
import tempfile

import keras
import numpy as np

from keras_nanode import layers, visualize

keras.utils.set_random_seed(0)

"""
## Data

Two spirals wind around each other. No straight line tells them apart.
"""


def spirals(number, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, number)
    angle = 2 * np.pi * np.sqrt(random.uniform(0.02, 1, number))
    radius = angle / (2 * np.pi) + random.normal(0, 0.01, number)
    turned = angle + np.pi * labels
    points = radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=-1)
    return (2 * points).astype("float32"), labels


x_train, y_train = spirals(1_000, seed=1)
x_test, y_test = spirals(500, seed=2)

"""
## The model

`TrigDenseODE(3)` has trigonometric functions up to the third harmonic as its basis:
1, cos, sin, and so on, seven in all. The solver takes ten steps of Heun's method from
t = 0 to t = 1. The weights start constant in time, and learn to vary.

`Augment(2)` appends two zeros to each point. A flow keeps points apart, and in the
plane it cannot easily pull two spirals out of each other. In four dimensions it has
room.
"""

flow = layers.TrigDenseODE(3, solver="heun", steps=10, t_span=(0, 1), start="constant")
model = keras.Sequential(
    [keras.Input((2,)), layers.Augment(2), flow, keras.layers.Dense(1)]
)
model.compile(
    keras.optimizers.Adam(1e-2),
    keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
)
history = model.fit(x_train, y_train, batch_size=50, epochs=50, verbose=0)
scores = model.evaluate(x_test, y_test, return_dict=True, verbose=0)
print(f"{model.count_params():,} parameters")
print(f"test accuracy {scores['binary_accuracy']:.1%}")

"""
## What it has learned

A line is a point of the test set on its way through the layer, from a circle to a
square, in the plane in which the states differ the most.
"""

augmented = np.pad(x_test[:24], [(0, 0), (0, 2)])
visualize.trajectories(flow, augmented)

"""
Each weight is now a function of time. `weights_at` gives their values, and
`visualize.weights` draws them. Of the sixteen numbers of the kernel it shows eight,
from the one that varies least to the one that varies most.
"""

kernel = flow.weights_at(0.5)[0]
print("the kernel at t = 0.5:", tuple(kernel.shape))
visualize.weights(flow)

"""
## Back again

The solution of an ODE can be followed backwards. `inverse` gives the inputs that lead
to given outputs, up to the error of the solver. More steps make that error smaller, for
the same weights.
"""

for steps in (10, 40, 160):
    flow.steps = steps
    outputs = flow(augmented)
    error = np.abs(keras.ops.convert_to_numpy(flow.inverse(outputs)) - augmented).max()
    print(f"{steps:4d} steps: inverse is off by {error:.1e}")
flow.steps = 10

"""
## A file

The layer is saved as any other layer is, and needs no `custom_objects`.
"""

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "spirals.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
same = np.allclose(model.predict(x_test, verbose=0), loaded.predict(x_test, verbose=0))
print("the loaded model predicts the same:", same)
