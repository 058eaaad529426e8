"""fitnet, at, rkd, sp and crd: their terms are the formulas', everything they train learns, ranks and resumes agree."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classroomkd import functional, methods, models, tasks
from classroomkd.classroom import Answers, ClassInfo, Classroom, Lesson, Method, Shapes
from classroomkd.errors import UserError
from classroomkd.methods.pieces.memory import Memory
from classroomkd.recipe import load_recipe

TASK = tasks.create("classification")
FAMILY = ["fitnet", "at", "rkd", "sp", "crd"]
B, C, N = 6, 4, 24
IDS, LABELS = torch.arange(N).flip(0) * 5 + 2, torch.arange(N) % C
ROOT = Path(__file__).parents[3]

family = pytest.mark.parametrize("name", FAMILY)


def built(name: str, student: dict[str, Tensor], mentors: dict[str, tuple[Tensor, ...]], **options: Any) -> Method:
    """A method that was set up for these features."""
    torch.manual_seed(7)
    method = methods.create(name, **options)
    count = len(next(iter(mentors.values())))
    shapes = Shapes(
        C,
        {tap: tuple(x.shape[1:]) for tap, x in student.items()},
        {tap: tuple(tuple(x.shape[1:]) for x in several) for tap, several in mentors.items()},
    )
    scores = [0.1 * m for m in range(count)]
    method.setup(ClassInfo(TASK, [f"m{m}" for m in range(count)], scores, shapes, IDS, LABELS))
    return method


def lesson(
    student: dict[str, Tensor], mentors: dict[str, tuple[Tensor, ...]], ids: Tensor | None = None, **more: Any
) -> Lesson:
    count, size = len(next(iter(mentors.values()))), len(next(iter(student.values())))
    ids = IDS[:size] if ids is None else ids
    logits = torch.linspace(-1, 1, size * C).view(size, C).sin()
    answers = Answers(logits, student), Answers(torch.zeros(count, size, C), mentors)
    return Lesson(torch.empty(0), torch.arange(size) % C, *answers, TASK, ids, **more)


def maps(*shapes: tuple[int, int, int], size: int = B, seed: int = 0) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    return tuple(torch.randn(size, *shape) for shape in shapes)


def vectors(*widths: int, size: int = B, seed: int = 0) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    return tuple(torch.randn(size, width) for width in widths)


# --- the terms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("projector", "layers"), [("conv", (1, True)), ("bottleneck", (3, True)), ("linear", (1, False))]
)
def test_fitnet_is_the_mean_squared_error_of_trained_projections(projector: str, layers: tuple[int, bool]) -> None:
    own, theirs = maps((3, 4, 4), (3, 2, 2)), maps((5, 4, 4), (2, 2, 2), seed=1)
    features = dict(zip("ab", own, strict=True)), {"a": theirs[::-1], "b": theirs}
    method = built("fitnet", *features, tap="a", mentor_tap="b", projector=projector)
    assert set(method.needs.features) == {"a", "b"}
    terms = method(lesson(*features))
    expected = [F.mse_loss(r(own[0]), f) for r, f in zip(method.hints.projectors, theirs, strict=True)]
    torch.testing.assert_close(terms.values["hints"], sum(expected) / 2)
    assert terms.coefficients == {"supervised": 1.0, "hints": 100.0}
    terms.loss().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    parts = [*method.hints.projectors[0].modules()]
    assert (
        sum(isinstance(part, nn.Conv2d) for part in parts),
        any(isinstance(part, nn.ReLU) for part in parts),
    ) == layers


def test_at_is_the_sum_over_taps_and_the_mean_over_mentors() -> None:
    own = dict(zip("xy", maps((3, 8, 8), (4, 4, 4)), strict=True))
    theirs = {"x": maps((5, 8, 8), (2, 4, 4), seed=1), "y": maps((5, 4, 4), (2, 4, 4), seed=2)}
    terms = built("at", own, theirs, taps=["x", "y"], p=3)(lesson(own, theirs))
    expected = [functional.attention_transfer(own[t], one, 3) for t in "xy" for one in theirs[t]]
    torch.testing.assert_close(terms.values["attention"], sum(expected) / 2)
    assert terms.coefficients["attention"] == 1000


def test_rkd_and_sp_are_the_means_of_the_functional_ones() -> None:
    own, theirs = vectors(5)[0], vectors(7, 3, seed=1)
    terms = built("rkd", {"p": own}, {"p": theirs}, tap="p", weight=2)(lesson({"p": own}, {"p": theirs}))
    expected = sum(functional.rkd(own, one) for one in theirs) / 2
    torch.testing.assert_close(terms.loss() - terms.values["supervised"], 2 * expected)
    alone = built("rkd", {"p": own}, {"p": theirs}, tap="p", angle=0)(lesson({"p": own}, {"p": theirs}))
    assert set(alone.values) == {"supervised", "distance"}
    torch.testing.assert_close(alone.values["distance"], terms.values["distance"])
    own, theirs = maps((3, 4, 4))[0], maps((5, 2, 2), (2, 4, 4), seed=1)
    terms = built("sp", {"s": own}, {"s": theirs}, tap="s")(lesson({"s": own}, {"s": theirs}))
    expected = sum(functional.similarity_preserving(own, one) for one in theirs) / 2
    torch.testing.assert_close(terms.values["similarity"], expected)
    assert terms.coefficients["similarity"] == 3000


@family
def test_one_chosen_mentor_is_asked_and_recorded(name: str) -> None:
    room = classroom(name, mentors=3, scores=[0.1, 0.9, 0.5], mentor="best")
    said = room(*batch(B), ids=IDS[:B])
    assert room.method.mentor_indices == (1,)
    assert room.mentors.forwards == 1
    assert said.weight is not None
    assert said.active is not None
    assert said.weight.tolist() == [[0.0] * B, [1.0] * B, [0.0] * B]
    assert torch.equal(said.active, said.weight > 0)
    alone = classroom(name, mentors=3)(*batch(B), ids=IDS[:B])
    assert alone.weight is not None
    torch.testing.assert_close(alone.weight, torch.full((3, B), 1 / 3))
    with pytest.raises(UserError, match=f"{name}: no mentor 'm9'"):
        classroom(name, mentors=3, mentor="m9")


# --- in a classroom ---------------------------------------------------------------------------------------------------


def classroom(name: str, mentors: int = 2, scores: list[float] | None = None, **options: Any) -> Classroom:
    torch.manual_seed(1)
    pool = [models.create(("convnet4", "dwnet8", "resnet8")[m % 3], num_classes=C) for m in range(mentors)]
    method, student = methods.create(name, **options), models.create("convnet8", num_classes=C)
    return Classroom(student, pool, method, scores=scores, image_shape=(3, 32, 32), register=(IDS, LABELS))


def batch(size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(size, 3, 32, 32), torch.arange(size) % C


@family
@pytest.mark.parametrize(("mentors", "size"), [(2, B), (1, 4), (12, 4), (2, 1)])
def test_finite_and_everything_trained_learns(name: str, mentors: int, size: int) -> None:
    room = classroom(name, mentors).train()
    if size == 1:
        room.student.eval()  # its own batch normalisation cannot take one 1x1 map
    said = room(*batch(size), ids=IDS[:size])
    said.loss.backward()
    assert all(v.isfinite() for v in said.terms.values())
    for key, parameter in room.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    if size == 1 and name in ("rkd", "sp"):
        assert sum(v.item() for k, v in said.terms.items() if k != "supervised") == 0


@family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_half_and_double_precision(name: str, dtype: torch.dtype) -> None:
    inputs, target = batch(B)
    wide = classroom(name).eval()(inputs, target, ids=IDS[:B])
    room = classroom(name).eval()
    for network in (room.student, *room.mentors, *([room.method] if dtype == torch.float64 else [])):
        network.to(dtype)
    said = room(inputs.to(dtype), target, ids=IDS[:B])
    said.loss.backward()
    near = 0.25 if dtype == torch.bfloat16 else 1e-3
    for key, value in said.terms.items():
        torch.testing.assert_close(value.float(), wide.terms[key], rtol=near, atol=near / 100)


@family
def test_blank_features_give_no_nan(name: str) -> None:
    own, theirs = torch.zeros(B, 3, 4, 4, requires_grad=True), (torch.zeros(B, 5, 4, 4), maps((5, 4, 4))[0])
    taps = {"taps": ["s"]} if name == "at" else {"tap": "s"}
    own_, theirs_ = (
        (own.mean((2, 3)), tuple(x.mean((2, 3)) for x in theirs)) if name in ("rkd", "crd") else (own, theirs)
    )
    terms = built(name, {"s": own_}, {"s": theirs_}, **taps)(lesson({"s": own_}, {"s": theirs_}))
    terms.loss().backward()
    assert terms.loss().isfinite()
    assert own.grad is not None
    assert own.grad.isfinite().all()


@family
def test_beside_kd_until_an_epoch_and_without_waiting_for_the_device(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = classroom("average", 2)
    options = {"schedule": {"until": {"epochs": 3}}, "mentor": 1}
    method = methods.compose([("kd", {"mentor": 0}), (name, options)])
    room = Classroom(room.student, [*room.mentors], method, image_shape=(3, 32, 32), register=(IDS, LABELS))
    room.epoch = 0.0
    room(*batch(B), ids=IDS[:B])

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("the step waited for the device")

    with monkeypatch.context() as patch:
        for reader in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, reader, forbidden)
        gathered = room.collect(*batch(B), ids=IDS[:B])
        early = method(gathered)
        method.after_step(None, gathered)  # type: ignore[arg-type]
        late = method(Lesson(**{**{k: v for k, v in vars(gathered).items() if k[0] != "_"}, "epoch": 3.0}))
    added = [key for key in early.values if key.startswith(name)]
    assert added
    assert all(early.coefficients[key] > 0 and late.coefficients[key] == 0 for key in added)


def test_a_network_of_one_stage_says_what_it_has() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, C))
    with pytest.raises(UserError, match=r"student has 1 stage.*@stage:-2 does not exist"):
        Classroom(flat, [copy.deepcopy(flat)], "fitnet", image_shape=(3, 32, 32))


# --- over ranks -------------------------------------------------------------------------------------------------------


class Ranks:
    """Two ranks as threads that hand each other their tensors."""

    def __init__(self) -> None:
        self.barrier, self.box = threading.Barrier(2, timeout=300), [torch.empty(0)] * 2

    def gather(self, rank: int, x: Tensor) -> list[Tensor]:
        self.box[rank] = x.detach()
        self.barrier.wait()
        parts = [*self.box]
        self.barrier.wait()
        return parts

    def join(self, rank: int) -> Callable[[Tensor], Tensor]:
        def joined(x: Tensor) -> Tensor:
            parts = self.gather(rank, x)
            if x.requires_grad:
                parts[rank] = x.detach() + 2 * (x - x.detach())
            return torch.cat(parts)

        return joined

    def reduce(self, rank: int) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.stack(self.gather(rank, x)).sum(0)


@pytest.mark.parametrize("name", ["rkd", "sp", "crd"])
def test_two_halves_are_one_batch(name: str) -> None:
    inputs, theirs = vectors(4, size=8)[0].double(), tuple(x.double() for x in vectors(7, 3, size=8, seed=1))
    weight, ids = torch.eye(4, 5).double() + 0.1, IDS[:8]
    method = built(name, {"p": inputs @ weight}, {"p": theirs}, tap="p").double()

    def run(rank: int, part: slice, **more: Any) -> None:
        own, copied = weight.clone().requires_grad_(), copy.deepcopy(method)
        values = []
        for step in range(2):  # what crd remembers of the first step acts in the second
            features = {"p": inputs[part] @ own}, {"p": tuple(x[part] for x in theirs)}
            said = lesson(*features, ids[part], step=step, **more)
            terms = copied(said)
            del terms.values["supervised"]
            values.append(terms.loss())
        values[-1].backward()
        results[rank] = (
            values[-1].detach(),
            own.grad,
            [p.grad for p in copied.parameters()],
            dict(copied.named_buffers()),
        )

    results: dict[int, Any] = {}
    run(2, slice(0, 8))
    ranks = Ranks()
    threads = [
        threading.Thread(
            target=run,
            args=(r, slice(4 * r, 4 * r + 4)),
            kwargs={"join": ranks.join(r), "reduce": ranks.reduce(r)},
        )
        for r in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    averaged = torch.utils._pytree.tree_map(lambda a, b: (a + b) / 2, results[0][:3], results[1][:3])
    torch.testing.assert_close(averaged, results[2][:3])
    torch.testing.assert_close(results[0][3], results[2][3])
    torch.testing.assert_close(results[1][3], results[2][3])


# --- the memory -------------------------------------------------------------------------------------------------------


def memory(draws: int = 5, size: int = 3, labels: Tensor = LABELS) -> Memory:
    return Memory(IDS, labels, 2, size, draws, 0.5, "crd")


def test_rows_are_found_by_id() -> None:
    kept = memory()
    assert torch.equal(kept.ids[kept.find(IDS)], IDS)
    assert kept.find(torch.tensor([1, 3, 9999, -4])).tolist() == [N] * 4
    assert torch.equal(kept.by_class.sort().values, torch.arange(N))
    lengths = torch.tensor([1.0]).expand(2, N)
    torch.testing.assert_close(kept.rows.norm(dim=-1)[:, :N], lengths)


def test_others_are_of_other_classes_and_depend_on_id_and_step_alone() -> None:
    labels = torch.tensor([0] * 3 + [1] * 14 + [2] * 7)
    kept = memory(draws=5000, labels=labels)
    assert kept.draws == N - 14
    kept.draws = 4000
    rows = kept.find(IDS)
    drawn = kept.others(IDS, rows, 3)
    for i, row in enumerate(drawn):
        times = torch.bincount(row, minlength=N)[rows]  # in the register's order
        assert times[labels == labels[i]].sum() == 0
        expected = 4000 / (labels != labels[i]).sum()
        assert (times[labels != labels[i]] - expected).abs().max() < 6 * expected**0.5
    some = torch.tensor([20, 4, 11])
    assert torch.equal(kept.others(IDS[some], rows[some], 3), drawn[some])
    assert not torch.equal(kept.others(IDS, rows, 4), drawn)
    assert len({tuple(row) for row in drawn.tolist()}) == N


def test_rows_move_for_the_seen_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = memory()
    before = kept.rows.clone()
    rows = kept.find(torch.cat([IDS[:3], torch.tensor([9999]), IDS[1:2]]))  # one unknown, one twice
    towards = F.normalize(torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    written, write = [], Tensor.index_copy_
    monkeypatch.setattr(
        Tensor, "index_copy_", lambda self, dim, at, new: (written.extend(at.tolist()), write(self, dim, at, new))[1]
    )
    kept.expect(rows, towards)
    kept.settle()
    assert len({row for row in written if row < N}) == len([row for row in written if row < N]) == 3  # a GPU takes any
    expected = before.clone()
    for i in (0, 4, 2):
        expected[:, rows[i]] = F.normalize(0.5 * before[:, rows[i]] + 0.5 * towards[i], dim=-1)
    torch.testing.assert_close(kept.rows, expected)
    assert kept.rows[:, N].abs().sum() == 0
    kept.settle()
    torch.testing.assert_close(kept.rows, expected)


@pytest.mark.parametrize(
    ("ids", "labels", "says"),
    [
        (torch.tensor([1, 1, 2]), torch.tensor([0, 1, 0]), r"1 id\(s\) of the register are given twice"),
        (torch.arange(3), torch.zeros(3), "holds 1 class"),
        (torch.arange(3), torch.zeros(4), "3 ids and 4 labels"),
    ],
)
def test_a_register_that_cannot_work(ids: Tensor, labels: Tensor, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Memory(ids, labels, 2, 3, 5, 0.5, "crd")


# --- crd --------------------------------------------------------------------------------------------------------------


def crd(**options: Any) -> tuple[Method, Callable[..., Lesson]]:
    own, theirs = vectors(5)[0], vectors(7, 3, seed=1)
    options = {"size": 4, "negatives": 9, "temperature": 0.5, **options}
    method = built("crd", {"@penultimate": own}, {"@penultimate": theirs}, **options)
    return method, lambda **more: lesson({"@penultimate": own}, {"@penultimate": theirs}, **more)


def contrast(method: Method, said: Lesson) -> Tensor:
    return method(said).values["contrast"]


def test_crd_by_hand() -> None:
    method, about = crd()
    method.double()
    said = about(step=4)
    features = (said.student.features["@penultimate"], *said.mentors.features["@penultimate"])  # type: ignore[union-attr]
    v = [F.normalize(F.linear(x.double(), f.weight, f.bias), dim=1) for x, f in zip(features, method.maps, strict=True)]
    rows = method.memory.find(said.ids)
    places = torch.cat([rows[:, None], method.memory.others(said.ids, rows, 4)], 1)
    total = torch.zeros((), dtype=torch.float64)
    for m in (1, 2):
        for anchor, network in ((v[0], m), (v[m], 0)):
            p = ((method.memory.rows[network][places] * anchor[:, None]).sum(-1) / 0.5).exp()
            p = p / (p.mean() * N)
            c = 9 / N
            total -= (p[:, 0] / (p[:, 0] + c)).log().mean() + (c / (p[:, 1:] + c)).log().sum(1).mean()
    torch.testing.assert_close(contrast(method, said), total / 2)


@pytest.mark.parametrize("step", [0, 7])
def test_all_rows_or_the_drawn_ones_give_the_same(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for everything in (True, False):
        monkeypatch.setattr(Memory, "_all", lambda self, everything=everything: everything)
        method, about = crd()
        value = contrast(method, about(step=step))
        value.backward()
        found.append([value, *(p.grad for p in method.parameters())])
    torch.testing.assert_close(found[0], found[1])


def test_the_scale_is_set_once_and_saved() -> None:
    method, about = crd()
    method.eval()
    assert contrast(method, about()).isfinite()
    method.train()
    with torch.no_grad():
        assert contrast(method, about()).isfinite()
    assert (method.scale == -torch.inf).all()
    contrast(method, about())
    first = method.scale.clone()
    assert first.isfinite().all()
    fresh, _ = crd()
    contrast(fresh, about(ids=IDS[B : 2 * B]))  # another scale, which loading replaces
    assert not torch.equal(fresh.scale, first)
    fresh.load_state_dict(method.state_dict())
    contrast(method, about(ids=IDS[B : 2 * B], step=1))
    assert torch.equal(method.scale, first)
    contrast(fresh, about(ids=IDS[B : 2 * B], step=1))
    assert torch.equal(fresh.scale, first)
    assert torch.equal(contrast(fresh, about(step=2)), contrast(method, about(step=2)))  # the memory is the same too
    unset, _ = crd()
    method.load_state_dict(unset.state_dict())  # what a cost probe does: back to before the first step
    contrast(method, about())
    assert torch.equal(method.scale, first)


def test_memory_moves_once_a_training_step() -> None:
    method, about = crd()
    start = method.memory.rows.clone()
    said = about()
    method.eval()(said)
    method.after_step(None, said)  # type: ignore[arg-type]
    with torch.no_grad():
        method.train()(said)
    method.after_step(None, said)  # type: ignore[arg-type]
    assert torch.equal(method.memory.rows, start)
    method(said)
    assert torch.equal(method.memory.rows, start)  # the backward pass still needs them
    method.after_step(None, said)  # type: ignore[arg-type]
    after = method.memory.rows.clone()
    moved = (after != start).any(-1).any(0).nonzero().flatten()
    assert torch.equal(moved, method.memory.find(said.ids).sort().values)
    method.after_step(None, said)  # type: ignore[arg-type]
    assert torch.equal(method.memory.rows, after)
    for settled in (lambda m: m.state_dict(), lambda m: m.eval()(about())):  # a loop that never calls after_step
        other, _ = crd()
        other(said)
        settled(other)
        assert torch.equal(other.memory.rows, after)


def test_unknown_samples_do_not_count() -> None:
    method, about = crd()
    method.eval()
    ids = IDS[:B].clone()
    ids[4:] = torch.tensor([1, 9999])
    said = about(ids=ids)
    own = said.student.features["@penultimate"].requires_grad_()
    value = contrast(method.train(), said)
    value.backward()
    assert value.isfinite()
    assert own.grad is not None
    assert (own.grad[4:] == 0).all()
    assert (own.grad[:4] != 0).any(1).all()


def test_a_student_at_its_mentors_place_has_the_lower_loss() -> None:
    def far(own: Tensor) -> float:
        method = built("crd", {"p": own}, {"p": (goal,)}, tap="p")
        method.maps[1].load_state_dict(method.maps[0].state_dict())
        for part in range(0, N, B):  # everybody is seen, so that the memory holds the features
            for _ in range(6):
                said = lesson({"p": own[part : part + B]}, {"p": (goal[part : part + B],)}, IDS[part : part + B])
                method(said)
                method.after_step(None, said)  # type: ignore[arg-type]
        said = lesson({"p": own}, {"p": (goal,)}, IDS)
        return contrast(method, said).item()

    (goal,) = vectors(16, size=N)
    assert far(goal) < far(vectors(16, size=N, seed=5)[0]) - 1
    assert far(goal) < far(goal.roll(1, 0)) - 1


def test_crd_learns_to_tell_samples_apart() -> None:
    (goal,), own = vectors(16, size=N), nn.Parameter(vectors(16, size=N, seed=5)[0])
    method = built("crd", {"p": own}, {"p": (goal,)}, tap="p", negatives=8)
    optimizer = torch.optim.Adam([own, *method.parameters()], lr=0.01)
    for step in range(80):
        value = contrast(method, lesson({"p": own}, {"p": (goal,)}, IDS, step=step))  # and no after_step
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
    blind = 2 * (math.log(9) + 8 * math.log(9 / 8))  # what is left when every product is the same
    assert value.item() < blind / 2


def test_crd_asks_for_its_register() -> None:
    net = models.create("convnet4", num_classes=C)
    with pytest.raises(UserError, match=r"pass register=\(ids, labels\) to Classroom"):
        Classroom(net, [copy.deepcopy(net)], "crd", image_shape=(3, 32, 32))
    with pytest.raises(UserError, match="needs sample ids"):
        classroom("crd")(*batch(B))


# --- recipes ----------------------------------------------------------------------------------------------------------


@family
def test_the_recipe_is_the_fields(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cifar100").mkdir()
    recipe = load_recipe(ROOT / "recipes" / name / "cifar100.yaml")
    for train in (recipe.train, *(mentor.train for mentor in recipe.mentors)):
        assert train is not None
        assert (train.epochs, train.batch_size, train.lr, train.momentum) == (240, 64, 0.05, 0.9)
        assert (train.milestones, train.gamma, train.weight_decay) == ((150, 180, 210), 0.1, 5e-4)
    assert len(recipe.mentors) == 3
    assert name in {part for arm in recipe.arms() for part, _ in arm.parts}
