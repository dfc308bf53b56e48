"""Random augmentations of training images `(batch, height, width, channels)`."""

from collections.abc import Callable

import numpy as np

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def keep(images: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    del numbers
    return images


def shift(images: np.ndarray, numbers: np.random.Generator, pixels: int) -> np.ndarray:
    """Moves each image by up to `pixels` rows and columns and fills with zeros."""
    count, height, width, _ = images.shape
    margin = (pixels, pixels)
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
    top, left = numbers.integers(0, 2 * pixels, (2, count, 1), endpoint=True)
    rows, columns = top + np.arange(height), left + np.arange(width)
    each = np.arange(count)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]]


def flip(images: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Mirrors half of the images left to right."""
    coins = numbers.random((len(images), 1, 1, 1))
    return np.where(coins < 0.5, images[:, :, ::-1], images)


def shift_and_flip(images: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    return flip(shift(images, numbers, pixels=4), numbers)
