"""The classroom: student, mentors and a method, as an ordinary module for anybody's training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import classroomkd
from classroomkd._renamed import OldName, warn_old_name
from classroomkd.classroom.averaged import Averaged
from classroomkd.classroom.batches import fitting, taking
from classroomkd.classroom.clock import Clock
from classroomkd.classroom.frozen import refuse_shapeless, refuse_shared
from classroomkd.classroom.lesson import Answers, Calibration, Lesson
from classroomkd.classroom.mentor import Mentor
from classroomkd.classroom.method import ClassInfo, Method, Shapes
from classroomkd.classroom.outliers import Outliers
from classroomkd.classroom.pool import AnswerStore, MentorPool, Sights
from classroomkd.classroom.preparing import look, refuse_unprepared
from classroomkd.classroom.step_info import StepInfo
from classroomkd.classroom.task import Task
from classroomkd.classroom.trainees import STUDENT, Peers, refuse_number, refuse_teachers
from classroomkd.errors import UserError
from classroomkd.taps.branches import CUT, Branch, cut
from classroomkd.taps.tap_set import TapSet
from classroomkd.taps.taps import TapReader

__all__ = ["Classroom"]


class Classroom(nn.Module):
    """Student, mentors and a method. Calling it on a batch gives a :class:`Lesson` whose ``loss`` trains the student.

    ``parameters()`` and ``state_dict()`` hold the student's and the method's tensors only: mentors are not
    registered, follow ``.to(...)`` all the same, and stay in eval mode without gradients.

    Args:
        student: any network.
        mentors: networks or :class:`Mentor` objects that predict what the student predicts.
        method: a :class:`Method`, or a name for :func:`classroomkd.methods.create` with the defaults of this task.
        task: a :class:`Task`; None = classification.
        unlabelled: whether samples may have no label: their target is -1, or a whole batch's is None. For
            classification; another task says it itself.
        mean, std: the student's input normalisation, per channel; needed when a mentor has one of its own.
        taps: places of the student to read; or, by the name a method asks for (``@stage:-1``), the place it is here.
        scores: mentors' held-out scores, for methods that choose by them.
        image_shape: ``(channels, H, W)`` of the student's inputs; needed by methods that read features, whose
            projectors are sized by a dry run.
        register: ``(ids, labels)`` of the training samples, each ``(N,)``; needed by methods that remember them (crd).
        store: mentors' stored answers.
        taught: by mentor, whether another mentor taught it.
        outliers: a share in (0, 1] of the largest entropy: of samples without a label, those on which the mentors'
            vote has more of it count ``outlier_weight`` in every mean over samples; None = all count the same.
        outlier_weight: in [0, 1).
        peers: networks that are trained beside the student, by name, for methods that take some; one that takes none
            is handed none, and the classroom is what it is without.
        teachers: names of the peers that are teachers: they learn from labels alone and teach the others.
        branches: networks of the student's form, from which its branches begin behind the cut, for methods that have
            some; None: their layers draw new weights.
        selves: by mentor, which trainee (``student`` or a peer) it is as it was before, frozen; None for others.

    Raises:
        UserError: what is no network, a student among its mentors, a mentor's normalisation without the student's, a
            method that reads features without ``image_shape``, taps that cannot be found or matched, ``unlabelled``
            or ``outliers`` for a task that cannot; fewer or more peers than the method takes, or one that shares a
            tensor with another network.

    Example:
        >>> classroom = Classroom(student, mentors=[net_a, net_b], method="classroomkd")    # doctest: +SKIP
        >>> lesson = classroom(images, target)                                              # doctest: +SKIP
        >>> lesson.loss.backward()                                                          # doctest: +SKIP
    """

    _pool: MentorPool
    _task: Task

    def __init__(
        self,
        student: nn.Module,
        mentors: Sequence[nn.Module] = (),
        method: Method | str = "classroomkd",
        *,
        task: Task | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        taps: Sequence[str] | Mapping[str, str] = (),
        scores: Sequence[float] | None = None,
        image_shape: Sequence[int] | None = None,
        register: tuple[Tensor, Tensor | None] | None = None,
        store: AnswerStore | None = None,
        taught: Sequence[bool] | None = None,
        unlabelled: bool = False,
        outliers: float | None = None,
        outlier_weight: float = 0.1,
        peers: Mapping[str, nn.Module] | None = None,
        teachers: Sequence[str] = (),
        selves: Sequence[str | None] = (),
        branches: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        for network in (student, *mentors):
            if not isinstance(network, nn.Module):
                raise UserError(
                    f"a classroom holds networks, got {network!r}; build one with "
                    "classroomkd.models.create(NAME, num_classes=...)"
                )
        # The tables of names stand above this module: the package itself, which loads what is asked for, finds them.
        if task is None:
            task = classroomkd.tasks.create(classroomkd.tasks.DEFAULT, unlabelled=unlabelled)
        elif unlabelled and not task.has_unlabelled_units:
            raise UserError(
                f"unlabelled=True beside a task ({task.name}) that takes no samples without labels; give task=None, or "
                "say it to the task: Classification(unlabelled=True)"
            )
        self.outliers = None if outliers is None else Outliers(task, outliers, outlier_weight)
        method = classroomkd.methods.create(method, task=task.name) if isinstance(method, str) else method
        if any(m is student or getattr(m, "module", None) is student for m in mentors):
            raise UserError("the student is also listed as a mentor; pass a copy (copy.deepcopy) to teach it by itself")
        self._wishes = dict(taps) if isinstance(taps, Mapping) else {}
        self._tapped: TapSet | None = None
        self.method = method
        self._task = task
        refuse_shapeless(student, "the student")
        cut_off, where = _branches(student, method, self._wishes, image_shape, branches)
        self.reader = TapReader(
            student, where if isinstance(taps, Mapping) else {**{tap: tap for tap in taps}, **where}
        )
        named = [(m.name, m.module) if isinstance(m, Mentor) else (type(m).__name__, m) for m in mentors]
        refuse_shared(student, named)
        given = dict(peers or {}) if method.needs.takes_peers else {}
        refuse_teachers(teachers, tuple(peers or {}))
        self.teachers = tuple(name for name in given if name in teachers)
        remedy = "pass peers={NAME: network} to Classroom"
        refuse_number(method.needs, len(given), len(self.teachers), type(method).__name__, remedy)
        self.peers = Peers(given, student, named, cut_off)
        wrapped = [m if isinstance(m, Mentor) else Mentor(m) for m in mentors]
        if (mean is None) != (std is None):
            raise UserError("the classroom got one of mean= and std=; give both, the student's input normalisation")
        own = [m.name for m in wrapped if m.mean is not None]
        if own and mean is None:
            raise UserError(
                f"mentor '{own[0]}' has a normalisation of its own, so the classroom must know the student's: pass "
                "mean= and std= to Classroom (zeros and ones where the student sees pixels in 0..1)"
            )
        self.averaged = Averaged(self.branched) if method.needs.averaged else None
        self._pool = MentorPool(wrapped, mean, std)
        self._pool.store, self._pool.resize = store, task.resized
        self.clock, self.steps = Clock(), 0
        self._checked = self.looking = False
        self.calibration: Calibration | None = None
        self.reduce: Callable[[Tensor], Tensor] | None = None
        self.join: Callable[[Tensor], Tensor] | None = None
        self.shapes = self._shapes(image_shape) if method.needs.features and (wrapped or len(self.peers)) else None
        ids, labels = register if register is not None else (None, None)
        names, beside = self._pool.names, tuple(self.peers.networks)
        method.setup(
            ClassInfo(task, names, scores, self.shapes, ids, labels, taught, beside, self.teachers, tuple(selves))
        )
        method.to(next(student.parameters(), torch.empty(0)).device)

    @torch.no_grad()
    def _shapes(self, image_shape: Sequence[int] | None) -> Shapes:
        """Find the taps the method asks for, in every network, and say what shape they have."""
        taps, heads = self.method.needs.features, self.method.needs.heads
        if image_shape is None:
            raise UserError(
                f"method '{type(self.method).__name__}' reads features ({', '.join(taps)}), whose projectors are sized "
                "by a dry run: pass image_shape=(channels, height, width) to Classroom"
            )
        own = next(self.student.parameters(), torch.empty(0))
        blank = torch.zeros((2, *image_shape), dtype=own.dtype, device=own.device)
        self._tapped = TapSet.find(self.student, taps, self._wishes, blank, "the student")
        classes = self._tapped.classes
        self.reader = TapReader(self.student, {**self.reader.places, **self._tapped.places})
        self._pool.taps = tuple(taps)
        peers = self.peers.find(taps, blank, self._wishes) if len(self.peers) else {}
        store = self._pool.store
        if store is not None and not heads:
            return Shapes(classes, self._tapped.shapes, {tap: store.shapes[tap] for tap in taps}, peers)
        mentors = []
        for mentor in self._pool:
            theirs = next(mentor.parameters(), own)
            example = mentor.prepare(blank.to(theirs.device), self._pool.mean, self._pool.std).to(theirs.dtype)
            mentors.append(mentor.read(taps, example, heads))
        theirs_by_tap = {tap: tuple(shapes[tap] for shapes in mentors) for tap in taps}
        return Shapes(classes, self._tapped.shapes, theirs_by_tap, peers)

    def answer(self, inputs: Tensor) -> Answers:
        """The student's own answers, as its module stands, to inputs in its space."""
        return self._read(self.reader(inputs))

    def _read(self, answer: tuple[Tensor, dict[str, Tensor]]) -> Answers:
        prediction, features = answer
        return Answers(prediction, features if self._tapped is None else self._tapped.read(features))

    @property
    def student(self) -> nn.Module:
        """The network being taught."""
        return self.reader.module

    @property
    def mentors(self) -> MentorPool:
        """The frozen networks that teach."""
        return self._pool

    @property
    def learning(self) -> tuple[str, ...]:
        """The peers and branches that the method, as it is now, trains; none where it takes none."""
        return tuple(self.peers.networks) if self.method.needs.trains_others else ()

    @property
    def branched(self) -> dict[str, nn.Module]:
        """The student and its branches, by name."""
        return {STUDENT: self.student, **{name: self.peers.networks[name] for name in self.peers.branches}}

    def together(self, inputs: Tensor) -> Tensor | None:
        """What the student's branches answer together to a batch of inputs; None where the method has no such head."""
        student = self.reader(inputs)
        return self.method.together(self._read(student), self.peers.answers((inputs,), student[1]))

    @property
    def members(self) -> list[nn.Module]:
        """The student and the peers that are no teachers: who make up an ensemble."""
        return [self.student, *(net for name, net in self.peers.networks.items() if name not in self.teachers)]

    def trained_with(self, trainee: str) -> list[nn.Parameter]:
        """The parameters of one peer, or of ``student`` with those of the method."""
        if trainee != STUDENT:
            return self.peers.own_parameters(trainee)
        return [p for part in (self.reader, self.method) for p in part.parameters()]

    @property
    def task(self) -> Task:
        """What an answer is and what "right" means."""
        return self._task

    @property
    def epoch(self) -> float:
        """The epoch, from 0, whole or not; set it as the training goes on: schedules act by it."""
        return self.clock.epoch

    @epoch.setter
    def epoch(self, epoch: float) -> None:
        self.clock.now = epoch

    @property
    def epochs(self) -> float | None:
        """How many epochs the training has, for schedules that are shares of it; set it once. None = nobody said."""
        return self.clock.epochs

    @epochs.setter
    def epochs(self, epochs: float | None) -> None:
        self.clock.epochs = epochs

    @property
    def progress(self) -> float:
        """The share of the training that is over, 0 to 1; to be set where a loop does not count epochs."""
        return self.clock.progress

    @progress.setter
    def progress(self, share: float) -> None:
        self.clock.set_progress(share)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Classroom:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pool.apply(fn)
        if self.averaged is not None:
            self.averaged.apply(fn)
        if self.calibration is not None:  # it follows to the device and keeps its precision
            held = self.calibration
            self.calibration = replace(
                held,
                temperature=held.temperature.to(fn(held.temperature).device),
                ceiling=held.ceiling.to(fn(held.ceiling).device),
            )
        return self

    gather = OldName("collect")

    def collect(
        self,
        inputs: Tensor,
        target: Tensor | None,
        *,
        ids: Tensor | None = None,
        views: Tensor | None = None,
        answer: Callable[..., Any] | None = None,
        extra_sizes: Sights | None = None,
        info: StepInfo | None = None,
    ) -> Lesson:
        """Everybody's answers to a batch as a lesson that is not taught yet; a target of None: nothing is labelled.

        Of a method with several views ``inputs`` may be ``(views, B, …)``, one for each branch. ``answer`` runs the
        student in place of its own module (an engine passes its wrapped one) and, where any are ``learning``, gives
        beside that the same of all peers by name; ``extra_sizes`` has the same views at the sizes
        that mentors want; ``info`` says where the training stands, in place of the
        classroom's own attributes.
        """
        if self.method.needs.ids and ids is None:
            raise UserError(f"method '{type(self.method).__name__}' needs sample ids: call classroom(x, y, ids=...)")
        if self.method.needs.calibration and self.calibration is None:
            raise UserError(
                f"method '{type(self.method).__name__}' with this credibility needs held-out mentor scores: "
                "set classroom.calibration = classroomkd.calibrate(classroom.mentors, loader)"
            )
        refuse_unprepared(self)
        shown = tuple(inputs) if self.method.needs.views > 1 and inputs.dim() > 4 else (inputs,)
        inputs = shown[0]
        if answer is None:  # an engine's batches are as they should be
            inputs, target = fitting(self.student, inputs, target)
        info = self._info() if info is None else info
        gate = partial(self.method.eligible, ids=ids, step=info.step) if info.skip_rows else None
        mentors = None
        if self.method.needs.mentors > 0:
            only = self.method.mentor_indices
            mentors = self._pool.ask(inputs, ids, views, only, gate, target, extra_sizes, info.watch)
        averaged = dict[str, Tensor]()
        if self.averaged is not None and self.method.needs.averaged:
            averaged = dict(zip(self.averaged.networks, self.averaged.answers(shown), strict=True))
        shown = (inputs, *shown[1:])
        student, peers = self._trainees(shown) if answer is None else self._read_all(answer(*shown))
        prediction = student.prediction
        for name, peer in peers.items():
            if peer.prediction.shape != prediction.shape:
                raise UserError(
                    f"the student answers with shape {tuple(prediction.shape)}, peer '{name}' with "
                    f"{tuple(peer.prediction.shape)}: both must answer the same question"
                )
        if mentors is not None and mentors.prediction.shape[1:] != prediction.shape:
            raise UserError(
                f"the student answers with shape {tuple(prediction.shape)}, mentor '{self._pool.names[0]}' with "
                f"{tuple(mentors.prediction.shape[1:])}: both must answer the same question"
            )
        if target is None:
            target = self._task.no_target(prediction)
        return Lesson(
            inputs,
            target,
            student,
            mentors,
            self._task,
            ids,
            views,
            info.epoch,
            info.step,
            calibration=self.calibration,
            reduce=info.reduce,
            join=info.join,
            heads=self._head if self.method.needs.heads else None,
            progress=info.progress,
            sample_weight=None if self.outliers is None or mentors is None else self.outliers(mentors, target),
            peers=peers,
            teachers=self.teachers if peers else (),
            averaged=averaged,
        )

    def _trainees(self, shown: Sequence[Tensor]) -> tuple[Answers, dict[str, Answers]]:
        with taking("the student", shown[0]):
            student = self.reader(shown[0])
        return self._read(student), self.peers.answers(shown, student[1]) if self.learning else {}

    def _read_all(self, answer: Any) -> tuple[Answers, dict[str, Answers]]:
        if not self.learning:
            return self._read(answer), {}
        student, peers = answer
        return self._read(student), {name: self.peers.read(name, one) for name, one in peers.items()}

    def answer_again(self, trainee: str, inputs: Tensor) -> Answers:
        """What ``student`` or a peer answers, without gradient and with throw-away copies of its buffers."""
        reader: Any = self.reader if trainee == STUDENT else self.peers.readers[trainee]
        buffers = {name: buffer.clone() for name, buffer in reader.named_buffers()}
        with torch.no_grad():
            answer = torch.func.functional_call(reader, buffers, (inputs,))
        return self._read(answer) if trainee == STUDENT else self.peers.read(trainee, answer)

    def _info(self) -> StepInfo:
        """What a loop of one's own has said by this classroom's attributes."""
        if self.training and self.steps and not self.clock.quiet and not torch.compiler.is_compiling():
            asks = type(self.method).__name__ if self.method.needs.epoch else None
            self.clock.remind(self.method.schedules(), asks)
        return StepInfo(self.steps, self.epoch, self.progress, self.reduce, self.join)

    def prepare(self, batches: Iterable[Any]) -> None:
        """Have the method look at training samples before the first step, where it needs to; nobody is trained by it.

        Args:
            batches: ``(inputs, target)``, or mappings with ``inputs``, ``target`` and, where known, ``ids``, ``views``
                and ``extra_sizes``: a loader of the training pictures, mixed. As many are taken as the method looks at
                (``classroom.method.needs.prepare`` samples).

        Raises:
            UserError: no batch, or what the method cannot use.
        """
        look(self, batches)

    @contextmanager
    def rehearsal(self, method: Method, store: AnswerStore | None) -> Iterator[None]:
        """Inside, another method teaches and another store answers; afterwards all is as before, counts included."""
        pool, own = self._pool, self.method
        before = (pool.store, pool.forwards, pool.answered)
        self.method, pool.store = method, store
        try:
            yield
        finally:
            self.method = own
            pool.store, pool.forwards, pool.answered = before

    def check_once(self, lesson: Lesson) -> Lesson:
        """The lesson; the first one is looked at, which waits for the device.

        Raises:
            UserError: labels that do not fit the answers, a student without anything to train.
        """
        if not self._checked and not torch.compiler.is_compiling():
            self._check(lesson)
            self._checked = True
        return lesson

    def _check(self, lesson: Lesson) -> None:
        self._task.check(lesson.student.prediction, lesson.target)
        if self.training and torch.is_grad_enabled() and not any(p.requires_grad for p in self.student.parameters()):
            raise UserError(
                "no parameter of the student can be trained (requires_grad is False everywhere); "
                "student.requires_grad_(True) before the optimiser is built"
            )
        if self.training:
            self.peers.check()
        if (sentence := self._task.doubt(lesson.student.prediction.detach())) is not None:
            warnings.warn(f"the student {sentence}", stacklevel=5)
        asked = self.method.mentor_indices
        if lesson.mentors is None or self._pool.store is not None:
            return
        for place, answer in enumerate(lesson.mentors.prediction):
            name = self._pool.names[place if asked is None else asked[place]]
            if (sentence := self._task.doubt(answer)) is not None:
                warnings.warn(f"mentor '{name}' {sentence}", stacklevel=5)

    def _head(self, mentor: int, tap: str, value: Tensor) -> Tensor:
        asks = self.method.mentor_indices
        return self._pool.head(mentor if asks is None else asks[mentor], tap, value)

    def forward(
        self,
        inputs: Tensor,
        target: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        views: Tensor | None = None,
        extra_sizes: Sights | None = None,
        sights: Sights | None = None,
    ) -> Lesson:
        """Teach one batch: ``(B, channels, H, W)`` inputs in the student's space and their targets, None without any.

        ``extra_sizes`` has, by (H, W), the same views at the sizes that mentors want; without them inputs are resized,
        which pose refuses for a mentor of another shape. ``sights`` is its old name.
        """
        if sights is not None:
            warn_old_name("classroom(sights=...)", "extra_sizes")
            extra_sizes = sights
        lesson = self.check_once(self.collect(inputs, target, ids=ids, views=views, extra_sizes=extra_sizes))
        self.steps += self.training
        return lesson.conclude(self.method(lesson))


def _branches(
    student: nn.Module,
    method: Method,
    wishes: Mapping[str, str],
    image_shape: Sequence[int] | None,
    starts: Sequence[nn.Module] | None,
) -> tuple[dict[str, Branch], dict[str, str]]:
    """The student's branches beside itself, by name, and where it is read for them."""
    number, name = method.needs.branches, type(method).__name__
    if number < 2:
        return {}, {}
    if image_shape is None:
        raise UserError(
            f"method '{name}' cuts the student into branches, for which a dry run is made: pass "
            "image_shape=(channels, height, width) to Classroom"
        )
    if starts is not None and len(starts) != number - 1:
        raise UserError(f"method '{name}' has {number - 1} branch(es) beside the student, branches= has {len(starts)}")
    own = next(student.parameters(), torch.empty(0))
    blank = torch.zeros((2, *image_shape), dtype=own.dtype, device=own.device)
    where = cut(student, wishes.get(method.needs.cut, method.needs.cut), blank, "the student")
    given = [None] * (number - 1) if starts is None else starts
    return {f"branch-{n}": Branch(student, where, start) for n, start in enumerate(given, 2)}, {CUT: where.place}
