"""Ready-made ODE layers: compositions of a block, a basis and `ODE`."""

import keras

from keras_nanode.layers.blocks import ConvBlock, DenseBlock
from keras_nanode.layers.ode import ODE
from keras_nanode.layers.time_varying import TimeVarying


class _BlockODE(ODE):
    """`ODE(TimeVarying(block_class(**block), basis, start), ...)`."""

    block_class: type[keras.Layer]

    def __init__(
        self,
        basis,
        block,
        start="constant",
        solver="euler",
        steps=None,
        t_span=(0.0, 1.0),
        adjoint="checkpoint",
        **kwargs,
    ):
        dtype = keras.dtype_policies.get(kwargs.pop("dtype", None))
        own = {k: kwargs.pop(k) for k in ("name", "trainable") if k in kwargs}
        pattern = self.block_class(**block, **kwargs, dtype=dtype)
        super().__init__(
            TimeVarying(pattern, basis, start, dtype=dtype),
            solver,
            steps,
            t_span,
            adjoint,
            dtype=dtype,
            **own,
        )
        for argument in block:
            setattr(self, argument, getattr(pattern, argument))
        self.basis = self.dynamics.basis
        self.start = start

    def get_config(self):
        config = super().get_config()
        del config["dynamics"]
        block = self.dynamics.layer.get_config()
        own = {"basis": keras.saving.serialize_keras_object(self.basis)}
        return {**block, **config, **own, "start": self.start}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_nanode")
class DenseODE(_BlockODE):
    """dx/dt = activation(W(t) x + b(t)), with weights that are functions of time.

    With `hidden_units`, dx/dt is a pre-activated bottleneck of three dense maps.

    Args:
        basis: The functions of time that the weights are combined from: a
            `keras_nanode.bases.Basis`, or a name in `keras_nanode.bases.ALL`.
        hidden_units: Positive integer, width of the bottleneck; None for none.
        activation: Activation function or its name.
        use_bias: Boolean.
        **kwargs: Arguments of `DenseBlock` (`normalization`, `kernel_initializer`,
            ...), of `TimeVarying` (`start`) and of `ODE` (`solver`, `steps`, `t_span`,
            `adjoint`).

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that these layers have.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> ode = layers.DenseODE(bases.Polynomial(2), solver="rk4", steps=5)
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 2.3
    """

    block_class = DenseBlock

    def __init__(
        self, basis, hidden_units=None, activation="tanh", use_bias=True, **kwargs
    ):
        block = {
            "hidden_units": hidden_units,
            "activation": activation,
            "use_bias": use_bias,
        }
        super().__init__(basis, block, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["units"]
        return config


@keras.saving.register_keras_serializable("keras_nanode")
class ConvODE(_BlockODE):
    """dx/dt = activation(W(t) * x + b(t)), a convolution whose kernel depends on time.

    With `hidden_filters`, dx/dt is a pre-activated bottleneck: convolutions of 1x1, kxk
    and 1x1.

    Args:
        basis: The functions of time that the weights are combined from: a
            `keras_nanode.bases.Basis`, or a name in `keras_nanode.bases.ALL`.
        kernel_size: Positive integer k, or one for each spatial axis.
        hidden_filters: Positive integer, width of the bottleneck; None for none.
        activation: Activation function or its name.
        normalization: None, `"group"` or `"layer"`; its weights depend on time too.
        **kwargs: Arguments of `ConvBlock` (`use_bias`, `kernel_initializer`, ...), of
            `TimeVarying` (`start`) and of `ODE` (`solver`, `steps`, `t_span`,
            `adjoint`).

    Input shape:
        `(batch, *spatial, channels)` with 1 to 3 spatial axes.

    Output shape:
        Same as the input.

    Raises:
        ValueError: for the reasons that these layers have.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> ode = layers.ConvODE(bases.Bucket(4), hidden_filters=2, steps=4)
    >>> ode(keras.ops.ones((2, 8, 8, 3))).shape[3]
    3

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3.1
    """

    block_class = ConvBlock

    def __init__(
        self,
        basis,
        kernel_size=3,
        hidden_filters=None,
        activation="relu",
        normalization=None,
        **kwargs,
    ):
        block = {
            "kernel_size": kernel_size,
            "hidden_filters": hidden_filters,
            "activation": activation,
            "normalization": normalization,
        }
        super().__init__(basis, block, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["filters"]
        return config
