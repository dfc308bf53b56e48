"""The workloads as data, and their weights and inputs. NumPy only.

A training step is forward over t from 0 to 1, loss = mean(y1^2), and the gradients of
the input and the coefficients. theta(t) = sum_k z_k(t) alpha_k, or weights that do not
depend on time where there is no basis.
"""

import dataclasses
import zlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Workload:
    """One thing to do.

    Attributes:
        field: What dy/dt is, a name in `reference.FIELDS`.
        shape: The state's.
        hidden: The width of the field's hidden layers; 0 if it has none.
        basis: `("trig", order)`, `("bucket", number)`, or None.
        solver: `"euler"`, `"rk4"`, or `"dopri5"`.
        steps: Equal steps; None if they are adaptive.
        tolerance: rtol = atol of adaptive steps.
        training: Whether a step has gradients. If not it is `model.predict`, on
            `BATCHES` batches.
    """

    field: str
    shape: tuple[int, ...]
    hidden: int = 0
    basis: tuple[str, int] | None = None
    solver: str = "euler"
    steps: int | None = None
    tolerance: float = 0.0
    training: bool = True

    @property
    def basis_size(self) -> int:
        if self.basis is None:
            return 0
        kind, number = self.basis
        return {"trig": 2 * number + 1, "bucket": number}[kind]


BATCHES = 8
# Standard deviations of kernels times sqrt(fan_in): He's, or what makes a solver work.
GAINS = {"conv": 2**0.5, "dense": 2**0.5, "mlp": 2.0, "spiral": 2.0}
DEPTHS = (10, 50, 100, 400, 1000)

_CONV = Workload("conv", (32, 16, 16, 64), 16, ("trig", 10), "euler", 100)
_DENSE = Workload("dense", (256, 128), 0, ("bucket", 50), "rk4", 50)
_MLP = Workload("mlp", (256, 64), 128, None, "dopri5", tolerance=1e-5)
_TINY = Workload("spiral", (16, 2), 50, None, "dopri5", tolerance=1e-5)
_PAPER = Workload("conv", (8, 32, 32, 256), 64, ("trig", 10), "euler", 20)

ALL = {
    **{f"conv-trig-{n}": dataclasses.replace(_CONV, steps=n) for n in DEPTHS},
    "paper-block": _PAPER,
    "dense-bucket": _DENSE,
    "mlp-adaptive": _MLP,
    "tiny": _TINY,
    **{
        f"K-bucket-{k}": dataclasses.replace(_CONV, basis=("bucket", k))
        for k in (1, 10, 100, 1000)
    },
    **{
        f"K-trig-{order}": dataclasses.replace(_CONV, basis=("trig", order))
        for order in (1, 30)
    },
    "predict": dataclasses.replace(_CONV, training=False),
}

# The same code on sizes that take no time.
QUICK = {
    "conv-trig-10": Workload("conv", (2, 4, 4, 4), 2, ("trig", 2), "euler", 10),
    "dense-bucket": Workload("dense", (4, 3), 0, ("bucket", 5), "rk4", 5),
    "mlp-adaptive": Workload("mlp", (4, 3), 5, None, "dopri5", tolerance=1e-5),
    "tiny": Workload("spiral", (4, 2), 5, None, "dopri5", tolerance=1e-5),
    "predict": Workload(
        "conv", (2, 4, 4, 4), 2, ("trig", 2), "euler", 5, training=False
    ),
}


def weight_shapes(workload: Workload) -> list[tuple[int, ...]]:
    """Kernels and biases of the field at one time."""
    c, h = workload.shape[-1], workload.hidden
    kernels: dict[str, list[tuple[int, ...]]] = {
        "conv": [(1, 1, c, h), (3, 3, h, h), (1, 1, h, c)],
        "dense": [(c, c)],
        "mlp": [(c + 1, h), (h, h), (h, c)],
        "spiral": [(c, h), (h, c)],
    }
    return [s for kernel in kernels[workload.field] for s in (kernel, kernel[-1:])]


def z(workload: Workload, t: float) -> np.ndarray:
    """The basis at a time, for buckets inside of one."""
    assert workload.basis is not None
    kind, number = workload.basis
    if kind == "bucket":
        return np.eye(number)[min(int(t * number), number - 1)]
    angles = t * np.arange(1, number + 1)
    return np.append(1.0, np.stack([np.cos(angles), np.sin(angles)], axis=1).ravel())


def draw(workload: Workload) -> tuple[np.ndarray, list[np.ndarray]]:
    """The input and the coefficients (the weights if there is no basis), float32."""
    rng = np.random.default_rng(zlib.crc32(repr(workload).encode()))
    copies = () if workload.basis is None else (workload.basis_size,)
    # theta(t) keeps the variance that its weights would have: sum_k z_k^2 is constant.
    norm = 1.0 if workload.basis is None else np.linalg.norm(z(workload, 0.0))
    coefficients = []
    for shape in weight_shapes(workload):
        fan_in = np.prod(shape[:-1])
        scale = GAINS[workload.field] / np.sqrt(fan_in) if len(shape) > 1 else 0.1
        draws = rng.normal(size=(*copies, *shape)) * scale / norm
        coefficients.append(draws.astype(np.float32))
    x = rng.normal(size=workload.shape).astype(np.float32)
    return x, coefficients
