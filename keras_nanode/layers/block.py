"""The common base of blocks of dense maps and of convolutions."""

import math
from typing import Any

import keras
from keras import activations, constraints, initializers, regularizers

from keras_nanode import checks
from keras_nanode.layers.arguments import (
    Activation,
    CheckedArguments,
    Constraint,
    Initializer,
    Regularizer,
)

_NORMALIZATIONS = (None, "group", "layer")
# A kernel and a bias have one of each.
_KINDS = {
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


class Block(CheckedArguments, keras.Layer):
    """One linear map, or three with a bottleneck. Subclasses define the map."""

    # The configurations of the maps, if `model.quantize` changed them.
    _quantized: list[dict] | None = None
    maps: list[keras.Layer]

    def __init__(
        self,
        widths: dict,
        activation: Activation,
        normalization: str | None,
        use_bias: bool,
        kernel_initializer: Initializer,
        bias_initializer: Initializer,
        kernel_regularizer: Regularizer,
        bias_regularizer: Regularizer,
        kernel_constraint: Constraint,
        bias_constraint: Constraint,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, width in widths.items():
            if width is not None:
                checks.integer(name, width)
        self._widths = tuple(widths.values())
        # The bottleneck and the convolutions keep the axes that a mask has.
        self.supports_masking = True
        self.activation = checks.of_keras("activation", activation, activations)
        self.normalization = checks.one_of(
            "normalization", normalization, _NORMALIZATIONS
        )
        self.use_bias = checks.boolean("use_bias", use_bias)
        given = {
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        for name, value in given.items():
            module = _KINDS[name.rpartition("_")[2]]
            setattr(self, name, checks.of_keras(name, value, module))

    def _map(
        self, width: int, has_kernel: bool, rank: int, **arguments: Any
    ) -> keras.Layer:
        """A linear map to `width` channels; if `has_kernel`, over a neighbourhood."""
        raise NotImplementedError

    def _check_rank(self, input_shape):
        raise NotImplementedError

    def build(self, input_shape):
        self._check_rank(input_shape)
        if input_shape[-1] is None:
            raise ValueError(
                f"The layer {self.name!r} needs to know the number of channels, the "
                f"last axis of its input. Received: input_shape={tuple(input_shape)}"
            )
        width, hidden = self._widths
        width = width or input_shape[-1]
        plan = [(width, True)]
        if hidden:
            plan = [(hidden, False), (hidden, True), (width, False)]
        norms: list[keras.Layer] = []
        maps: list[keras.Layer] = []
        shape = tuple(input_shape)
        for channels, has_kernel in plan:
            norms.append(self._norm(shape[-1]))
            linear = self._linear(channels, has_kernel, len(shape) - 2)
            if self._quantized:
                linear = linear.from_config(self._quantized[len(maps)])
            linear.supports_masking = True  # else a convolution warns about masks
            maps.append(linear)
            norms[-1].build(shape)
            maps[-1].build(shape)
            shape = (*shape[:-1], channels)
        self.norms, self.maps = norms, maps

    def _linear(self, channels, has_kernel, rank):
        return self._map(
            channels,
            has_kernel,
            rank,
            use_bias=self.use_bias,
            kernel_initializer=_fresh(self.kernel_initializer),
            bias_initializer=_fresh(self.bias_initializer),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
        )

    def _norm(self, channels):
        if self.normalization == "group":
            groups = math.gcd(8, channels)
            return keras.layers.GroupNormalization(groups, dtype=self.dtype_policy)
        if self.normalization == "layer":
            return keras.layers.LayerNormalization(dtype=self.dtype_policy)
        return keras.layers.Identity(autocast=False)

    def call(self, inputs):
        if len(self.maps) == 1:
            return self.activation(self.maps[0](self.norms[0](inputs)))
        x = inputs
        for norm, linear in zip(self.norms, self.maps, strict=True):
            x = linear(self.activation(norm(x)))
        return x

    @property
    def linear_variables(self):
        """The variables in which the outputs are linear, taken together."""
        return self.maps[-1].variables if len(self.maps) > 1 else []

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self._widths[0] or input_shape[-1])

    def _quantized_config(self) -> dict:
        """The maps' configurations after `model.quantize`, which bypasses the block."""
        maps = getattr(self, "maps", ())
        policy = keras.dtype_policies.QuantizedDTypePolicy
        if any(isinstance(linear.dtype_policy, policy) for linear in maps):
            return {"quantized": [linear.get_config() for linear in maps]}
        return {"quantized": self._quantized} if self._quantized else {}

    @classmethod
    def from_config(cls, config):
        config = dict(checks.config(cls, config))
        quantized = config.pop("quantized", None)
        block = super().from_config(config)
        block._quantized = quantized
        return block

    def get_config(self):
        return {
            **super().get_config(),
            **self._quantized_config(),
            "activation": self._serialized("activation", activations),
            "normalization": self.normalization,
            "use_bias": self.use_bias,
            **{
                f"{weight}_{kind}": self._serialized(f"{weight}_{kind}", module)
                for kind, module in _KINDS.items()
                for weight in ("kernel", "bias")
            },
        }

    def _serialized(self, name, module):
        """Serializes an argument with the Keras module for its kind."""
        value, cause = getattr(self, name), None
        try:
            if not _is_nameless(value):
                return module.serialize(value)
        except (TypeError, ValueError) as error:
            cause = error
        raise ValueError(
            f"The `{name}` of the layer {self.name!r} cannot be saved. Use a function "
            "with a name, or an object with `get_config`, and register it with "
            "`keras.saving.register_keras_serializable`. "
            f"Received: {name}={value!r}"
        ) from cause


def _fresh(initializer):
    """Clones an initializer, to draw other numbers unless it has a seed.

    A Keras initializer draws the same numbers at each call, and its clone draws others.
    A user's initializer is returned unchanged, since it may have no `clone`.
    """
    if type(initializer).__module__.partition(".")[0] == "keras":
        return initializer.clone()
    return initializer


def _is_nameless(function: Any) -> bool:
    """Whether it has no name to save: a lambda, or Keras' wrapper of an array."""
    made_by_keras = function.__class__.__name__ == "function" and (
        "<locals>" in function.__qualname__ and function.__module__.startswith("keras.")
    )
    return made_by_keras or getattr(function, "__name__", "") == "<lambda>"
