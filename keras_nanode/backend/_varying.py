"""How values vary over the devices of a mesh, which `jax.shard_map` checks.

JAX's operations cast their operands. But the state of a loop, the branches of a
condition, and the primals and outputs of a gradient must have the right types
beforehand: a loop often starts from constants, which are equal on all devices, and goes
on to values that are not. Outside of `jax.shard_map` nothing is cast or traced here.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax, tree


def settled(body, state, *before):
    """A loop's body and its state, which varies as the body makes it vary.

    `body(*before, state)` gives the next state.
    """
    axes = _axes_here()
    if not axes:
        return body, state
    while any(_axes_of(x) < axes for x in tree.leaves(state)):
        wider = tree.map(_cast, state, _axes_after(body, *before, state))
        if all(map(_vary_alike, tree.leaves(state), tree.leaves(wider))):
            break
        state = wider
    axes = tree.map(_axes_of, state)
    return lambda *args: tree.map(_cast, body(*args), axes), state


def joined(f, g):
    """Two functions without arguments, with results that vary alike."""
    if not _axes_here():
        return f, g
    axes = tree.map(frozenset.union, *map(_axes_after, (f, g)))
    return (lambda branch=branch: tree.map(_cast, branch(), axes) for branch in (f, g))


def apart(f, primals):
    """Primals that vary wherever the outputs f(*primals) do.

    So the gradients in weights, which are equal on all devices, are those of each
    device. JAX sums them where the cast was: once, and not in each round of a loop,
    where devices would wait for others that do not come if these take fewer steps.
    """
    axes = _axes_here()
    while any(_axes_of(x) < axes for x in tree.leaves(primals)):
        found = frozenset().union(*tree.leaves(_axes_after(f, *primals)))
        if all(found <= _axes_of(x) for x in tree.leaves(primals)):
            break
        primals = tree.map(lambda x, found=found: _cast(x, found), primals)
    return primals


def everywhere(outputs, primals):
    """Outputs that vary at least where all primals do.

    One that depends on no primal gets a cotangent like those of the others.
    """
    if not _axes_here():
        return outputs
    axes = map(_axes_of, tree.leaves(primals))
    common = functools.reduce(frozenset.intersection, axes, _axes_here())
    return tree.map(lambda x: _cast(x, common), outputs)


def types(structure):
    """The axes over which the parts of a structure vary, for `cast`."""
    return tree.map(_axes_of, structure) if _axes_here() else None


def cast(structure, axes):
    """The structure, with parts that vary at least over these axes."""
    return structure if axes is None else tree.map(_cast, structure, axes)


def _axes_here():
    """The axes of a mesh over which values may vary here, as far as JAX checks it."""
    if not hasattr(lax, "pcast") and not hasattr(lax, "pvary"):
        return frozenset()  # an older JAX
    axes = frozenset(jax.sharding.get_abstract_mesh().manual_axes)
    # With `check_vma=False` a cast does nothing.
    return axes and _axes_of(_cast(jnp.zeros(()), axes))


def _axes_of(x):
    kind = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def _axes_after(f, *args):
    """The axes over which each output of a function varies."""
    found = None

    def run(*args):
        nonlocal found
        outputs = f(*args)
        found = tree.map(_axes_of, outputs)
        return outputs

    jax.eval_shape(run, *args)
    return found


def _cast(x, axes):
    missing = tuple(sorted(axes - _axes_of(x), key=str))
    if not missing:
        return x
    if hasattr(lax, "pcast"):
        return lax.pcast(x, missing, to="varying")
    return getattr(lax, "pvary")(x, missing)  # noqa: B009


def _vary_alike(x, y):
    return _axes_of(x) == _axes_of(y)
