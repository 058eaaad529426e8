"""Peers of a recipe, networks that are trained beside the student: copies written out, arms' peers found."""

from __future__ import annotations

from collections.abc import Sequence

from classroomkd.recipe.peer_section import STUDENT, copies_of
from classroomkd.recipe.sections import MentorSpec, MethodSpec, PeerSpec, RecipeKeys, StageSpec

__all__ = ["selves_of", "taken_by", "trainees_of", "written_out"]


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
        entry: the method, with the names that the recipe gives, or None: all whose role is ``peer``, and the teachers,
            of a method that trains its teacher.
        peers: of the recipe, before their copies are written out, or after.
    """
    from classroomkd import methods

    needs = methods.create(entry.name, **entry.options).needs
    if not needs.takes_peers:
        return None
    if entry.peers is None:
        return tuple(peer.name for peer in written_out(peers) if peer.role == "peer" or needs.teachers) or None
    groups = {peer.name: copies_of(peer.name, peer.copies) for peer in peers}
    return tuple(one for name in entry.peers for one in groups.get(name, [name]))


def trainees_of(stage: StageSpec, peers: Sequence[PeerSpec]) -> tuple[str, ...]:
    """Names of the networks that learn in a stage: the student first, where it does, and peers in the recipe's order.

    Args:
        stage: with the names that the recipe gives, ``all``, or None: whom its methods need.
        peers: of the recipe, before their copies are written out, or after.
    """
    everybody = [peer.name for peer in written_out(peers)]
    if stage.trainees == "all":
        wanted = {STUDENT, *everybody}
    elif stage.trainees is None:
        wanted = {STUDENT, *(name for entry in stage.method for name in taken_by(entry, peers) or ())}
    else:
        groups = {peer.name: copies_of(peer.name, peer.copies) for peer in peers}
        wanted = {one for name in stage.trainees for one in groups.get(name, [name])}
    return tuple(name for name in (STUDENT, *everybody) if name in wanted)


def selves_of(mentor: MentorSpec, recipe: RecipeKeys) -> list[MentorSpec]:
    """A frozen self with the network that it is; where it names a stage alone, one of each network that this trains.

    Args:
        mentor: made from a stage.
        recipe: whose stages name their trainees.
    """
    assert mentor.made_from is not None
    stage, _, one = mentor.made_from.partition(".")
    networks = {STUDENT: recipe.student, **{peer.name: peer for peer in written_out(recipe.peers)}}
    called_so = [spec for arm in recipe.grid for spec in arm[0].stages or () if spec.name == stage]
    trained = {name for spec in called_so for name in spec.trainees or ()}
    found = []
    for name in [one] if one else [name for name in networks if name in trained]:
        taps = dict(recipe.student.taps) if name == STUDENT else {}
        called = mentor.name if one else f"{mentor.name}-{name}"
        update = {"name": called, "model": networks[name].model, "made_from": f"{stage}.{name}", "taps": taps}
        found.append(mentor.model_copy(update=update))
    return found
