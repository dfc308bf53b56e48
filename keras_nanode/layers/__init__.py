"""Keras layers: ODEs, layers for their dynamics, and networks to compare with."""

from keras_nanode.layers.augment import Augment
from keras_nanode.layers.block_odes import ConvODE, DenseODE
from keras_nanode.layers.blocks import ConvBlock, DenseBlock
from keras_nanode.layers.named import (
    BucketConvODE,
    BucketDenseODE,
    PolyConvODE,
    PolyDenseODE,
    TrigConvODE,
    TrigDenseODE,
)
from keras_nanode.layers.ode import ODE
from keras_nanode.layers.residual_stack import ResidualStack
from keras_nanode.layers.time_appended import TimeAppended
from keras_nanode.layers.time_varying import TimeVarying

__all__ = [
    "ODE",
    "Augment",
    "BucketConvODE",
    "BucketDenseODE",
    "ConvBlock",
    "ConvODE",
    "DenseBlock",
    "DenseODE",
    "PolyConvODE",
    "PolyDenseODE",
    "ResidualStack",
    "TimeAppended",
    "TimeVarying",
    "TrigConvODE",
    "TrigDenseODE",
]
