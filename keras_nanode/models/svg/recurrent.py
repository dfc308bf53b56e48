"""Sequences in SVG: its recurrent networks, and the Gaussians that two of them output.

The recurrent networks are functions of a sequence and of their states. A Gaussian has a
diagonal covariance, and is a pair of tensors: means and log variances.
"""

import keras
from keras import ops

# The model's outputs that describe the posterior and the prior.
GAUSSIANS = (
    "posterior_mean",
    "posterior_log_variance",
    "prior_mean",
    "prior_log_variance",
)


def network(name, input_dim, units, depth, output_dim, activation, dtype, output_dtype):
    """A dense map, `depth` LSTMs and a dense map with `activation`.

    Returns:
        A functional model from `[sequence, *states]` to `[outputs, *states]`: a
        sequence of shape (batch, time, input_dim), and two states of shape
        (batch, units) for each LSTM.
    """
    compute_dtype = keras.dtype_policies.get(dtype).compute_dtype
    sequence = keras.Input((None, input_dim), dtype=compute_dtype)
    before = [keras.Input((units,), dtype=compute_dtype) for _ in range(2 * depth)]
    after = []
    x = keras.layers.Dense(units, dtype=dtype)(sequence)
    for i in range(depth):
        lstm = keras.layers.LSTM(
            units, return_sequences=True, return_state=True, dtype=dtype
        )
        x, *states = lstm(x, initial_state=before[2 * i : 2 * i + 2])
        after += states
    outputs = keras.layers.Dense(output_dim, activation, dtype=output_dtype)(x)
    return keras.Model([sequence, *before], [outputs, *after], name=name)


def networks(feature_dim, action_dim, latent_dim, units, dtype):
    """Posterior, prior and predictor of an SVG."""
    seen = feature_dim + action_dim
    posterior, prior = (
        network(name, seen, units, 1, 2 * latent_dim, None, dtype, "float32")
        for name in ("posterior", "prior")
    )
    predictor = network(
        "predictor", seen + latent_dim, units, 2, feature_dim, "tanh", dtype, dtype
    )
    return posterior, prior, predictor


def advance(network, sequence, states=None):
    """The outputs at each time of `sequence`, and the states after it.

    A single step is a sequence of length 1. Without states the network starts at zero.
    """
    if states is None:
        states = [
            ops.zeros((ops.shape(sequence)[0], state.shape[-1]), state.dtype)
            for state in network.inputs[1:]
        ]
    outputs, *states = network([sequence, *states])
    return outputs, states


def gaussian(network, sequence, states=None):
    """(mean, log variance) at each time of `sequence`, and the states after it."""
    outputs, states = advance(network, sequence, states)
    return tuple(ops.split(outputs, 2, axis=-1)), states


def joined(*sequences):
    return ops.concatenate(sequences, axis=-1)


def kl_divergence(mean, log_variance, other_mean, other_log_variance):
    """KL(q || p) in nats, summed over the last axis."""
    # Without dividing one variance by the other: either may be tiny.
    squares = (mean - other_mean) ** 2 * ops.exp(-other_log_variance)
    log_ratio = log_variance - other_log_variance
    return 0.5 * ops.sum(ops.exp(log_ratio) - 1 - log_ratio + squares, axis=-1)


def noise(shape, seed):
    """Standard normal numbers, in the dtype of the Gaussians."""
    return keras.random.normal(shape, dtype="float32", seed=seed)


def sample(gaussian, noise):
    """A sample of the Gaussian (mean, log variance), from standard normal `noise`."""
    mean, log_variance = gaussian
    return mean + ops.exp(0.5 * log_variance) * noise


def held(sequence, known):
    """All but the last of a sequence; behind the first `known` the last of these."""
    last = known - 1
    times = (sequence.shape[1] or ops.shape(sequence)[1]) - known
    # Not by index, which TensorFlow cannot differentiate for an empty batch.
    rest = ops.repeat(sequence[:, last:known], times, axis=1)
    return ops.concatenate([sequence[:, :last], rest], axis=1)


def mean(losses):
    """The mean, and 0 of an empty batch, as one of several devices may get."""
    count = ops.cast(ops.size(losses), losses.dtype)
    return ops.sum(losses) / ops.maximum(count, ops.ones_like(count))


def over_time(network, inputs, training):
    """Applies a network for frames to sequences of frames."""
    time = ops.shape(keras.tree.flatten(inputs)[0])[1]
    flat = keras.tree.map_structure(
        lambda x: ops.reshape(x, (-1, *x.shape[2:])), inputs
    )
    return keras.tree.map_structure(
        lambda x: ops.reshape(x, (-1, time, *x.shape[1:])),
        network(flat, training=training),
    )
