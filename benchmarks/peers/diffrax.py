"""diffrax, compiled: its default adjoint, `BacksolveAdjoint` and `DirectAdjoint`."""

from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import ω

from peers import worker
from peers.workloads import Workload

ADJOINTS = {
    "default": diffrax.RecursiveCheckpointAdjoint,
    "backsolve": diffrax.BacksolveAdjoint,
    "direct": diffrax.DirectAdjoint,
}


class RK4(diffrax.AbstractSolver):
    """The classical method, which diffrax lacks, of a field without time of its own.

    All stages are at the step's middle, so that they see the weights of its bucket.
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 4

    def init(self, terms, t0, t1, y0, args):
        return None

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        middle, h = (t0 + t1) / 2, terms.contr(t0, t1)

        def change(y):
            return terms.vf_prod(middle, y, args, h)

        # Of trees: the state of `BacksolveAdjoint` is one.
        k1 = change(y0)
        k2 = change((y0**ω + ω(k1) / 2).ω)
        k3 = change((y0**ω + ω(k2) / 2).ω)
        k4 = change((y0**ω + ω(k3)).ω)
        y1 = (y0**ω + (ω(k1) + 2 * ω(k2) + 2 * ω(k3) + ω(k4)) / 6).ω
        found = {"y0": y0, "y1": y1}
        return y1, None, found, None, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)


SOLVERS = {"euler": diffrax.Euler, "rk4": RK4, "dopri5": diffrax.Dopri5}


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    field = FIELDS[workload.field]
    arguments = steps(workload)
    backwards = {}
    if variant == "backsolve" and workload.steps:
        times = arguments["stepsize_controller"].ts
        backwards = {"stepsize_controller": diffrax.StepTo(ts=times[::-1])}
    adjoint = ADJOINTS[variant](**backwards)

    def slope(t, y, coefficients):
        return field(t, y, theta(workload, t, coefficients))

    def loss(x, coefficients):
        y = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            SOLVERS[workload.solver](),
            *(0.0, 1.0),
            y0=x,
            args=coefficients,
            adjoint=adjoint,
            **arguments,
        ).ys[-1]
        return jnp.mean(y**2), y

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    x, coefficients = jnp.asarray(x), [jnp.asarray(c) for c in coefficients]

    def step():
        (_, y), gradients = jax.block_until_ready(run(x, coefficients))
        return y, *gradients

    return step


def steps(workload: Workload) -> dict:
    n, tolerance = workload.steps, workload.tolerance
    if n is None:
        control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        return {"dt0": None, "stepsize_controller": control}
    times = jnp.asarray(np.arange(n + 1) / n, jnp.float32)
    return {
        "dt0": None,
        "stepsize_controller": diffrax.StepTo(ts=times),
        "max_steps": n,
    }


def theta(workload: Workload, t, coefficients):
    if workload.basis is None:
        return coefficients
    kind, number = workload.basis
    if kind == "bucket":
        k = jnp.floor(t * number).astype(int)
        return [c[k] for c in coefficients]
    angles = t * jnp.arange(1, number + 1)
    waves = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    z = jnp.append(jnp.ones(1), waves)
    return [jnp.tensordot(z, c, 1) for c in coefficients]


def conv(t, y, theta):
    for kernel, bias in zip(theta[::2], theta[1::2], strict=True):
        y = jax.lax.conv_general_dilated(
            *(jax.nn.relu(y), kernel, (1, 1), "SAME"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y + bias
    return y


def dense(t, y, theta):
    kernel, bias = theta
    return jnp.tanh(y @ kernel + bias)


def mlp(t, y, theta):
    return _perceptron(jnp.append(y, jnp.full_like(y[:, :1], t), axis=1), theta)


def spiral(t, y, theta):
    return _perceptron(y**3, theta)


def _perceptron(y, theta):
    *hidden, kernel, bias = theta
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        y = jnp.tanh(y @ w + b)
    return y @ kernel + bias


FIELDS = {"conv": conv, "dense": dense, "mlp": mlp, "spiral": spiral}

if __name__ == "__main__":
    worker.main(make_step, ["diffrax", "jax"])
