"""Solutions and gradients in NumPy and float64, which all are checked against.

Fixed steps are differentiated step by step. What an adaptive solver should find is
computed with so many steps of rk4 that they are exact to the tolerances asked for.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from peers import workloads
from peers.workloads import Workload, draw, z

FINE = 400  # steps where the solver is adaptive

# Coefficients a and b of each method.
METHODS: dict[str, tuple[list[list[float]], list[float]]] = {
    "euler": ([[]], [1.0]),
    "rk4": ([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}

# Each layer maps (t, x, *weights) to its output and a pullback, which maps the output's
# cotangent to x's and the weights'.


def linear(t, x, w, b):
    flat = w.reshape(-1, w.shape[-1])  # a 1x1 convolution is a product too

    def pull(g):
        rows = g.reshape(-1, g.shape[-1])
        in_w = (x.reshape(-1, x.shape[-1]).T @ rows).reshape(w.shape)
        return g @ flat.T, in_w, rows.sum(0)

    return x @ flat + b, pull


def conv3(t, x, w, b):
    """A 3x3 convolution: nine shifted copies of x, and one product."""
    height, width = x.shape[1:3]
    shifts = [(slice(i, i + height), slice(j, j + width)) for i, j in np.ndindex(3, 3)]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = np.concatenate([padded[:, i, j] for i, j in shifts], axis=-1)
    y, pull_columns = linear(t, columns, w.reshape(1, -1, w.shape[-1]), b)

    def pull(g):
        in_columns, in_w, in_b = pull_columns(g)
        in_padded = np.zeros_like(padded)
        for (i, j), part in zip(shifts, np.split(in_columns, 9, axis=-1), strict=True):
            in_padded[:, i, j] += part
        return in_padded[:, 1:-1, 1:-1], in_w.reshape(w.shape), in_b

    return y, pull


def relu(t, x):
    return np.maximum(x, 0), lambda g: (g * (x > 0),)


def tanh(t, x):
    y = np.tanh(x)
    return y, lambda g: (g * (1 - y**2),)


def cube(t, x):
    return x**3, lambda g: (g * 3 * x**2,)


def append_time(t, x):
    time = np.full_like(x[..., :1], t)
    return np.concatenate([x, time], axis=-1), lambda g: (g[..., :-1],)


FIELDS: dict[str, list[Callable]] = {
    "conv": [relu, linear, relu, conv3, relu, linear],
    "dense": [linear, tanh],
    "mlp": [append_time, linear, tanh, linear, tanh, linear],
    "spiral": [cube, linear, tanh, linear],
}


def slope(field: str, t, y, theta):
    """dy/dt, and its pullback to y's cotangent and a list of the weights'."""
    weights, pulls = iter(theta), []
    for layer in FIELDS[field]:
        own = [next(weights), next(weights)] if layer in (linear, conv3) else []
        y, pull = layer(t, y, *own)
        pulls.append(pull)

    def pullback(g):
        in_theta: list[np.ndarray] = []
        for pull in reversed(pulls):
            g, *own = pull(g)
            in_theta = [*own, *in_theta]
        return g, in_theta

    return y, pullback


def step(workload: Workload, method, i: int, n: int, y, coefficients):
    """Step i of n: the next y, and the pullback to y and, added up, to `gradients`."""
    a, b = method
    h, stages = 1 / n, []
    slopes: list[np.ndarray] = []
    for row in a:
        inner = y + h * sum((c * k for c, k in zip(row, slopes, strict=True)), 0 * y)
        t = (i + sum(row)) * h
        # All stages of a step see the bucket that holds its middle. One that begins
        # there holds it, which rounding must not change.
        bucket = workload.basis is not None and workload.basis[0] == "bucket"
        place = (i + 0.5) * h + 1e-12 if bucket else t
        weights_of = z(workload, place) if workload.basis else None
        theta = combine(weights_of, coefficients)
        k, pull = slope(workload.field, t, inner, theta)
        slopes.append(k)
        stages.append((pull, weights_of))

    def pullback(g, gradients):
        in_slopes = [h * weight * g for weight in b]
        for s in reversed(range(len(b))):
            pull, weights_of = stages[s]
            in_inner, in_theta = pull(in_slopes[s])
            g = g + in_inner
            for r, c in enumerate(a[s]):
                in_slopes[r] = in_slopes[r] + h * c * in_inner
            spread(weights_of, in_theta, gradients)
        return g

    terms = (weight * k for weight, k in zip(b, slopes, strict=True))
    return y + h * sum(terms, 0 * y), pullback


def combine(weights_of, coefficients):
    if weights_of is None:
        return coefficients
    (used,) = np.nonzero(weights_of)
    return [np.tensordot(weights_of[used], c[used], 1) for c in coefficients]


def spread(weights_of, in_theta, gradients) -> None:
    """`combine` backwards: adds theta's cotangents to those of the coefficients."""
    for total, g in zip(gradients, in_theta, strict=True):
        if weights_of is None:
            total += g
            continue
        for k in np.flatnonzero(weights_of):
            total[k] += weights_of[k] * g


def solve(workload: Workload, x, coefficients) -> dict[str, np.ndarray]:
    """y1, and the gradients of mean(y1^2)."""
    exact = [c.astype(np.float64) for c in coefficients]
    method = METHODS["euler" if workload.solver == "euler" else "rk4"]
    n = workload.steps or FINE
    states = [x.astype(np.float64)]
    for i in range(n):
        states.append(step(workload, method, i, n, states[-1], exact)[0])
    y = states.pop()
    found = {"y": y}
    if workload.training:
        g, gradients = 2 * y / y.size, [np.zeros_like(c) for c in exact]
        for i in reversed(range(n)):
            _, pullback = step(workload, method, i, n, states.pop(), exact)
            g = pullback(g, gradients)
        found |= {"dx": g, **{f"dc{i}": d for i, d in enumerate(gradients)}}
    return found


def prepare(workload: Workload, path: Path) -> None:
    """Writes inputs, coefficients and the reference to `path`, unless it has them."""
    sources = [Path(file).read_text() for file in (__file__, workloads.__file__)]
    key = f"{workload} {zlib.crc32(''.join(sources).encode())}"
    if path.exists() and str(np.load(path)["workload"]) == key:
        return
    x, coefficients = draw(workload)
    given = {"x": x, **{f"c{i}": c for i, c in enumerate(coefficients)}}
    found = solve(workload, x, coefficients)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{"workload": np.array(key), **given, **found})  # type: ignore[arg-type]
