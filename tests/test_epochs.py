"""An interrupted run sees what it would have seen: epochs are numbered."""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_nanode import datasets

SIZES = {"num_frames": 3, "batch_size": 5}


def bair_file(folder):
    video = np.random.default_rng(0).integers(0, 256, (16, 9, 8, 8, 3), "uint8")
    actions = np.random.default_rng(1).normal(size=(16, 9, 2))
    np.savez(folder / "clips.npz", video=video, actions=actions)
    return folder / "clips.npz"


def mocked(load, **options):
    with tfds.testing.mock_data(num_examples=20):
        return load(**options)


# Each dataset with all that is drawn at random, shuffled and augmented.
LOADERS = {
    "digits": lambda folder: datasets.digits(batch_size=500, augment=True),
    "cifar10": lambda folder: mocked(datasets.cifar10, batch_size=8),
    "moving": lambda folder: datasets.moving_digits(train_videos=12, **SIZES),
    "bounces": lambda folder: datasets.moving_digits(
        train_videos=12, stochastic=True, **SIZES
    ),
    "file": lambda folder: datasets.bair(bair_file(folder), **SIZES),
    "actions": lambda folder: datasets.bair(bair_file(folder), actions=True, **SIZES),
    "stream": lambda folder: mocked(datasets.bair, **SIZES),
}
each_dataset = pytest.mark.parametrize("name", LOADERS)


def numbers(batches):
    """One iteration, as arrays."""
    return [
        np.asarray(array) for batch in batches for array in keras.tree.flatten(batch)
    ]


def equal(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@each_dataset
def test_the_epoch_that_a_run_goes_on_with_is_the_one_it_would_have_seen(
    name, tmp_path
):
    data, again = (LOADERS[name](tmp_path) for _ in range(2))
    through = [numbers(data.train) for _ in range(4)]
    # What the user draws elsewhere is of no account.
    keras.utils.set_random_seed(7)
    assert equal(numbers(again.train_from(3)), through[3])
    resumed = data.train_from(1)
    assert equal(numbers(resumed), through[1])
    assert equal(numbers(resumed), through[2])
    assert not any(equal(through[3], earlier) for earlier in through[:3])


@pytest.mark.parametrize("count", [2, 3])
def test_an_epoch_may_be_several_passes_or_parts_of_them(count):
    """As in a run whose epochs have so many batches, of which it has seen some."""
    load = LOADERS["digits"]
    passes = [numbers(load(None).train_from(epoch)) for epoch in range(2 * count)]
    long = load(None).train_from(0).repeat(count)
    assert len(long) == count * len(load(None).train)
    for first in (0, count):
        assert equal(numbers(long), joined(passes[first : first + count]))
    part = load(None).train_from(0).repeat(count).skip(1).take(2)
    assert equal(numbers(part), joined(passes)[2:6])
    endless = load(None).train_from(1).repeat()
    assert equal(numbers(itertools.islice(endless, 4)), joined(passes[1:])[:8])


def joined(passes):
    return [array for one in passes for array in one]


def test_a_fresh_process_sees_the_same_epoch(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
import keras, numpy as np, pathlib, test_epochs
keras.utils.set_random_seed(12)
for name, load in test_epochs.LOADERS.items():
    data = load(pathlib.Path({str(tmp_path)!r}))
    np.savez({str(tmp_path)!r} + "/" + name, *test_epochs.numbers(data.train_from(3)))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    for name, load in LOADERS.items():
        train = load(tmp_path).train
        fourth = [numbers(train) for _ in range(4)][3]
        with np.load(tmp_path / f"{name}.npz") as seen:
            assert equal([seen[f"arr_{i}"] for i in range(len(seen))], fourth), name


def test_fit_goes_on_where_it_stopped(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile("adam", loss)
        return net

    data = datasets.digits(augment=True)
    whole, begun = model(), model()
    fit = {"shuffle": False, "verbose": 0}
    whole.fit(data.train_from(0), epochs=3, **fit)
    begun.fit(data.train, epochs=2, **fit)
    begun.save(tmp_path / "begun.keras")
    resumed = keras.models.load_model(tmp_path / "begun.keras")
    keras.utils.set_random_seed(2)
    resumed.fit(data.train_from(2), initial_epoch=2, epochs=3, **fit)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["digits", "file", "stream"])
def test_a_number_of_an_epoch_is_checked(name, tmp_path):
    data = LOADERS[name](tmp_path)
    for epoch in (-1, 1.5, None, True):
        message = rf"`epoch` must be an integer .* least 0. Received: epoch={epoch}$"
        with pytest.raises(ValueError, match=message):
            data.train_from(epoch)


def test_shuffling_a_stream_leaves_the_user_s_seed_alone():
    data = mocked(datasets.bair, **SIZES)
    tf.random.set_seed(5)
    expected = tf.random.uniform([3])
    tf.random.set_seed(5)
    next(iter(data.train))
    np.testing.assert_array_equal(tf.random.uniform([3]), expected)
