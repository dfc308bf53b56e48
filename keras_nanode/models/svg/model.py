"""Stochastic video generation with a learned prior."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_nanode import adjoints, backend, bases, checks
from keras_nanode.copying.trainable import TrainableParts
from keras_nanode.models.choices import basis_of
from keras_nanode.models.svg import recurrent, rules, vgg
from keras_nanode.models.svg.generation import roll_out
from keras_nanode.models.svg.learning import LearnsFromVideos, refuse

# What the width-keeping part of a VGG block can be: convolutions, or an ODE whose
# weights are constant ("auto") or combined over one of these bases.
VIDEO_BLOCKS = ("conv", "auto", *rules.BASES)


@keras.saving.register_keras_serializable("keras_nanode")
class SVG(LearnsFromVideos, TrainableParts, keras.Model):
    """Predicts videos, many futures for one past: SVG with a learned prior (SVG-LP).

    An encoder h turns frames into features. A frame x_t is decoded from the features of
    the frame before it and from a latent z_t. In training the posterior q draws z_t: it
    has seen x_t. In generation the prior p draws it. Both and the predictor are LSTMs:

        q(z_t | x_1..t),   p(z_t | x_1..t-1),   x_t = decoder(predictor(h(x_t-1), z_t))

    Skip connections lead from the encoder to the decoder. They start at the frame
    before, and after the context at its last frame. The loss of a video is the sum over
    all frames but the first of

        MSE(x_t) + beta KL(q || p)

    a negative ELBO up to constants. Train it with `fit` on videos alone, without
    targets and without a loss in `compile`. Beside the `loss`, the mean over videos,
    `fit` shows `mse` (over all pixels of all predicted frames), `kl_nats` (the KL of a
    frame), `nelbo_per_frame` (loss / (time - 1), and so mse + beta kl_nats) and
    `nelbo_per_pixel` (loss / (height width channels)). It is normal for the KL to
    rise while the MSE falls.

    In each VGG block of the encoder and of the decoder, one ODE layer can replace the
    convolutions after the first that keep its width: 2 of 3 (`layout="paper"`).

    Args:
        frame_shape: (height, width, channels) of a frame. Height and width must be
            multiples of 16; 32 to 128 are sensible.
        context_frames: Positive integer, how many frames generation starts from.
        block: One of `models.VIDEO_BLOCKS`: convolutions (`"conv"`), or dx/dt =
            tanh(W(t) * x + b(t)) with constant weights (`"auto"`), or with weights that
            depend on time (`"trig"`, `"bucket"`, `"poly"`, `"cosine"`).
        basis: The basis of weights that depend on time; None for `Trigonometric(3)`,
            `Bucket(3)`, `Polynomial(3)` or `Cosine(3)`, with `t_span` as its domain.
        steps: Positive integer, Euler steps of an ODE.
        filters: Four widths, from the highest resolution to the lowest.
        feature_dim: Positive integer, the number of features h of a frame.
        latent_dim: Positive integer, the size of z.
        rnn_units: Positive integer, the size of the LSTMs (two of the predictor, one of
            the posterior, one of the prior).
        beta: Number of at least 0, the weight of the KL.
        normalization: `"group"`, or `"batch"` as in the original. The statistics of a
            batch are over all frames of its videos, including those to be predicted.
        adjoint: As in `layers.ODE`.
        seed: Integer or None, the seed for drawing latents.
        layout: `"paper"`: three convolutions in every block. `"original"`: 2, 2, 3, 3.
            In the decoder the last one narrows its block, and no ODE replaces that one.
        action_dim: Integer, the size of the action that leads from a frame to the next;
            0 for videos without actions.
        t_span: As in `layers.ODE`, for each ODE.

    Call arguments:
        inputs: Floating videos with values in [0, 1] and more frames than
            `context_frames`. With actions, a dict of `"frames"` and `"actions"`: one
            action for each frame. The last is not used.

    Input shape:
        `(batch, time, *frame_shape)`, and `(batch, time, action_dim)`.

    Output shape:
        A dict of `"reconstruction"`, `(batch, time - 1, *frame_shape)`, and of
        `"posterior_mean"`, `"posterior_log_variance"`, `"prior_mean"`,
        `"prior_log_variance"`, each `(batch, time - 1, latent_dim)`; for the frames
        from the second on, in float32.

    Raises:
        ValueError: if an argument is invalid, or `fit` is given targets.

    Example:

    >>> import keras
    >>> from keras_nanode import models
    >>> model = models.SVG.from_preset("paper", block="trig", frame_shape=(32, 32, 1))
    >>> outputs = model(keras.ops.zeros((1, 4, 32, 32, 1)))
    >>> tuple(outputs["reconstruction"].shape)
    (1, 3, 32, 32, 1)
    >>> tuple(model.generate(keras.ops.zeros((1, 2, 32, 32, 1)), num_frames=3).shape)
    (1, 1, 3, 32, 32, 1)

    References:
        - [Denton and Fergus, 2018](https://arxiv.org/abs/1802.07687)
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 3.2
    """

    def __init__(
        self,
        frame_shape: Sequence[int] = (64, 64, 1),
        context_frames: int = 2,
        block: str = "conv",
        basis: str | bases.Basis | None = None,
        steps: int = 3,
        filters: Sequence[int] = (64, 128, 256, 512),
        feature_dim: int = 128,
        latent_dim: int = 10,
        rnn_units: int = 256,
        beta: float = 1e-4,
        normalization: str = "group",
        adjoint: adjoints.AdjointLike = "checkpoint",
        seed: int | None = None,
        *,
        layout: str = "paper",
        action_dim: int = 0,
        t_span: Sequence[float] = (0.0, 1.0),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = rules.filters(filters)
        self.frame_shape = rules.frame_shape(frame_shape)
        self.context_frames = checks.integer("context_frames", context_frames)
        self.block = block
        self.t_span = checks.span("t_span", t_span)
        self.basis = basis_of(block, basis, VIDEO_BLOCKS, rules.BASES, self.t_span)
        self.steps = checks.integer("steps", steps)
        self.feature_dim = checks.integer("feature_dim", feature_dim)
        self.latent_dim = checks.integer("latent_dim", latent_dim)
        self.rnn_units = checks.integer("rnn_units", rnn_units)
        self.beta = rules.kl_weight(beta)
        self.normalization = checks.one_of(
            "normalization", normalization, vgg.NORMALIZATIONS
        )
        self.adjoint = adjoints.get(adjoint)
        self.seed = seed
        self.layout = checks.one_of("layout", layout, tuple(vgg.LAYOUTS))
        self.action_dim = checks.integer("action_dim", action_dim, 0)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._make_networks()
        names = ("mse", "kl_nats", "nelbo_per_frame", "nelbo_per_pixel")
        self._means = {
            name: keras.metrics.Mean(name, dtype="float32") for name in names
        }
        self.build(self._input_shape())

    @classmethod
    def from_preset(cls, preset, **changes):
        """A model with the widths of a preset.

        Args:
            preset: `"paper"`: about 1.15 million parameters with block="conv", as in
                Table 2 of arXiv 2005.01906. `"original"`: the widths of SVG for BAIR
                videos, 22.8 million parameters, with its layout and normalization.
            **changes: Arguments of `SVG`.
        """
        return cls(**{**rules.preset(preset), **changes})

    def _make_networks(self):
        flow = bases.Constant() if self.block == "auto" else self.basis
        parts = vgg.VGG(
            self.filters,
            self.layout,
            self.normalization,
            flow,
            self.steps,
            self.t_span,
            self.adjoint,
            self.dtype_policy,
        )
        self.encoder = parts.encoder(self.frame_shape, self.feature_dim)
        self.decoder = parts.decoder(self.frame_shape, self.feature_dim)
        self.posterior, self.prior, self.predictor = recurrent.networks(
            self.feature_dim,
            self.action_dim,
            self.latent_dim,
            self.rnn_units,
            self.dtype_policy,
        )

    def build(self, input_shape):
        # The configuration gives all shapes, so the networks are already built.
        pass

    def _input_shape(self):
        frames = (None, None, *self.frame_shape)
        if not self.action_dim:
            return frames
        return {"frames": frames, "actions": (None, None, self.action_dim)}

    def call(self, inputs, training=None):
        frames, actions = self.frames_and_actions(inputs)
        features, *skips = recurrent.over_time(self.encoder, frames, training)
        before = recurrent.joined(features[:, :-1], actions)
        behind = recurrent.joined(features[:, 1:], actions)
        q, _ = recurrent.gaussian(self.posterior, behind)
        p, _ = recurrent.gaussian(self.prior, before)
        noise = recurrent.noise(ops.shape(q[0]), self.seed_generator)
        z = recurrent.sample(q, noise)
        predicted, _ = recurrent.advance(self.predictor, recurrent.joined(before, z))
        # Skips come from the previous frame; after the context, from its last frame.
        coded = [predicted, *(recurrent.held(x, self.context_frames) for x in skips)]
        reconstruction = recurrent.over_time(self.decoder, coded, training)
        return {
            "reconstruction": rules.nan_for_bad(reconstruction, frames),
            **dict(zip(recurrent.GAUSSIANS, (*q, *p), strict=True)),
        }

    def frames_and_actions(self, inputs):
        """Frames, and the actions that lead from each to the next."""
        frames, actions = inputs, None
        if isinstance(inputs, dict):
            rules.keys(inputs)
            frames, actions = inputs["frames"], inputs.get("actions")
        rules.frames("frames", frames, self.frame_shape, self.context_frames + 1)
        transitions = (frames.shape[1] or ops.shape(frames)[1]) - 1
        return frames, rules.actions(actions, self.action_dim, frames, transitions)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        refuse("targets", y)
        refuse("sample_weight", sample_weight)
        frames = x["frames"] if isinstance(x, dict) else x
        backend.require(rules.in_range(frames), rules.range_message("frames"))
        target = ops.cast(frames[:, 1:], "float32")
        mse = ops.mean((y_pred["reconstruction"] - target) ** 2, axis=(2, 3, 4))
        kl = recurrent.kl_divergence(*(y_pred[name] for name in recurrent.GAUSSIANS))
        frame_losses = mse + self.beta * kl
        losses = ops.sum(frame_losses, axis=1)
        for name, values in {
            "mse": ops.mean(mse, axis=1),
            "kl_nats": ops.mean(kl, axis=1),
            "nelbo_per_frame": ops.mean(frame_losses, axis=1),
            "nelbo_per_pixel": losses / math.prod(self.frame_shape),
        }.items():
            self._means[name].update_state(values)
        return recurrent.mean(losses)

    def generate(self, context, num_frames, num_samples=1, noise=None, actions=None):
        """Generates frames that may follow, with latents from the prior.

        Normalizations use their learned statistics. Skip connections come from the last
        frame of the context. The context's own latents are the means of their
        posterior. Eager mode is slow: `models.VideoGenerator` compiles this.

        Args:
            context: Videos, (batch, `context_frames` or more, *frame_shape).
            num_frames: Positive integer, how many frames to predict.
            num_samples: Positive integer, how many futures of each video.
            noise: Standard normal numbers, (batch, num_samples, num_frames,
                latent_dim); None to draw them.
            actions: (batch, time, action_dim) for the frames given and those to
                predict, if the model has actions. The last is not used.

        Returns:
            A float32 tensor, (batch, num_samples, num_frames, *frame_shape). In a
            compiled function it is NaN for a context that is not in [0, 1].

        Raises:
            ValueError: if an argument is invalid.
        """
        num_frames = checks.integer("num_frames", num_frames)
        num_samples = checks.integer("num_samples", num_samples)
        context = checks.tensor("context", context)
        rules.frames("context", context, self.frame_shape, self.context_frames)
        context = ops.cast(context, self.compute_dtype)
        transitions = context.shape[1] + num_frames - 1
        actions = rules.actions(actions, self.action_dim, context, transitions)
        shape = (num_samples, num_frames, self.latent_dim)
        if noise is None:
            # Drawn before the loop, so that the loop's body is a pure function.
            batch = ops.shape(context)[0]
            noise = recurrent.noise((batch, *shape), self.seed_generator)
        noise = rules.noise(noise, context.shape[0], shape)
        return rules.nan_for_bad(roll_out(self, context, actions, noise), context)

    def get_config(self):
        names = set(inspect.signature(SVG).parameters) - {"kwargs"}
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in sorted(names)},
            "basis": self.basis and keras.saving.serialize_keras_object(self.basis),
            "adjoint": adjoints.serialize(self.adjoint),
        }
