"""Explicit Runge-Kutta methods as tableaus, which check their own order.

A tableau of s stages advances dy/dt = f(t, y) by

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),    y' = y + h sum_i b_i k_i

(Butcher, Numerical Methods for Ordinary Differential Equations, section 23). An
embedded pair has a second row of weights, of one order less. The difference of the two
results estimates the error of a step.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_nanode import checks
from keras_nanode.order_conditions import order_residual

# Higher orders have more than 2,000 order conditions.
_MOST_ORDER = 10
# The conditions take stages^2 operations each. Order 10 needs 17 stages.
_MOST_STAGES = 100


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method.

    Args:
        name: String, the method's name.
        order: Integer from 1 to 10. The tableau must fulfil every order condition up to
            this order (one for each rooted tree with at most that many nodes).
        a: The coefficients of the stages, one row per stage. Row i has i numbers.
        b: The weights of the stages, one per stage.
        b_embedded: The weights of a method of order `order - 1` with the same stages,
            for adaptive steps; () if there is none.

    Raises:
        ValueError: if `order` is invalid, a number is not finite, the shapes do not
            fit, there are more than 100 stages, an order condition is violated, or
            `b_embedded` equals `b`.

    Example:

    >>> from keras_nanode import tableaus
    >>> ssp3 = tableaus.Tableau(
    ...     "ssp3", order=3, a=((), (1.0,), (0.25, 0.25)), b=(1 / 6, 1 / 6, 2 / 3)
    ... )
    >>> ssp3.c
    (0.0, 1.0, 0.5)

    References:
        - [Butcher, 2016](https://doi.org/10.1002/9781119121534)
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_embedded: tuple[float, ...] = ()

    def __post_init__(self):
        checks.text("name", self.name)
        checks.integer("order", self.order, 1, _MOST_ORDER)
        # A saved configuration gives lists.
        a = self.a if isinstance(self.a, (tuple, list)) else ()
        object.__setattr__(self, "a", tuple(_row("a", row) for row in a))
        object.__setattr__(self, "b", _row("b", self.b))
        object.__setattr__(self, "b_embedded", _row("b_embedded", self.b_embedded))
        if len(self.b) > _MOST_STAGES:
            raise checks.wrong("b", self.b, f"at most {_MOST_STAGES} weights")
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise ValueError(
                f"The tableau {self.name!r} is not explicit: with {len(self.b)} "
                f"weights in `b`, `a` needs rows of 0 to {len(self.b) - 1} numbers. "
                f"Received: {checks.shown('a', self.a)}"
            )
        self._check_order("b", self.b, self.order)
        if self.b_embedded:
            self._check_order("b_embedded", self.b_embedded, self.order - 1)
            if max(map(abs, self.error_weights)) < 1e-10:
                raise ValueError(
                    f"The weights `b_embedded` of the tableau {self.name!r} must not "
                    "be those of `b`: their difference estimates the error. Leave them "
                    f"out if there is none. Received: b_embedded={self.b_embedded}"
                )

    def _check_order(self, name, weights, order):
        if len(weights) != len(self.b):
            raise ValueError(
                f"The tableau {self.name!r} needs as many numbers in `{name}` as in "
                f"`b`, {len(self.b)}. Received: {name}={weights}"
            )
        residual = order_residual(self.a, weights, order)
        if residual > 1e-10:
            raise ValueError(
                f"The tableau {self.name!r} does not have order {order} with the "
                f"weights `{name}`: an order condition is violated by {residual:.1e}. "
                f"Correct `a` and `{name}`, or state a lower order. Received: "
                f"a={self.a}, {name}={weights}"
            )

    @property
    def num_stages(self) -> int:
        return len(self.b)

    @property
    def c(self) -> tuple[float, ...]:
        """The nodes: the position of each stage in the step, as a fraction of it."""
        return tuple(_place(row) for row in self.a)

    @property
    def error_weights(self) -> tuple[float, ...]:
        """The error estimate of a step is h sum_i error_weights_i k_i."""
        return tuple(np.subtract(self.b, self.b_embedded).tolist())

    @property
    def first_same_as_last(self) -> bool:
        """Whether a step's last stage is the first of the next one."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Tableau":
        return cls(**checks.config(cls, config))


def _row(name: str, row: Any) -> tuple[float, ...]:
    expected = "finite numbers"
    found = checks.array(name, row, expected)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise checks.wrong(name, row, expected)
    return tuple(found.tolist())


def _place(row: tuple[float, ...]) -> float:
    """The sum of a row, rounded to 0 or 1 if it is within rounding error of them. A
    stage past the end of a step may be outside the domain of the vector field."""
    place = math.fsum(row)
    nearest = float(round(place))
    return nearest if abs(place - nearest) < 1e-14 else place


def _ending_on_b(
    name: str,
    order: int,
    a: tuple[tuple[float, ...], ...],
    b_embedded: tuple[float, ...],
) -> Tableau:
    """A pair whose last stage is the next step's first: b is the last row of a."""
    return Tableau(name, order, a, (*a[-1], 0.0), b_embedded)


_METHODS = (
    Tableau("euler", 1, a=((),), b=(1.0,)),
    Tableau("midpoint", 2, a=((), (1 / 2,)), b=(0.0, 1.0)),
    Tableau("heun", 2, a=((), (1.0,)), b=(1 / 2, 1 / 2)),
    # Ralston 1962: the second-order method with the smallest bound on the error.
    Tableau("ralston", 2, a=((), (2 / 3,)), b=(1 / 4, 3 / 4)),
    # Kutta 1901.
    Tableau(
        "rk4",
        4,
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
    # Bogacki and Shampine 1989, 3(2).
    _ending_on_b(
        "bosh3",
        3,
        a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b_embedded=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
    ),
    # Dormand and Prince 1980, 5(4).
    _ending_on_b(
        "dopri5",
        5,
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        b_embedded=(
            *(5179 / 57600, 0.0, 7571 / 16695, 393 / 640),
            *(-92097 / 339200, 187 / 2100, 1 / 40),
        ),
    ),
    # Tsitouras 2011, 5(4). The embedded row is b plus the error weights given there.
    _ending_on_b(
        "tsit5",
        5,
        a=(
            (),
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (
                *(5.325864828439257, -11.748883564062828),
                *(7.4955393428898365, -0.09249506636175525),
            ),
            (
                *(5.86145544294642, -12.92096931784711, 8.159367898576159),
                *(-0.071584973281401, -0.028269050394068383),
            ),
            (
                *(0.09646076681806523, 0.01, 0.4798896504144996),
                *(1.379008574103742, -3.290069515436081, 2.324710524099774),
            ),
        ),
        b_embedded=(
            0.09646076681806523 - 0.00178001105222577714,
            0.01 - 0.0008164344596567469,
            0.4798896504144996 + 0.007880878010261995,
            1.379008574103742 - 0.1447110071732629,
            -3.290069515436081 + 0.5823571654525552,
            2.324710524099774 - 0.45808210592918697,
            1 / 66,
        ),
    ),
    # Prince and Dormand 1981, 8(7), 13 stages.
    Tableau(
        "dopri8",
        8,
        a=(
            (),
            (1 / 18,),
            (1 / 48, 1 / 16),
            (1 / 32, 0.0, 3 / 32),
            (5 / 16, 0.0, -75 / 64, 75 / 64),
            (3 / 80, 0.0, 0.0, 3 / 16, 3 / 20),
            (
                *(29443841 / 614563906, 0.0, 0.0, 77736538 / 692538347),
                *(-28693883 / 1125000000, 23124283 / 1800000000),
            ),
            (
                *(16016141 / 946692911, 0.0, 0.0, 61564180 / 158732637),
                *(22789713 / 633445777, 545815736 / 2771057229),
                -180193667 / 1043307555,
            ),
            (
                *(39632708 / 573591083, 0.0, 0.0, -433636366 / 683701615),
                *(-421739975 / 2616292301, 100302831 / 723423059),
                *(790204164 / 839813087, 800635310 / 3783071287),
            ),
            (
                *(246121993 / 1340847787, 0.0, 0.0, -37695042795 / 15268766246),
                *(-309121744 / 1061227803, -12992083 / 490766935),
                *(6005943493 / 2108947869, 393006217 / 1396673457),
                123872331 / 1001029789,
            ),
            (
                *(-1028468189 / 846180014, 0.0, 0.0, 8478235783 / 508512852),
                *(1311729495 / 1432422823, -10304129995 / 1701304382),
                *(-48777925059 / 3047939560, 15336726248 / 1032824649),
                *(-45442868181 / 3398467696, 3065993473 / 597172653),
            ),
            (
                *(185892177 / 718116043, 0.0, 0.0, -3185094517 / 667107341),
                *(-477755414 / 1098053517, -703635378 / 230739211),
                *(5731566787 / 1027545527, 5232866602 / 850066563),
                *(-4093664535 / 808688257, 3962137247 / 1805957418),
                65686358 / 487910083,
            ),
            (
                *(403863854 / 491063109, 0.0, 0.0, -5068492393 / 434740067),
                *(-411421997 / 543043805, 652783627 / 914296604),
                *(11173962825 / 925320556, -13158990841 / 6184727034),
                *(3936647629 / 1978049680, -160528059 / 685178525),
                *(248638103 / 1413531060, 0.0),
            ),
        ),
        b=(
            *(14005451 / 335480064, 0.0, 0.0, 0.0, 0.0, -59238493 / 1068277825),
            *(181606767 / 758867731, 561292985 / 797845732),
            *(-1041891430 / 1371343529, 760417239 / 1151165299),
            *(118820643 / 751138087, -528747749 / 2220607170, 1 / 4),
        ),
        b_embedded=(
            *(13451932 / 455176623, 0.0, 0.0, 0.0, 0.0, -808719846 / 976000145),
            *(1757004468 / 5645159321, 656045339 / 265891186),
            *(-3867574721 / 1518517206, 465885868 / 322736535),
            *(53011238 / 667516719, 2 / 45, 0.0),
        ),
    ),
)

ALL = {method.name: method for method in _METHODS}
