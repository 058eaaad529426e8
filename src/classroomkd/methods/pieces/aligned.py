"""Losses that compare channel with channel, as opposed to those that are blind to the order of a mentor's channels."""

from __future__ import annotations

from classroomkd import methods
from classroomkd.classroom import Method
from classroomkd.errors import UserError

__all__ = ["refuse_blind"]


def refuse_blind(method: str, name: str, inner: Method) -> None:
    """Stop what matching channels can do nothing for.

    Raises:
        UserError: naming the methods that it can do something for.
    """
    if inner.aligned and not (inner.has_own_step or inner.needs.takes_peers or inner.needs.prepare):
        return
    able = {other: methods.method_class(other).aligned_with for other in methods.METHODS}
    said = "; ".join(
        f"{{name: {other}, {', '.join(f'{k}: {v}' for k, v in options.items())}}}"
        for other, options in able.items()
        if options is not None
    )
    raise UserError(
        f"{method}: inner: '{name}' gives the same whatever the order of a mentor's channels, or learns to undo "
        f"it, so matching them changes nothing; inner can be {said}"
    )
