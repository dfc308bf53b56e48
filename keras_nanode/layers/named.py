"""ODE layers named after their basis. They only combine existing parts."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_nanode import checks
from keras_nanode.bases import Basis, Bucket, Polynomial, Trigonometric
from keras_nanode.layers.arguments import takes_arguments_of
from keras_nanode.layers.block_odes import ConvODE, DenseODE


def _over(t_span: Sequence[float] | None, basis: Basis) -> Basis:
    """The basis with `t_span` as its domain, whichever way it runs."""
    return (
        basis if t_span is None else basis.over(sorted(checks.span("t_span", t_span)))
    )


@keras.saving.register_keras_serializable("keras_nanode")
class BucketDenseODE(DenseODE):
    """`DenseODE` over `bases.Bucket`.

    A dense map with separate weights in each of `num_buckets` equal pieces of `t_span`.
    Unless steps are adaptive, each piece gets equally many by default.

    Args:
        num_buckets: Positive integer, the number of pieces.
        **kwargs: The other arguments of `DenseODE`: `hidden_units`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `DenseODE` and `bases.Bucket`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.BucketDenseODE(10)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    @takes_arguments_of(DenseODE, but="basis")
    def __init__(
        self, num_buckets: int, *, t_span: Sequence[float] | None = None, **kwargs: Any
    ):
        basis = _over(t_span, Bucket(num_buckets))
        super().__init__(basis, t_span=t_span, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class PolyDenseODE(DenseODE):
    """`DenseODE` over `bases.Polynomial`.

    A dense map with weights that are polynomials in t.

    Args:
        degree: Integer of at least 0, the polynomials' degree.
        **kwargs: The other arguments of `DenseODE`: `hidden_units`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `DenseODE` and `bases.Polynomial`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.PolyDenseODE(2)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    @takes_arguments_of(DenseODE, but="basis")
    def __init__(
        self, degree: int, *, t_span: Sequence[float] | None = None, **kwargs: Any
    ):
        basis = _over(t_span, Polynomial(degree))
        super().__init__(basis, t_span=t_span, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class TrigDenseODE(DenseODE):
    """`DenseODE` over `bases.Trigonometric`.

    A dense map with weights that are trigonometric polynomials in t.

    Args:
        order: Integer of at least 0, the number of harmonics.
        period: Positive number, the time after which the weights repeat.
        **kwargs: The other arguments of `DenseODE`: `hidden_units`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `DenseODE` and
            `bases.Trigonometric`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.TrigDenseODE(3)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    @takes_arguments_of(DenseODE, but="basis")
    def __init__(
        self,
        order: int,
        *,
        period: float = 2 * math.pi,
        t_span: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        basis = _over(t_span, Trigonometric(order, period))
        super().__init__(basis, t_span=t_span, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class BucketConvODE(ConvODE):
    """`ConvODE` over `bases.Bucket`.

    A convolution with separate weights in each of `num_buckets` equal pieces of
    `t_span`. Unless steps are adaptive, each piece gets equally many by default.

    Args:
        num_buckets: Positive integer, the number of pieces.
        **kwargs: The other arguments of `ConvODE`: `hidden_filters`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `ConvODE` and `bases.Bucket`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.BucketConvODE(10)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    @takes_arguments_of(ConvODE, but="basis")
    def __init__(
        self, num_buckets: int, *, t_span: Sequence[float] | None = None, **kwargs: Any
    ):
        basis = _over(t_span, Bucket(num_buckets))
        super().__init__(basis, t_span=t_span, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class PolyConvODE(ConvODE):
    """`ConvODE` over `bases.Polynomial`.

    A convolution with weights that are polynomials in t.

    Args:
        degree: Integer of at least 0, the polynomials' degree.
        **kwargs: The other arguments of `ConvODE`: `hidden_filters`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `ConvODE` and `bases.Polynomial`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.PolyConvODE(2)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    @takes_arguments_of(ConvODE, but="basis")
    def __init__(
        self, degree: int, *, t_span: Sequence[float] | None = None, **kwargs: Any
    ):
        basis = _over(t_span, Polynomial(degree))
        super().__init__(basis, t_span=t_span, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class TrigConvODE(ConvODE):
    """`ConvODE` over `bases.Trigonometric`.

    A convolution with weights that are trigonometric polynomials in t.

    Args:
        order: Integer of at least 0, the number of harmonics.
        period: Positive number, the time after which the weights repeat.
        **kwargs: The other arguments of `ConvODE`: `hidden_filters`, `activation`,
            `solver`, `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, as in `ConvODE` and
            `bases.Trigonometric`.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.TrigConvODE(3)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    @takes_arguments_of(ConvODE, but="basis")
    def __init__(
        self,
        order: int,
        *,
        period: float = 2 * math.pi,
        t_span: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        basis = _over(t_span, Trigonometric(order, period))
        super().__init__(basis, t_span=t_span, **kwargs)
