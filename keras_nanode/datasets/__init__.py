"""Image classification datasets, ready for `model.fit`."""

from keras_nanode.datasets.images import (
    ImageDataset,
    cifar10,
    cifar100,
    digits,
    mnist,
)

__all__ = ["ImageDataset", "cifar10", "cifar100", "digits", "mnist"]
