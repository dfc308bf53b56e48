"""Image classification datasets as `tf.data` pipelines."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from keras_nanode import checks
from keras_nanode.datasets.sources import PathLike, load_digits, load_tfds

# The files that TFDS writes are shuffled already, so a buffer smaller than the
# dataset mixes well enough and spares the memory of a second copy.
SHUFFLE_BUFFER = 10_000

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class ImageDataset(NamedTuple):
    """A training and a test set of images with their labels.

    Both sets are batched and prefetched `tf.data.Dataset`s of `(images, labels)`.
    Images are float32 in `[0, 1]` with shape `(batch, height, width, channels)`:
    a model that wants them standardised should begin with
    `keras.layers.Normalization`, so that a saved model takes raw pixels too.
    Labels are int32 with shape `(batch,)`, for a sparse loss. The last batch of an
    epoch may be smaller. The training set shuffles itself: `model.fit` with
    `shuffle=False` keeps Keras from warning about that.

    Attributes:
        train: `tf.data.Dataset`, reshuffled and augmented anew in every epoch.
        test: `tf.data.Dataset`, in a fixed order and never augmented.
        input_shape: Tuple of three integers, `(height, width, channels)`.
        classes: Integer, the number of classes.
    """

    train: tf.data.Dataset
    test: tf.data.Dataset
    input_shape: tuple[int, int, int]
    classes: int


def digits(batch_size: int = 64, augment: bool = False, seed: int = 0) -> ImageDataset:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels, without a download.

    The split is stratified by class and always the same, so that results of
    different seeds compare: 1,437 images for training, 360 for the test.

    Args:
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is shifted by up to 1 pixel
            in either direction. False by default: these digits fill their frame.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch, if the seed given to `tf.random.set_seed` is equal too.

    Returns:
        An `ImageDataset` with `input_shape` `(8, 8, 1)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is not such an integer.
        ImportError: If scikit-learn is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.digits(batch_size=32)
    >>> images, labels = next(iter(data.test))
    >>> images.shape, data.classes
    (TensorShape([32, 8, 8, 1]), 10)
    """
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)
    augmentation = partial(_shift, pixels=1) if augment else _keep
    return _image_dataset(*load_digits(), batch_size, seed, augmentation)


def mnist(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """MNIST: 70,000 handwritten digits of 28x28 pixels, through TFDS.

    They are read from `data_dir`, and downloaded into it if they are not there.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is shifted by up to 2 pixels
            in either direction. Digits are never flipped.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch, if the seed given to `tf.random.set_seed` is equal too.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(28, 28, 1)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is not such an integer, if a split
            does not exist, or if the data is neither in `data_dir` nor can be
            downloaded.
        ImportError: If tensorflow-datasets is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> held_out = {"train_split": "train[:50000]", "test_split": "train[50000:]"}
    >>> data = datasets.mnist(**held_out)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((28, 28, 1), 10)
    """
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)
    source = load_tfds("mnist", data_dir, train_split, test_split)
    augmentation = partial(_shift, pixels=2) if augment else _keep
    return _image_dataset(*source, batch_size, seed, augmentation)


def cifar10(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes, through TFDS.

    They are read from `data_dir`, and downloaded into it if they are not there.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is cropped at random from
            itself padded with 4 black pixels, and mirrored left to right half of
            the time.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch, if the seed given to `tf.random.set_seed` is equal too.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(32, 32, 3)` and 10 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is not such an integer, if a split
            does not exist, or if the data is neither in `data_dir` nor can be
            downloaded.
        ImportError: If tensorflow-datasets is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.cifar10(augment=False)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((32, 32, 3), 10)
    """
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)
    source = load_tfds("cifar10", data_dir, train_split, test_split)
    augmentation = _shift_and_flip if augment else _keep
    return _image_dataset(*source, batch_size, seed, augmentation)


def cifar100(
    data_dir: PathLike | None = None,
    batch_size: int = 128,
    augment: bool = True,
    seed: int = 0,
    train_split: str = "train",
    test_split: str = "test",
) -> ImageDataset:
    """CIFAR-100: 60,000 colour images of 32x32 pixels in 100 classes, through TFDS.

    They are read from `data_dir`, and downloaded into it if they are not there.
    The labels are the 100 fine ones.

    Args:
        data_dir: Path of the folder with TFDS datasets. `None` means the
            environment variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
        batch_size: Positive integer, images per batch.
        augment: Boolean, whether each training image is cropped at random from
            itself padded with 4 black pixels, and mirrored left to right half of
            the time.
        seed: Non-negative integer. Equal seeds give equal training batches, epoch
            by epoch, if the seed given to `tf.random.set_seed` is equal too.
        train_split: String, the images to train on, in
            [TFDS's slicing syntax](https://www.tensorflow.org/datasets/splits):
            `"train"`, `"train[:40000]"`, `"train[:80%]"`.
        test_split: String, the images to test on, in the same syntax.

    Returns:
        An `ImageDataset` with `input_shape` `(32, 32, 3)` and 100 classes.

    Raises:
        ValueError: If `batch_size` or `seed` is not such an integer, if a split
            does not exist, or if the data is neither in `data_dir` nor can be
            downloaded.
        ImportError: If tensorflow-datasets is not installed.

    Example:

    >>> from keras_nanode import datasets
    >>> data = datasets.cifar100(batch_size=256)  # doctest: +SKIP
    >>> data.input_shape, data.classes  # doctest: +SKIP
    ((32, 32, 3), 100)
    """
    checks.integer("batch_size", batch_size)
    checks.integer("seed", seed, 0)
    source = load_tfds("cifar100", data_dir, train_split, test_split)
    augmentation = _shift_and_flip if augment else _keep
    return _image_dataset(*source, batch_size, seed, augmentation)


def _image_dataset(
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    classes: int,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
) -> ImageDataset:
    """Batches of two datasets of single `(image, label)` pairs."""
    shuffled = train.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True)
    batches = _augmented(shuffled.batch(batch_size), seed, augmentation)
    return ImageDataset(
        train=_finished(batches),
        test=_finished(test.batch(batch_size)),
        input_shape=tuple(train.element_spec[0].shape),
        classes=classes,
    )


def _finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    def convert(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Integers are divided by their range; floating point images pass unchanged.
        pixels = tf.image.convert_image_dtype(images, tf.float32)
        return pixels, tf.cast(labels, tf.int32)

    return batches.map(convert, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _augmented(
    batches: tf.data.Dataset, seed: int, augmentation: Augmentation
) -> tf.data.Dataset:
    """Applies `augmentation` with one seed per batch, other ones in every epoch."""

    def augment(
        batch: tuple[tf.Tensor, tf.Tensor], batch_seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = batch
        return augmentation(images, batch_seed), labels

    # Seeds are drawn in order, outside the parallel map: which thread augments a
    # batch, and when, cannot change the result.
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    return tf.data.Dataset.zip(batches, seeds).map(augment, tf.data.AUTOTUNE)


def _keep(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    del seed
    return images


def _shift(images: tf.Tensor, seed: tf.Tensor, pixels: int) -> tf.Tensor:
    """Moves each image by up to `pixels` rows and columns and fills with zeros."""
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]])
    top, left = tf.unstack(
        tf.random.stateless_uniform([2, count, 1], seed, 0, 2 * pixels + 1, tf.int32)
    )
    rows = tf.gather(padded, top + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(rows, left + tf.range(width), axis=2, batch_dims=1)


def _flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors half of the images left to right."""
    coins = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed)
    return tf.where(coins < 0.5, tf.reverse(images, axis=[2]), images)


def _shift_and_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shift_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    return _flip(_shift(images, shift_seed, pixels=4), flip_seed)
