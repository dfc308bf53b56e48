"""The residual networks that neural ODEs are compared with."""

from typing import Any

import keras
from keras import ops

from keras_nanode import checks
from keras_nanode.copying.copies import copy_layer
from keras_nanode.copying.parts import all_layers
from keras_nanode.fields.dynamics import same_shape
from keras_nanode.fields.masks import passing_on, with_mask
from keras_nanode.layers.arguments import CheckedArguments
from keras_nanode.layers.nested import Nesting, symbolic_output


@keras.saving.register_keras_serializable("keras_nanode")
class ResidualStack(CheckedArguments, Nesting, keras.Layer):
    """h <- h + block(h), `depth` times.

    With `shared` weights this is the paper's Con-ResNet: Euler's method for an
    autonomous ODE with steps of length 1. Otherwise it is the Uncon-ResNet: Euler's
    method for an ODE with a bucket for each step.

    Args:
        block: A Keras layer that keeps the shape of its input. It is the first block.
            Unless shared, the others are copies of it. Each copy has weights of its
            own, which are drawn anew.
        depth: Positive integer, the number of blocks, at most 1,000. If `block`
            contains stacks, the product of all depths must not exceed it.
        shared: Boolean, whether all blocks are the same layer.

    Call arguments:
        inputs: A floating tensor.
        mask: A boolean tensor, which Keras finds on the inputs. Every block sees it,
            and the outputs carry it on.

    Input shape:
        That of `block`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if `block` is not a Keras layer, `depth` is not a positive integer,
            or (when built) `block` changes the shape of its input.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> stack = layers.ResidualStack(layers.ConvBlock(), depth=3, shared=False)
    >>> stack(keras.ops.ones((2, 8, 8, 4))).shape[3]
    4
    """

    nested = "block"

    def __init__(
        self, block: keras.Layer, depth: int, shared: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.block = checks.layer("block", block)
        stacks = [s for s in all_layers(block) if isinstance(s, ResidualStack)]
        within = max((s.total_depth for s in stacks), default=1)
        # Each block is a layer to build and to trace: a file must not ask for minutes.
        self.depth = checks.integer("depth", depth, most=1_000 // within)
        self.total_depth: int = self.depth * within
        self.shared = checks.boolean("shared", shared)
        others = range(1, self.depth)
        self.blocks = [block] + [
            block if shared else copy_layer(block, seed_offset=i) for i in others
        ]
        self.supports_masking = True

    def build(self, input_shape):
        x = keras.KerasTensor(input_shape, dtype=self.compute_dtype)
        for block in self.blocks:
            output = symbolic_output(block, x)
        if not same_shape(output.shape, input_shape):
            raise ValueError(
                f"The block {self.block.name!r} of the residual stack {self.name!r} "
                "must keep the shape of its input. Received: input with shape "
                f"{tuple(input_shape)}, output with shape {tuple(output.shape)}"
            )

    def call(self, inputs, mask=None):
        x = inputs
        for block in self.blocks:
            change = passing_on(block, mask)(with_mask(x, mask))
            dtype = keras.backend.result_type(x.dtype, change.dtype)
            x = ops.cast(x, dtype) + ops.cast(change, dtype)
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, "shared": self.shared}
