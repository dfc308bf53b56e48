"""Image classification datasets."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from keras_nanode import checks
from keras_nanode.datasets import epochs
from keras_nanode.datasets.augmentations import (
    Augmentation,
    keep,
    shift,
    shift_and_flip,
)
from keras_nanode.datasets.batches import batches, starting_at
from keras_nanode.datasets.epochs import Batches
from keras_nanode.datasets.sources import PathLike, Source, load_digits, load_tfds


class ImageDataset(NamedTuple):
    """A training and a test set of images with their labels.

    Both sets give batches of `(images, labels)`. On TensorFlow they are
    `tf.data.Dataset`s. On other backends they are `keras.utils.PyDataset`s of the same
    NumPy arrays, which are iterable and have the methods `take`, `skip` and `repeat`.
    Images are float32 in `[0, 1]` with shape `(batch, height, width, channels)`. To
    standardise them, begin the model with `keras.layers.Normalization`: then a saved
    model takes raw pixels too.
    Labels are int32 with shape `(batch,)`, for a sparse loss. The last batch of an
    epoch may be smaller. The training set shuffles itself, and `shuffle` of `model.fit`
    changes nothing. Where it is left at True, Keras warns about that on TensorFlow.

    The order and the augmentation of an epoch depend only on the seed and the epoch's
    number. A run that resumes after two epochs with
    `model.fit(data.train_from(2), initial_epoch=2, epochs=5)` therefore sees the same
    batches as an uninterrupted run. An epoch that was begun counts, also where `fit` is
    stopped in the middle. With `steps_per_epoch`, a pass goes on in Keras' next epoch.

    Attributes:
        train: Batches, `train_from(0)`: each iteration is the next epoch,
            shuffled and augmented anew.
        test: Batches, in a fixed order and never augmented.
        input_shape: Tuple of three integers, `(height, width, channels)`.
        classes: Integer, the number of classes.
        train_from: Function of a non-negative integer `epoch`, to the training set
            whose first iteration is that epoch, counted from 0.
    """

    train: Batches
    test: Batches
    input_shape: tuple[int, int, int]
    classes: int
    train_from: Callable[[int], Batches]


def digits(batch_size: int = 64, augment: bool = False, seed: int = 0) -> ImageDataset:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels, without a download.

    There are 1,437 images for training and 360 for the test. The split is stratified
    by class and does not depend on the seed, so results of different seeds compare.

    Args:
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is shifted by up to 1 pixel
            in either direction. False by default: these digits fill their frame.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch.

    Returns:
        An `ImageDataset` with `input_shape` `(8, 8, 1)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is invalid.
        ImportError: If scikit-learn is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.digits(batch_size=32)
    >>> images, labels = next(iter(data.test))
    >>> tuple(images.shape), data.classes
    ((32, 8, 8, 1), 10)
    """
    shifted = partial(shift, pixels=1)
    return _image_dataset(load_digits, batch_size, seed, shifted, augment)


def mnist(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """MNIST: 70,000 handwritten digits of 28x28 pixels, through TFDS.

    They are read from `data_dir`, or downloaded into it if they are missing.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is shifted by up to 2 pixels
            in either direction. Digits are never flipped.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(28, 28, 1)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is invalid, if a split does not exist,
            or if the data is not in `data_dir` and cannot be downloaded.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> held_out = {"train_split": "train[:50000]", "test_split": "train[50000:]"}
    >>> data = datasets.mnist(**held_out)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((28, 28, 1), 10)
    """
    load = partial(load_tfds, "mnist", data_dir, train_split, test_split)
    shifted = partial(shift, pixels=2)
    return _image_dataset(load, batch_size, seed, shifted, augment)


def cifar10(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes, through TFDS.

    They are read from `data_dir`, or downloaded into it if they are missing.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is cropped at random from
            a copy padded with 4 black pixels, and mirrored left to right half of
            the time.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(32, 32, 3)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is invalid, if a split does not exist,
            or if the data is not in `data_dir` and cannot be downloaded.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.cifar10(augment=False)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((32, 32, 3), 10)
    """
    load = partial(load_tfds, "cifar10", data_dir, train_split, test_split)
    return _image_dataset(load, batch_size, seed, shift_and_flip, augment)


def cifar100(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """CIFAR-100: 60,000 colour images of 32x32 pixels in 100 classes, through TFDS.

    They are read from `data_dir`, or downloaded into it if they are missing.
    The labels are the 100 fine ones.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is cropped at random from
            a copy padded with 4 black pixels, and mirrored left to right half of
            the time.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(32, 32, 3)` and 100 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is invalid, if a split does not exist,
            or if the data is not in `data_dir` and cannot be downloaded.
        ImportError: If tensorflow-datasets or TensorFlow is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.cifar100(batch_size=256)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((32, 32, 3), 100)
    """
    load = partial(load_tfds, "cifar100", data_dir, train_split, test_split)
    return _image_dataset(load, batch_size, seed, shift_and_flip, augment)


def _image_dataset(
    load: Callable[[], Source],
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    augment: bool,
) -> ImageDataset:
    # Check before anything is read or downloaded.
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)
    changed = augmentation if checks.boolean("augment", augment) else keep
    source = load()
    count = len(source.train.labels)

    def train_batch(epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        here = epochs.places(index, count, batch_size)
        images, labels = source.train.at(epochs.shuffled(count, seed, epoch)[here])
        numbers = epochs.generator("augmentation", seed, epoch, index)
        return changed(images, numbers), labels

    def test_batch(epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        del epoch
        return source.test.at(epochs.places(index, len(source.test.labels), batch_size))

    train_from = starting_at(train_batch, count, batch_size)
    length = math.ceil(len(source.test.labels) / batch_size)
    return ImageDataset(
        train=train_from(0),
        test=batches(test_batch, length),
        input_shape=source.train.images.shape[1:],
        classes=source.classes,
        train_from=train_from,
    )
