"""Stochastic video generation."""

from keras_nanode.models.svg.generator import VideoGenerator
from keras_nanode.models.svg.model import SVG, VIDEO_BLOCKS

__all__ = ["SVG", "VIDEO_BLOCKS", "VideoGenerator"]
