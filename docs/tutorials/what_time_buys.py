"""
Title: What time buys
Author: The authors of keras_nanode
Date created: 2026/12/01
Last modified: 2026/12/01
Description: Trajectories that cross, and a map that only weights that vary can reach.
"""

"""
If the weights do not depend on time, dx/dt = f(x) gives one slope at each place. Two
trajectories that pass a place have to go on alike. With weights W(t), the slope at a
place is another one later. This page shows on small problems what that changes, and
what it does not.
"""

import keras
import numpy as np

from keras_nanode import bases, layers, visualize

keras.utils.set_random_seed(0)


def train(model, x, targets, updates, rate):
    """Trains with all rows of x in each update, and gives the largest error left."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, updates)
    model.compile(keras.optimizers.Adam(schedule), ["mse"] * len(targets))
    repeated = [np.tile(y, (updates, 1)) for y in (x, *targets)]
    model.fit(repeated[0], repeated[1:], len(x), verbose=0, shuffle=False)
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    errors = map(np.subtract, map(keras.ops.convert_to_numpy, outputs), targets)
    return max(np.abs(error).max() for error in errors)


def fit(flow, x, y, updates=400):
    model = keras.Sequential([keras.Input((x.shape[1],)), flow])
    return train(model, x, [y], updates, rate=0.05)


"""
## On a line, nothing crosses

Solutions of an ODE on a line never meet at the same time, whether f depends on time or
not. So no exact flow maps x to -x. We try it with weights that vary. The error stays
near 1: the flow can do no better than to send both ends near 0.
"""

line = np.linspace(-1, 1, 9, dtype="float32")[:, None]
flow = layers.TrigDenseODE(2, solver="rk4", steps=20, t_span=(0, 1))
print(f"x -> -x on a line: error {fit(flow, line, -line):.2f}")
visualize.vector_field(flow, line)

"""
One more dimension is enough. `Augment(1)` appends a zero, and in the plane the points
turn around each other. Their first coordinates change places.
"""

plane = np.pad(line, [(0, 0), (0, 1)])
flow = layers.DenseODE(
    bases.Constant(), activation=None, solver="rk4", steps=20, t_span=(0, 1)
)
print(f"x -> -x in the plane: error {fit(flow, plane, -plane):.4f}")
visualize.vector_field(flow, plane[::2])

"""
Constant weights do it: time is not needed for this map. Room is.

## Paths that cross

In the plane, paths may cross if they pass the place at different times. With constant
weights they may not: there is one slope at each place. Two points start at (-1, -1) and
(-1, 1). The first is to go to (1, 1), the second to (1, -1), and both are asked to be
at chosen places in the middle of the time as well. One has passed the crossing then,
and the other has not.
"""

first = np.array([[-1, -1], [-1, 1]], "float32")
middle = np.array([[0.4, 0.4], [-0.4, 0.4]], "float32")
last = np.array([[1, 1], [1, -1]], "float32")


def fit_through(basis):
    """Trains the two halves of one flow: they share their weights."""
    dynamics = layers.TimeVarying(
        layers.DenseBlock(hidden_units=16, activation="tanh"), basis
    )
    early = layers.ODE(dynamics, "rk4", steps=12, t_span=(0, 0.5))
    late = layers.ODE(dynamics, "rk4", steps=12, t_span=(0.5, 1))
    inputs = keras.Input((2,))
    halfway = early(inputs)
    model = keras.Model(inputs, [halfway, late(halfway)])
    error = train(model, first, [middle, last], updates=1_000, rate=0.005)
    return layers.ODE(dynamics, "rk4", steps=24), error


constant, error = fit_through(bases.Constant())
print(f"constant weights: error {error:.3f}")
visualize.vector_field(constant, first)

"""
How large this error is depends on the training: with other rates and more units it was
0.2 to 0.3 in our trials. A flow with constant weights could still meet all targets if
one path went all the way around the other; what it cannot do is cross.

The same network with weights that vary, f(x, W(t)):
"""

varying, error = fit_through(bases.Cosine(3))
print(f"weights that vary: error {error:.3f}")
visualize.vector_field(varying, first)

"""
## A map that only time can reach

Take linear flows, dx/dt = W x. With a constant W they reach the matrices exp(W). The
map diag(-1/2, -2) is none of these: a real matrix with two different negative
eigenvalues has no real logarithm. But dx/dt = W(t) x reaches every matrix with a
positive determinant, as this one has, by one constant piece after another.
"""

grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 3)] * 2), -1).reshape(-1, 2)
grid = grid.astype("float32")
target = grid * np.array([-0.5, -2], "float32")


def linear(basis):
    return layers.DenseODE(
        basis, activation=None, use_bias=False, solver="rk4", steps=24, t_span=(0, 1)
    )


constant, varying = linear(bases.Constant()), linear(bases.Trigonometric(2, period=1))
print(f"constant W: error {fit(constant, grid, target, 1_500):.3f}")
print(f"W(t):       error {fit(varying, grid, target, 1_500):.3f}")
visualize.vector_field(constant, grid)

"""
With W(t) the field changes while the points move, and each arrives:
"""

visualize.vector_field(varying, grid)

"""
These are the four numbers of W(t) that do it:
"""

visualize.weights(varying)

"""
## What to take from this

Room (`Augment`) lets a flow turn points past each other. Weights that vary let it do
one thing first and another thing later. Neither replaces the other. These are problems
made to show the difference. What it is worth on images is measured in the tutorial on
classification.
"""
