"""What the adjoints have in common."""

import abc
import dataclasses
from typing import Any

from keras import ops, tree

from keras_nanode import backend
from keras_nanode.adaptive import Adaptive, nan_where
from keras_nanode.solve import Steps, gather, row
from keras_nanode.solvers import BDF, Solver
from keras_nanode.steps import Problem
from keras_nanode.vector_field import Structure, add


class Adjoint(abc.ABC):
    """How the gradient of a solve is found.

    Attributes:
        follows_times: Whether the gradient in times that are tensors is found, too.
    """

    follows_times = False

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Adjoint":
        return cls(**config)

    def check(self, solver: Solver | BDF) -> None:
        """Raises a ValueError if the adjoint cannot take this solver."""
        if isinstance(solver, BDF):
            raise ValueError(
                f"The solver {solver.name!r} has one gradient, that of its continuous "
                "adjoint, which is off by the solver's error and cannot be "
                "differentiated again. Use adjoint='backsolve', or leave `adjoint` "
                "out; for another gradient use an explicit solver, such as 'dopri5'. "
                f"Received: solver={solver.name!r}, adjoint={self!r}"
            )

    def deferred(self, steps: int | Adaptive) -> "Adjoint":
        """The same gradient, but nothing is kept for it until it is asked for."""
        del steps
        return self

    @abc.abstractmethod
    def fixed(self, problem: Problem, steps: int, y0, params) -> Structure:
        """The states at `problem.times[1:]`, stacked, differentiable in y0 and params,
        with `steps` equal steps between neighbouring times."""

    @abc.abstractmethod
    def adaptive(
        self, problem: Problem, control: Adaptive, y0, params
    ) -> tuple[Structure, dict]:
        """The same with steps chosen by `control`, and the statistics."""

    def with_gradient(
        self, problem: Problem, forward, backward, y0, params
    ) -> Structure:
        """`outputs, residuals = forward(problem, y0, params)` with the gradients of
        `in_y0, in_params = backward(problem, residuals, cotangents)`."""
        # Tensors, which a custom gradient must not close over. Who calls takes care of
        # the gradient in them.
        parts = {"times": problem.times, "count": problem.count}
        tensors = {
            name: ops.stop_gradient(x) for name, x in parts.items() if ops.is_tensor(x)
        }

        def run(y0, params, tensors):
            at = dataclasses.replace(problem, **tensors)
            outputs, residuals = forward(at, y0, params)
            return outputs, (residuals, tensors)

        def pull(residuals, cotangents):
            residuals, tensors = residuals
            at = dataclasses.replace(problem, **tensors)
            gradients = backward(at, residuals, cotangents)
            return *gradients, zeros_like(tensors)

        return backend.custom_vjp(run, pull, self.refusal, y0, params, tensors)

    @property
    def refusal(self) -> str:
        """What to say if a gradient is differentiated."""
        return (
            "The gradient of a solve is differentiated, in a gradient penalty or a "
            'Hessian perhaps, which only `adjoint="direct"` allows. Use that. '
            f"Received: adjoint={self!r}"
        )


def zeros_like(structure: Structure) -> Structure:
    return tree.map_structure(ops.zeros_like, structure)


def nan_if(failed, gradients: Structure) -> Structure:
    return tree.map_structure(lambda g: g * nan_where(failed, g.dtype), gradients)


def nan_if_failed(backward):
    """`backward` of an adaptive solve whose last residual is its status, but NaN if it
    failed: also in what no step that was accepted depends on."""

    def run(problem, residuals, cotangents):
        gradients = backward(problem, residuals, cotangents)
        return nan_if(residuals[-1] != 0, gradients)

    return run


class Pull:
    """Pulls the cotangents of the outputs back through the steps.

    Carries the cotangent of the solver's state; that of y at an output time joins it
    on the way back.
    """

    def __init__(self, steps: Steps, cotangents: Structure):
        self.steps, self.cotangents = steps, cotangents
        self._several = steps.problem.several

    def start(self, state: Any):
        """The cotangent of the last state, of which `state` is an example."""
        a = zeros_like(state)
        if self._several:
            return a
        last = row(self.cotangents, 0)
        return (last, *a[1:]) if self.steps.problem.solver.is_reversible else last

    def _join(self, interval, a):
        cotangent = row(self.cotangents, interval)
        if self.steps.problem.solver.is_reversible:
            return add(a[0], cotangent), *a[1:]
        return add(a, cotangent)

    def back(self, i, step, state, a):
        """From the cotangent after step i to that before it, and of its weights."""
        if self._several:
            interval, behind = self.steps.interval(i), a
            a = ops.cond(
                self.steps.interval(i + 1) != interval,
                lambda: self._join(interval, behind),
                lambda: behind,
            )
        return step.pull(state, a)

    def to_y0(self, params, y0, a, gradient):
        """From the cotangent of the first state to that of y0."""
        solver = self.steps.problem.solver
        if not solver.is_reversible:
            return a, gradient

        def body(i, step, a):
            _, pullback = backend.vjp(
                lambda y0, theta: solver.start(step.slopes(theta), y0), y0, step.theta
            )
            return pullback(a)

        return gather(self.steps, params, 0, 1, body, a, gradient)
