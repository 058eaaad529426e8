"""Several methods as one: the first brings the supervised term and the record, the others add their terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from classroomkd.classroom.lesson import Answers, Lesson, Terms
from classroomkd.classroom.method import ClassInfo, Method
from classroomkd.classroom.needs import Needs
from classroomkd.classroom.schedule import Schedule
from classroomkd.classroom.step import Batch, LookContext, StepContext
from classroomkd.classroom.trainees import is_own_loss
from classroomkd.errors import UserError

__all__ = ["Composition", "union"]


class Composition(Method):
    """Several methods at once: the first brings the supervised term and the record, the others add their terms.

    Args:
        methods: the parts.
        names: theirs, which prefix the terms of all but the first; a name that comes again is numbered (``average-2``).
    """

    combines = True

    def __init__(self, methods: Sequence[Method], names: Sequence[str]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.names = [names[0], *_distinct(names[1:])]
        needs = [m.needs for m in methods]
        self.needs = Needs(
            features=union(needs),
            heads=any(n.heads for n in needs),
            ids=any(n.ids for n in needs),
            epoch=any(n.epoch for n in needs),
            calibration=any(n.calibration for n in needs),
            mentors=max(n.mentors for n in needs),
            sgd=any(n.sgd for n in needs),
            distributions=any(n.distributions for n in needs),
            whole_batch=any(n.whole_batch for n in needs),
            truth=any(n.truth for n in needs),
            peers=_peers_of(needs),
            teachers=max(n.teachers for n in needs),
            branches=max(n.branches for n in needs),
            cut=max(needs, key=lambda n: n.branches).cut,
            views=max(n.views for n in needs),
            averaged=any(n.averaged for n in needs),
            prepare=max(n.prepare for n in needs),
            prepare_norm=_norm_of(needs),
        )
        cutting = [name for name, n in zip(names, needs, strict=True) if n.branches > 1]
        taking = [name for name, n in zip(names, needs, strict=True) if n.takes_peers]
        if cutting and len(cutting) + len(taking) > 1:
            raise UserError(
                f"method '{cutting[0]}' trains branches of the student and cannot be combined with "
                f"'{[*cutting, *taking][1]}', which trains others"
            )
        self.order_matters = any(m.order_matters for m in methods)
        self.weighs_samples = all(m.weighs_samples for m in methods)
        self.period = math.lcm(*(m.period for m in methods))
        own = [name for name, m in zip(self.names, methods, strict=True) if m.has_own_step]
        if own:
            raise UserError(f"method '{own[0]}' has a step of its own and cannot be combined with others")
        idle = [name for name, m in zip(names[1:], methods[1:], strict=True) if not m.teaches]
        if idle:
            raise UserError(
                f"method '{idle[0]}' has no mentors' terms, so it adds nothing to '{names[0]}'; only the first method "
                "brings the supervised term"
            )

    def setup(self, info: ClassInfo) -> None:
        """Set up every part; all mentors are asked, and each part is handed the answers it reads."""
        for method in self._parts():
            shapes = info.shapes
            if shapes is not None:
                shapes = replace(
                    shapes,
                    student={tap: _as(kind, shapes.student[tap]) for tap, kind in method.needs.features.items()},
                    mentors=_all_as(method, shapes.mentors),
                    peers=_all_as(method, shapes.peers),
                )
            method.setup(replace(info, shapes=shapes))

    @property
    def prepared(self) -> bool:
        """Whether all parts that look before the first step have looked."""
        return all(method.prepared for method in self._parts() if method.needs.prepare)

    @prepared.setter
    def prepared(self, value: bool) -> None:
        for method in self._parts():
            method.prepared = value

    def prepare(self, context: LookContext, batches: Iterable[Batch]) -> None:
        """Every part looks, as it is handed lessons."""
        for place, method in enumerate(self._parts()):
            if method.needs.prepare:
                method.prepare(_PartsLook(self, place, context), batches)

    def prepare_blank(self) -> None:
        """Of all parts."""
        for method in self._parts():
            method.prepare_blank()

    def findings(self) -> dict[str, float]:
        """Those of all parts, of all but the first behind their names."""
        found = dict(self._parts()[0].findings())
        for name, method in zip(self.names[1:], self._parts()[1:], strict=True):
            found |= {f"{name}.{key}": value for key, value in method.findings().items()}
        return found

    def meta_parameters(self) -> list[nn.Parameter]:
        """Those of all parts."""
        return [p for method in self._parts() for p in method.meta_parameters()]

    def schedules(self) -> list[Schedule]:
        """See the base."""
        return [schedule for method in self._parts() for schedule in method.schedules()]

    def _parts(self) -> list[Method]:
        return list(self.methods)  # type: ignore[arg-type]

    def loss(self, lesson: Lesson) -> Terms:
        """All terms, those of later methods prefixed by their names, without their supervised parts."""
        first: Terms = self._part(0, lesson)
        values, coefficients, parts = dict(first.values), dict(first.coefficients), dict(first.parts)
        record = first
        for place, name in enumerate(self.names[1:], start=1):
            terms: Terms = self._part(place, lesson)
            for key, value in terms.values.items():
                if is_own_loss(key) and key in values:
                    continue  # a trainee has its own loss once, from the first that brings it
                trainee, _, term = key.rpartition(".")
                its = trainee in lesson.peers
                called = key if is_own_loss(key) else f"{trainee}.{name}.{term}" if its else f"{name}.{key}"
                values[called], coefficients[called] = value, terms.coefficients.get(key, 1.0)
                if key in terms.parts:
                    parts[called] = terms.parts[key]
            if record.weight is None:
                record = terms
        return Terms(values, coefficients, record.weight, record.temperature, record.active, parts=parts)

    def _part(self, place: int, lesson: Lesson) -> Terms:
        terms: Terms = self._parts()[place](self.lesson_of(place, lesson))
        return terms

    def lesson_of(self, place: int, lesson: Lesson) -> Lesson:
        """The lesson as a part is handed it: with what it asked for."""
        method = self._parts()[place]
        assert lesson.mentors is not None or method.needs.mentors == 0
        student = Answers(lesson.student.prediction, _seen(method, lesson.student.features))
        peers = {name: Answers(one.prediction, _seen(method, one.features)) for name, one in lesson.peers.items()}
        mentors, heads, asks = lesson.mentors, lesson.heads, method.mentor_indices
        if mentors is not None:
            mentors = Answers(mentors.prediction, _seen(method, mentors.features))
            mentors = mentors if asks is None else mentors.of(asks)
        if heads is not None and asks is not None:
            heads = partial(_asked_head, heads, asks)
        teachers = lesson.teachers
        if not method.needs.teachers:  # another part's, which is nobody's peer
            peers, teachers = {name: one for name, one in peers.items() if name not in teachers}, ()
        return replace(lesson, student=student, peers=peers, teachers=teachers, mentors=mentors, heads=heads)

    def together(self, student: Answers, branches: Mapping[str, Answers]) -> Tensor | None:
        """That of the part that has branches."""
        for method in self._parts():
            if method.needs.branches > 1:
                own = Answers(student.prediction, _seen(method, student.features))
                others = {n: Answers(one.prediction, _seen(method, one.features)) for n, one in branches.items()}
                return method.together(own, others)
        return None

    @property
    def has_head(self) -> bool:
        """See the base."""
        return any(method.has_head for method in self._parts())

    def after_step(self, context: StepContext, lesson: Lesson) -> None:
        """Give every part its turn."""
        for method in self._parts():
            if method.teaches:
                method.after_step(context, lesson)


class _PartsLook:
    """A look as one part is handed lessons."""

    def __init__(self, whole: Composition, place: int, context: LookContext) -> None:
        self.whole, self.place, self.context = whole, place, context

    def lesson(self, batch: Batch) -> Lesson:
        return self.whole.lesson_of(self.place, self.context.lesson(batch))


def _norm_of(needs: Sequence[Needs]) -> Literal["batch", "running"]:
    """How BatchNorm acts in the look of all parts that look.

    Raises:
        UserError: they do not agree.
    """
    wishes = [n.prepare_norm for n in needs if n.prepare]
    if len(set(wishes)) > 1:
        raise UserError("these methods look at the samples with BatchNorm in different modes; give them one batch_norm")
    return wishes[0] if wishes else "running"


def _asked_head(
    heads: Callable[[int, str, Tensor], Tensor], asks: Sequence[int], mentor: int, tap: str, value: Tensor
) -> Tensor:
    return heads(asks[mentor], tap, value)


def _peers_of(needs: Sequence[Needs]) -> tuple[int, int | None]:
    """The fewest and the most peers that all parts which take some agree on."""
    those = [n.peers for n in needs if n.takes_peers]
    if not those:
        return 0, 0
    limits = [most for _, most in those if most is not None]
    return max(fewest for fewest, _ in those), min(limits, default=None)


def union(needs: Sequence[Needs]) -> dict[str, Literal["map", "pooled"]]:
    """Taps that anyone reads; a map where anyone wants the map, since it can still be pooled."""
    taps: dict[str, Literal["map", "pooled"]] = {}
    for need in needs:
        for tap, kind in need.features.items():
            taps[tap] = "map" if "map" in (kind, taps.get(tap)) else "pooled"
    return taps


def _as(kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] if kind == "pooled" else shape


def _all_as(
    method: Method, shapes: Mapping[str, tuple[tuple[int, ...], ...]]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    kinds = {tap: kind for tap, kind in method.needs.features.items() if tap in shapes}
    return {tap: tuple(_as(kind, shape) for shape in shapes[tap]) for tap, kind in kinds.items()}


def _seen(method: Method, features: Mapping[str, Any]) -> dict[str, Any]:
    """The features a part asked for, pooled where it wants them so."""

    def kind(x: Any, want: str) -> Any:
        if isinstance(x, tuple):
            return tuple(kind(y, want) for y in x)
        return x.mean((2, 3)) if want == "pooled" and x.dim() == 4 else x

    return {tap: kind(features[tap], want) for tap, want in method.needs.features.items()}


def _distinct(names: Sequence[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        numbered = (name if n == 1 else f"{name}-{n}" for n in range(1, len(names) + 2))
        distinct.append(next(candidate for candidate in numbered if candidate not in distinct))
    return distinct
