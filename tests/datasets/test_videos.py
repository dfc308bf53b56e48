import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from cases import batches
from tensorflow_datasets.video.moving_sequence import image_as_moving_sequence

from keras_nanode import datasets
from keras_nanode.datasets import moving
from keras_nanode.datasets.sources import load_digits

BAIR = tfds.builder_cls("bair_robot_pushing_small")
STAGE = moving.Stage(num_frames=40, num_digits=2, frame_size=64, digit_size=32)
MOTIONS = {"reflection": moving.REFLECTION, "bounces": moving.RANDOM_BOUNCES}
each_motion = pytest.mark.parametrize("stochastic", [False, True])


def arrays(videos, epochs: int = 1) -> np.ndarray:
    return np.concatenate(batches(videos, epochs))


def digits(**changes) -> datasets.VideoDataset:
    few = {"num_frames": 4, "train_videos": 12, "test_videos": 6}
    return datasets.moving_digits(**{**few, **changes})


def sets_of_videos(*videos: np.ndarray) -> list[set[bytes]]:
    return [{one.tobytes() for one in many} for many in videos]


def draws_of(motion: moving.Motion, count: int, stage: moving.Stage = STAGE):
    """The random numbers of `count` videos, as a batch."""
    drawn = [motion.draw(stage, np.random.default_rng(i)) for i in range(count)]
    return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}


# Moving digits as a dataset


@each_motion
def test_videos_are_float32_between_0_and_1_and_as_many_as_asked_for(stochastic):
    data = digits(batch_size=5, stochastic=stochastic)
    assert data.frame_shape == (32, 32, 1)
    assert [len(batch) for batch in data.train] == [5, 5, 2]
    for videos, count in ((arrays(data.train), 12), (arrays(data.test), 6)):
        assert (videos.shape, videos.dtype) == ((count, 4, 32, 32, 1), np.float32)
        assert videos.min() == 0.0
        assert 0.8 < videos.max() <= 1.0


@each_motion
def test_a_video_depends_on_its_seed_and_number_alone(stochastic):
    one, other = (
        digits(batch_size=size, train_videos=count, stochastic=stochastic)
        for size, count in ((3, 12), (5, 20))
    )
    np.testing.assert_array_equal(arrays(one.test), arrays(other.test))
    twelve, twenty = sets_of_videos(arrays(one.train), arrays(other.train))
    assert len(twenty) == 20
    assert twelve < twenty


@each_motion
def test_a_seed_decides_the_training_videos_and_not_those_of_the_test(stochastic):
    one, same, other = (digits(seed=s, stochastic=stochastic) for s in (3, 3, 4))
    np.testing.assert_array_equal(
        arrays(one.train, epochs=2), arrays(same.train, epochs=2)
    )
    assert not np.array_equal(arrays(one.train), arrays(other.train))
    np.testing.assert_array_equal(arrays(one.test), arrays(other.test))


def test_every_epoch_has_the_same_training_videos_in_another_order():
    train = digits().train
    first, second = arrays(train), arrays(train)
    assert not np.array_equal(first, second)
    one, other = sets_of_videos(first, second)
    assert one == other


def windows(frame: np.ndarray, side: int) -> np.ndarray:
    views = np.lib.stride_tricks.sliding_window_view(frame, (side, side))
    return views.reshape(-1, side, side)


def test_training_and_test_videos_show_digits_of_their_own_split():
    data = digits(num_digits=1, frame_size=16, digit_size=8, test_videos=12)
    source = load_digits()
    train, test = (
        {image.tobytes() for image in split.images}
        for split in (source.train, source.test)
    )
    for videos, own, foreign in ((data.train, train, test), (data.test, test, train)):
        for frame in arrays(videos).reshape(-1, 16, 16):
            seen = {window.tobytes() for window in windows(frame, 8)}
            assert seen & own
            assert not seen & foreign


def test_moving_mnist_scales_the_digits_of_its_splits(mnist_dir):
    data = datasets.moving_mnist(
        mnist_dir, num_digits=1, train_videos=80, test_videos=40, test_split="test[3:]"
    )
    assert data.frame_shape == (64, 64, 1)
    train, test = (arrays(videos)[..., 0] for videos in (data.train, data.test))
    # Each image is of one grey, which no scaling changes.
    for frames in (train, test):
        assert set(np.count_nonzero(frames, axis=(2, 3)).flat) == {32 * 32}
    seen, held_out = ({*np.rint(255 * v.max(axis=(2, 3))).flat} for v in (train, test))
    assert seen == set(range(1, 9))
    assert len(held_out) == 2
    assert held_out < set(range(101, 106))


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST of grey squares: 1 to 8 for training, 101 to 105 for the test."""

    def examples(first: int, count: int) -> Iterator[tuple[int, dict]]:
        for grey in range(first, first + count):
            image = np.full((28, 28, 1), grey, np.uint8)
            yield grey, {"image": image, "label": 0}

    def splits(self, dl_manager):
        return {"train": examples(1, 8), "test": examples(101, 5)}

    folder = tmp_path_factory.mktemp("mnist")
    with pytest.MonkeyPatch.context() as monkeypatch:
        mnist = tfds.image_classification.MNIST
        monkeypatch.setattr(mnist, "_split_generators", splits)
        mnist(data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.slower
@each_motion
def test_videos_are_generated_faster_than_they_are_learned(stochastic):
    data = datasets.moving_digits(
        frame_size=64, stochastic=stochastic, train_videos=1500
    )

    def seconds() -> float:
        begin = time.perf_counter()
        assert len(arrays(data.train)) == 1500
        return time.perf_counter() - begin

    # Half as many, for another test may run beside this one.
    assert 1500 / min(seconds() for _ in range(3)) > 250


# How digits move


def test_a_digit_is_placed_at_its_corner_of_a_black_frame():
    stage = moving.Stage(3, 2, frame_size=9, digit_size=4)
    rng = np.random.default_rng(0)
    digits = rng.uniform(1, 2, (5, 2, 4, 4)).astype("float32")
    corners = rng.integers(0, stage.room, (5, 2, 3, 2), endpoint=True)
    expected = np.zeros((5, 2, 3, 9, 9), "float32")
    for b, d, t in np.ndindex(5, 2, 3):
        row, column = corners[b, d, t]
        expected[b, d, t, row : row + 4, column : column + 4] = digits[b, d]
    placed = moving.place(digits, corners, stage)
    np.testing.assert_array_equal(placed, expected)


def test_reflected_digits_move_as_in_tfds():
    stage = moving.Stage(20, 2, frame_size=64, digit_size=28)
    images = np.random.default_rng(0).integers(1, 255, (3, 28, 28, 1), np.uint8)
    each = [np.random.default_rng(seed) for seed in (5, 6)]
    videos = moving.videos(images, each, stage, moving.REFLECTION)
    for video, seed in zip(videos, (5, 6), strict=True):
        numbers = np.random.default_rng(seed)
        draws = moving.draw(stage, moving.REFLECTION, len(images), numbers)
        theirs = [
            image_as_moving_sequence(images[which], 20, (64, 64), velocity, start)[0]
            for which, start, velocity in zip(
                draws["choice"], draws["start"], draws["velocity"], strict=True
            )
        ]
        np.testing.assert_allclose(video, np.max(theirs, axis=0) / 255, atol=1e-7)


def simulated(draws: dict[str, np.ndarray], stage: moving.Stage) -> np.ndarray:
    """One digit of one video, frame by frame, as SVG's generator moves it."""
    room, (y, x), (dy, dx) = stage.room, draws["start"], draws["velocity"]
    path = []
    for away, along in zip(draws["away"], draws["along"], strict=True):
        if y < 0:
            y, dy, dx = 0, away[0], along[0]
        elif y >= room:
            y, dy, dx = room - 1, -away[0], along[0]
        if x < 0:
            x, dx, dy = 0, away[1], along[1]
        elif x >= room:
            x, dx, dy = room - 1, -away[1], along[1]
        path.append((y, x))
        y, x = y + dy, x + dx
    return np.array(path)


def test_bouncing_digits_move_as_in_svg():
    draws = draws_of(moving.RANDOM_BOUNCES, 100)
    corners = moving.RANDOM_BOUNCES.corners(STAGE, draws)
    assert corners.shape == (100, 2, 40, 2)
    for b, d in np.ndindex(100, 2):
        one = {
            name: values[b, :, d] if values.ndim == 4 else values[b, d]
            for name, values in draws.items()
        }
        np.testing.assert_array_equal(corners[b, d], simulated(one, STAGE))


@pytest.mark.parametrize("name", MOTIONS)
def test_digits_stay_inside_and_reach_every_wall(name):
    motion = MOTIONS[name]
    corners = motion.corners(STAGE, draws_of(motion, 200))
    last = {"reflection": STAGE.room, "bounces": STAGE.room - 1}[name]
    assert corners.reshape(-1, 2).min(axis=0).tolist() == [0, 0]
    assert corners.reshape(-1, 2).max(axis=0).tolist() == [last, last]


def test_bounces_are_as_fast_as_in_svg_and_in_proportion_to_the_room():
    for side, fastest in ((64, 4), (32, 2), (8, 1)):
        stage = moving.Stage(40, 2, side, side // 2)
        draws = draws_of(moving.RANDOM_BOUNCES, 200, stage)
        corners = moving.RANDOM_BOUNCES.corners(stage, draws)
        assert np.abs(np.diff(corners, axis=2)).max() == fastest
        assert set(np.unique(draws["velocity"])) == set(range(-fastest, fastest + 1))
        assert set(np.unique(draws["away"])) == set(range(1, fastest + 1))


@pytest.mark.parametrize("name", MOTIONS)
def test_starts_are_uniform_and_independent(name):
    start = draws_of(MOTIONS[name], 4000)["start"].reshape(4000, 4)
    whole = start / (STAGE.room - 1 if name == "bounces" else 1)
    np.testing.assert_allclose(whole.mean(axis=0), 0.5, atol=0.02)
    covariance = np.cov(np.concatenate([whole[1:], whole[:-1]], axis=1).T)
    np.testing.assert_allclose(12 * covariance, np.eye(8), atol=0.1)


def test_overlapping_digits_show_the_brighter_one_or_add_up_to_white():
    layers = np.reshape([0.25, 0.5], (1, 2, 1, 1, 1))
    assert moving.REFLECTION.compose(layers).item() == 0.5
    assert moving.RANDOM_BOUNCES.compose(layers).item() == 0.75
    assert moving.RANDOM_BOUNCES.compose(2 * layers).item() == 1.0


@pytest.mark.parametrize("size", [5, 8, 11, 28, 40])
def test_digits_are_resized_as_by_tensorflow(size):
    image = np.random.default_rng(0).uniform(size=(28, 28)).astype("float32")
    matrix = moving._resizing(28, size)
    expected = tf.image.resize(image[..., None], [size, size], antialias=True)
    np.testing.assert_allclose(matrix @ image @ matrix.T, expected[..., 0], atol=1e-5)


# Clips: frame t of clip c is all 8 t + c, and its action is t

LENGTH = 30


def clip(number: int) -> np.ndarray:
    greys = 8 * np.arange(LENGTH) + number
    return np.broadcast_to(greys[:, None, None, None], (LENGTH, 64, 64, 3))


def clip_actions() -> np.ndarray:
    return np.repeat(np.arange(LENGTH)[:, None], 4, axis=1).astype("float32")


@pytest.fixture(scope="module")
def bair_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips to train on and two to test on, in the format of TFDS."""

    def examples(numbers: range) -> Iterator[tuple[str, list[dict]]]:
        for number in numbers:
            frames = clip(number).astype("uint8")
            yield (
                str(number),
                [
                    {
                        "image_main": np.zeros_like(frame),
                        "image_aux1": frame,
                        "action": action,
                        "endeffector_pos": np.zeros(3, "float32"),
                    }
                    for frame, action in zip(frames, clip_actions(), strict=True)
                ],
            )

    def splits(self, dl_manager):
        return {"train": examples(range(6)), "test": examples(range(6, 8))}

    folder = tmp_path_factory.mktemp("bair")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(BAIR, "_split_generators", splits)
        BAIR(data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture(scope="module")
def bair_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips in a file."""
    file = tmp_path_factory.mktemp("clips") / "clips.npz"
    video = np.stack([clip(number) for number in range(8)]).astype("uint8")
    np.savez(file, video=video, actions=np.stack([clip_actions()] * 8))
    return file


@pytest.fixture(params=["bair_dir", "bair_file"])
def clips(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def greys(videos, epochs: int = 1) -> np.ndarray:
    """The grey of every frame, (videos, frames)."""
    return np.rint(arrays(videos, epochs)[..., 0, 0, 0] * 255).astype(int)


def test_clips_have_their_shape_and_range(clips):
    data = datasets.bair(clips, batch_size=4, num_frames=12)
    assert data.frame_shape == (64, 64, 3)
    assert [len(batch) for batch in data.train] == [4, 2]
    assert [len(batch) for batch in data.test] == [2]
    for videos in (data.train, data.test):
        frames = arrays(videos)
        assert frames.shape[1:] == (12, 64, 64, 3)
        assert frames.dtype == np.float32
    video = arrays(data.train)[0]
    np.testing.assert_array_equal(
        video, np.broadcast_to(video[:, :1, :1, :1], video.shape)
    )
    assert 0 <= video.min() < video.max() < 1


def test_training_videos_start_anywhere_in_their_clip(clips):
    frames = greys(datasets.bair(clips, num_frames=28).train, epochs=40)
    assert set(np.diff(frames).flat) == {8}
    starts, numbers = np.divmod(frames[:, 0], 8)
    assert set(zip(starts, numbers, strict=True)) == set(np.ndindex(3, 6))


def test_test_videos_are_the_first_frames_of_the_other_clips(clips):
    test = datasets.bair(clips, num_frames=3).test
    assert greys(test).tolist() == [[6, 14, 22], [7, 15, 23]]
    np.testing.assert_array_equal(greys(test), greys(test))


def test_a_video_may_be_as_long_as_its_clip(clips):
    data = datasets.bair(clips, num_frames=LENGTH)
    assert sorted(greys(data.train)[:, 0]) == list(range(6))


def test_actions_are_those_of_the_frames(clips):
    data = datasets.bair(clips, num_frames=10, actions=True)
    for videos in (data.train, data.test):
        batch = batches(videos)[0]
        assert batch["actions"].shape == (len(batch["frames"]), 10, 4)
        assert batch["actions"].dtype == np.float32
        numbers = np.rint(batch["frames"][..., 0, 0, 0] * 255) // 8
        np.testing.assert_array_equal(batch["actions"][..., 0], numbers)


def test_a_seed_gives_the_same_clips_and_starts_twice(clips):
    one, same, other = (datasets.bair(clips, seed=seed).train for seed in (3, 3, 4))
    np.testing.assert_array_equal(greys(one, epochs=2), greys(same, epochs=2))
    assert not np.array_equal(greys(one), greys(other))


def test_splits_of_clips_may_be_slices(bair_dir):
    data = datasets.bair(bair_dir, train_split="train[:4]", test_split="train[4:]")
    train, test = (set(greys(split)[:, 0] % 8) for split in (data.train, data.test))
    assert (len(train), len(test)) == (4, 2)
    assert train | test == set(range(6))


# What goes wrong


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("batch_size", 1),
        ("num_frames", 1),
        ("frame_size", 2),
        ("digit_size", 1),
        ("num_digits", 1),
        ("train_videos", 1),
        ("test_videos", 1),
        ("seed", 0),
    ],
)
@pytest.mark.parametrize("load", [datasets.moving_digits, datasets.moving_mnist])
def test_a_number_out_of_its_range_is_refused(load: Callable, name, least):
    for value in (least - 1, 2.5):
        message = rf"`{name}` must be .* at least {least}. Received: {name}={value}$"
        with pytest.raises(ValueError, match=message):
            load(**{name: value})


def test_a_digit_that_fills_its_frame_is_refused():
    message = (
        r"`digit_size` must be below `frame_size`. Received: digit_size=32, frame_"
    )
    with pytest.raises(ValueError, match=message):
        datasets.moving_digits(frame_size=32, digit_size=32)


def test_more_frames_than_a_clip_has_are_refused(clips):
    message = r"have 30 frames, fewer than `num_frames`. Received: num_frames=31, data_"
    with pytest.raises(ValueError, match=message):
        datasets.bair(clips, num_frames=31)


def test_missing_clips_offline_are_told_without_a_wait(tmp_path, monkeypatch):
    def refuse(url: str, timeout: float) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", refuse)
    message = r"`bair_robot_pushing_small` is not in `data_dir` and could not be down"
    with pytest.raises(ValueError, match=message):
        datasets.bair(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_splits_of_a_file_are_refused(bair_file):
    message = r"leave out `train_split` .* Received: train_split='train\[:3\]', test_"
    with pytest.raises(ValueError, match=message):
        datasets.bair(bair_file, train_split="train[:3]")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"No such file.*Received: '.*absent.npz'$"):
        datasets.bair(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("content", "actions", "message"),
    [
        ({"clips": np.zeros(3)}, False, r"the arrays \('video',\) .*Received: '.*npz'"),
        (
            {"video": np.zeros((4, 9, 8, 8, 3), "uint8")},
            True,
            r"the arrays .*'actions'",
        ),
        (
            {"video": np.zeros((4, 9, 8, 8), "uint8")},
            False,
            r"\(\(4, 9, 8, 8\), 'uint8'",
        ),
        ({"video": np.zeros((4, 9, 8, 8, 3))}, False, r"must be uint8 .*'float64'"),
        ({"video": np.zeros((1, 9, 8, 8, 3), "uint8")}, False, r"2 clips at least"),
        (
            {
                "video": np.zeros((4, 9, 8, 8, 3), "uint8"),
                "actions": np.zeros((4, 8, 2)),
            },
            True,
            r"`actions` finite numbers, \(clips, frames, action_dim\).*"
            r"'actions': \(\(4, 8, 2\)",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, actions, message):
    file = tmp_path / "clips.npz"
    np.savez(file, **content)
    with pytest.raises(ValueError, match=message):
        datasets.bair(file, num_frames=4, actions=actions)


def test_a_broken_file_is_told_in_one_line(bair_file, tmp_path):
    whole = bair_file.read_bytes()
    middle = len(whole) // 2
    broken = {
        "empty": b"",
        "cut": whole[:middle],
        "turned": whole[:middle]
        + bytes(b ^ 255 for b in whole[middle:][:99])
        + whole[middle + 99 :],
        "text": b"no archive at all",
    }
    for name, content in broken.items():
        file = tmp_path / f"{name}.npz"
        file.write_bytes(content)
        message = rf"copied in part, write or copy it again. Received: '.*{name}.npz'$"
        with pytest.raises(ValueError, match=message) as caught:
            datasets.bair(file)
        assert "\n" not in str(caught.value)


def test_a_broken_stream_is_told(bair_dir, tmp_path):
    shutil.copytree(bair_dir, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*tfrecord*"):
        file.write_bytes(file.read_bytes()[:100])
    message = r"If its files are broken, delete the folder `bair_robot_pushing_small`"
    with pytest.raises(ValueError, match=message) as caught:
        datasets.bair(tmp_path / "copy")
    assert "\n" not in str(caught.value)
