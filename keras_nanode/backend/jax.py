"""The backend functions on JAX: eager and `jax.jit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from keras_nanode.backend import _varying


def vjp(f, *primals):
    primals = _varying.apart(f, primals)
    outputs, pullback = jax.vjp(
        lambda *primals: _varying.everywhere(f(*primals), primals), *primals
    )
    types = _varying.types(outputs)
    return outputs, lambda cotangents: pullback(_varying.cast(cotangents, types))


def custom_vjp(forward, backward, message, *primals):
    primals = _varying.apart(lambda *primals: forward(*primals)[0], primals)
    types = _varying.types(primals)

    def begin(*primals):
        outputs, residuals = forward(*primals)
        return _varying.everywhere(outputs, primals), residuals

    @jax.custom_vjp
    def run(*primals):
        return begin(*primals)[0]

    @jax.custom_vjp
    def pull(residuals, cotangents):
        gradients = backward(residuals, cotangents)
        return _varying.cast(tuple(gradients), types)

    def refuse(_, cotangents):
        raise ValueError(message)

    def refusing(f, *args):
        try:
            return f(*args)
        except TypeError as error:
            # JAX's words in forward mode, unless it meets a compiled function.
            if "custom_vjp function" in str(error):
                raise ValueError(message) from error
            raise

    pull.defvjp(lambda *args: (pull(*args), None), refuse)
    run.defvjp(begin, functools.partial(refusing, pull))
    return refusing(run, *primals)


def per_device(f, *primals):
    return f(*_varying.apart(f, primals))


def cond(condition, f, g):
    return lax.cond(condition, *_varying.joined(f, g))


def while_loop(cond, body, state):
    def step(state):
        return tuple(body(*state))

    step, state = _varying.settled(step, tuple(state))
    return lax.while_loop(lambda state: cond(*state), step, state)


def fori_loop(count, body, state, limit=None):
    if isinstance(count, int) and count == 1:
        return body(0, state)
    body, state = _varying.settled(body, state, jnp.zeros((), "int32"))
    if limit is None or isinstance(count, int):
        # Of one type, or 64 bits would mix with the 32 bits of all other indices.
        last = np.int32(count) if isinstance(count, int) else count
        return lax.fori_loop(np.int32(0), last, body, state)

    def bounded(state, i):
        return lax.cond(i < count, lambda: body(i, state), lambda: state), None

    return lax.scan(bounded, state, jnp.arange(limit, dtype="int32"))[0]


def most_unrolled():
    # On a CPU, XLA's convolutions take 10 to 20 times as long in a loop as outside one.
    # Unrolling more evaluations would take long to compile.
    return 16 if jax.default_backend() == "cpu" else 0


def cos(x):
    return jnp.cos(x)


def sin(x):
    return jnp.sin(x)


def take(x, i):
    i = jnp.asarray(i)
    if i.ndim:
        return jnp.take(x, i, axis=0, mode="clip")
    return read(x, i)


def buffer(size, like):
    return jnp.zeros((size, *like.shape), like.dtype)


def write(buffer, i, value):
    return lax.dynamic_update_index_in_dim(
        buffer, value, i, 0, allow_negative_indices=False
    )


def read(buffer, i):
    return lax.dynamic_index_in_dim(
        buffer, i, 0, keepdims=False, allow_negative_indices=False
    )


def stack(buffer):
    return buffer


def eagerly():
    return jax.ensure_compile_time_eval()


def is_known(x):
    return not isinstance(x, jax.core.Tracer)


def report(f, value, state):
    # Call f also outside compiled functions: Keras takes the values of variables away
    # while it trains.
    if is_known(value):
        f(value)
    elif any(map(jax.export.is_symbolic_dim, state.shape)):
        pass  # A function of states of any size is for export, without callbacks.
    else:
        jax.debug.callback(f, value)
    return True


def await_reports():
    jax.effects_barrier()


def require(holds, message):
    def check(holds):
        if not holds:
            raise ValueError(message)

    jax.debug.callback(check, holds)
