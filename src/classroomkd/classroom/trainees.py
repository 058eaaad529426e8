"""Trainees: the student and its peers, the networks that are trained beside it; and how their loss terms are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd.classroom.batches import taking
from classroomkd.classroom.frozen import refuse_shapeless, refuse_shared
from classroomkd.classroom.lesson import Answers, Terms
from classroomkd.errors import UserError
from classroomkd.taps.branches import CUT
from classroomkd.taps.tap_set import TapSet
from classroomkd.taps.taps import TapReader

if TYPE_CHECKING:
    from classroomkd.classroom.needs import Needs
    from classroomkd.taps.branches import Branch
    from classroomkd.taps.tap_set import Kind

__all__ = [
    "STUDENT",
    "Peers",
    "check_peer_names",
    "is_own_loss",
    "joined",
    "refuse_number",
    "refuse_teachers",
    "shared_out",
    "who_gave",
]

STUDENT = "student"
Raw = tuple[Tensor, dict[str, Tensor]]  # a prediction, and activations by tap
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def is_own_loss(term: str) -> bool:
    """Whether a term is a trainee's own loss (``supervised``, ``b.supervised``), which no schedule acts on."""
    return term.rpartition(".")[2] == "supervised"


def joined(parts: Mapping[str, Terms]) -> Terms:
    """The terms of several trainees as one: a peer's begin with its name; the record is the student's.

    Args:
        parts: by trainee.
    """
    values, coefficients, totals = dict[str, Tensor](), dict[str, float | Tensor](), dict[str, Tensor]()
    given: dict[str, Mapping[str, Tensor]] = {}
    for trainee, terms in parts.items():
        before = "" if trainee == STUDENT else f"{trainee}."
        values |= {before + name: value for name, value in terms.values.items()}
        coefficients |= {before + name: value for name, value in terms.coefficients.items()}
        totals |= {before + name: value for name, value in terms.totals.items()}
        given |= {before + name: value for name, value in terms.parts.items()}
    own = parts.get(STUDENT)
    record = (None, None, None) if own is None else (own.weight, own.temperature, own.active)
    return Terms(values, coefficients, *record, totals, given)


def shared_out(value: Tensor, weight: Tensor, mentors: Sequence[str]) -> dict[str, Tensor]:
    """A term in parts by mentor, as their weights ``(M, B, U)`` are to each other."""
    sums = weight.flatten(1).sum(1)
    shares = sums / sums.sum().clamp_min(torch.finfo(sums.dtype).tiny)
    return dict(zip(mentors, (value.detach() * shares).unbind(), strict=True))


def who_gave(terms: Terms, mentors: Sequence[str], peers: Collection[str]) -> dict[tuple[str, str], Tensor]:
    """What each mentor and trainee adds to each trainee's loss: scalars by (who learns, who teaches).

    Of a term that does not say it, the student's mentors have shares by their weights in the record.

    Args:
        terms: of a lesson, schedules applied.
        mentors: names, in the order of the M axis.
        peers: names.
    """
    found: dict[tuple[str, str], Tensor] = {}
    for name, value in terms.values.items():
        if is_own_loss(name):
            continue
        owner = name.partition(".")[0]
        learner = owner if owner in peers else STUDENT
        parts = terms.parts.get(name)
        weight = terms.weight if learner == STUDENT else None
        if parts is None and weight is not None and len(weight) == len(mentors):
            parts = shared_out(value, weight, mentors)
        for teacher, part in (parts or {}).items():
            added = terms.coefficients.get(name, 1.0) * part
            found[learner, teacher] = found[learner, teacher] + added if (learner, teacher) in found else added
    return found


def check_peer_names(names: Iterable[str]) -> None:
    """Refuse names that cannot stand in front of a term or name a file.

    Raises:
        UserError: anything but letters, digits, ``_`` and ``-``, or ``student``.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"peer '{name}': a peer's name has letters, digits, _ and - only")
        if name.lower() == STUDENT:
            raise UserError("a peer is called 'student'; give it another name")


def refuse_number(needs: Needs, number: int, teachers: int, method: str, remedy: str) -> None:
    """Refuse fewer or more peers than a method takes.

    Args:
        needs: the method's.
        number: of peers, teachers among them.
        teachers: how many of them are.
        method: its name, for the message.
        remedy: how to give it some.

    Raises:
        UserError: too few or too many.
    """
    fewest, most = needs.peers
    if number < fewest:
        raise UserError(f"method '{method}' needs at least {fewest} peer(s), got {number or 'none'}; {remedy}")
    if most is not None and number > most:
        raise UserError(f"method '{method}' takes at most {most} peer(s), got {number}; give it fewer")
    if teachers != needs.teachers:
        raise UserError(
            f"method '{method}' trains {needs.teachers or 'no'} teacher(s) beside the student, got "
            f"{teachers or 'none'}; pass teachers=[NAME, …] to Classroom, the names of the peers that are"
        )


def refuse_teachers(teachers: Iterable[str], peers: Collection[str]) -> None:
    """Refuse teachers that are no peers.

    Raises:
        UserError: a name that no peer has.
    """
    for name in teachers:
        if name not in peers:
            there = f"there are {', '.join(peers)}" if peers else "there are none"
            raise UserError(f"teachers= names '{name}', which is no peer; {there}")


class Peers(nn.Module):
    """The networks that are trained beside the student, by name.

    Args:
        networks: by name.
        student: whose layers and memory none of them may share.
        mentors: names and networks, likewise.
        branches: of the student, by name, which share its trunk.

    Raises:
        UserError: what is no network or has no shape yet, a name that will not do, a tensor that two of them share.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        student: nn.Module,
        mentors: Iterable[tuple[str, nn.Module]],
        branches: Mapping[str, Branch] | None = None,
    ) -> None:
        super().__init__()
        check_peer_names(networks)
        self.branches = dict(branches or {})
        others: list[tuple[str, nn.Module]] = [("the student", student)]
        others += [(f"mentor '{name}'", network) for name, network in mentors]
        for name, network in networks.items():
            if not isinstance(network, nn.Module):
                raise UserError(f"peer '{name}' is {network!r}, not a network")
            refuse_shapeless(network, f"peer '{name}'")
            for other, theirs in others:
                refuse_shared(theirs, [(name, network)], f"peer '{name}' and {other}")
            others.append((f"peer '{name}'", network))
        both = {**networks, **{name: branch.network for name, branch in self.branches.items()}}
        self.readers = nn.ModuleDict({name: TapReader(network) for name, network in both.items()})
        self._tapped: dict[str, TapSet] = {}
        self._trunk_taps: dict[str, tuple[str, ...]] = {}  # by branch, those that it has from the student

    def __len__(self) -> int:
        return len(self.readers)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by name."""
        readers: Mapping[str, Any] = self.readers  # type: ignore[assignment]
        return {name: reader.module for name, reader in readers.items()}

    def own_parameters(self, name: str) -> list[nn.Parameter]:
        """What is trained of one of them: of a branch what lies behind the cut."""
        if name in self.branches:
            return self.branches[name].own_parameters()
        return list(self.networks[name].parameters())

    def find(
        self, taps: Mapping[str, Kind], example: Tensor, student: Mapping[str, str]
    ) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Read these taps from now on; by tap the shapes of all peers, in order.

        Args:
            taps: what is to be read, and how.
            example: a blank batch in the student's space.
            student: places that are named in the student, and so in its branches.
        """
        for name, network in self.networks.items():
            own = next(network.parameters(), example)
            blank = example.to(own.device, own.dtype)
            self._tapped[name] = TapSet.find(
                network, taps, student if name in self.branches else {}, blank, f"peer '{name}'"
            )
            self.readers[name] = TapReader(network, self._tapped[name].places)
            if name in self.branches:
                self._trunk_taps[name] = self.branches[name].read(self._tapped[name].places)
        return {tap: tuple(one.shapes[tap] for one in self._tapped.values()) for tap in taps}

    def read(self, name: str, answer: tuple[Tensor, dict[str, Tensor]]) -> Answers:
        """What one of them, run from outside, has given, as a method sees it."""
        prediction, features = answer
        return Answers(prediction, features if name not in self._tapped else self._tapped[name].read(features))

    def answers(self, shown: Sequence[Tensor], student: Mapping[str, Tensor]) -> dict[str, Answers]:
        """Everybody's answers to inputs in the student's space, with gradient.

        Args:
            shown: ``(B, channels, H, W)`` for all, or a view of the samples for each branch, the student's first.
            student: its activations by tap, the cut's among them, with which branches go on that see the same.
        """
        answers = {}
        for name, reader in self.readers.items():
            with taking(f"peer '{name}'", shown[0]):
                answers[name] = self.read(name, self.run(name, shown, student, reader))
        return answers

    def run(
        self, name: str, shown: Sequence[Tensor], student: Mapping[str, Tensor], reader: Callable[[Tensor], Raw]
    ) -> Raw:
        """One of them: a peer on the inputs; a branch from the student's activations on, or, where views differ, all
        of it on its own."""
        if name not in self.branches:
            return reader(shown[0])
        if len(shown) > 1:
            return reader(shown[1 + [*self.branches].index(name)])
        prediction, features = self.branches[name].onward(student[CUT])
        return prediction, {**features, **{tap: student[tap] for tap in self._trunk_taps.get(name, ())}}

    def check(self) -> None:
        """Refuse a peer that has nothing to be trained.

        Raises:
            UserError: no parameter requires gradients.
        """
        for name, network in self.networks.items():
            if torch.is_grad_enabled() and not any(p.requires_grad for p in network.parameters()):
                raise UserError(
                    f"no parameter of peer '{name}' can be trained (requires_grad is False everywhere); one that is "
                    "not to learn is a mentor"
                )
