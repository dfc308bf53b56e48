"""The encoder and the decoder of SVG: VGG blocks of convolutions or of ODEs."""

import math
from dataclasses import dataclass

import keras

from keras_nanode import bases
from keras_nanode.adjoints import AdjointLike
from keras_nanode.layers import ConvODE

# The number of convolutions in each block, from the highest resolution to the lowest,
# and whether the last one of a decoder block narrows it.
LAYOUTS: dict[str, tuple[tuple[int, ...], bool]] = {
    "paper": ((3, 3, 3, 3), False),
    "original": ((2, 2, 3, 3), True),
}
NORMALIZATIONS = ("group", "batch")

# The standard deviation that SVG draws its kernels with, as DCGAN did.
_STDDEV = 0.02
# Frames are (height, width, channels), whatever Keras' default is.
_LAYOUT = {"data_format": "channels_last"}
_SLOPE = 0.2


@dataclass(frozen=True)
class VGG:
    """Builds an encoder and its decoder from VGG blocks.

    Attributes:
        filters: The widths, from the highest resolution to the lowest.
        layout: A key of `LAYOUTS`.
        normalization: One of `NORMALIZATIONS`.
        basis: The basis of the ODE that replaces a block's width-keeping convolutions;
            None for convolutions.
        steps: Euler steps of an ODE.
        t_span: The times of an ODE.
        adjoint: As in `keras_nanode.layers.ODE`.
        dtype: The dtype policy of all layers.
    """

    filters: tuple[int, ...]
    layout: str
    normalization: str
    basis: bases.Basis | None
    steps: int
    t_span: tuple[float, float]
    adjoint: AdjointLike
    dtype: object

    def encoder(self, frame_shape: tuple[int, ...], feature_dim: int) -> keras.Model:
        """From frames to features and to the skip maps, one before each pooling."""
        frames = x = keras.Input(frame_shape, dtype=self._compute_dtype)
        skips = []
        for width, size in zip(self.filters, LAYOUTS[self.layout][0], strict=True):
            x = self._block(x, width, size - 1)
            skips.append(x)
            x = keras.layers.MaxPooling2D(dtype=self.dtype, **_LAYOUT)(x)
        x = self._convolution(x, feature_dim, x.shape[1:3], "valid", "tanh")
        features = keras.layers.Flatten(dtype=self.dtype, **_LAYOUT)(x)
        return keras.Model(frames, [features, *skips], name="encoder")

    def decoder(self, frame_shape: tuple[int, ...], feature_dim: int) -> keras.Model:
        """From features and the encoder's skip maps to frames."""
        sizes, narrows_last = LAYOUTS[self.layout]
        height, width, channels = frame_shape
        features = keras.Input((feature_dim,), dtype=self._compute_dtype)
        skips = [
            keras.Input((height >> i, width >> i, c), dtype=self._compute_dtype)
            for i, c in enumerate(self.filters)
        ]
        lowest = (height >> len(skips), width >> len(skips))
        x = keras.layers.Reshape((1, 1, feature_dim), dtype=self.dtype)(features)
        x = self._normalized(
            self._kernel("Conv2DTranspose", self.filters[-1], lowest)(x)
        )
        for i in reversed(range(len(skips))):
            x = keras.layers.UpSampling2D(dtype=self.dtype, **_LAYOUT)(x)
            x = keras.layers.Concatenate(dtype=self.dtype)([x, skips[i]])
            narrow = self.filters[i - 1] if i else None
            if narrows_last:
                kept = sizes[i] - 2
                x = self._block(x, self.filters[i], kept, narrow)
            else:
                x = self._block(x, narrow or self.filters[i], sizes[i] - 1)
        x = self._kernel("Conv2D", channels, 3, padding="same")(x)
        frames = keras.layers.Activation("sigmoid", dtype="float32")(x)
        return keras.Model([features, *skips], frames, name="decoder")

    @property
    def _compute_dtype(self):
        return keras.dtype_policies.get(self.dtype).compute_dtype

    def _block(self, x, width, kept, narrow=None):
        """A convolution to `width`, `kept` more or an ODE, and one to `narrow`."""
        x = self._convolution(x, width)
        if kept and self.basis is not None:
            x = self._ode(self.basis)(x)
        else:
            for _ in range(kept):
                x = self._convolution(x, width)
        return self._convolution(x, narrow) if narrow else x

    def _convolution(self, x, width, size=3, padding="same", activation=None):
        x = self._kernel("Conv2D", width, size, padding=padding)(x)
        return self._normalized(x, activation)

    def _ode(self, basis: bases.Basis) -> ConvODE:
        return ConvODE(
            basis,
            activation="tanh",
            steps=self.steps,
            t_span=self.t_span,
            adjoint=self.adjoint,
            kernel_initializer=keras.initializers.RandomNormal(stddev=_STDDEV),
            dtype=self.dtype,
        )

    def _kernel(self, kind, width, size, **arguments):
        return getattr(keras.layers, kind)(
            width,
            size,
            **_LAYOUT,
            kernel_initializer=keras.initializers.RandomNormal(stddev=_STDDEV),
            dtype=self.dtype,
            **arguments,
        )

    def _normalized(self, x, activation=None):
        channels, pixels = x.shape[-1], math.prod(x.shape[1:3])
        if self.normalization == "batch":
            norm = keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, dtype=self.dtype
            )
        else:
            # A group of one number would be normalized to zero.
            groups = math.gcd(8, channels) if pixels > 1 else 1
            norm = keras.layers.GroupNormalization(
                groups, epsilon=1e-5, dtype=self.dtype
            )
        x = norm(x)
        if activation:
            return keras.layers.Activation(activation, dtype=self.dtype)(x)
        return keras.layers.LeakyReLU(_SLOPE, dtype=self.dtype)(x)
