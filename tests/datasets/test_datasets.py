import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from cases import batches

from keras_nanode import datasets
from keras_nanode.datasets import augmentations

TFDS_DATASETS = {
    "mnist": (datasets.mnist, (28, 28, 1), 10),
    "cifar10": (datasets.cifar10, (32, 32, 3), 10),
    "cifar100": (datasets.cifar100, (32, 32, 3), 100),
}
BUILDERS = {name: tfds.builder_cls(name) for name in TFDS_DATASETS}
SIZES = {"train": 40, "test": 10}
RANDOM = np.random.default_rng(1)
each_tfds_dataset = pytest.mark.parametrize("name", TFDS_DATASETS)


def tiny_examples(name: str, count: int) -> Iterator[tuple[int, dict]]:
    """Image i is all i, except for a left half that is i + 100."""
    _, shape, classes = TFDS_DATASETS[name]
    for i in range(count):
        image = np.full(shape, i, np.uint8)
        image[:, : shape[1] // 2] += 100
        example = {"image": image, "label": i % classes}
        extras = {"cifar10": {"id": str(i)}, "cifar100": {"id": "0", "coarse_label": 0}}
        yield i, example | extras.get(name, {})


def make_tiny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets TFDS prepare a few images of our own in place of a download."""

    def split_generators(self, dl_manager):
        return {split: tiny_examples(name, size) for split, size in SIZES.items()}

    monkeypatch.setattr(BUILDERS[name], "_split_generators", split_generators)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny datasets in the format of TFDS."""
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, builder in BUILDERS.items():
            make_tiny(monkeypatch, name)
            builder(data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", refuse)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "head", lambda url, timeout: None)


def arrays(dataset, epochs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*batches(dataset, epochs), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def same_batches(one, other, epochs: int = 1) -> bool:
    return all(map(np.array_equal, arrays(one, epochs), arrays(other, epochs)))


# Digits


def test_digits_have_1437_training_and_360_test_images():
    data = datasets.digits()
    train_images, train_labels = arrays(data.train)
    test_images, test_labels = arrays(data.test)
    assert train_images.shape == (1437, 8, 8, 1)
    assert test_images.shape == (360, 8, 8, 1)
    assert (data.input_shape, data.classes) == ((8, 8, 1), 10)
    assert set(train_labels) == set(test_labels) == set(range(10))


def test_digits_are_float32_between_0_and_1_with_integer_labels():
    images, labels = arrays(datasets.digits().train)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_digits_split_keeps_the_share_of_every_class():
    data = datasets.digits(augment=False)
    counts = [np.bincount(arrays(split)[1]) for split in (data.train, data.test)]
    np.testing.assert_allclose(counts[0] / 1437, counts[1] / 360, atol=0.003)


def test_digits_split_is_the_same_for_every_seed_and_has_no_overlap():
    one, other = (datasets.digits(augment=False, seed=seed) for seed in (0, 1))
    assert same_batches(one.test, other.test)
    train, test = ({i.tobytes() for i in arrays(s)[0]} for s in (one.train, one.test))
    assert not train & test
    assert train == {image.tobytes() for image in arrays(other.train)[0]}


def test_a_model_fits_on_the_digits():
    data = datasets.digits(augment=False)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(data.train, epochs=5, shuffle=False, verbose=0)
    assert model.evaluate(data.test, verbose=0)[1] > 0.9


# Order and augmentation


@pytest.mark.parametrize("augment", [False, True])
def test_a_seed_gives_the_same_batches_twice_over_several_epochs(augment):
    one, other = (datasets.digits(augment=augment, seed=3) for _ in range(2))
    assert same_batches(one.train, other.train, epochs=2)
    assert same_batches(one.train, other.train)


@pytest.mark.parametrize("augment", [False, True])
def test_another_seed_gives_other_batches(augment):
    one, other = (datasets.digits(augment=augment, seed=seed) for seed in (3, 4))
    assert not same_batches(one.train, other.train)


def test_every_epoch_has_all_images_in_another_order():
    train = datasets.digits(augment=False).train
    first, second = (arrays(train)[0] for _ in range(2))
    assert not np.array_equal(first, second)
    assert sorted(map(bytes, first)) == sorted(map(bytes, second))


def test_every_epoch_is_augmented_anew():
    train = datasets.digits(augment=True).train
    first, second = ({i.tobytes() for i in arrays(train)[0]} for _ in range(2))
    assert first != second


def test_the_test_set_is_in_fixed_order_and_never_augmented(data_dir):
    data = datasets.cifar10(data_dir, augment=True)
    plain = datasets.cifar10(data_dir, augment=False)
    assert same_batches(data.test, data.test)
    assert same_batches(data.test, plain.test)


def shifts_of(image: np.ndarray, pixels: int) -> list[np.ndarray]:
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    height, width, _ = image.shape
    offsets = range(2 * pixels + 1)
    return [padded[y : y + height, x : x + width] for y in offsets for x in offsets]


def test_shift_moves_each_image_by_its_own_offset_and_fills_with_zeros():
    image = np.random.default_rng(0).uniform(1, 2, (8, 6, 3)).astype("float32")
    shifted = augmentations.shift(np.stack([image] * 200), RANDOM, pixels=1)
    seen = {one.tobytes() for one in shifted}
    assert seen == {one.tobytes() for one in shifts_of(image, pixels=1)}


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    image = np.random.default_rng(0).uniform(1, 2, (4, 4, 3)).astype("float32")
    flipped = augmentations.flip(np.stack([image] * 200), RANDOM)
    mirrored = np.all(flipped == image[:, ::-1], axis=(1, 2, 3))
    kept = np.all(flipped == image, axis=(1, 2, 3))
    assert np.all(mirrored ^ kept)
    assert 70 < mirrored.sum() < 130


@each_tfds_dataset
def test_only_cifar_images_are_mirrored(name, data_dir):
    load, (_, width, _), _ = TFDS_DATASETS[name]
    images, _ = arrays(load(data_dir).train, epochs=4)
    middle = images[:, 14, :, 0]
    left, right = middle[:, width // 4], middle[:, -width // 4]
    assert np.any(left < right) == name.startswith("cifar")


# Datasets of TFDS


@each_tfds_dataset
def test_tfds_datasets_have_their_shape_classes_and_dtypes(name, data_dir):
    load, shape, classes = TFDS_DATASETS[name]
    data = load(data_dir, batch_size=8)
    assert (data.input_shape, data.classes) == (shape, classes)
    for split in (data.train, data.test):
        images, labels = arrays(split)
        assert (images.shape[1:], images.dtype) == (shape, np.float32)
        assert (labels.ndim, labels.dtype) == (1, np.int32)


def test_pixels_are_divided_by_255(data_dir):
    images, labels = arrays(datasets.mnist(data_dir, augment=False).train)
    order = np.argsort(images[:, 0, -1, 0])
    np.testing.assert_allclose(images[order, 0, -1, 0], np.arange(40) / 255)
    np.testing.assert_array_equal(labels[order], np.arange(40) % 10)


def test_training_images_are_shuffled_and_batched(data_dir):
    data = datasets.mnist(data_dir, batch_size=16, augment=False)
    batches = [images[:, 0, -1, 0] * 255 for images, _ in data.train]
    assert [len(batch) for batch in batches] == [16, 16, 8]
    order = np.rint(np.concatenate(batches))
    assert sorted(order) == list(range(40)) != list(order)


def test_splits_may_be_slices(data_dir):
    data = datasets.cifar10(
        data_dir, train_split="train[:30]", test_split="train[30:]", augment=False
    )
    train, test = (arrays(split)[0][:, 0, -1, 0] for split in (data.train, data.test))
    assert (len(train), len(test)) == (30, 10)
    assert not set(train) & set(test)


def test_tfds_may_be_mocked():
    with tfds.testing.mock_data(num_examples=5):
        images, _ = arrays(datasets.cifar100().test)
    assert images.shape == (5, 32, 32, 3)


@pytest.mark.skipif(
    "KERAS_NANODE_DATA_DIR" not in os.environ, reason="needs the real CIFAR-10"
)
def test_real_cifar10_is_read():
    data = datasets.cifar10(os.environ["KERAS_NANODE_DATA_DIR"], batch_size=100)
    images, labels = batches(data.test)[0]
    assert 0.4 < images.mean() < 0.55
    assert set(labels) == set(range(10))
    assert len(data.train) == 500


# What goes wrong


@pytest.mark.parametrize("load", [datasets.digits, datasets.mnist, datasets.cifar10])
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, None])
def test_a_batch_size_that_is_no_positive_integer_is_refused(load, batch_size):
    message = rf"`batch_size` must be .* at least 1. Received: batch_size={batch_size}$"
    with pytest.raises(ValueError, match=message):
        load(batch_size=batch_size)


def test_a_seed_that_is_no_integer_is_refused():
    message = r"`seed` must be an integer of at least 0. Received: seed=None$"
    with pytest.raises(ValueError, match=message):
        datasets.digits(seed=None)


@pytest.mark.parametrize("split", ["trian", "train[:x]", "train[:41]", 3])
def test_a_split_that_does_not_exist_is_refused(data_dir, split):
    message = r"`mnist` could not be read .*`train_split` and .* Received: train_split="
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        datasets.mnist(data_dir, train_split=split)
    assert f"train_split={split!r}, test_split='test'" in str(caught.value)


@each_tfds_dataset
@pytest.mark.usefixtures("offline")
def test_missing_data_offline_says_what_to_give_and_leaves_no_folder(name, tmp_path):
    load, _, _ = TFDS_DATASETS[name]
    folder = tmp_path / "absent"
    message = (
        rf"`{name}` is not in `data_dir` and could not be downloaded .*no route to host"
        rf".*`data_dir=\.\.\.` here, `--data-dir` .*offline.*copy `folder/{name}`"
        rf".*Received: data_dir=.*absent"
    )
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert not folder.exists()


@pytest.mark.usefixtures("online")
def test_missing_data_is_downloaded_when_there_is_network(tmp_path, monkeypatch):
    make_tiny(monkeypatch, "cifar10")
    data = datasets.cifar10(tmp_path)
    assert len(arrays(data.train)[0]) == SIZES["train"]
    assert (tmp_path / "cifar10").is_dir()


@pytest.mark.usefixtures("offline")
def test_archives_fetched_by_hand_are_prepared_without_network(tmp_path, monkeypatch):
    make_tiny(monkeypatch, "cifar10")
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert len(arrays(datasets.cifar10(tmp_path).test)[0]) == SIZES["test"]


@pytest.mark.parametrize(
    ("load", "module"),
    [
        (datasets.digits, "sklearn.datasets"),
        (datasets.mnist, "tensorflow_datasets"),
        (datasets.cifar10, "tensorflow_datasets"),
    ],
)
def test_a_missing_optional_package_names_the_extra(load, module, monkeypatch):
    import_module = importlib.import_module

    def without_module(name: str):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return import_module(name)

    monkeypatch.setattr(importlib, "import_module", without_module)
    package = module.split(".")[0]
    message = (
        rf"optional package `{package}`.*pip install \"./keras_nanode\[examples\]\""
    )
    with pytest.raises(ImportError, match=message):
        load()
