"""ODE layers named after their basis: compositions without mathematics of their own."""

import keras

from keras_nanode import checks
from keras_nanode.bases import Bucket, Polynomial, Trigonometric
from keras_nanode.layers.block_odes import ConvODE, DenseODE


class _Named:
    """An ODE layer whose first argument makes its basis, for the times of `t_span`."""

    argument: str
    basis_class: type

    def __init__(self, value, t_span=(0.0, 1.0), **kwargs):
        domain = sorted(checks.times("t_span", t_span))
        basis = self.basis_class(value, domain=(domain[0], domain[-1]))
        super().__init__(basis, t_span=t_span, **kwargs)  # type: ignore[call-arg]

    def get_config(self):
        config = super().get_config()  # type: ignore[misc]
        del config["basis"]
        return {**config, self.argument: getattr(self, self.argument)}


@keras.saving.register_keras_serializable("keras_nanode")
class BucketDenseODE(_Named, DenseODE):
    """`DenseODE` over `bases.Bucket`.

    A dense map with weights of its own in each of equal pieces of `t_span`.

    Args:
        num_buckets: Positive integer, the number of pieces.
        **kwargs: Arguments of `DenseODE`: `hidden_units`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `DenseODE` and `bases.Bucket` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.BucketDenseODE(10, steps=10)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    argument, basis_class = "num_buckets", Bucket

    def __init__(self, num_buckets, **kwargs):
        super().__init__(num_buckets, **kwargs)
        self.num_buckets = num_buckets


@keras.saving.register_keras_serializable("keras_nanode")
class PolyDenseODE(_Named, DenseODE):
    """`DenseODE` over `bases.Polynomial`.

    A dense map with weights that are polynomials in t.

    Args:
        degree: Integer of at least 0, the polynomials' degree.
        **kwargs: Arguments of `DenseODE`: `hidden_units`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `DenseODE` and `bases.Polynomial` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.PolyDenseODE(2, steps=10)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    argument, basis_class = "degree", Polynomial

    def __init__(self, degree, **kwargs):
        super().__init__(degree, **kwargs)
        self.degree = degree


@keras.saving.register_keras_serializable("keras_nanode")
class TrigDenseODE(_Named, DenseODE):
    """`DenseODE` over `bases.Trigonometric`.

    A dense map with weights that are trigonometric polynomials in t.

    Args:
        order: Integer of at least 0, the number of harmonics.
        **kwargs: Arguments of `DenseODE`: `hidden_units`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `DenseODE` and `bases.Trigonometric` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.TrigDenseODE(3, steps=10)(keras.ops.ones((2, 3))).shape[-1]
    3
    """

    argument, basis_class = "order", Trigonometric

    def __init__(self, order, **kwargs):
        super().__init__(order, **kwargs)
        self.order = order


@keras.saving.register_keras_serializable("keras_nanode")
class BucketConvODE(_Named, ConvODE):
    """`ConvODE` over `bases.Bucket`.

    A convolution with weights of its own in each of equal pieces of `t_span`.

    Args:
        num_buckets: Positive integer, the number of pieces.
        **kwargs: Arguments of `ConvODE`: `hidden_filters`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `ConvODE` and `bases.Bucket` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.BucketConvODE(10, steps=10)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    argument, basis_class = "num_buckets", Bucket

    def __init__(self, num_buckets, **kwargs):
        super().__init__(num_buckets, **kwargs)
        self.num_buckets = num_buckets


@keras.saving.register_keras_serializable("keras_nanode")
class PolyConvODE(_Named, ConvODE):
    """`ConvODE` over `bases.Polynomial`.

    A convolution with weights that are polynomials in t.

    Args:
        degree: Integer of at least 0, the polynomials' degree.
        **kwargs: Arguments of `ConvODE`: `hidden_filters`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `ConvODE` and `bases.Polynomial` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.PolyConvODE(2, steps=10)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    argument, basis_class = "degree", Polynomial

    def __init__(self, degree, **kwargs):
        super().__init__(degree, **kwargs)
        self.degree = degree


@keras.saving.register_keras_serializable("keras_nanode")
class TrigConvODE(_Named, ConvODE):
    """`ConvODE` over `bases.Trigonometric`.

    A convolution with weights that are trigonometric polynomials in t.

    Args:
        order: Integer of at least 0, the number of harmonics.
        **kwargs: Arguments of `ConvODE`: `hidden_filters`, `activation`, `solver`,
            `steps`, `t_span`, `adjoint`, ...

    Input shape:
        `(batch, *spatial, channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that `ConvODE` and `bases.Trigonometric` have.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.TrigConvODE(3, steps=10)(keras.ops.ones((2, 8, 8, 3))).shape[-1]
    3
    """

    argument, basis_class = "order", Trigonometric

    def __init__(self, order, **kwargs):
        super().__init__(order, **kwargs)
        self.order = order
