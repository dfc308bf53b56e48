"""This library's layers for the workloads, on any backend."""

from typing import Any

import keras

from keras_nanode import Adaptive, Checkpoint, bases, layers, odeint
from peers.workloads import Workload

ADJOINTS = {
    "checkpoint": lambda workload: "checkpoint",
    # Where the number of adaptive steps is not known, so many that none is dropped.
    "all states": lambda workload: Checkpoint(num=workload.steps or 32),
    "backsolve": lambda workload: "backsolve",
    "direct": lambda workload: "direct",
    "reversible": lambda workload: "reversible",
}

STAGES = {"euler": 1, "rk4": 4}
DOPRI5_STAGES = 6  # beside the first, which is the last of the step before


def make_layer(workload: Workload, variant: str, coefficients):
    """The built layer with the coefficients given."""
    solver = "reversible_heun" if variant == "reversible" else workload.solver
    tolerance = workload.tolerance
    arguments: dict[str, Any] = {
        "solver": solver,
        "steps": workload.steps or Adaptive(tolerance, tolerance, 1000),
        "adjoint": ADJOINTS[variant](workload),
        "t_span": (0.0, 1.0),
    }
    if workload.field == "conv":
        layer = layers.ConvODE(
            make_basis(workload), hidden_filters=workload.hidden, **arguments
        )
    elif workload.field == "dense":
        layer = layers.DenseODE(make_basis(workload), **arguments)
    else:
        layer = layers.ODE(make_dynamics(workload), **arguments)
    layer.build((None, *workload.shape[1:]))
    for variable, value in zip(layer.trainable_variables, coefficients, strict=True):
        variable.assign(value)
    return layer


def make_basis(workload: Workload) -> bases.Basis:
    assert workload.basis is not None
    kind, number = workload.basis
    return {"trig": bases.Trigonometric, "bucket": bases.Bucket}[kind](number)


def make_dynamics(workload: Workload):
    """The fields whose weights do not depend on time."""
    channels, hidden = workload.shape[-1], workload.hidden
    dense = keras.layers.Dense
    if workload.field == "spiral":
        first = keras.layers.Activation(lambda x: x**3)
        return keras.Sequential([first, dense(hidden, "tanh"), dense(channels)])
    mlp = [dense(hidden, "tanh"), dense(hidden, "tanh"), dense(channels)]
    return layers.TimeAppended(keras.Sequential(mlp))


def evaluations(workload: Workload, x, coefficients) -> tuple[int, int]:
    """How often f is evaluated, and f with its vjp, where all states are kept."""
    if workload.steps:
        count = STAGES[workload.solver] * workload.steps
        return count, count
    layer = make_layer(workload, "checkpoint", coefficients)
    dynamics, tolerance = layer.dynamics, workload.tolerance
    takes_time = workload.field == "mlp"
    _, stats = odeint(
        lambda t, y: dynamics(y, t=t) if takes_time else dynamics(y),
        x,
        [0.0, 1.0],
        solver=workload.solver,
        steps=Adaptive(tolerance, tolerance, 1000),
        adjoint="direct",  # the only one that lets a function close over weights
        return_stats=True,
    )
    return int(stats["num_fevals"]), DOPRI5_STAGES * int(stats["num_accepted"])
