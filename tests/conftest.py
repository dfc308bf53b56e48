"""Every test starts from one state of Keras, and leaves nothing behind."""

import settings  # noqa: F401  Before a backend is imported.  # isort: skip

from pathlib import Path

import keras
import pytest

SECONDS = Path(__file__).with_name("seconds.txt")

# A script for a process of its own, which needs JAX.
collect_ignore = ["support/solve_in_parts.py"]
pytest.register_assert_rewrite("check_layer", "problems")


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items):
    """A test that was measured to take long, by `.ci/seconds`, is marked so."""
    lines = (line.split(" ", 1) for line in SECONDS.read_text().splitlines())
    measured = {name: float(took) for took, name in lines}
    for item in items:
        if (took := measured.get(item.nodeid, 0)) > 1.5:
            item.add_marker("slower" if took > 5 else "slow")
        for marker, weaker in (("nightly", "slower"), ("slower", "slow")):
            if item.get_closest_marker(marker):
                item.add_marker(weaker)


def registered_gradients() -> dict:
    """Where TensorFlow keeps the graph around every `tf.custom_gradient` for ever.

    A solve leaves none there, but the optimizers of Keras do in `fit`.
    """
    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework import ops

    return ops.gradient_registry._registry


@pytest.fixture(autouse=True, scope="module")
def compiled_for_this_file_alone():
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture(autouse=True)
def fresh_state():
    """Every test starts from one seed and leaves Keras as it found it."""
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    image_data_format = keras.config.image_data_format()
    registered = registered_gradients()
    before = set(registered)
    yield
    for name in set(registered) - before:
        del registered[name]
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_dtype_policy(policy)
