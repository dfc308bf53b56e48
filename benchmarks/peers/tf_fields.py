"""The fields in TensorFlow, as functions of y, one set of weights and the time."""

import tensorflow as tf


def conv(y, theta, t):
    for kernel, bias in zip(theta[::2], theta[1::2], strict=True):
        y = tf.nn.bias_add(tf.nn.conv2d(tf.nn.relu(y), kernel, 1, "SAME"), bias)
    return y


def dense(y, theta, t):
    kernel, bias = theta
    return tf.tanh(tf.nn.bias_add(y @ kernel, bias))


def mlp(y, theta, t):
    return _perceptron(tf.concat([y, tf.fill([len(y), 1], t)], 1), theta)


def spiral(y, theta, t):
    return _perceptron(y**3, theta)


def _perceptron(y, theta):
    *hidden, kernel, bias = theta
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        y = tf.tanh(tf.nn.bias_add(y @ w, b))
    return tf.nn.bias_add(y @ kernel, bias)


FIELDS = {"conv": conv, "dense": dense, "mlp": mlp, "spiral": spiral}
