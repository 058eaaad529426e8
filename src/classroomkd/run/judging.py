"""What networks are scored against: a part's labels or, where it has none, the class that the mentors agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from classroomkd.errors import UserError
from classroomkd.run.answers_file import load_answers
from classroomkd.run.mentor_record import MentorRecord
from classroomkd.train.scoring import Score, answers

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.run.networks import Networks
    from classroomkd.train.inputs import Inputs

__all__ = ["TEST", "VAL", "Judging", "by_vote", "near_chance", "vote_score", "with_agreement"]

VAL, TEST = "validation", "test"


def by_vote(networks: Networks) -> list[str]:
    """Which of the validation and the test part have no label, and are scored by agreement with the mentors' vote."""
    data, runner = networks.context.data, networks.task_runner
    return [name for name, part in ((VAL, data.val), (TEST, data.test)) if runner.by_vote(part)]


@dataclass(frozen=True, eq=False)
class Judging:
    """What the networks of a run are scored on.

    Attributes:
        networks: of the run.
        val, test: the parts; the class of the mentors' vote is the target where a part has no label, and samples to
            which no mentor gives a finite answer are left out.
        names: of the mentors.
        said: by the name of each part that is scored by the mentors' vote their answers to it, ``(M, N, …)``.
    """

    networks: Networks
    val: Part
    test: Part
    names: Sequence[str]
    said: Mapping[str, Tensor]

    @classmethod
    def of(cls, networks: Networks, mentors: Sequence[MentorRecord]) -> Judging:
        """What a run with these mentors scores on.

        Raises:
            UserError: no mentor gives a finite answer to any sample of a part without labels.
        """
        parts, said = {VAL: networks.context.data.val, TEST: networks.context.data.test}, dict[str, Tensor]()
        files = {VAL: [m.val_logits for m in mentors], TEST: [m.test_logits for m in mentors]}
        for name in by_vote(networks):
            stored = [torch.from_numpy(load_answers(file, len(parts[name]))) for file in files[name]]
            target = networks.task_runner.voted(torch.stack(stored))
            voted = replace(parts[name], target=target.to(parts[name].target.device))
            kept = voted.labelled.nonzero().flatten().cpu()
            if not len(kept):
                raise UserError(f"data: no mentor gives a finite answer to any picture of the {name} part")
            parts[name] = voted.subset(kept)
            said[name] = torch.stack(stored)[:, kept]
        return cls(networks, parts[VAL], parts[TEST], [m.name for m in mentors], said)

    @property
    def chooses(self) -> bool:
        """Whether the validation part has labels to choose an epoch by."""
        return VAL not in self.said

    def test_score(self, network: nn.Module, inputs: Inputs, batch_size: int) -> Score:
        """A network's score on the test part; by vote also its agreement with each mentor and its calibration."""
        runner = self.networks.task_runner
        if TEST not in self.said:
            return runner.evaluate(network, self.test, inputs, batch_size)
        found, target = answers(network, self.test, inputs, batch_size, self.networks.context.base_views)
        score = runner.score(found, target, self.test.ids)
        return replace(score, more={**score.more, **runner.agreement(found, target, self.said[TEST], self.names)})

    def mentors_score(self, name: str) -> list[Score]:
        """The mentors' own scores on a part that is scored by their vote."""
        part = self.val if name == VAL else self.test
        return [self.networks.task_runner.score(its, part.target.to(its.device), part.ids) for its in self.said[name]]

    def digest(self) -> str | None:
        """SHA-256 of the test part with what was voted: other votes make other scores. None where it has labels."""
        return self.test.digest() if TEST in self.said else None


def with_agreement(networks: Networks, mentors: Sequence[MentorRecord]) -> tuple[list[MentorRecord], str | None]:
    """The mentors; on parts without labels the score of each is its agreement with the vote of all of these.

    Returns:
        They, and a digest of the vote on the test part; None where that has labels.
    """
    judged = list(mentors)
    if not mentors or not by_vote(networks):
        return judged, None
    judging = Judging.of(networks, mentors)
    if VAL in judging.said:
        judged = [replace(m, val_accuracy=s.value) for m, s in zip(judged, judging.mentors_score(VAL), strict=True)]
    if TEST in judging.said:
        scores = judging.mentors_score(TEST)
        judged = [replace(m, accuracy=s.value, per_class=s.per_class) for m, s in zip(judged, scores, strict=True)]
    return judged, judging.digest()


def near_chance(networks: Networks, mentors: Sequence[MentorRecord]) -> list[tuple[MentorRecord, str]]:
    """Mentors whose agreement with the vote on a validation part without labels is chance, and words for that."""
    if len(mentors) < 2:
        return []  # a vote of one is its own
    limit, words = networks.task_runner.chance_of(Judging.of(networks, mentors).val.target)
    return [(mentor, words) for mentor in mentors if mentor.val_accuracy <= limit]


def vote_score(networks: Networks, mentors: Sequence[MentorRecord]) -> float | None:
    """The score of the mentors' vote on the labelled samples of the test part, what students may be held against.

    None where mentors of this task are not scored together, where there are fewer than two, or where no sample has a
    label.
    """
    runner, part = networks.task_runner, networks.context.data.test
    if len(mentors) < 2 or not runner.scores_vote or not bool(part.labelled.any()):
        return None
    stored = [torch.from_numpy(load_answers(m.test_logits, len(part))) for m in mentors]
    together = runner.together(torch.stack(stored))
    known = (part.labelled.cpu() & ~together.isnan().any(-1)).nonzero().flatten()
    if not len(known):
        return None
    return runner.score(together[known], part.target.cpu()[known], part.ids.cpu()[known]).value
