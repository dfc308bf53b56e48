"""Gaussians with a diagonal covariance, as tensors of means and of log variances."""

from keras import ops

# The model's outputs that say what posterior and prior are.
GAUSSIANS = (
    "posterior_mean",
    "posterior_log_variance",
    "prior_mean",
    "prior_log_variance",
)


def kl_divergence(mean, log_variance, other_mean, other_log_variance):
    """KL(q || p) in nats, summed over the last axis."""
    # No quotient of two variances, either of which may be tiny.
    squares = (mean - other_mean) ** 2 * ops.exp(-other_log_variance)
    log_ratio = log_variance - other_log_variance
    return 0.5 * ops.sum(ops.exp(log_ratio) - 1 - log_ratio + squares, axis=-1)


def sample(gaussian, noise):
    """What standard normal `noise` becomes under (mean, log variance)."""
    mean, log_variance = gaussian
    return mean + ops.exp(0.5 * log_variance) * noise
