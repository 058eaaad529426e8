"""One mentor and one student: baselines on logits and relations between features, by hand where a hand suffices."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from by_method import distilled, rule_of
from classroomkd import functional, methods
from classroomkd.classroom import Classroom
from classroomkd.errors import UserError
from classroomkd.functional.relations import angles, distances

NAN, INF = float("nan"), float("inf")


def answers(m: int = 3, b: int = 6, c: int = 5, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    student, mentors = torch.randn(b, c, generator=draw), torch.randn(m, b, c, generator=draw)
    target = torch.randint(c, (b,), generator=draw)
    return (scale * student).double().requires_grad_(), (scale * mentors).double(), target


def gradient(loss: Tensor, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, student, retain_graph=True)
    return found


# Baselines on logits


def test_dkd_reduces_to_its_parts_and_to_kd() -> None:
    student, mentors, target = answers()
    t = 4.0
    p, q = (mentors / t).softmax(-1), (student / t).softmax(-1)
    true_p, true_q = (x.gather(-1, target.expand(x.shape[:-1])[..., None]).squeeze(-1) for x in (p, q))
    binary = true_p * (true_p / true_q).log() + (1 - true_p) * ((1 - true_p) / (1 - true_q)).log()
    torch.testing.assert_close(functional.dkd_per_sample(student, mentors, target, 1.0, 0.0), t**2 * binary)
    plain = functional.kd(student.unsqueeze(0), mentors)
    torch.testing.assert_close(functional.dkd_per_sample(student, mentors, target, 1.0, 1 - true_p), plain)
    one = functional.dkd_per_sample(student, mentors[1], target, 2.0, 3.0)
    torch.testing.assert_close(functional.dkd_per_sample(student, mentors, target, 2.0, 3.0)[1], one)
    torch.testing.assert_close(distilled("dkd", student, mentors[1], target, alpha=2.0, beta=3.0), one.mean())
    # Units between samples and classes.
    torch.testing.assert_close(
        functional.dkd_per_sample(student[:, None], mentors[:, :, None], target[:, None])[..., 0],
        functional.dkd_per_sample(student, mentors, target),
    )


def test_dkd_of_extreme_logits() -> None:
    teacher = torch.tensor([[500.0, -500.0, 0.0], [0.0, -INF, 1.0], [-INF, 0.0, 1.0]])
    student = torch.tensor([[-400.0, 900.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = functional.dkd_per_sample(student, teacher, torch.zeros(3, dtype=torch.int64), temperature=1.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    two = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    binary = distilled("dkd", two, two.flip(1), torch.tensor([0]), temperature=2.0)
    torch.testing.assert_close(binary, functional.kd(two, two.flip(1), 2.0).mean())  # one wrong class: nothing among


def test_dkd_of_one_class_is_refused() -> None:
    """It was NaN: nothing among no wrong classes."""
    for loss in (rule_of("dkd"), functional.dkd_per_sample):
        with pytest.raises(UserError, match="of one class there are none: use kd"):
            loss(torch.randn(3, 1), torch.randn(3, 1), torch.zeros(3, dtype=torch.int64))
    room = Classroom(nn.Linear(4, 1), [nn.Linear(4, 1)], "dkd")
    with pytest.raises(UserError, match="dkd compares the wrong classes"):
        room(torch.randn(3, 4), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize(("b", "c"), [(1, 2), (8, 10), (64, 1000)])
def test_dist_of_a_flat_student_has_a_bounded_gradient(tau: float, b: int, c: int) -> None:
    """It was 6e5 in float32 and infinite in float16."""
    mentors = 3 * torch.randn(2, b, c, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float16):
        student = torch.zeros(b, c, dtype=dtype, requires_grad=True)
        found = gradient(
            2 * functional.dist_by_mentor(student, mentors, tau=tau).mean(), student
        )  # the method's weight
        assert found.isfinite().all()
        assert found.abs().max() < 4e4
        assert (found * mentors.mean(0).sub(mentors.mean((0, 2))[:, None])).sum() < 0  # towards the mentors
    # Logits 0.01 apart are past it: the released gradient to the bit.
    student, (mentor,), _ = answers(1, b=8, c=10, scale=0.01)
    p, q = (student / tau).softmax(-1), (mentor / tau).softmax(-1)

    def between(dim: int) -> Tensor:
        a, b = p - p.mean(dim, keepdim=True), q - q.mean(dim, keepdim=True)
        return 1 - ((a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + 1e-8)).mean()

    released = tau**2 * (between(1) + between(0))
    ours = functional.dist(student, mentor, tau=tau)
    torch.testing.assert_close(ours, released, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, student), gradient(released, student), rtol=1e-10, atol=1e-12)


def test_dist_is_zero_for_an_affine_map_of_the_probabilities() -> None:
    _, mentors, _ = answers(m=1, b=8)
    p = mentors[0].softmax(-1)
    mixed = (0.4 * p + 0.6 / p.shape[-1]).log()
    assert functional.dist(mixed, mentors[0]).item() == pytest.approx(0, abs=1e-6)
    other = answers(m=1, b=8, seed=5)[1][0]
    assert functional.dist(other, mentors[0]).item() > 0.1


def test_dist_by_hand_at_a_temperature() -> None:
    student, mentors, _ = answers(m=2, b=7)
    for m, mentor in enumerate(mentors):
        p, q = (student / 4).softmax(-1), (mentor / 4).softmax(-1)
        rows = torch.stack([torch.corrcoef(torch.stack([p[i], q[i]]))[0, 1] for i in range(7)])
        columns = torch.stack([torch.corrcoef(torch.stack([p[:, i], q[:, i]]))[0, 1] for i in range(5)])
        expected = 16 * (2 * (1 - rows.mean()) + 3 * (1 - columns.mean()))
        found = functional.dist_by_mentor(student, mentors, 2.0, 3.0, 4.0)
        torch.testing.assert_close(found[m], expected, rtol=1e-5, atol=1e-6)  # DIST's 1e-8 beside the norms
        torch.testing.assert_close(functional.dist(student, mentor, 2.0, 3.0, 4.0), found[m])


def test_dist_without_the_rows_that_do_not_count() -> None:
    student, mentors, _ = answers(m=3, b=8)
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(2)) < 0.7
    mask[2] = False
    hidden = torch.where(mask[..., None], mentors, NAN)
    found = functional.dist_by_mentor(student, hidden, mask=mask)
    for m in range(2):
        torch.testing.assert_close(found[m], functional.dist(student[mask[m]], mentors[m][mask[m]]))
    assert found[2] == 0
    assert gradient(found.sum(), student).isfinite().all()
    torch.testing.assert_close(
        functional.dist_by_mentor(student, mentors, mask=mask[0])[1],
        functional.dist(student[mask[0]], mentors[1][mask[0]]),
    )


def test_dtkd_by_hand() -> None:
    student, mentors, _ = answers(m=2, b=6, scale=3.0)
    top_s, top_m = student.amax(-1).clamp_min(1e-3), mentors.amax(-1).clamp_min(1e-3)
    t_s, t_m = (8 * top / (top_s + top_m) for top in (top_s, top_m))
    log_p = (mentors / t_m[..., None]).log_softmax(-1)
    dynamic = (log_p.exp() * (log_p - (student / t_s[..., None]).log_softmax(-1))).sum(-1)
    expected = 3 * t_s * t_m * dynamic + functional.kd(student.unsqueeze(0), mentors)
    flowing = functional.dtkd_per_sample(student, mentors, floor=0)  # as released: gradients through temperatures
    torch.testing.assert_close(flowing, expected)
    torch.testing.assert_close(gradient(flowing.sum(), student), gradient(expected.sum(), student))
    held = functional.dtkd_per_sample(student, mentors, detach_temperature=True, floor=0)
    torch.testing.assert_close(held, expected)
    assert not torch.allclose(gradient(held.sum(), student), gradient(expected.sum(), student))


def test_dtkd_reads_nobody_at_a_temperature_below_its_floor() -> None:
    """The student's would be 0.00133 here: an answer near chance read as if it were sure."""
    student = torch.tensor([[-3.0, -4.0, -5.0]], dtype=torch.float64, requires_grad=True)
    mentor = torch.tensor([[6.0, 2.0, 0.0]], dtype=torch.float64)
    theirs = 8 * 6 / 6.001
    for floor, own in ((1.0, 1.0), (0.0, 8 * 0.001 / 6.001), (2.5, 2.5)):
        found = functional.dtkd_per_sample(student, mentor, alpha=1, beta=0, floor=floor)
        torch.testing.assert_close(found, dynamic(student, own, mentor, theirs))
        torch.testing.assert_close(
            *(gradient(x.sum(), student) for x in (found, dynamic(student, own, mentor, theirs)))
        )
    default = functional.dtkd_per_sample(student, mentor, alpha=1, beta=0)
    torch.testing.assert_close(default, dynamic(student, 1.0, mentor, theirs))
    method = methods.create("dtkd", alpha=1, beta=0)
    assert method.divergence.floor == 1.0
    assert method.divergence.detach is False
    # It holds for the mentor too, and where T itself is below it.
    both = functional.dtkd_per_sample(mentor, student.detach(), alpha=1, beta=0)
    torch.testing.assert_close(both, dynamic(mentor, theirs, student.detach(), 1.0))
    low = functional.dtkd_per_sample(student, mentor, alpha=1, beta=0, temperature=0.5)
    torch.testing.assert_close(low, dynamic(student, 1.0, mentor, 1.0))


def dynamic(student: Tensor, own: float, mentor: Tensor, theirs: float) -> Tensor:
    """DTKD's part at two temperatures."""
    log_p = (mentor / theirs).log_softmax(-1)
    return own * theirs * (log_p.exp() * (log_p - (student / own).log_softmax(-1))).sum(-1)


def test_dtkd_where_the_largest_logit_is_not_positive() -> None:
    logits = torch.tensor([[-1.0, -2.0], [0.0, 0.0], [-5.0, 5.0], [3.0, -INF]])
    for student, teacher in ((logits, logits.flip(0)), (logits - 100, logits), (logits, logits - 100)):
        for detach in (True, False):
            student = student.clamp_min(-200).requires_grad_()
            loss = functional.dtkd_per_sample(student, teacher, detach_temperature=detach)
            assert loss.isfinite().all()
            assert (loss >= -1e-4).all()
            assert gradient(loss.sum(), student).isfinite().all()
    both_low = functional.dtkd_per_sample(logits[:1], logits[:1].flip(1), alpha=1.0, beta=0.0)
    torch.testing.assert_close(both_low, functional.kd(logits[:1], logits[:1].flip(1)))  # both temperatures are T


def test_finite_logits() -> None:
    found = functional.finite_logits(torch.tensor([[1.0, -INF, 3.0], [-INF, -INF, -INF], [INF, -INF, 2.0]]))
    assert found.tolist() == [[1, -19, 3], [-20, -20, -20], [INF, -18, 2]]
    assert functional.finite_logits(torch.tensor([NAN, -INF, 1.0])).isnan().tolist() == [True, False, False]
    half = functional.finite_logits(torch.tensor([1.0, -INF], dtype=torch.float16))
    assert half.dtype == torch.float32
    logits = torch.tensor([1.0, -INF, 3.0], requires_grad=True)
    assert gradient(functional.finite_logits(logits).sum(), logits).tolist() == [1, 0, 1]


# Relations between features


def test_rkd_does_not_see_motion_turning_or_scale() -> None:
    draw = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(7, d, generator=draw, dtype=torch.float64) for d in (4, 6))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=draw, dtype=torch.float64)).Q
    moved = 30 * student @ turn + 5
    torch.testing.assert_close(functional.rkd(moved, teacher), functional.rkd(student, teacher))
    assert functional.rkd(moved, student).item() == pytest.approx(0, abs=1e-12)
    assert functional.rkd(student, teacher).item() > 0.1


def test_rkd_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(distances(x)[0], torch.tensor([0.0, 3 / 4, 1.0], dtype=torch.float64))  # the mean is 4
    corner = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(angles(x)[0], corner)
    assert angles(x)[1, 0, 2].item() == pytest.approx(3 / 5)
    y = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    both = 2 * functional.rkd_distance(x, y) + 3 * functional.rkd_angle(x, y)
    torch.testing.assert_close(functional.rkd(x, y, 2.0, 3.0), both)


def test_distances_of_features_far_from_zero() -> None:
    x = 300 + torch.randn(8, 6, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(distances(x).double(), distances(x.double()), rtol=1e-5, atol=1e-6)


def test_rkd_of_samples_at_one_place() -> None:
    draw = torch.Generator().manual_seed(4)
    teacher = torch.randn(4, 3, generator=draw)
    for student in (torch.zeros(4, 3), torch.randn(2, 3, generator=draw).repeat(2, 1)):
        loss = functional.rkd(student.requires_grad_(), teacher)
        grad = gradient(loss, student)
        assert loss.isfinite()
        assert grad.isfinite().all()
        assert grad.abs().max() < 1e3
    assert functional.rkd(torch.ones(1, 3), torch.ones(1, 5)).item() == 0


def test_attention_transfer_by_hand() -> None:
    student = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0]]]], dtype=torch.float64)
    a, b = 9 / math.hypot(9, 16), 16 / math.hypot(9, 16)
    half = math.sqrt(0.5)
    expected = ((a - half) ** 2 + (b - half) ** 2) / 2
    assert functional.attention_transfer(student, teacher).item() == pytest.approx(expected)
    for p in (1, 1.5, 3, 4.0):
        u, v = (x**p / math.hypot(3**p, 4**p) for x in (3, 4))
        loss = functional.attention_transfer(student, teacher, p)
        assert loss.item() == pytest.approx(((u - half) ** 2 + (v - half) ** 2) / 2)
    with pytest.raises(UserError, match="p of 1 or more"):
        functional.attention_transfer(student, teacher, 0.5)


@pytest.mark.parametrize(("ours", "theirs"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((7, 7), (4, 4)), ((8, 4), (4, 8))])
def test_attention_of_maps_of_two_sizes(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(5)
    student = torch.randn(2, 3, *ours, generator=draw, dtype=torch.float64)
    teacher = torch.randn(2, 5, *theirs, generator=draw, dtype=torch.float64)
    size = [min(pair) for pair in zip(ours, theirs, strict=True)]
    p, q = (F.normalize(F.adaptive_avg_pool2d(x, size).square().mean(1).flatten(1)) for x in (student, teacher))
    torch.testing.assert_close(functional.attention_transfer(student, teacher), (p - q).square().mean())


def test_similarity_preserving_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double().view(2, 2, 1, 1)
    teacher = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).double()
    s = math.sqrt(0.5)  # rows of ones brought to length 1, against the unit matrix
    expected = 2 * ((1 - s) ** 2 + s**2) / 4
    assert functional.similarity_preserving(student, teacher).item() == pytest.approx(expected)
    assert functional.similarity_preserving(5 * teacher, teacher).item() == pytest.approx(0)
    dead = torch.zeros(3, 4, requires_grad=True)
    assert gradient(functional.similarity_preserving(dead, torch.eye(3)), dead).isfinite().all()
