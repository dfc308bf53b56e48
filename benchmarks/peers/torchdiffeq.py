"""torchdiffeq: `odeint_adjoint`, and `odeint` through which autograd goes."""

from typing import Any

import numpy as np
import torch
import torchdiffeq

from peers import torch_fields, worker
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    adjoint = variant.startswith("adjoint")
    field = torch_fields.Field(workload, coefficients)
    x = torch_fields.state(workload, x, variant.endswith("channels_last"))
    solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    options = solver(workload)
    times = torch.tensor([0.0, 1.0])

    def step():
        if not adjoint:
            field.unbind()
        y = solve(field, x, times, method=workload.solver, **options)[-1]
        loss = y.square().mean()
        in_x, in_alpha = torch.autograd.grad(loss, [x, field.alpha])
        return torch_fields.results(field, y, in_x, in_alpha)

    return step


def solver(workload: Workload) -> dict:
    if not workload.steps:
        return {"rtol": workload.tolerance, "atol": workload.tolerance}
    n = workload.steps
    grid = torch.tensor(np.arange(n + 1) / n, dtype=torch.float32)

    def steps(func, y0, t):
        return grid if t[0] == 0 else grid.flip(0)

    # `perturb` keeps the stages at the ends of a step inside of its bucket.
    options: dict[str, Any] = {"grid_constructor": steps}
    if workload.basis is not None and workload.basis[0] == "bucket":
        options["perturb"] = True
    return {"options": options}


if __name__ == "__main__":
    worker.main(make_step, ["torchdiffeq", "torch"])
