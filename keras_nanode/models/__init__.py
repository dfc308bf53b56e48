"""Ready-made models."""

from keras_nanode.models.classifier import BLOCKS, classifier

__all__ = ["BLOCKS", "classifier"]
