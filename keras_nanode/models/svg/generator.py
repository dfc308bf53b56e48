"""The generation of videos as a model of its own."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import checks
from keras_nanode.copying.trainable import TrainableParts
from keras_nanode.layers.nested import Nesting
from keras_nanode.models.svg import rules
from keras_nanode.models.svg.model import SVG


@keras.saving.register_keras_serializable("keras_nanode")
class VideoGenerator(TrainableParts, Nesting, keras.Model):
    """Maps the first frames of videos to samples of the frames that may follow.

    This is `SVG.generate` as a model, which `predict` compiles and `export` writes as a
    SavedModel. By default the SavedModel draws new noise at each call. For a server
    with reproducible answers, export it with the noise as an input:

        generator.export(path, input_signature=generator.input_signature(noise=True))

    Args:
        model: The `SVG`.
        num_frames: Positive integer, how many frames to predict.
        num_samples: Positive integer, how many futures of each video.

    Call arguments:
        inputs: The context, or a dict with `"context"`, and perhaps `"noise"` and
            `"actions"`, as in `SVG.generate`.

    Input shape:
        `(batch, context_frames, *frame_shape)`.

    Output shape:
        `(batch, num_samples, num_frames, *frame_shape)`.

    Raises:
        ValueError: if `model` is not an `SVG`, a number is not a positive integer, or
            an input is invalid.

    Example:

    >>> import numpy as np
    >>> from keras_nanode import models
    >>> model = models.SVG.from_preset("paper", frame_shape=(32, 32, 1))
    >>> generator = models.VideoGenerator(model, num_frames=3, num_samples=2)
    >>> generator.predict(np.zeros((1, 2, 32, 32, 1)), verbose=0).shape
    (1, 2, 3, 32, 32, 1)
    """

    nested = "model"

    def __init__(
        self, model: SVG, num_frames: int, num_samples: int = 1, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not isinstance(model, SVG):
            raise ValueError(
                "`model` must be a `keras_nanode.models.SVG`. "
                f"Received: model={model!r}"
            )
        self.model = model
        self.num_frames = checks.integer("num_frames", num_frames)
        self.num_samples = checks.integer("num_samples", num_samples)
        self.build({name: spec.shape for name, spec in self._specs(True).items()})

    def build(self, input_shape):
        # The model has built its networks already.
        pass

    def call(self, inputs):
        return self.model.generate(
            num_frames=self.num_frames,
            num_samples=self.num_samples,
            **self._named(inputs),
        )

    def _named(self, inputs):
        given = inputs if isinstance(inputs, dict) else {"context": inputs}
        known = self._specs(noise=True)
        if "context" not in given or set(given) - set(known):
            raise ValueError(
                f"The inputs must be a dict with 'context', and of the keys "
                f"{tuple(known)} alone. Received: the keys {tuple(given)}"
            )
        return given

    def predict(self, x, *args, **kwargs):
        """As `keras.Model.predict`, but checks the values of arrays first."""
        if x is None or isinstance(x, (str, list, tuple)):
            raise checks.wrong("x", x, "the videos' first frames, a dict or a dataset")
        if isinstance(x, (dict, np.ndarray)) or ops.is_tensor(x):
            self._check_values(**self._named(x))
        return super().predict(x, *args, **kwargs)

    def _check_values(self, context, noise=None, actions=None):
        model = self.model
        rules.frames("context", context, model.frame_shape, model.context_frames)
        transitions = context.shape[1] + self.num_frames - 1
        rules.actions(actions, model.action_dim, context, transitions)
        if noise is not None:
            shape = self._specs(noise=True)["noise"].shape[1:]
            rules.noise(noise, len(context), shape)

    def input_signature(self, noise=False):
        """The input signature for `export`, with or without the noise as an input.

        Args:
            noise: Boolean. With noise, or if the model has actions, the exported
                function takes a dict.

        Returns:
            A list of one `keras.InputSpec` or of one dict of them.
        """
        specs = self._specs(checks.boolean("noise", noise))
        return [specs if len(specs) > 1 else specs["context"]]

    def _specs(self, noise):
        model = self.model
        context = (model.context_frames, *model.frame_shape)
        shapes = {"context": context}
        if noise:
            shapes["noise"] = (self.num_samples, self.num_frames, model.latent_dim)
        if model.action_dim:
            time = model.context_frames + self.num_frames
            shapes["actions"] = (time, model.action_dim)
        return {
            name: keras.InputSpec("float32", (None, *shape))
            for name, shape in shapes.items()
        }

    def export(self, filepath, format="tf_saved_model", *args, **kwargs):
        """As `keras.Model.export`, with `input_signature()` as the default."""
        kwargs.setdefault("input_signature", self.input_signature())
        return super().export(filepath, format, *args, **kwargs)

    def get_config(self):
        own = {"num_frames": self.num_frames, "num_samples": self.num_samples}
        return {**super().get_config(), **own}
