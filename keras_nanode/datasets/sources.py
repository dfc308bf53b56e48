"""Loaders of images and videos from scikit-learn, TensorFlow Datasets and files."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from keras_nanode import checks
from keras_nanode.datasets.epochs import as_floats

BAIR = "bair_robot_pushing_small"
PathLike = str | os.PathLike[str]
Clip = dict[str, Any]
Pipeline = Any  # a tf.data.Dataset; TensorFlow may not be installed
CONNECT_SECONDS = 5


class Examples(NamedTuple):
    """Images `(count, height, width, channels)` as stored, and their labels."""

    images: np.ndarray
    labels: np.ndarray

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples at these indices: float32 images and int32 labels."""
        return as_floats(self.images[places]), self.labels[places].astype("int32")


class Source(NamedTuple):
    """Examples to train on and to test on."""

    train: Examples
    test: Examples
    classes: int


class Download(NamedTuple):
    """The address that TFDS downloads from, and a glob pattern of the archive names."""

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
    BAIR: Download(
        "http://rail.eecs.berkeley.edu/datasets/bair_robot_pushing_dataset_v0.tar",
        "*bair_robot_pushing_dataset_v0*.tar",
    ),
}


def load_digits() -> Source:
    """Scikit-learn's 8x8 digits in `[0, 1]`, with a fixed split stratified by class."""
    images, labels = _require("sklearn.datasets").load_digits(return_X_y=True)
    scaled = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = _require("sklearn.model_selection").train_test_split
    train_images, test_images, train_labels, test_labels = split(
        scaled, labels, test_size=360, stratify=labels, random_state=0
    )
    return Source(
        train=Examples(train_images, train_labels),
        test=Examples(test_images, test_labels),
        classes=10,
    )


def load_tfds(
    name: str, data_dir: PathLike | None, train_split: str, test_split: str
) -> Source:
    """Two splits of an image dataset of TFDS, downloaded if `data_dir` lacks it."""
    checks.path("data_dir", data_dir)
    splits = [train_split, test_split]
    (train, test), info = read_tfds(name, data_dir, splits, as_supervised=True)
    with _told(name, data_dir, splits):
        train, test = _in_memory(train), _in_memory(test)
    return Source(train, test, info.features["label"].num_classes)


def _in_memory(pairs: Pipeline) -> Examples:
    batches = pairs.batch(1000).as_numpy_iterator()
    return Examples(*map(np.concatenate, zip(*batches, strict=True)))


def load_tfds_clips(
    data_dir: PathLike | None, splits: tuple[str, str], actions: bool
) -> tuple[Pipeline, Pipeline]:
    """BAIR's clips: `frames`, uint8, and `actions` if requested."""
    names = {"frames": "image_aux1", **({"actions": "action"} if actions else {})}
    _require("tensorflow", "tensorflow")
    decoding = _require("tensorflow_datasets").decode.PartialDecoding
    # Skip the other camera's images: they would take as long to decode.
    decoders = decoding(dict.fromkeys(names.values(), True))
    (train, test), _ = read_tfds(BAIR, data_dir, list(splits), decoders=decoders)
    with _told(BAIR, data_dir, list(splits)):
        for clips in (train, test):
            next(clips.take(1).as_numpy_iterator())

    def renamed(clip: Clip) -> Clip:
        return {name: clip[theirs] for name, theirs in names.items()}

    return train.map(renamed), test.map(renamed)


def load_clips(file: PathLike, actions: bool) -> tuple[Clip, Clip]:
    """The training and test clips of an .npz file. The last quarter is for the test."""
    arrays = _read_npz(file, ("video", "actions") if actions else ("video",))
    clips = {"frames": arrays["video"]}
    if actions:
        clips["actions"] = arrays["actions"].astype("float32")
    count = len(clips["frames"])
    last = max(1, count // 4)
    return (
        {name: values[:-last] for name, values in clips.items()},
        {name: values[-last:] for name, values in clips.items()},
    )


def _read_npz(file: PathLike, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with open(file, "rb") as opened, np.load(opened) as archive:
            arrays = {name: archive[name] for name in names}
    except Exception as error:  # from the file, zipfile, zlib or NumPy
        raise ValueError(
            f"The file must be an .npz archive with the arrays {names} ({error}). If "
            "it was written by a run that broke off, or copied in part, write or copy "
            f"it again. Received: {str(file)!r}"
        ) from error
    video, actions = arrays["video"], arrays.get("actions")
    fits = actions is None or (
        actions.ndim == 3
        and actions.shape[:2] == video.shape[:2]
        and actions.dtype.kind in "fiu"
        and actions.size > 0
        and bool((np.abs(actions) <= np.finfo("float32").max).all())
    )
    right = (video.ndim, video.dtype) == (5, np.uint8) and video.size > 0
    if not right or len(video) < 2 or not fits:
        shapes = {name: (a.shape, str(a.dtype)) for name, a in arrays.items()}
        raise ValueError(
            "`video` must be uint8 of shape (clips, frames, height, width, channels), "
            "2 clips at least, and `actions` finite numbers, (clips, frames, "
            "action_dim). No axis may be empty. "
            f"Received: {shapes} in {str(file)!r}"
        )
    return arrays


def read_tfds(
    name: str, data_dir: PathLike | None, splits: list[str], **options: Any
) -> tuple[list[Pipeline], Any]:
    """Training and test splits, and TFDS's info. `options` go to `tfds.load`."""
    try:
        return _read(name, data_dir, splits, options)
    except AssertionError:  # TFDS raises this if the data is missing
        pass
    _download(name, data_dir)
    return _read(name, data_dir, splits, options)


def _read(
    name: str, data_dir: PathLike | None, splits: list[str], options: dict[str, Any]
) -> tuple[list[Pipeline], Any]:
    _require("tensorflow", "tensorflow")
    tfds = _require("tensorflow_datasets")
    with _told(name, data_dir, splits):
        return tfds.load(
            name,
            split=splits,
            data_dir=data_dir,
            with_info=True,
            download=False,
            **options,
        )


@contextlib.contextmanager
def _told(name: str, data_dir: PathLike | None, splits: list[str]) -> Iterator[None]:
    """Turns errors of TFDS and TensorFlow about splits and files into a ValueError."""
    try:
        yield
    except (AssertionError, ImportError):  # missing data; missing packages
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`{name}` could not be read ({reason}). `train_split` and `test_split` "
            'must be splits or slices of splits, such as "train" or "train[:40000]". '
            f"If its files are broken, delete the folder `{name}` in `data_dir`, to "
            f"have it prepared again. Received: train_split={splits[0]!r}, "
            f"test_split={splits[1]!r}, data_dir={data_dir!r}"
        ) from error


def _download(name: str, data_dir: PathLike | None) -> None:
    # TFDS imports this while it prepares a dataset, but does not declare it.
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
    """Fails within seconds. TFDS would retry for minutes and leave folders behind."""
    requests = _require("requests")
    try:
        requests.head(url, timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        # `from None`: the long chain of connection errors adds nothing to the message.
        raise ConnectionError(
            f"{urlsplit(url).hostname} cannot be reached: {error}"
        ) from None


def _require(module: str, extra: str = "examples") -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This dataset needs the optional package `{module.partition('.')[0]}`, on "
            f"every backend. Install it with {checks.installation(extra)}."
        ) from error
