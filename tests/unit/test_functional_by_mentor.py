"""What is computed for all mentors at once is what each of them gives alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from classroomkd import functional
from classroomkd.functional import relations

ByMentor = Callable[[Tensor, Sequence[Tensor]], Tensor]
Alone = Callable[[Tensor, Tensor], Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_several_seeds_draw_what_each_draws() -> None:
    ids = torch.tensor([[0, 7, 2**40], [3, 2**62, 11]])
    seeds = [0, 1, 7919, 2**63 + 5, 10**30]
    together = functional.draw(ids, 4, seeds)
    assert torch.equal(together, torch.stack([functional.draw(ids, 4, seed) for seed in seeds]))
    assert len(together.unique()) == together.numel()


def test_draws_stay_what_they_were() -> None:
    """A run that is taken up again draws on from where it was, so not a bit of them may change."""
    found = functional.draw(torch.tensor([0, 1, 12345]), 3, [2, 2 + 7919])
    expected = [[7859752, 13783098, 10973256], [5946450, 6458166, 10091885]]
    assert (found * 2**24).to(torch.int64).tolist() == expected


VECTORS = [random(6, width, seed=width) for width in (3, 5, 4)]
MAPS = [random(6, *shape, seed=i) for i, shape in enumerate(((4, 4, 4), (2, 8, 8), (3, 2, 2), (5, 4, 4), (1, 2, 2)))]
CASES: dict[str, tuple[ByMentor, Alone, list[Tensor]]] = {
    "distances": (relations.rkd_distance_by_mentor, functional.rkd_distance, VECTORS),
    "angles": (relations.rkd_angle_by_mentor, functional.rkd_angle, VECTORS),
    "similarities": (relations.similarity_preserving_by_mentor, functional.similarity_preserving, VECTORS),
    "attention": (relations.attention_transfer_by_mentor, functional.attention_transfer, MAPS),
}


@pytest.mark.parametrize("name", CASES)
def test_relations_to_mentors_of_different_shapes(name: str) -> None:
    together, alone, mentors = CASES[name]
    student = random(*mentors[0].shape, seed=99).requires_grad_()
    theirs = [one.clone().requires_grad_() for one in mentors]
    found = together(student, theirs)
    each = torch.stack([alone(student, one) for one in theirs])
    torch.testing.assert_close(found, each)
    assert len(found.unique()) == len(theirs)
    factors = torch.arange(1.0, len(theirs) + 1)
    grads = [torch.autograd.grad((factors * x).sum(), student)[0] for x in (found, each)]
    torch.testing.assert_close(*grads)
    assert all(grad is None for grad in torch.autograd.grad(found.sum(), theirs, allow_unused=True))


def test_dist_of_a_student_for_each_mentor() -> None:
    students, mentors = random(3, 6, 5), random(3, 6, 5, seed=1)
    mask = torch.rand(3, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    found = functional.dist_by_mentor(students, mentors, mask=mask)
    each = [functional.dist_by_mentor(students[m], mentors[m : m + 1], mask=mask[m : m + 1]) for m in range(3)]
    torch.testing.assert_close(found, torch.cat(each))
