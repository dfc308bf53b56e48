"""Several devices or machines learn what one learns from the joint batch."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "support"
BACKEND = keras.backend.backend()

pytestmark = pytest.mark.slower


def start(how, file, **environment):
    return run("train_jointly.py", how, str(file), **environment)


def run(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(FOLDER / script), *arguments],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def results(*started):
    """What each of the processes saved, by its file."""
    try:
        for process, _ in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process, _ in started:
            process.kill()
    return [dict(np.load(file)) for _, file in started]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    file = tmp_path_factory.mktemp("alone") / "weights.npz"
    return results((start("alone", file), file))[0]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def assert_same(joint, alone):
    """The weights, and the losses, metrics and mean evaluations of the epoch."""
    assert joint.pop("replicas") == 2
    assert set(joint) == set(alone) - {"replicas"}
    assert alone["adaptive/log/ode_nfe"] > 30
    for name, value in joint.items():
        np.testing.assert_allclose(value, alone[name], rtol=0, atol=1e-5, err_msg=name)
        if "/moved/" in name:
            assert np.abs(value).max() > 1e-3, name


@pytest.mark.skipif(BACKEND != "tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_two_replicas_of_a_mirrored_strategy(alone, tmp_path):
    file = tmp_path / "weights.npz"
    assert_same(*results((start("mirrored", file), file)), alone)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_two_workers_of_a_multi_worker_strategy(alone, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    started = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        file = tmp_path / f"{index}.npz"
        started.append((start("worker", file, TF_CONFIG=config), file))
    for joint in results(*started):
        assert_same(joint, alone)


def flags_for_two_devices():
    flags = re.sub(r"--xla_force_host\S*", "", os.environ.get("XLA_FLAGS", ""))
    return f"{flags} --xla_force_host_platform_device_count=2"


@pytest.mark.skipif(BACKEND != "jax", reason="`jax.shard_map` is JAX's")
def test_solves_within_shard_map_are_those_of_its_parts():
    process = run("solve_in_parts.py", XLA_FLAGS=flags_for_two_devices())
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.skipif(BACKEND != "jax", reason="Keras shards batches on JAX only")
@pytest.mark.parametrize("how", ["data_parallel", "model_parallel"])
def test_two_devices_of_a_distribution(how, alone, tmp_path):
    file = tmp_path / "weights.npz"
    process = start(how, file, XLA_FLAGS=flags_for_two_devices())
    assert_same(*results((process, file)), alone)


@pytest.mark.skipif(BACKEND != "jax", reason="Keras divides weights on JAX only")
def test_two_processes_that_divide_the_coefficients(alone, tmp_path):
    (port,) = free_ports(1)
    joint = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    started = []
    for index in "01":
        file = tmp_path / f"{index}.npz"
        own = {**joint, "KERAS_DISTRIBUTION_PROCESS_ID": index}
        started.append((start("model_parallel", file, **own), file))
    first, second = results(*started)
    assert_same(first, alone)
    # Only the process of the first device learns of what compiled functions report.
    assert second["adaptive/log/ode_nfe"] == 0
    assert_same(second | {"adaptive/log/ode_nfe": alone["adaptive/log/ode_nfe"]}, alone)
