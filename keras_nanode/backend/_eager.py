"""Loops and buffers in Python, for backends that run operations eagerly."""

import numpy as np


def while_loop(cond, body, state):
    while cond(*state):
        state = tuple(body(*state))
    return state


def fori_loop(count, body, state):
    for i in range(int(count)):
        state = body(i, state)
    return state


def buffer(size, like, zeros_like, stack):
    """As in `keras_nanode.backend`, with a backend's functions for tensors."""
    if isinstance(like, (int, float)):
        return Buffer([like], np.array)
    return Buffer([zeros_like(like)] * int(size), stack)


class Buffer:
    """A list that `keras.tree` treats as a leaf, with the methods of a TensorArray.

    Args:
        slots: A list of tensors.
        join: A function that stacks them.
    """

    def __init__(self, slots, join):
        self.slots, self.join = slots, join

    def copy(self):
        return Buffer(list(self.slots), self.join)

    def write(self, i, value):
        self.slots[int(i) : int(i) + 1] = [value]  # may be one more slot
        return self

    def read(self, i):
        return self.slots[int(i)]

    def stack(self):
        return self.join(self.slots)
