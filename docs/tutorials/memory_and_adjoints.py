"""
Title: Memory and adjoints
Author: The authors of keras_nanode
Date created: 2026/12/01
Last modified: 2026/12/01
Description: What a training step keeps, and how exact its gradient is.
"""

"""
## Four ways back

A training step computes outputs, and then goes back to find the gradient. On its way
back it needs the states it has passed. An *adjoint* says where it gets them from:

- `"direct"` keeps all that every step has computed, as a residual network does.
- `"checkpoint"`, the default, keeps about √n states of n steps and computes the others
  again. `Checkpoint(num)` says how many it keeps.
- `"reversible"` computes each state from the one after it. It needs a solver that can
  be run backwards, such as `"reversible_heun"`.
- `"backsolve"` solves the ODE backwards. What it meets is not quite what it has passed,
  so its gradient is off by the error of the solver.

## Memory

Each row below is measured in a process of its own: by how much one training step raises
the process's peak memory (Linux and macOS tell it). The flow is a convolution on images
with 16 channels, so large that the states dominate.
"""

import functools
import subprocess
import sys

import keras
import numpy as np

from keras_nanode import Adaptive, bases, layers, visualize

SCRIPT = """
import resource, sys
import keras, numpy as np
from keras_nanode import layers
adjoint, solver, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
flow = layers.TrigConvODE(2, solver=solver, steps=steps, adjoint=adjoint)
x = np.random.default_rng(0).normal(size=(16, 64, 64, 16)).astype("float32")
model = keras.Sequential([keras.Input(x.shape[1:]), flow])
model.compile("sgd", "mse", jit_compile=False)
model.train_on_batch(x[:1], x[:1])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
model.train_on_batch(x, x)
unit = 2**20 if sys.platform == "darwin" else 2**10
print((peak() - before) / unit)
"""


def megabytes(adjoint, solver, steps):
    command = [sys.executable, "-c", SCRIPT, adjoint, solver, str(steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


print("one state has", 16 * 64 * 64 * 16 * 4 // 2**20, "MB")
print(f"{'adjoint':12}{'solver':17}{'10 steps':>9}{'40 steps':>10}")
for adjoint, solver in [
    ("direct", "euler"),
    ("checkpoint", "euler"),
    ("backsolve", "euler"),
    ("reversible", "reversible_heun"),
]:
    few, many = (megabytes(adjoint, solver, steps) for steps in (10, 40))
    print(f"{adjoint:12}{solver:17}{few:6.0f} MB{many:7.0f} MB")

"""
Four times as many steps take about four times the memory with `"direct"`. With
`"checkpoint"` they take little more, and with the other two no more, up to what the
allocator happens to do.

## Exactness

Now the gradient of the same loss by each of them, compared with `"direct"`, which is
what the backend's own differentiation finds. We look at dL/dx. One way to get it on any
backend: a trainable x in front of the flow, and one step of SGD at rate 1.
"""


@keras.saving.register_keras_serializable("tutorial")
class Start(keras.layers.Layer):
    """Gives its weights, whatever its input is."""

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.x = self.add_weight(shape=value.shape, initializer="zeros")
        self.x.assign(value)

    def call(self, inputs):
        return self.x + 0 * inputs


value = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


@functools.cache
def gradient(adjoint, solver, steps):
    keras.utils.set_random_seed(0)
    flow = layers.TrigDenseODE(
        2, hidden_units=16, solver=solver, steps=steps, adjoint=adjoint
    )
    start = Start(value)
    model = keras.Sequential([keras.Input((value.shape[1],)), start, flow])
    flow.trainable = False
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(np.zeros_like(value), np.ones_like(value))
    return value - keras.ops.convert_to_numpy(start.x.value)


print(f"{'adjoint':12}{'solver':17}{'5 steps':>9}{'40 steps':>10}")
for adjoint, solver in [
    ("checkpoint", "euler"),
    ("backsolve", "euler"),
    ("backsolve", "rk4"),
    ("reversible", "reversible_heun"),
]:
    errors = []
    for steps in (5, 40):
        exact = gradient("direct", solver, steps)
        found = gradient(adjoint, solver, steps)
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    few, many = errors
    print(f"{adjoint:12}{solver:17}{few:9.0e}{many:10.0e}")

"""
`"checkpoint"` and `"reversible"` agree with `"direct"` up to rounding. `"backsolve"`
does not with Euler's method, and comes nearer as the steps get smaller. With rk4 it is
much nearer.

## Steps that are chosen

An adaptive solver chooses its steps by their estimated error. `visualize.steps` shows
what it did: circles were accepted, and crosses were tried and rejected. Dotted lines
are the edges of the buckets, where the weights jump. A step ends on each.
"""

keras.utils.set_random_seed(0)
flow = layers.DenseODE(
    bases.Bucket(4, domain=(0.0, 8.0)), solver="dopri5", steps=Adaptive(rtol=1e-6)
)
visualize.steps(flow, 3 * value)

"""
In the backward pass `"checkpoint"` takes exactly the accepted steps again. So the
gradient is that of the numbers which were computed.

## Which one

Use the default. If memory is still short, take `"backsolve"` with an accurate solver,
or `"reversible"`. Use `"direct"` to differentiate twice.
"""
