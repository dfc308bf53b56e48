"""Custom gradients that TensorFlow forgets together with their graph.

In a graph, `tf.custom_gradient` registers a new gradient function with each call. The
registry is never cleared, and so keeps each such function, and the graph that it closes
over, until the process ends. Here the graph keeps its gradient functions. What is
registered only refers to them, so that a graph that nobody uses is freed.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# A saved model stores one gradient for each name, so no two operations share one.
_NUMBERS = itertools.count()  # threads may trace at the same time
_KEPT = "_keras_nanode_gradients"  # an attribute of a graph
_OF_A_COPY = (
    "The gradient of a solve is found only in the graph in which the solve was traced. "
    "If this graph comes from a SavedModel, save that with its custom gradients. "
    "Received: an operation of another graph, "
    "`tf.saved_model.SaveOptions(experimental_custom_gradients=False)` perhaps"
)


def custom_gradient(f: Callable, *inputs: Any) -> list:
    """`tf.custom_gradient(f)(*inputs)`.

    `f(*inputs)` returns a list of tensors and `gradient`. `gradient(*cotangents,
    variables=variables)` returns a list with a gradient for each of the inputs, or
    raises an error if `f` has read variables.
    """
    if tf.executing_eagerly():
        return tf.custom_gradient(f)(*inputs)  # recorded on the tapes alone
    with tf.GradientTape() as tape:
        outputs, gradient = f(*inputs)
    variables = tape.watched_variables()

    def pullback(*cotangents):
        gradients = gradient(*cotangents[: len(outputs)], variables=variables)
        return [None] * len(outputs) + gradients + [None] * len(variables)

    sources = [tf.convert_to_tensor(x) for x in (*outputs, *inputs, *variables)]
    return _identities(sources, pullback)[: len(outputs)]


def once(pull: Callable, message: str, cotangents: list, primals: Sequence) -> list:
    """`pull(*cotangents)` in eager mode, with an error in place of its gradient."""

    @tf.custom_gradient
    def run(*sources):
        def refuse(*_, variables=None):
            raise ValueError(message)

        return pull(*map(tf.stop_gradient, sources[: len(cotangents)])), refuse

    return run(*cotangents, *primals)


def _identities(sources: list, pullback: Callable) -> list:
    """Copies of tensors in a graph, whose gradient is `pullback`."""
    graph = tf.compat.v1.get_default_graph()
    name = f"KerasNanodeGradient{next(_NUMBERS)}"
    setattr(graph, _KEPT, [*getattr(graph, _KEPT, ()), pullback])
    tf.RegisterGradient(name)(_found_in(weakref.ref(graph), weakref.ref(pullback)))
    with graph.gradient_override_map({"IdentityN": name}):
        copies = tf.identity_n(sources)
    # For the gradients of loops and functions this is enough. A tape does not read the
    # map: it has recorded an identity, which this replaces.
    tf.__internal__.record_gradient(name, sources, (), copies)
    return copies


def _found_in(graph: weakref.ref, pullback: weakref.ref) -> Callable:
    @tf.autograph.experimental.do_not_convert
    def found(op, *cotangents):
        back = pullback()
        # A saved model's gradient is traced without an operation.
        if back is None or (op and op.outputs[0].graph is not graph()):
            raise ValueError(_OF_A_COPY)
        return back(*cotangents)

    return found
