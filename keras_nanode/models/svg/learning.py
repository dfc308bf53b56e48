"""A model that learns from videos alone, and says so to who gives it more."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_nanode import checks


class LearnsFromVideos(keras.Model):
    """Refuses targets, weights and losses, of which Keras drops some without a word,
    and arrays that are no videos, of which Keras and compiled functions say less."""

    def compile(self, *args, **kwargs):
        self._refuse("compile", args, kwargs)
        super().compile(*args, **kwargs)

    def compile_from_config(self, config):
        # Keras leaves this to a class with a `compile` of its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs):
        self._refuse("fit", args, kwargs)
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        self._refuse("evaluate", args, kwargs)
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        self._refuse("predict", args, kwargs)
        return super().predict(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        self._refuse("train_on_batch", args, kwargs)
        return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        self._refuse("test_on_batch", args, kwargs)
        return super().test_on_batch(*args, **kwargs)

    def _refuse(self, name, args, kwargs):
        signature = inspect.signature(getattr(keras.Model, name))
        given = signature.bind(self, *args, **kwargs).arguments
        refuse("targets", given.get("y"))
        for argument in ("sample_weight", "class_weight", "loss", "loss_weights"):
            refuse(argument, given.get(argument))
        if name != "compile":
            self._check_data(given.get("x"))

    def _check_data(self, x):
        if x is None or isinstance(x, (str, list, tuple)):
            expected = (
                "one tensor or array of videos, a dict with actions, or a dataset"
            )
            raise checks.wrong("x", x, expected)
        # The batches of a dataset are seen when they come.
        if isinstance(x, (dict, np.ndarray)) or ops.is_tensor(x):
            self.frames_and_actions(x)

    def frames_and_actions(self, inputs):
        """The checked parts of what the model is called with."""
        raise NotImplementedError


def refuse(argument, value):
    if value is not None:
        raise ValueError(
            "SVG learns from videos alone. Give `fit` and `evaluate` a tensor or a "
            "dataset of tensors (with actions, of dicts), not of tuples. "
            f"Received: {checks.shown(argument, value)}"
        )
