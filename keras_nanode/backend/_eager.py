"""Loops and buffers in Python, for backends that run operations eagerly."""


def while_loop(cond, body, state):
    while cond(*state):
        state = tuple(body(*state))
    return state


def fori_loop(count, body, state):
    for i in range(int(count)):
        state = body(i, state)
    return state


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
        self.slots[int(i)] = value
        return self

    def read(self, i):
        return self.slots[int(i)]

    def stack(self):
        return self.join(self.slots)
