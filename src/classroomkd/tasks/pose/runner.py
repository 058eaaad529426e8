"""Top-down human pose: networks answer with SimCC bins or heatmaps, and are scored by OKS-AP, PCKh or PCK."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd.classroom import Calibration, Mentor, Task
from classroomkd.data.keypoints.crops import PADDING
from classroomkd.data.skeleton import Skeleton
from classroomkd.errors import UserError, did_you_mean
from classroomkd.models.checkpoints import read_checkpoint
from classroomkd.tasks.pose import agreement
from classroomkd.tasks.pose.calibration import calibrate
from classroomkd.tasks.pose.coding import Coding, coding_of
from classroomkd.tasks.pose.judging import check_metric, check_scored, judge
from classroomkd.tasks.pose.naming import in_recipe, named_by_mentors
from classroomkd.tasks.pose.reading import read_answers, sum_up
from classroomkd.tasks.pose.spec import AGREEMENT
from classroomkd.tasks.pose.task import Pose
from classroomkd.tasks.pose.translation import VERSION, Translation
from classroomkd.tasks.pose.written import written_coding, written_skeleton
from classroomkd.tasks.runner import NetworkSource, TaskRunner
from classroomkd.train.scoring import Score

if TYPE_CHECKING:
    from classroomkd.data import ImageSet, Part
    from classroomkd.data.keypoints.people import People
    from classroomkd.recipe import Recipe, TrainSpec
    from classroomkd.recipe.schema import MentorSpec, PeerSpec, StudentSpec
    from classroomkd.run.context import RunContext
    from classroomkd.tasks.pose.spec import PoseOptions
    from classroomkd.train.inputs import Inputs

__all__ = ["PoseRunner"]

_CODING = ("loss", "scale", "beta", "decoder")
_AT_ONCE = 1024  # persons


class PoseRunner(TaskRunner):
    """Keypoints of one person in a crop."""

    samples = "persons"
    has_together = True

    @classmethod
    def named(
        cls, images: ImageSet, recipe: Recipe, given: Mapping[str, nn.Module], trust_code: bool = False
    ) -> ImageSet:
        """See the base: names of joints."""
        return named_by_mentors(images, recipe, given)

    def __init__(self, context: RunContext, networks: NetworkSource) -> None:
        super().__init__(context, networks)
        from classroomkd.tasks.pose.spec import PoseOptions

        self.options: PoseOptions = PoseOptions.model_validate(context.recipe.task.options)
        if context.data.skeleton is None or context.data.people is None:
            raise UserError(f"task: pose needs people with joints; the data '{context.data.name}' has classes")
        self.skeleton: Skeleton = context.data.skeleton
        self.people: People = context.data.people
        self._checkpoints: dict[str, dict[str, str]] = {}
        if not context.data.unlabelled and not bool((context.data.train.target[..., 2] > 0).any()):
            raise UserError(
                f"data: no training person of '{context.data.name}' has a labelled joint; a detector's boxes are for a "
                "test part, which data.options.test names"
            )
        check_metric(context.data.metric, self.people.boxes)
        if not self.by_vote(context.data.val) and not bool((context.data.val.target[..., 2] > 0).any()):
            raise UserError(
                f"data: no validation person of '{context.data.name}' has a labelled joint, so no epoch and no"
                " mentor could be chosen by them; leave out data.options.val (a part is split off the training part"
                " then), or label some"
            )
        parts = {"validation": context.data.val.ids, "test": context.data.test.ids}
        check_scored(self._by_joints, self.people, self.skeleton, {name: ids.cpu() for name, ids in parts.items()})

    @property
    def metric(self) -> str:
        """The data's; of a test part without joints agreement with the mentors."""
        return AGREEMENT if self.by_vote(self.context.data.test) else self._by_joints

    @property
    def val_metric(self) -> str:
        """The same of the validation part; a detector's boxes are the test part's alone."""
        return AGREEMENT if self.by_vote(self.context.data.val) else self._by_joints.replace("AP_detector", "AP_gtbox")

    @property
    def _by_joints(self) -> str:
        """What counts on people who have joints."""
        name: str = self.context.data.metric
        return name if self.people.boxes == "detector" else name.replace("AP_detector", "AP_gtbox")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the student's input."""
        return self.context.data.shape[1], self.context.data.shape[2]

    @cached_property
    def coding(self) -> Coding:
        """How the student's answers are to be read: by its head, which one dry forward shows."""
        coding = self._coding(self.networks.blank_student(), self.size, len(self.skeleton), "student")
        known = {field.name for field in fields(coding)} & self.options.model_fields_set
        return replace(coding, **{key: getattr(self.options, key) for key in _CODING if key in known})

    def _coding(self, network: nn.Module, size: tuple[int, int], joints: int, role: str) -> Coding:
        """How a network's answers are to be read, by one dry forward.

        Raises:
            UserError: it does not take such images, or does not answer ``joints`` joints.
        """
        answer = self.blank_answer(network, role, size)
        if answer.dim() not in (3, 4) or answer.shape[1] != joints:
            got = f"{answer.shape[1]} joints" if answer.dim() in (3, 4) else f"shape {tuple(answer.shape)}"
            raise UserError(
                f"{role}: the network answers {got}, its skeleton has {joints} joints; a pose network gives "
                "(B, joints, x-bins + y-bins) or (B, joints, height, width); a mentor of other joints says which: "
                "skeleton: coco"
            )
        return coding_of(network, answer, size, role)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """See the base."""
        return tuple(self.coding.answer_shape)

    def task_for(self, train: TrainSpec, mentor: MentorSpec | None = None, module: nn.Module | None = None) -> Task:
        """See the base; a mentor's coding is that of its own head and size.

        Raises:
            UserError: label smoothing, which joints do not have.
        """
        if train.label_smoothing:
            raise UserError("train.label_smoothing: joints are taught by smooth targets already; leave it out")
        coding = self.coding
        if mentor is not None and module is not None:
            coding = self._coding_of_mentor(mentor, module, mentor.shape or self.size)
        lack, options = bool(self.context.data.unlabelled), self.options
        return Pose(coding, self.skeleton, per=options.per, distil_hidden=options.distil_hidden, unlabelled=lack)

    def skeleton_of(self, mentor: MentorSpec | None) -> Skeleton:
        """The joints a mentor answers: by name, as a list, or the data's.

        Raises:
            UserError: an unknown skeleton.
        """
        if mentor is None or (mentor.skeleton is None and "skeleton" not in self._written(mentor)):
            return self.skeleton
        said = in_recipe(mentor)  # else a student of ours says which joints it answers
        return written_skeleton(str(mentor.checkpoint), self._written(mentor)) if said is None else said

    def _written(self, mentor: MentorSpec) -> dict[str, str]:
        """What a mentor's checkpoint says of itself; nothing where it was not written here."""
        if mentor.checkpoint is None or not mentor.taken_as_is:
            return {}
        if mentor.name not in self._checkpoints:
            about = read_checkpoint(mentor.checkpoint, what=f"mentor '{mentor.name}'")[1]
            self._checkpoints[mentor.name] = about if about.get("task") == Pose.name else {}
        return self._checkpoints[mentor.name]

    def _coding_of_mentor(self, mentor: MentorSpec, module: nn.Module, size: tuple[int, int]) -> Coding:
        """How a mentor's answers are to be read: by its head, its checkpoint, and what the recipe says of it.

        Raises:
            UserError: ``head`` has an option that its coding does not.
        """
        joints, who = len(self.skeleton_of(mentor)), f"mentor '{mentor.name}'"
        coding = self._coding(module, size, joints, who)
        if "coding" in self._written(mentor):
            written = written_coding(str(mentor.checkpoint), self._written(mentor))
            if written.answer_shape == coding.answer_shape and written.kind == coding.kind:
                coding = written
        known = {field.name for field in fields(coding)} - {"size", "joints"}
        if unknown := [key for key in mentor.head if key not in known]:
            near = did_you_mean(unknown[0], known)
            raise UserError(f"{who}: its head has no option '{unknown[0]}'{near}; there are {', '.join(sorted(known))}")
        return replace(coding, **mentor.head)

    def places(self, mentor: MentorSpec) -> tuple[int | None, ...]:
        """For each of the student's joints, its place in a mentor's answer.

        Raises:
            UserError: joints that one of them does not have; no joint in common.
        """
        places = self.skeleton.places(self.skeleton_of(mentor), mentor.joints)
        if all(place is None for place in places):
            raise UserError(
                f"mentor '{mentor.name}' has no joint of the student's; say which stand for each other: "
                f"joints: {{{self.skeleton.joints[0]}: ITS_NAME}}"
            )
        return places

    def resolve(self, spec: str, mentor: MentorSpec | None = None) -> nn.Module:
        """See the base."""
        from classroomkd.models.pose import resolve_pose

        size = self.size if mentor is None or mentor.shape is None else mentor.shape
        context, count = self.context, len(self.skeleton_of(mentor))
        network: nn.Module = resolve_pose(
            spec, count, size, trust_code=context.trust_code, in_channels=context.data.shape[0]
        )
        return network

    def check_network(
        self, module: nn.Module, role: str, mentor: MentorSpec | None = None, size: tuple[int, int] | None = None
    ) -> None:
        """See the base; a mentor must know joints of the student's."""
        if mentor is not None:
            given = mentor.name in self.context.given
            trained = not mentor.taken_as_is and not given and not self.comes_trained(mentor.model)
            if trained and self.places(mentor) != tuple(range(len(self.skeleton))):
                raise UserError(
                    f"{role}: a mentor with joints of its own, or in an order of its own, needs checkpoint: FILE; the "
                    "run trains mentors on the data's joints alone"
                )
            self.places(mentor)
        if mentor is None:
            self._coding(module, size or self.size, len(self.skeleton), role)
        else:
            self._coding_of_mentor(mentor, module, size or self.size)

    def expect(self, answer: Tensor, role: str, mentor: MentorSpec | None) -> None:
        """See the base; :meth:`check_network` does it all."""

    def wrap(self, spec: MentorSpec, module: nn.Module, mean: Any, std: Any, size: tuple[int, int] | None) -> Mentor:
        """See the base; answers are translated into the student's head, bins and joints."""
        own = size or self.size
        coding = self._coding_of_mentor(spec, module, own)
        translate = Translation(coding, self.coding, self.places(spec), f"mentor '{spec.name}'")
        return Mentor(module, spec.name, mean=mean, std=std, size=size, taps=dict(spec.taps), translate=translate)

    def lineage(self, spec: MentorSpec, mentor: Mentor) -> dict[str, Any]:
        """See the base: how its answers are read, what they are translated into and by which rules, and its joints."""
        assert isinstance(mentor.translate, Translation)
        own = mentor.translate.mentor.plain()
        return {"own": own, "answers": self.coding.plain(), "joints": self.places(spec), "translation": VERSION}

    def taught_by(self) -> dict[str, Any]:
        """See the base: all but how answers are scored."""
        return {key: value for key, value in self.context.recipe.task.options.items() if key != "flip_test"}

    def about(self) -> dict[str, str]:
        """See the base: skeleton and head."""
        options = self.context.recipe.data.options
        crop = {"padding": options.get("padding", PADDING), "canvas": options.get("canvas", 1.0)}
        if self.people.category != 1:
            crop["category"] = self.people.category
        if self.options.flip_test:
            crop["flip_test"] = True
        return {
            "skeleton": json.dumps(self.skeleton.plain()),
            "coding": json.dumps(self.coding.plain()),
            "crop": json.dumps(crop),
        }

    def comes_trained(self, spec: str) -> bool:
        """See the base; those that can only teach."""
        from classroomkd.models.pose import mentor_only

        return mentor_only(spec)

    def start_pretrained(self, module: nn.Module, spec: StudentSpec | MentorSpec | PeerSpec) -> dict[str, str]:
        """See the base: of its body."""
        from classroomkd.models.pose.published import start_body

        return {} if self.comes_trained(spec.model) else start_body(module, spec.model)

    def answers_of(self, mentor: MentorSpec | None) -> tuple[str, ...]:
        """See the base: joints."""
        return tuple(self.skeleton_of(mentor).joints)

    def meet(self, module: nn.Module, path: str, metadata: dict[str, str]) -> str:
        """See the base: joints are not reordered; a student starts from a file of the same ones in the same order."""
        if metadata.get("task") != Pose.name or "skeleton" not in metadata:
            return ""
        written = written_skeleton(path, metadata).joints
        differ = [(a, b) for a, b in zip(written, self.skeleton.joints, strict=False) if a != b]
        if differ:
            raise UserError(
                f"student: {path} answers the joint '{differ[0][0]}' where the data has '{differ[0][1]}'; take a file "
                "of the same joints, or reset_head: true to start without its head"
            )
        return ""

    def refuse_training(self, index: int) -> str | None:
        """See the base: specialists and wrong labels are made by class; an assistant answers as the student does."""
        spec = self.context.recipe.mentors[index]
        if spec.train is not None and (spec.train.classes is not None or spec.train.label_noise):
            key = "classes" if spec.train.classes is not None else "label_noise"
            return f"mentors.{index}.train.{key}: joints have no classes; use samples: N for a weaker mentor"
        if spec.taught_by is not None:
            module = self.networks.mentor(spec.name)
            coding = self._coding(module, spec.shape or self.size, len(self.skeleton), spec.name)
            if coding.plain() != self.coding.plain():
                return f"mentors.{index}.taught_by: an assistant has the student's head and size; {spec.model} has not"
        return None

    def score(self, answers: Tensor, target: Tensor, ids: Tensor) -> Score:
        """See the base."""
        batches = zip(torch.split(answers, _AT_ONCE), torch.split(target, _AT_ONCE), strict=True)
        return self._scored(batches, ids)

    def evaluate(self, network: nn.Module, part: Part, inputs: Inputs, batch_size: int) -> Score:
        """See the base; with ``flip_test`` the mean of a crop's and its mirror image's answers."""
        return self._scored(self.answers(network, part, inputs, batch_size), part.ids)

    def answers(
        self, network: nn.Module, part: Part, inputs: Inputs, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch a student's answers as they are scored, and the targets."""
        flip, views = self.options.flip_test, self.context.base_views
        return read_answers(
            network, part, inputs, self.coding, self.skeleton, flip=flip, batch_size=batch_size, views=views
        )

    def by_vote(self, part: Part) -> bool:
        """See the base: where everybody is marked as without joints."""
        return len(part) > 0 and not bool(part.labelled.any())

    def voted(self, answers_MN: Tensor) -> Tensor:
        """See the base: the places of the mean of the mentors' answers, ``(N, K, 3)``."""
        return agreement.agreed(self._unlabelled, answers_MN)

    def together(self, answers_MN: Tensor) -> Tensor:
        """See the base: the mean of their distributions over bins, or of their maps."""
        return self.coding.mean(answers_MN.unbind())

    def apart(self, answers_MB: Tensor) -> Tensor:
        """See the base, by joints: those whose places are further apart than an OKS of 1/2."""
        return agreement.pairs_apart(self._unlabelled, answers_MB)

    def agreement(
        self, answers: Tensor, target: Tensor, answers_MN: Tensor, names: Sequence[str]
    ) -> Mapping[str, float]:
        """See the base: how often the student has a joint where each mentor has it."""
        return agreement.against_mentors(self._unlabelled, answers, answers_MN, names)

    def opinions(self, answers_MB: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See the base: how far each mentor has the joints from where they agree they are, 1 less the mean OKS."""
        return agreement.apart(self._unlabelled, answers_MB), self._unlabelled.doubts(answers_MB), None

    def identified(self, ids: Tensor) -> dict[str, list[str]]:
        """See the base: several persons may be in one picture."""
        return {"annotation": [str(number) for number in self.people.of(ids).annotation]}

    @cached_property
    def _unlabelled(self) -> Pose:
        return Pose(self.coding, self.skeleton, unlabelled=True)

    @cached_property
    def _by_vote(self) -> frozenset[int]:
        """Ids of the persons who are scored by what the mentors agree on."""
        data = self.context.data
        return frozenset(i for part in (data.val, data.test) if self.by_vote(part) for i in part.ids.tolist())

    def _scored(self, batches: Iterable[tuple[Tensor, Tensor]], ids: Tensor) -> Score:
        if len(ids) and int(ids[0]) in self._by_vote:  # a part is one thing or the other
            return agreement.score(self._unlabelled, batches)
        return self._judged(batches, ids)

    def _judged(self, batches: Iterable[tuple[Tensor, Tensor]], ids: Tensor) -> Score:
        decoded, loss, knows = sum_up(batches, self.coding, self.task)
        test = torch.equal(ids.cpu(), self.context.data.test.ids.cpu())
        answers_to = None if all(knows) else knows
        first, per_joint, more = judge(
            self.people, self.skeleton, ids, decoded, metric=self._by_joints, test=test, answers_to=answers_to
        )
        return Score(first, loss, per_joint, len(ids), more)

    def calibration(self, answers_MN: Tensor, target: Tensor) -> Calibration:
        """See the base."""
        return calibrate(self.task, answers_MN, target)

    def chance(self) -> tuple[float, str]:
        """See the base: a network that answers the mean pose of the validation part everywhere."""
        val = self.context.data.val
        pose = agreement.mean_pose(val.target)
        first, _, _ = judge(self.people, self.skeleton, val.ids, pose, metric=self._by_joints)
        return first, f"the mean pose alone has {first:.1%}"

    def chance_of(self, target: Tensor) -> tuple[float, str]:
        """See the base: the mean pose of these everywhere."""
        always = self.coding.ideal(agreement.mean_pose(target))
        value = agreement.score(self._unlabelled, [(always, target)]).value
        return value, f"the mean pose alone has {value:.1%}"
