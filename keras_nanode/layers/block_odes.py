"""Ready-made ODE layers: compositions of a block, a basis and `ODE`."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_nanode import checks
from keras_nanode.adjoints import AdjointLike
from keras_nanode.bases import Basis
from keras_nanode.copying.trainable import FLAGS, checked_flags, set_flags
from keras_nanode.layers.arguments import (
    Activation,
    Constraint,
    Initializer,
    Regularizer,
    arguments_of,
    is_ours,
)
from keras_nanode.layers.block import Block
from keras_nanode.layers.blocks import ConvBlock, DenseBlock
from keras_nanode.layers.horizon import flow_times
from keras_nanode.layers.ode import ODE
from keras_nanode.layers.time_varying import TimeVarying
from keras_nanode.solvers import SolverLike
from keras_nanode.stepping import Adaptive, StepsLike, serialize_steps

# Where a configuration has the flags of the layer whose weights vary.
_PATTERN = f"{FLAGS}_of_layer"


class BlockODE(ODE):
    """`ODE(TimeVarying(block, basis, start), ...)`. The constructors of subclasses take
    the arguments of all of them."""

    nested = ""

    def __init__(
        self,
        block: Block,
        basis: str | Basis | dict,
        start: str,
        solver: SolverLike,
        steps: StepsLike,
        t_span: Sequence[float] | None,
        adjoint: AdjointLike,
        **kwargs: Any,
    ):
        basis, t_span = flow_times(basis, t_span, start, solver, steps)
        dynamics = TimeVarying(block, basis, start, dtype=kwargs.get("dtype"))
        super().__init__(dynamics, solver, steps, t_span, adjoint, **kwargs)
        self.basis, self.start = basis, start
        for source in (block, basis):
            for name in self._given.intersection(arguments_of(type(source))):
                setattr(self, name, getattr(source, name))

    def get_config(self):
        # For a user's subclass, the arguments of the base class from this library.
        ours = next(cls for cls in type(self).__mro__ if is_ours(cls))
        return self._config_of(ours, self.basis)

    def _config_of(self, cls: type, basis: Basis) -> dict:
        """The configuration of the same layer as one of a class, over a basis."""
        own = super().get_config()
        config = {
            **basis.get_config(),
            **self.dynamics.layer.get_config(),
            **self.dynamics.get_config(),
            "basis": keras.saving.serialize_keras_object(basis),
            **own,
        }
        names = (*arguments_of(cls), *keras.Layer.get_config(self))
        pattern = self.dynamics.flags_of_layer
        return {
            **{name: config[name] for name in (*names, *own.keys() & {FLAGS})},
            **({} if pattern == {"": True} else {_PATTERN: pattern}),
        }

    def over(self, basis: Basis, steps: int | Adaptive) -> "BlockODE":
        """A copy over another basis and with other steps, with new weights.

        If the basis is of another class, a layer that is named after its basis becomes
        the one that takes any.
        """
        cls: Any = type(self)
        if type(basis) is not type(self.basis):
            cls = next(c for c in cls.__mro__ if "basis" in arguments_of(c))
        config = self._config_of(cls, basis)
        return cls.from_config({**config, "steps": serialize_steps(steps)})

    @classmethod
    def from_config(cls, config):
        config = checks.config(cls, config)
        made = super().from_config({k: v for k, v in config.items() if k != _PATTERN})
        set_flags(made.dynamics.layer, checked_flags(config.get(_PATTERN, {})))
        return made


@keras.saving.register_keras_serializable("keras_nanode")
class DenseODE(BlockODE):
    """dx/dt = activation(W(t) x + b(t)), with weights that are functions of time.

    With `hidden_units`, dx/dt is a pre-activated bottleneck of three dense maps.

    Args:
        basis: The functions of time that the weights are combined from: a
            `keras_nanode.bases.Basis`, or a name in `keras_nanode.bases.ALL`.
        hidden_units: Positive integer, width of the bottleneck; None for no bottleneck.
        activation, use_bias, normalization, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As
            in `DenseBlock`, for the weights at each time.
        start: As in `TimeVarying`: `"independent"`, `"constant"`, or `"layer"`.
        solver, steps, adjoint: As in `ODE`.
        t_span: As in `ODE`. None for (0, sqrt(m)), where m is the number of independent
            sets of weights that the flow passes: the number of steps, or of functions
            if these are fewer or steps are adaptive. With this end and an independent
            start the flow learns what a residual network learns. It is (0, 1) if the
            weights start constant, and for functions that are large beyond, as the
            powers of t are. A `Basis` with a domain other than (0, 1) sets the times
            itself. Steps that are set later do not move the end. The paper's flow,
            which more steps refine, is `t_span=(0, 1), start="constant"`.

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> ode = layers.DenseODE(bases.Polynomial(2), solver="rk4", steps=5)
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 2.3
    """

    def __init__(
        self,
        basis: str | Basis,
        hidden_units: int | None = None,
        activation: Activation = "tanh",
        use_bias: bool = True,
        normalization: str | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        start: str = "independent",
        solver: SolverLike = "euler",
        steps: StepsLike = None,
        t_span: Sequence[float] | None = None,
        adjoint: AdjointLike = "checkpoint",
        **kwargs: Any,
    ):
        block = DenseBlock(
            hidden_units=hidden_units,
            activation=activation,
            normalization=normalization,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dtype=kwargs.get("dtype"),
        )
        super().__init__(block, basis, start, solver, steps, t_span, adjoint, **kwargs)


@keras.saving.register_keras_serializable("keras_nanode")
class ConvODE(BlockODE):
    """dx/dt = activation(W(t) * x + b(t)), a convolution whose kernel depends on time.

    With `hidden_filters`, dx/dt is a pre-activated bottleneck: convolutions of 1x1, kxk
    and 1x1.

    Args:
        basis: The functions of time that the weights are combined from: a
            `keras_nanode.bases.Basis`, or a name in `keras_nanode.bases.ALL`.
        kernel_size: Positive integer k, or one for each spatial axis.
        hidden_filters: Positive integer, width of the bottleneck; None for no
            bottleneck.
        activation, normalization, use_bias, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As
            in `ConvBlock`, for the weights at each time.
        start: As in `TimeVarying`: `"independent"`, `"constant"`, or `"layer"`.
        solver, steps, adjoint: As in `ODE`.
        t_span: As in `ODE`. None for (0, sqrt(m)), where m is the number of independent
            sets of weights that the flow passes: the number of steps, or of functions
            if these are fewer or steps are adaptive. With this end and an independent
            start the flow learns what a residual network learns. It is (0, 1) if the
            weights start constant, and for functions that are large beyond, as the
            powers of t are. A `Basis` with a domain other than (0, 1) sets the times
            itself. Steps that are set later do not move the end. The paper's flow,
            which more steps refine, is `t_span=(0, 1), start="constant"`.

    Input shape:
        `(batch, *spatial, channels)` with 1 to 3 spatial axes.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> ode = layers.ConvODE(bases.Bucket(4), hidden_filters=2, steps=4)
    >>> ode(keras.ops.ones((2, 8, 8, 3))).shape[3]
    3

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3.1
    """

    def __init__(
        self,
        basis: str | Basis,
        kernel_size: int | Sequence[int] = 3,
        hidden_filters: int | None = None,
        activation: Activation = "relu",
        normalization: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        start: str = "independent",
        solver: SolverLike = "euler",
        steps: StepsLike = None,
        t_span: Sequence[float] | None = None,
        adjoint: AdjointLike = "checkpoint",
        **kwargs: Any,
    ):
        block = ConvBlock(
            kernel_size=kernel_size,
            hidden_filters=hidden_filters,
            activation=activation,
            normalization=normalization,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            dtype=kwargs.get("dtype"),
        )
        super().__init__(block, basis, start, solver, steps, t_span, adjoint, **kwargs)
