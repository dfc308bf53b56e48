"""An interrupted run sees what it would have seen: epochs are numbered."""

import itertools
import os
import subprocess
import sys
import warnings
from concurrent import futures

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_nanode import datasets
from keras_nanode.datasets.batches import batches

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


# What `fit` sees. A batch is the numbers of its epoch and its place.

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# There Keras warns that it does not shuffle.
FIT = {"verbose": 0, **({"shuffle": False} if ON_TENSORFLOW else {})}
FULL = [[(epoch, place) for place in range(4)] for epoch in range(9)]


def numbered(length=4, epoch=0):
    def make(epoch, index):
        return np.array([[epoch, index]], "float32"), np.zeros((1, 1), "float32")

    return batches(make, length, epoch)


class Seen(keras.layers.Layer):
    """Keeps what it sees in training."""

    def __init__(self):
        super().__init__()
        self.dense, self.batches = keras.layers.Dense(1), []

    def call(self, x, training=False):
        concrete = not isinstance(x, keras.KerasTensor) and is_concrete(x)
        if training and concrete:
            numbers = keras.ops.convert_to_numpy(x).astype(int)
            self.batches.extend(tuple(row) for row in numbers.tolist())
        return self.dense(x)


def is_concrete(x):
    if keras.backend.backend() != "jax":
        return True
    import jax

    return not isinstance(x, jax.core.Tracer)


def seeing(built=False):
    """A model, and the list of the batches that it sees."""
    layer = Seen()
    model = keras.Sequential([*([keras.Input((2,))] if built else []), layer])
    model.compile("sgd", "mse", run_eagerly=True)
    return model, layer.batches


def seen(data, built=False, **arguments):
    model, batches = seeing(built)
    with warnings.catch_warnings():  # of an epoch that is shorter than the others
        warnings.simplefilter("ignore")
        model.fit(data, **{**FIT, "epochs": 3, **arguments})
    return batches


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("shuffle", [{}, {"shuffle": True}, {"shuffle": False}])
def test_each_epoch_of_fit_is_the_next(built, shuffle):
    for length in (4, 1, 2):
        full = [(epoch, place) for epoch in range(3) for place in range(length)]
        assert seen(numbered(length), built, **shuffle) == full


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_an_epoch_of_fit_may_be_a_part_of_a_pass(steps):
    """As with `tf.data`: a pass goes on in the next epoch, and no epoch has two."""
    built = steps == 2
    expected = []
    for _ in range(5):
        left = 4 - len(expected) % 4
        expected += joined(FULL)[len(expected) :][: min(steps, left)]
    assert seen(numbered(), built, epochs=5, steps_per_epoch=steps) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_freq": 2},
        {"validation_steps": 3},
        {"initial_epoch": 1, "epochs": 4},
        {"class_weight": {0: 2.0}},
        {"callbacks": [keras.callbacks.LambdaCallback(lambda epoch, logs: None)]},
    ],
)
def test_validation_takes_no_epoch(arguments):
    found = seen(numbered(), validation_data=numbered(3), **arguments)
    assert found == joined(FULL[:3])


def test_epochs_go_on_over_calls_of_fit_and_evaluate():
    data = numbered()
    model, batches = seeing()
    model.fit(data, epochs=2, **FIT)
    model.evaluate(data, verbose=0)  # takes an epoch, as an iteration
    model.compile("sgd", "mse", metrics=["mse"], run_eagerly=True)
    model.fit(data, epochs=4, initial_epoch=2, **FIT)
    assert batches == joined([*FULL[:2], *FULL[3:5]])


class StopAfter(keras.callbacks.Callback):
    def __init__(self, count):
        super().__init__()
        self.left = count

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


@pytest.mark.parametrize("again", ["as it is", "compiled"])
def test_an_epoch_that_was_stopped_is_over(again):
    data = numbered()
    model, batches = seeing()
    model.fit(data, epochs=3, **FIT, callbacks=[StopAfter(6)])
    if again == "compiled":
        model.compile("sgd", "mse", metrics=["mse"], run_eagerly=True)
    model.fit(data, **FIT)
    assert batches == [*joined(FULL[:1]), *FULL[1][:2], *FULL[2]]


@pytest.mark.skipif(ON_TENSORFLOW, reason="it has begun to read when it finds out")
def test_a_model_that_cannot_be_built_takes_no_epoch():
    data = numbered()
    wrong = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    wrong.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected"):
        wrong.fit(data, verbose=0)
    assert seen(data, epochs=1) == FULL[0]


@pytest.mark.skipif(ON_TENSORFLOW, reason="tf.data has workers of its own")
@pytest.mark.parametrize(
    "multiprocessing",
    # JAX warns that a process that is forked may wait for ever.
    [False, True] if keras.backend.backend() == "torch" else [False],
)
def test_parallel_workers_make_the_epochs_too(multiprocessing):
    model, batches = seeing()
    # Keras' workers lag behind by what was read ahead to build the model.
    model.evaluate(numbered(1), verbose=0)
    data = numbered()
    data.workers, data.use_multiprocessing, data.max_queue_size = 2, multiprocessing, 1
    model.fit(data, epochs=2, **FIT)
    model.fit(data, epochs=1, **FIT)
    # Keras shuffles, since nobody knows which worker is the first.
    for epoch in range(3):
        assert sorted(batches[4 * epoch :][:4]) == FULL[epoch]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_run_that_goes_on_sees_what_it_would_have_seen(shuffle):
    for steps in (None, 2):
        whole = seen(numbered(), epochs=4, shuffle=shuffle, steps_per_epoch=steps)
        begun = seen(numbered(), epochs=2, shuffle=shuffle, steps_per_epoch=steps)
        rest = numbered(epoch=2 if steps is None else 1)
        fit = {"initial_epoch": 2, "epochs": 4, "shuffle": shuffle}
        assert begun + seen(rest, True, steps_per_epoch=steps, **fit) == whole


def test_parts_of_epochs_share_their_numbers():
    data = numbered()
    assert seen(data.repeat(2), epochs=2) == joined(FULL[:4])
    assert seen(data.skip(1).take(2), epochs=2) == joined(e[1:3] for e in FULL[4:6])
    assert seen(data, epochs=1) == FULL[6]
    endless = numbered(epoch=1).repeat()
    assert seen(endless, epochs=3, steps_per_epoch=3) == joined(FULL[1:])[:9]
    if not ON_TENSORFLOW:  # which reads ahead, into epochs that nobody sees
        assert seen(endless, epochs=1, steps_per_epoch=4) == FULL[4]
        assert seen(endless.skip(5), epochs=1, steps_per_epoch=3) == FULL[6][1:]


def test_iterators_at_once_have_epochs_of_their_own():
    data = numbered()
    one, other = iter(data), iter(data)
    pairs = [(places(a), places(b)) for a, b in zip(one, other, strict=True)]
    assert pairs == list(zip(FULL[0], FULL[1], strict=True))
    with futures.ThreadPoolExecutor(4) as pool:
        passes = list(pool.map(lambda _: [places(b) for b in data], range(6)))
    assert sorted(passes) == FULL[2:8]


def places(batch):
    return tuple(int(n) for n in np.asarray(batch[0])[0])


@pytest.mark.skipif(ON_TENSORFLOW, reason="these are methods of tf.data's there")
def test_batches_can_be_looked_at():
    data = numbered()
    assert places(data[2]) == FULL[0][2]
    assert seen(data) == joined(FULL[:3])
    for _ in range(2):  # a loop of the user's own
        for place in range(len(data)):
            data[place]
        data.on_epoch_end()
    assert places(data[0]) == FULL[5][0]
    assert len(data.take(0).repeat()) == 0
    for method in (data.take, data.skip, data.repeat, data.repeat().skip):
        for count in (-1, 1.5, "1", True):
            with pytest.raises(
                ValueError, match=r"`count` must be an integer .* least"
            ):
                method(count)
