"""kdml: one teacher teaches several students, which teach each other.

System   knowledge distillation with peer-to-peer mutual learning, Niyaz, Bathula, arXiv 2110.11023. *Reconstructed*:
         the abstract alone was read, no code was found. Its own: one teacher, several students, all trained at once,
         the ensemble of the students as the result. All else is ours
Rule     of every student k of m:
         L_k = supervised_weight · CE(z_k, y) + weight · T² · mean_b KL(p_T ‖ p_k)
               + r · mutual_weight · mean over students j ≠ k of M² · mean_b KL(q_j ‖ q_k)
         of a teacher that is trained: L_T = CE(z_T, y)
         p = softmax(z / T), q = softmax(z / M), M the mutual temperature; r rises in a line to 1 over ``ramp``
         what the teacher and other students say are targets: no gradient of L_k reaches them
Order    jacobi: all answer once, all losses are taken from these answers, all step together. gauss_seidel: the teacher
         steps and answers again, then the student, then its peers in their order
Shapes   z (B, C); each KL is (B, U) over the task's units, its mean over those that may be taught, labelled or not
Defaults online, jacobi, T 4 (pose 1), M 1, all weights 1, ramp 0.1; all ours
Teacher  online: a peer whose role is teacher, which learns from labels alone. frozen: a mentor, by name, by position,
         or "best"; its answers may be stored
Deviates two stand for what is open (how the three network versions differ, features, a gradient into the teacher):
         logits alone, and none. Where the teacher's answer is not finite its KL is 0, as in kd. ``strength: matched``
         has no ramp. m = 1 is kd
Cost     online: the steps of the teacher and of m students; frozen: of m students, and one mentor's forward.
         gauss_seidel: one forward more for each but the last
Hurts    students become alike, so their ensemble gains less than they do; an online teacher is as raw as they are
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from classroomkd.classroom import Answers, ClassInfo, Lesson, Needs, Terms
from classroomkd.classroom.schedule import Constant, Schedule, Warmup
from classroomkd.methods.kd import KD
from classroomkd.methods.pieces.mutual import Mutual, Order, by_peers
from classroomkd.methods.weighted import Mentor, NonNegative, Positive

__all__ = ["KDML"]


class KDML(Mutual):
    """Distillation from one teacher beside mutual learning; see the data sheet.

    Args:
        teacher: ``online``, a peer with the role of a teacher, or ``frozen``, a mentor.
        order: ``jacobi`` or ``gauss_seidel``.
        temperature: T > 0, of what the teacher says.
        mutual_temperature: M > 0, of what the students say to each other.
        weight: factor of what a student learns from the teacher.
        mutual_weight: factor of what it learns from the other students.
        supervised_weight: factor of every student's own loss.
        ramp: how long the mutual factor rises: up to 1 a share of the training, above 1 epochs; 0 = it does not.
        mentor: frozen: a name, a position, or ``best``.
    """

    needs = Needs(mentors=0, peers=(1, None), teachers=1)
    matched: ClassVar[Mapping[str, Any]] = {"weight": 1.0, "mutual_weight": 1.0, "supervised_weight": 1.0, "ramp": 0.0}
    task_defaults = KD.task_defaults

    def __init__(
        self,
        *,
        teacher: Literal["online", "frozen"] = "online",
        order: Order = "jacobi",
        temperature: Positive = 4.0,
        mutual_temperature: Positive = 1.0,
        weight: NonNegative = 1.0,
        mutual_weight: NonNegative = 1.0,
        supervised_weight: NonNegative = 1.0,
        ramp: NonNegative = 0.1,
        mentor: Mentor = "best",
    ) -> None:
        super().__init__(order)
        self.online = teacher == "online"
        self.taught = KD(temperature=temperature, weight=weight, supervised_weight=supervised_weight, mentor=mentor)
        self.coefficients = {**self.taught.coefficients, "mutual": mutual_weight}
        self.mutual_weight, self.mutual_temperature = mutual_weight, mutual_temperature
        self.mentor = ""  # the frozen teacher's name, once it is known
        self.ramp: Schedule = Warmup(epochs=ramp) if ramp else Constant()
        if not self.online:
            self.needs = Needs(peers=(0, None))

    @classmethod
    def idle(cls, options: Mapping[str, Any]) -> list[str]:
        """See the base."""
        found = []
        if options.get("teacher", "online") == "online" and options.get("mentor", "best") != "best":
            found.append("mentor acts with teacher: frozen only")
        if options.get("mutual_weight", 1.0) == 0:
            usual = {"mutual_temperature": 1.0, "ramp": 0.1}
            found += [f"{k} acts with mutual_weight above 0 only" for k, v in usual.items() if options.get(k, v) != v]
        return found

    def setup(self, info: ClassInfo) -> None:
        """See the base; the teacher that is trained stands where kd has its mentor."""
        super().setup(info)
        self.taught.setup(replace(info, mentors=("teacher",), scores=None, taught=None) if self.online else info)
        self.mentor_indices = None if self.online else self.taught.mentor_indices
        chosen = self.mentor_indices or (0,)
        self.mentor = "" if self.online else info.mentors[chosen[0]]

    def eligible(self, knows_MB: Tensor, ids: Tensor | None, step: int) -> Tensor | None:
        """See the base."""
        return self.taught.eligible(knows_MB, ids, step)

    def schedules(self) -> list[Schedule]:
        """See the base: the ramp, too."""
        return [*super().schedules(), self.ramp]

    def of(self, lesson: Lesson, name: str) -> Terms:
        """The terms of one trainee; a teacher's are its own loss."""
        if name not in lesson.teachers:
            return super().of(lesson, name)
        own = lesson.task.supervised(lesson.peers[name].prediction, lesson.target)
        return Terms({"supervised": lesson.mean(own, lesson.task.mask(lesson.target))})

    def each(self, lesson: Lesson) -> Terms:
        """A student's own loss, what the teacher says, and what the other students do, where there are any."""
        terms = self.taught.loss(_with_teacher(lesson) if self.online else lesson)
        name = lesson.teachers[0] if self.online else self.mentor
        terms = replace(terms, parts={"distilled": {name: terms.values["distilled"].detach()}})
        if self.online:  # no mentor has taught
            terms = replace(terms, weight=None, temperature=None, active=None)
        if len(lesson.peers) == len(lesson.teachers):
            return terms
        mutual, parts = by_peers(lesson, self.mutual_temperature)
        factor = self.mutual_weight * self.ramp(lesson.epoch, lesson.progress)
        return replace(
            terms,
            values={**terms.values, "mutual": mutual},
            coefficients={**terms.coefficients, "mutual": factor},
            parts={**terms.parts, "mutual": parts},
            totals={} if self.online else {"mutual": mutual.new_ones(())},  # not what the mentor's weights sum to
        )


def _with_teacher(lesson: Lesson) -> Lesson:
    """The lesson with what its teacher says, as a target, in the mentors' place."""
    (teacher,) = lesson.teachers
    said = lesson.peers[teacher].prediction.detach()
    return replace(lesson, mentors=Answers(said.to(lesson.student.prediction.dtype).unsqueeze(0)))
