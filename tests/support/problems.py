"""Differential equations with known solutions.

In operations that keep float64 on every backend, and that NumPy understands too.
"""

import numpy as np
from cases import SOLVERS, compiled, numbers
from keras import ops

from keras_nanode import odeint

FLOAT64 = "float64"


def scalar(x):
    return ops.convert_to_tensor(np.array(x, FLOAT64))


def solve(func, y0, t, **options):
    """`odeint`, compiled, as NumPy arrays."""
    if options.get("solver") in SOLVERS:
        options["solver"] = SOLVERS[options["solver"]]
    return numbers(compiled(lambda y0: odeint(func, y0, t, **options))(y0))


def forced(t, y):
    """y' = -y sin t + cos t."""
    return -y * _series(t, 1) + _series(t, 0)


def _series(t, first):
    """cos t (first=0) or sin t (first=1) for |t| < 2.5 to double precision."""
    term = total = t**first
    for n in range(first + 2, 32, 2):
        term = -term * t * t / (n * (n - 1))
        total = total + term
    return total


def forced_solution(t):
    """By Gauss-Legendre quadrature of y = e^cos t (y0 / e + integral e^-cos cos)."""
    x, w = np.polynomial.legendre.leggauss(60)
    s = (x + 1) * t / 2
    integral = np.sum(w * np.exp(-np.cos(s)) * np.cos(s)) * t / 2
    return np.exp(np.cos(t)) * (np.exp(-1) + integral)


def van_der_pol(t, y, mu=1.0):
    x, v = y
    return v, mu * (1 - x * x) * v - x


def lotka_volterra(t, y, a=1.5, b=1.0, c=3.0, d=1.0):
    prey, hunters = y
    return a * prey - b * prey * hunters, d * prey * hunters - c * hunters


def pushed_pendulum(t, y):
    """A push of constant force ends at t = 1."""
    angle, speed = y
    push = 0.8 * (t < 1) if isinstance(t, float) else 0.8 * ops.cast(t < 1, t.dtype)
    return speed, push - 0.1 * speed - _series(angle, 1)


def orbit(t, y):
    """Of eccentricity 0.5 around the origin."""
    x, y, u, v = y
    cube = (x * x + y * y) ** 1.5
    return u, v, -x / cube, -y / cube


# Each: the equation, y0, the times.
ORACLES = {
    "van_der_pol": (van_der_pol, (2.0, 0.0), (0.0, 1.0, 8.0)),
    "lotka_volterra": (lotka_volterra, (1.0, 1.0), (0.0, 5.0)),
    "pushed_pendulum": (pushed_pendulum, (0.3, 0.0), (0.0, 1.7, 3.0)),
    "orbit": (orbit, (0.5, 0.0, 0.0, 3**0.5), (0.0, 2 * np.pi)),
    "forced": (lambda t, y: (forced(t, y[0]),), (1.0,), (0.0, 2.0)),
}


def oracle(func, y0, times):
    """By SciPy's DOP853 at a relative tolerance of 1e-12, halting at jumps."""
    from scipy.integrate import solve_ivp

    y, rows, start = np.array(y0), [y0], times[0]
    for end in sorted({1.0, *times[1:]}):
        found = solve_ivp(
            # Inside of the piece, for the stage at the end of the last step.
            lambda t, y, end=end: func(float(min(t, np.nextafter(end, -np.inf))), y),
            (start, end),
            y,
            method="DOP853",
            rtol=1e-12,
            atol=1e-14,
        )
        y, start = found.y[:, -1], end
        if end in times:
            rows.append(tuple(y))
    return [np.array(component) for component in zip(*rows, strict=True)]
