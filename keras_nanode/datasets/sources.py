"""Where the images come from: scikit-learn's digits and TensorFlow Datasets."""

import importlib
import os
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import tensorflow as tf

PathLike = str | os.PathLike[str]
CONNECT_SECONDS = 5


class Source(NamedTuple):
    """Single `(image, label)` pairs to train on and to test on."""

    train: tf.data.Dataset
    test: tf.data.Dataset
    classes: int


class Download(NamedTuple):
    """The address that TFDS downloads from, and a pattern of the archives' names."""

    url: str
    archives: str


DOWNLOADS = {
    "mnist": Download(
        "https://storage.googleapis.com/cvdf-datasets/mnist/", "*-ubyte*.gz"
    ),
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "*cifar-10-binary*.gz",
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "*cifar-100-binary*.gz",
    ),
}


def load_digits() -> Source:
    """Scikit-learn's 8x8 digits in `[0, 1]`, split by class, always alike."""
    images, labels = _require("sklearn.datasets").load_digits(return_X_y=True)
    scaled = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = _require("sklearn.model_selection").train_test_split
    train_images, test_images, train_labels, test_labels = split(
        scaled, labels, test_size=360, stratify=labels, random_state=0
    )
    from_arrays = tf.data.Dataset.from_tensor_slices
    return Source(
        train=from_arrays((train_images, train_labels)),
        test=from_arrays((test_images, test_labels)),
        classes=10,
    )


def load_tfds(
    name: str, data_dir: PathLike | None, train_split: str, test_split: str
) -> Source:
    """Two splits of an image dataset of TFDS, downloaded if `data_dir` lacks it."""
    try:
        return _read(name, data_dir, train_split, test_split)
    except AssertionError:  # what TFDS raises for data that is not there
        pass
    _download(name, data_dir)
    return _read(name, data_dir, train_split, test_split)


def _read(
    name: str, data_dir: PathLike | None, train_split: str, test_split: str
) -> Source:
    tfds = _require("tensorflow_datasets")
    try:
        (train, test), info = tfds.load(
            name,
            split=[train_split, test_split],
            data_dir=data_dir,
            as_supervised=True,
            with_info=True,
            download=False,
        )
    # AttributeError: what TFDS raises for a split that is no string.
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"`{name}` could not be read ({error}). `train_split` and `test_split` "
            'must be splits or slices of splits, such as "train" or "train[:40000]". '
            f"Received: train_split={train_split!r}, test_split={test_split!r}, "
            f"data_dir={data_dir!r}"
        ) from error
    return Source(train, test, info.features["label"].num_classes)


def _download(name: str, data_dir: PathLike | None) -> None:
    # TFDS imports it while it prepares a dataset, without declaring it.
    _require("importlib_resources")
    try:
        builder = _require("tensorflow_datasets").builder(name, data_dir=data_dir)
        if not _has_archives(builder):
            _check_connection(DOWNLOADS[name].url)
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"`{name}` is not in `data_dir` and could not be downloaded ({error}). "
            f"Give the folder that holds `{name}/` as TFDS prepared it: `data_dir=...` "
            "here, `--data-dir` on a command line. If this machine is offline, run "
            f'`tfds.load("{name}", data_dir="folder")` on one that is not and copy '
            f"`folder/{name}` into `data_dir` (None: $TFDS_DATA_DIR or "
            f"~/tensorflow_datasets). Received: data_dir={data_dir!r}"
        ) from error


def _has_archives(builder: Any) -> bool:
    """Whether TFDS can prepare the data from files fetched earlier or by hand."""
    downloads = builder.data_path.parents[1] / "downloads"
    return any(downloads.glob(f"*/{DOWNLOADS[builder.name].archives}"))


def _check_connection(url: str) -> None:
    """Fails within seconds where TFDS would retry for minutes and leave folders."""
    requests = _require("requests")
    try:
        requests.head(url, timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        # `from None`: the long chain of connection errors adds nothing to its text.
        raise ConnectionError(
            f"{urlsplit(url).hostname} cannot be reached: {error}"
        ) from None


def _require(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This dataset needs the optional package `{module.partition('.')[0]}`. "
            'Install it with `pip install "keras_nanode[examples]"`.'
        ) from error
