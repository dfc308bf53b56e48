"""The fields in PyTorch, with their coefficients as parameters; for two peers."""

from collections.abc import Sequence

import numpy as np
import torch

from peers.workloads import Workload


class Field(torch.nn.Module):
    """dy/dt of a workload at a scalar time.

    All coefficients are one matrix (K, P), so that theta(t) is one product. After
    `unbind` buckets are looked up in its rows, so that autograd does not make a
    gradient of all buckets at each evaluation.
    """

    def __init__(self, workload: Workload, coefficients):
        super().__init__()
        self.workload = workload
        varies = workload.basis is not None
        kernels = [_from_keras(c, varies) for c in coefficients]
        self.shapes = [k.shape[1:] for k in kernels]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        flat = torch.cat([k.reshape(len(k), -1) for k in kernels], dim=1)
        self.alpha = torch.nn.Parameter(flat if varies else flat[0])
        self.buckets: Sequence[torch.Tensor] | None = None
        self.evaluate = getattr(self, workload.field)
        if workload.basis is not None:
            self.kind, number = workload.basis
            # Edges as float32 has them, since the steps' times are the same numbers.
            edges = np.arange(1, number) / number
            self.edges = torch.tensor(edges, dtype=torch.float32)
            self.harmonics = torch.arange(1, number + 1, dtype=torch.float32)

    def unbind(self):
        """Splits the buckets once for a solve that autograd goes through."""
        if self.workload.basis is not None and self.kind == "bucket":
            self.buckets = self.alpha.unbind(0)

    def theta(self, t):
        flat: torch.Tensor
        if self.workload.basis is None:
            flat = self.alpha
        elif self.kind == "bucket":
            rows = self.alpha if self.buckets is None else self.buckets
            flat = rows[int(torch.bucketize(t, self.edges, right=True))]
        else:
            angles = t * self.harmonics
            waves = torch.stack([torch.cos(angles), torch.sin(angles)], dim=1)
            flat = torch.cat([torch.ones(1), waves.flatten()]) @ self.alpha
        parts = zip(flat.split(self.sizes), self.shapes, strict=True)
        return [part.view(shape) for part, shape in parts]

    def forward(self, t, y):
        return self.evaluate(t, y, self.theta(t))

    def conv(self, t, y, theta):
        for kernel, bias in zip(theta[::2], theta[1::2], strict=True):
            y = torch.conv2d(torch.relu(y), kernel, bias, padding="same")
        return y

    def dense(self, t, y, theta):
        kernel, bias = theta
        return torch.tanh(torch.addmm(bias, y, kernel))

    def mlp(self, t, y, theta):
        # t is a number, or as torchode has it one for each row.
        time = torch.zeros_like(y[:, :1]) + t.reshape(-1, 1)
        return _perceptron(torch.cat([y, time], 1), theta)

    def spiral(self, t, y, theta):
        return _perceptron(y**3, theta)

    def as_keras(self, gradient):
        """The gradient of `alpha` as one of each coefficient in Keras' layout."""
        varies = self.workload.basis is not None
        stacked = gradient if varies else gradient[None]
        parts = zip(stacked.split(self.sizes, dim=1), self.shapes, strict=True)
        return [_to_keras(p.reshape(len(p), *shape), varies) for p, shape in parts]


def _perceptron(y, theta):
    *hidden, kernel, bias = theta
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        y = torch.tanh(torch.addmm(b, y, w))
    return torch.addmm(bias, y, kernel)


def _from_keras(array, varies: bool):
    x = torch.tensor(array if varies else array[None])
    return x.permute(0, 4, 3, 1, 2) if x.ndim == 5 else x


def _to_keras(x, varies: bool):
    x = x.permute(0, 3, 4, 2, 1) if x.ndim == 5 else x
    return x if varies else x[0]


def state(workload: Workload, x, channels_last: bool = False):
    """The input as PyTorch has images."""
    x = torch.tensor(x)
    if workload.field != "conv":
        return x.requires_grad_()
    x = x.permute(0, 3, 1, 2)
    order = torch.channels_last if channels_last else torch.contiguous_format
    return x.contiguous(memory_format=order).requires_grad_()


def results(field: Field, y, in_x, in_alpha):
    """As `worker.Step` gives them."""
    if field.workload.field == "conv":
        y, in_x = y.permute(0, 2, 3, 1), in_x.permute(0, 2, 3, 1)
    return y.detach(), in_x, field.as_keras(in_alpha)
