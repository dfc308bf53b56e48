"""Ready-made models."""

from keras_nanode.models.classifier import BLOCKS, classifier
from keras_nanode.models.materialize import materialize
from keras_nanode.models.rebase import rebase, rebase_error
from keras_nanode.models.residual import to_flow, to_residual
from keras_nanode.models.svg import SVG, VIDEO_BLOCKS, VideoGenerator

__all__ = [
    "BLOCKS",
    "SVG",
    "VIDEO_BLOCKS",
    "VideoGenerator",
    "classifier",
    "materialize",
    "rebase",
    "rebase_error",
    "to_flow",
    "to_residual",
]
