"""Which values of the models' arguments `block` and `basis` go together."""

from collections.abc import Mapping, Sequence

from keras_nanode import bases, checks


def basis_of(
    block: str,
    basis: str | bases.Basis | None,
    blocks: Sequence[str],
    defaults: Mapping[str, bases.Basis],
    t_span: Sequence[float] | None,
) -> bases.Basis | None:
    """The basis for the weights of a block; None if they do not depend on time.

    Args:
        block: One of `blocks`.
        basis: The user's choice; None for the block's default.
        blocks: All names of blocks.
        defaults: The default basis of each block whose weights depend on time.
        t_span: The times of the flow, which become the domain of a default basis and of
            one given by its name; None to leave their domain as it is.

    Raises:
        ValueError: if `block` is unknown, or `basis` is not of its default's class.
    """
    default = defaults.get(checks.one_of("block", block, blocks))
    if basis is None and default is None:
        return None
    if default is None:
        raise ValueError(
            f"The weights of block={block!r} do not depend on time, so that it takes "
            f"no `basis`. Leave it out, or use a block of {tuple(defaults)}. "
            f"Received: basis={basis!r}"
        )
    found = default if basis is None else bases.get(basis)
    kind = type(default)
    if not isinstance(found, kind):
        raise ValueError(
            f"block={block!r} takes a `keras_nanode.bases.{kind.__name__}`. "
            f"Received: basis={basis!r}"
        )
    # A name has no domain of its own.
    by_name = basis is None or isinstance(basis, str)
    return found.over(sorted(t_span)) if by_name and t_span else found
