"""The residuals of TensorFlow's custom gradients, where a gradient is found.

A forward pass in eager mode keeps lists of tensors, one in a graph keeps TensorArrays.
The gradient of either may be found in another graph, which cannot take the one or the
other as it is.
"""

import tensorflow as tf

from keras_nanode import tree
from keras_nanode.backend import _eager


def array(size, like):
    # Any type but a TensorArray is copied whole at each write in a loop.
    options = {"element_shape": like.shape, "clear_after_read": False}
    return tf.TensorArray(like.dtype, size, **options)


def kept(residuals, find_again):
    """A function that gives writable residuals in the place where it is called."""
    if tf.executing_eagerly():
        # Give the residuals away, or a buffer's old values would live beside new ones.
        kept = [residuals]
        return lambda: tree.map_structure(_here, kept.pop() if kept else find_again())
    reads = tree.map_structure(_readable, residuals)
    return lambda: tree.map_structure(lambda read: read(), reads)


def _here(residual):
    """A residual of eager mode, in eager mode or in the graph of `tape.jacobian`."""
    if tf.executing_eagerly() or not isinstance(residual, _eager.Buffer):
        return residual
    return _filled(len(residual.slots), residual.stack())


def _readable(residual):
    """A function that gives a graph's residual in any graph, copying a buffer."""
    if not isinstance(residual, tf.TensorArray):
        return lambda: residual
    graph = tf.compat.v1.get_default_graph()
    size, stacked = residual.size(), residual.stack()

    def found():
        # A separate graph, as of a SavedModel's gradient, takes only tensors from here.
        same = tf.compat.v1.get_default_graph() is graph
        return residual if same else _filled(size, stacked)

    return found


def _filled(size, stacked):
    return array(size, stacked[0]).unstack(stacked)
