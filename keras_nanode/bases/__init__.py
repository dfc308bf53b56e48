"""z(t): the basis functions of time that weights are combined from.

theta(t) = sum_k z_k(t) alpha_k, with learned coefficients alpha_k
(Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 2.3).
"""

from keras_nanode import checks
from keras_nanode.bases.basis import Basis
from keras_nanode.bases.piecewise import BSpline, Bucket, Constant
from keras_nanode.bases.smooth import Cosine, Legendre, Polynomial, Trigonometric

# The bases of the paper's Table 1 with its names and sizes, and others of similar size.
ALL: dict[str, Basis] = {
    "constant": Constant(),
    "bucket": Bucket(10),
    "poly": Polynomial(10),
    "trig": Trigonometric(10),
    "cosine": Cosine(10),
    "legendre": Legendre(10),
    "bspline": BSpline(10),
}


def get(basis: str | Basis | dict) -> Basis:
    """The basis for a name, or the basis itself.

    Args:
        basis: A `Basis`, or one of the names `"constant"`, `"bucket"` (10 buckets),
            `"poly"` (degree 10), `"trig"` (order 10), `"cosine"` (10 functions),
            `"legendre"` (degree 10) and `"bspline"` (10 cubic functions).

    Raises:
        ValueError: if the name is unknown.

    Example:

    >>> from keras_nanode import bases
    >>> bases.get("bucket").size
    10
    """
    basis = checks.configured("basis", basis)
    if isinstance(basis, Basis):
        return basis
    classes = {type(known).__name__.lower(): name for name, known in ALL.items()}
    instance = "an instance of a class of `keras_nanode.bases`"
    return ALL[checks.one_of("basis", basis, ALL, instance, classes)]


__all__ = [
    "ALL",
    "BSpline",
    "Basis",
    "Bucket",
    "Constant",
    "Cosine",
    "Legendre",
    "Polynomial",
    "Trigonometric",
    "get",
]
