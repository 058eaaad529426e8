"""The ``peers`` section: networks that are trained beside the student; copies written out, arms' peers found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from classroomkd.recipe.training import Count, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classroomkd.recipe.sections import MethodSpec, PeerSpec

__all__ = ["PEER_NAME", "PeerTrain", "copies_of", "taken_by", "written_out"]

PEER_NAME = r"[A-Za-z0-9_-]+"
Role = Literal["peer", "teacher"]
Copies = Annotated[Count, Field(description="How many of it, from different first weights: NAME-1, NAME-2, …")]


class PeerTrain(Section):
    """What differs in a peer's training from the student's."""

    lr: float | None = Field(default=None, gt=0, description="Its learning rate; null: the student's.")
    weight_decay: float | None = Field(default=None, ge=0, description="Its weight decay; null: the student's.")


def copies_of(name: str, copies: int) -> list[str]:
    """The names of a peer's copies; its own where there is one."""
    return [name] if copies <= 1 else [f"{name}-{number}" for number in range(1, copies + 1)]


def written_out(peers: Sequence[PeerSpec]) -> tuple[PeerSpec, ...]:
    """Every copy as a peer of its own."""
    return tuple(
        peer.model_copy(update={"name": name, "copies": 1})
        for peer in peers
        for name in copies_of(peer.name, peer.copies)
    )


def taken_by(entry: MethodSpec, peers: Sequence[PeerSpec]) -> tuple[str, ...] | None:
    """Names of the peers that a method of an arm trains, copies written out; None where it takes none.

    Args:
        entry: the method, with the names that the recipe gives, or None: all whose role is ``peer``.
        peers: of the recipe, before their copies are written out, or after.
    """
    from classroomkd import methods

    if not methods.create(entry.name, **entry.options).needs.takes_peers:
        return None
    if entry.peers is None:
        return tuple(peer.name for peer in written_out(peers) if peer.role == "peer")
    groups = {peer.name: copies_of(peer.name, peer.copies) for peer in peers}
    return tuple(one for name in entry.peers for one in groups.get(name, [name]))
