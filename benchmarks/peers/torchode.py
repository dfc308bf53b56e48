"""torchode: each row has steps of its own, and autograd goes through them."""

import torch
import torchode

from peers import torch_fields, worker
from peers.workloads import Workload


def make_step(workload: Workload, variant: str, x, coefficients) -> worker.Step:
    field = torch_fields.Field(workload, coefficients)
    x = torch_fields.state(workload, x)
    term = torchode.ODETerm(field)
    solve = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term),
        torchode.IntegralController(workload.tolerance, workload.tolerance, term=term),
    )
    times = torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    def step():
        problem = torchode.InitialValueProblem(y0=x, t_eval=times)
        y = solve.solve(problem).ys[:, -1]
        loss = y.square().mean()
        in_x, in_alpha = torch.autograd.grad(loss, [x, field.alpha])
        return torch_fields.results(field, y, in_x, in_alpha)

    return step


if __name__ == "__main__":
    worker.main(make_step, ["torchode", "torch"])
