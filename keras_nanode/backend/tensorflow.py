"""The backend functions on TensorFlow: eager, `tf.function`, XLA and SavedModel."""

import tensorflow as tf

from keras_nanode import tree
from keras_nanode.backend import _eager, _gradients, _residuals


def vjp(f, *primals):
    # In the gradient of a loop, TensorFlow reads the forward pass's tensors from lists.
    # A tape that watched the tensors themselves would see no use of them.
    primals = _apart(primals)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tree.flatten(primals))
        outputs = f(*primals)

    def pullback(cotangents):
        gradients = tape.gradient(
            tree.flatten(outputs),
            tree.flatten(primals),
            output_gradients=tree.flatten(cotangents),
            unconnected_gradients="zero",
        )
        return tree.pack_sequence_as(primals, map(tf.convert_to_tensor, gradients))

    return outputs, pullback


def custom_vjp(forward, backward, message, *primals):
    structure = None

    def run(*flat_primals):
        nonlocal structure
        given = _apart(tree.pack_sequence_as(primals, flat_primals))
        outputs, residuals = forward(*given)
        shape = structure = tree.map_structure(lambda _: 0, outputs)
        find = _residuals.kept(residuals, lambda: forward(*given)[1])

        def pull(*flat_cotangents):
            cotangents = tree.pack_sequence_as(shape, flat_cotangents)
            return tree.flatten(backward(find(), cotangents))

        def gradient(*cotangents, variables=None):
            if variables:
                raise ValueError(_CLOSED_OVER.format([v.name for v in variables]))
            # A count's is None in a loop; a gather's gradient may be IndexedSlices.
            dense = [c if c is None else tf.convert_to_tensor(c) for c in cotangents]
            if tf.executing_eagerly():
                return _gradients.once(pull, message, dense, flat_primals)
            return [
                tf.raw_ops.PreventGradient(input=g, message=message)
                for g in pull(*dense)
            ]

        # Apart from what `forward` closes over, which a graph does not follow either.
        return tree.flatten(_apart(outputs)), gradient

    flat_outputs = _gradients.custom_gradient(run, *tree.flatten(primals))
    return tree.pack_sequence_as(structure, flat_outputs)


_CLOSED_OVER = (
    "A function reads variables of TensorFlow that are not among its arguments, so "
    "that they would get no gradient. Pass them as arguments, or use "
    '`adjoint="direct"`. Received: variables={}'
)


def _apart(structure):
    """Copies. In eager mode, outer tapes record nothing from them: they would keep all
    that is computed. A graph keeps nothing, and stays connected, so that an attempt to
    differentiate gradients again raises an error."""
    copy = tf.stop_gradient if tf.executing_eagerly() else tf.identity
    return tree.map_structure(copy, structure)


def cond(condition, f, g):
    return tf.cond(condition, f, g)


def while_loop(cond, body, state):
    if tf.executing_eagerly():
        return _eager.while_loop(cond, body, state)
    return tf.while_loop(cond, body, tuple(state), parallel_iterations=1)


def fori_loop(count, body, state, limit=None):
    if isinstance(count, int) and count == 1:
        return body(0, state)
    if tf.executing_eagerly():
        return _eager.fori_loop(count, body, state)
    known = count if isinstance(count, int) else limit  # XLA needs it for gradients
    return tf.while_loop(
        lambda i, _: i < count,
        lambda i, state: (i + 1, body(i, state)),
        (0, state),
        parallel_iterations=1,
        maximum_iterations=known,
    )[1]


def most_unrolled():
    # Without loops, 3 steps are 10 to 20 % faster. But nothing delays recomputation to
    # when it is needed: 11 % more memory for `checkpoint`, 40 % for `backsolve`.
    return float("inf") if tf.executing_eagerly() else 0


def take(x, i):
    return tf.gather(x, i)


def buffer(size, like):
    if tf.executing_eagerly():
        return _eager.buffer(size, like, tf.zeros_like, tf.stack)
    return _residuals.array(size, like)


def eagerly():
    return tf.init_scope()


def is_known(x):
    return not tf.is_symbolic_tensor(x)


def as_graph(f, *primals):
    if not tf.executing_eagerly():
        return f(*primals)
    structure = None

    @tf.function(autograph=False)
    def run(*flat_primals):
        nonlocal structure
        outputs = f(*tree.pack_sequence_as(primals, flat_primals))
        structure = tree.map_structure(lambda _: 0, outputs)
        return tree.flatten(outputs)

    flat_outputs = run(*tree.flatten(primals))
    return tree.pack_sequence_as(structure, flat_outputs)


def converted(func):
    if tf.executing_eagerly():
        return func
    autograph = tf.__internal__.autograph
    status = autograph.control_status_ctx()
    return autograph.tf_convert(func, status, convert_by_default=False)


def require(holds, message):
    tf.debugging.Assert(holds, [message])
