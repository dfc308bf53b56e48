"""Datasets of images and videos, ready for `model.fit`."""

from keras_nanode.datasets.images import (
    ImageDataset,
    cifar10,
    cifar100,
    digits,
    mnist,
)
from keras_nanode.datasets.videos import (
    VideoDataset,
    bair,
    moving_digits,
    moving_mnist,
)

__all__ = [
    "ImageDataset",
    "VideoDataset",
    "bair",
    "cifar10",
    "cifar100",
    "digits",
    "mnist",
    "moving_digits",
    "moving_mnist",
]
