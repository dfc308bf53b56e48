"""The base class of the adjoints."""

import abc
from typing import Any

from keras_nanode import backend, checks
from keras_nanode.solvers import BDF, Solver
from keras_nanode.stepping import Adaptive, Problem, Replayable, Solution
from keras_nanode.structures import nan_if, stop_gradient, zeros_like
from keras_nanode.tree import Structure


class Adjoint(abc.ABC):
    """How the gradient of a solve is found.

    Attributes:
        differentiates_times: Whether tensor times get a gradient.
        differentiates_closures: Whether tensors that the vector field closes over get
            one.
    """

    differentiates_times = False
    differentiates_closures = False

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Adjoint":
        return cls(**checks.config(cls, config))

    def check(self, solver: Solver | BDF) -> None:
        """Raises a ValueError if the adjoint cannot take this solver."""
        if solver.has_own_gradient:
            raise ValueError(
                f"The solver {solver.name!r} has one gradient, that of its continuous "
                "adjoint, which is off by the solver's error and cannot be "
                "differentiated again. Use adjoint='backsolve', or leave `adjoint` "
                "out; for another gradient use an explicit solver, such as 'dopri5'. "
                f"Received: solver={solver.name!r}, adjoint={self!r}"
            )

    def keeps_states(self, steps: int | Adaptive) -> bool:
        """Whether the forward pass stores states, even if no gradient is ever taken."""
        del steps
        return False

    @abc.abstractmethod
    def solve(
        self, problem: Problem, stepping: Replayable, y0: Structure, params: Structure
    ) -> tuple[Structure, dict]:
        """The stacked states at `problem.times[1:]`, differentiable in y0 and params,
        and the statistics of adaptive steps."""

    @property
    def refusal(self) -> str:
        """The error message for what only the backend's own gradient can do."""
        return (
            "A solve is differentiated twice (for a gradient penalty or a Hessian, "
            "say) or in forward mode, or is within a transform of `torch.func`, which "
            f'only `adjoint="direct"` allows. Use that. Received: adjoint={self!r}'
        )


class CustomGradient(Adjoint):
    """An adjoint that solves without a record, keeps some states, and goes back."""

    def checkpoints(self, problem: Problem, stepping: Replayable) -> Any:
        """Which states the solve keeps. None for none."""
        return None

    @abc.abstractmethod
    def kept(self, solution: Solution) -> Structure:
        """The part of a solution that the backward pass needs."""

    @abc.abstractmethod
    def backward(
        self,
        problem: Problem,
        stepping: Replayable,
        primals: tuple[Structure, Structure],
        kept: Structure,
        cotangents: Structure,
    ) -> tuple[Structure, Structure]:
        """The gradients in the `primals`, y0 and the parameters.

        `cotangents` are the stacked cotangents of the states at the output times.
        """

    def solve(
        self, problem: Problem, stepping: Replayable, y0: Structure, params: Structure
    ) -> tuple[Structure, dict]:
        # A custom gradient must not close over tensors, so it takes those of `problem`
        # as arguments. The caller takes care of the gradient in them.
        tensors = stop_gradient(problem.tensors)

        def forward(y0, params, tensors):
            here = problem.with_tensors(tensors)
            checkpoints = self.checkpoints(here, stepping)
            solution = stepping.run(here, y0, params, checkpoints)
            status = {k: x for k, x in solution.stats.items() if k == "status"}
            residuals = (y0, params), self.kept(solution), status, tensors
            return (solution.ys, solution.stats), residuals

        def backward(residuals, cotangents):
            primals, kept, status, tensors = residuals
            here = problem.with_tensors(tensors)
            gradients = self.backward(here, stepping, primals, kept, cotangents[0])
            if status:
                # Also set NaN in gradients on which no accepted step depends.
                gradients = nan_if(status["status"] != 0, gradients)
            return *gradients, zeros_like(tensors)

        return backend.custom_vjp(forward, backward, self.refusal, y0, params, tensors)
