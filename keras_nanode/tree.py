"""`keras.tree`, faster where lists and tuples, also named ones, are all that is nested.

A solver maps over its state and weights several times a stage, where the general
functions take longer than the arithmetic on a small state.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras import tree

Structure = Any  # nested lists, tuples and dicts of tensors
NESTED = (list, tuple, dict)

assert_same_structure = tree.assert_same_structure


def _maker(structure: Structure) -> Callable | None:
    """What makes a list or a tuple of this kind; None for other structures."""
    kind = type(structure)
    if kind is list or kind is tuple:
        return kind
    return getattr(kind, "_make", None)


def map_structure(f: Callable, *structures: Structure) -> Structure:
    first = structures[0]
    if not isinstance(first, NESTED):
        return f(*structures)
    if make := _maker(first):
        return make([map_structure(f, *xs) for xs in zip(*structures, strict=True)])
    return tree.map_structure(f, *structures)


def flatten(structure: Structure) -> list:
    if not isinstance(structure, NESTED):
        return [structure]
    if _maker(structure):
        return [leaf for part in structure for leaf in flatten(part)]
    return tree.flatten(structure)


def pack_sequence_as(structure: Structure, leaves: Iterable) -> Structure:
    return _packed(structure, iter(leaves))


def _packed(structure: Structure, leaves: Iterator) -> Structure:
    if not isinstance(structure, NESTED):
        return next(leaves)
    if make := _maker(structure):
        return make([_packed(part, leaves) for part in structure])
    number = len(tree.flatten(structure))
    return tree.pack_sequence_as(structure, list(itertools.islice(leaves, number)))
