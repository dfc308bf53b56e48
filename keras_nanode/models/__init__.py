"""Ready-made models."""

from keras_nanode.models.classifier import BLOCKS, classifier
from keras_nanode.models.materialize import materialize
from keras_nanode.models.svg import SVG, VIDEO_BLOCKS, VideoGenerator

__all__ = [
    "BLOCKS",
    "SVG",
    "VIDEO_BLOCKS",
    "VideoGenerator",
    "classifier",
    "materialize",
]
