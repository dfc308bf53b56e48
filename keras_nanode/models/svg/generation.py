"""Generates videos from the prior, frame by frame."""

import functools

import keras
from keras import ops

from keras_nanode import backend
from keras_nanode.models.svg.recurrent import (
    advance,
    gaussian,
    joined,
    over_time,
    sample,
)


def roll_out(model, context, actions, noise):
    """The frames after `context`.

    Args:
        model: The `SVG`.
        context: (batch, given, *frame_shape).
        actions: (batch, given + num_frames - 1, action_dim).
        noise: (batch, num_samples, num_frames, latent_dim).

    Returns:
        (batch, num_samples, num_frames, *frame_shape), in float32.
    """
    _, num_samples, num_frames, latent_dim = noise.shape
    known = context.shape[1] - 1
    features, *skips = over_time(model.encoder, context, training=False)
    states = _remember(model, features, actions[:, :known])
    # Every sample continues from the same states.
    features, skips, states, actions, first = keras.tree.map_structure(
        lambda x: ops.repeat(x, num_samples, axis=0),
        (
            features[:, known:],
            [skip[:, known] for skip in skips],
            states,
            actions[:, known:],
            ops.cast(context[:, known], "float32"),
        ),
    )
    noise = ops.reshape(noise, (-1, num_frames, latent_dim))

    def step(i, state):
        features, (prior_states, predictor_states), video = state
        at = ops.reshape(ops.cast(i, "int32"), (1,))
        now = functools.partial(ops.take, indices=at, axis=1)
        seen = joined(features, now(actions))
        prior, prior_states = gaussian(model.prior, seen, prior_states)
        latents = sample(prior, now(noise))
        predicted, predictor_states = advance(
            model.predictor, joined(seen, latents), predictor_states
        )
        frame = model.decoder([predicted[:, 0], *skips], training=False)
        features, *_ = over_time(model.encoder, frame[:, None], training=False)
        video = backend.write(video, i, frame)
        return features, (prior_states, predictor_states), video

    start = features, states, backend.buffer(num_frames, first)
    video = backend.stack(backend.fori_loop(num_frames, step, start)[2])
    shape = (-1, num_samples, num_frames, *context.shape[2:])
    return ops.reshape(ops.moveaxis(video, 0, 1), shape)


def _remember(model, features, actions):
    """The states of the prior and the predictor after all frames but the last."""
    before = joined(features[:, :-1], actions)
    (mean, _), _ = gaussian(model.posterior, joined(features[:, 1:], actions))
    _, prior_states = gaussian(model.prior, before)
    _, predictor_states = advance(model.predictor, joined(before, mean))
    return prior_states, predictor_states
