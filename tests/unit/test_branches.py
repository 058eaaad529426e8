"""Branches: any network cut behind a place, and what each branch is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from classroomkd import _compat, models
from classroomkd.errors import UserError
from classroomkd.taps.branches import CUT, Branch, cut
from classroomkd.taps.taps import TapReader

X = torch.zeros(2, 3, 16, 16)


class Plain(nn.Module):
    """Written by hand: functions between layers, a parameter of its own on each side, a layer that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.full((1, 4, 1, 1), 2.0)), nn.Parameter(torch.zeros(5))
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.norm, self.idle, self.head = nn.BatchNorm2d(6), nn.Linear(1, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.first(x) * self.scale).relu()
        return self.head(self.norm(self.second(x)).relu().mean((2, 3))) + self.shift  # type: ignore[no-any-return]


class Twice(Plain):
    """Its second convolution runs on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[1] == 4 else self.rest(self.second(self.first(x)))

    def rest(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.second(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Around(Plain):
    """The image passes the second convolution by."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean()


class Dropping(Plain):
    """Drops by a function, by its own mode, behind the cut."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return self.head(nn.functional.dropout(x, 0.5, self.training).mean((2, 3)))  # type: ignore[no-any-return]


class Both(Plain):
    """One parameter acts on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale.mean())


def made(network: str | type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return network() if isinstance(network, type) else models.create(network, num_classes=5)


NETWORKS = [("convnet8", "@stage:-2"), ("resnet8", "@stage:-2"), ("resnet8", "@stage:-1"), ("wrn_16_1", "@stage:-3"),
            ("vgg8", "@stage:-2"), ("resnet8", "fc:input"), (Plain, "first"), (Plain, "second")]  # fmt: skip


@pytest.mark.parametrize(("network", "place"), NETWORKS, ids=str)
def test_a_branch_is_the_plain_network_on_the_same_trunk(network: str | type[nn.Module], place: str) -> None:
    whole = made(network)
    where = cut(whole, place, X, "the student")
    reader = TapReader(whole, {CUT: where.place})
    other = made(network)
    for p in other.parameters():
        p.data.add_(0.1)
    branch = Branch(whole, where, other)
    names = dict(whole.named_parameters())
    for name, p in branch.network.named_parameters():
        assert (p is names[name]) != where.is_behind(name), name
        expected = dict(other.named_parameters())[name] if where.is_behind(name) else names[name]
        assert torch.equal(p, expected)
    assert branch.network.state_dict().keys() == whole.state_dict().keys()
    whole.eval()
    branch.eval()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    _, found = reader(x)
    torch.testing.assert_close(branch.onward(found[CUT])[0], branch.network(x))


@pytest.mark.parametrize(("network", "place"), NETWORKS, ids=str)
def test_equal_branches_learn_and_count_alike(network: str | type[nn.Module], place: str) -> None:
    """In training: the same answer, running statistics of the rest once a batch and of the trunk never."""
    whole = made(network)
    where = cut(whole, place, X, "the student")
    reader = TapReader(whole, {CUT: where.place})
    branch = Branch(whole, where, copy.deepcopy(whole))
    whole.train()
    branch.train()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    own, found = reader(x)
    trunk = {key: value.clone() for key, value in whole.state_dict().items()}
    answer, _ = branch.onward(found[CUT])
    torch.testing.assert_close(answer, own)
    assert all(torch.equal(value, trunk[key]) for key, value in whole.state_dict().items())
    for key, value in branch.network.state_dict().items():
        torch.testing.assert_close(value, trunk[key], msg=key)
    answer.square().sum().backward()  # type: ignore[no-untyped-call]
    for name, p in whole.named_parameters():
        assert p.grad is None or not where.is_behind(name), name
    used = [p for p in branch.own_parameters() if p.grad is not None]
    assert used
    assert any(p.grad is not None for name, p in whole.named_parameters() if not where.is_behind(name))


def test_a_branch_has_the_mode_of_its_network() -> None:
    whole = made(Dropping)
    where = cut(whole, "first", X, "the student")
    reader, branch = TapReader(whole, {CUT: where.place}), Branch(whole, where)
    value = reader(torch.ones(2, 3, 16, 16))[1][CUT]
    answers = {}
    for mode in (True, False):
        branch.train(mode)
        answers[mode] = [branch.onward(value)[0] for _ in range(2)]
    assert not torch.equal(*answers[True])
    assert torch.equal(*answers[False])


def test_fresh_branches_differ_and_draw_from_the_current_generator() -> None:
    whole = made("convnet8")
    where = cut(whole, "@stage:-2", X, "the student")
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(torch.cat([p.detach().flatten() for p in Branch(whole, where).own_parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_copy_has_a_trunk_of_its_own() -> None:
    whole = made("convnet8")
    branch = Branch(whole, cut(whole, "@stage:-2", X, "the student"))
    copied_whole, copied = copy.deepcopy((whole, branch))
    ids = {id(p) for p in whole.parameters()} | {id(p) for p in branch.parameters()}
    assert not ids & {id(p) for p in copied.parameters()}
    names = dict(copied_whole.named_parameters())
    assert sum(p is names[name] for name, p in copied.network.named_parameters()) == sum(
        not branch.cut.is_behind(name) for name in names
    )


@pytest.mark.parametrize(
    ("network", "place", "sentence"),
    [
        (Twice, "first", None),
        (Twice, "second", "runs 2 times in one pass"),
        (Around, "first", "a skip connection passes it by"),
        (Both, "first", "its parameter 'scale' acts before and behind 'first'"),
        (Plain, "third", "no tap 'third'"),
        ("resnet8", "fc", "nothing that learns lies behind 'fc'"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(
    network: str | type[nn.Module], place: str, sentence: str | None
) -> None:
    whole = made(network)
    if sentence is None:  # all of it lies behind
        assert "second" in cut(whole, place, X, "the student").behind
        return
    with pytest.raises(UserError, match=sentence):
        cut(whole, place, X, "the student")


def test_a_layer_on_both_sides_is_refused() -> None:
    class Late(Plain):
        def forward(self, x: Tensor) -> Tensor:
            x = (self.first(self.idle(x.unsqueeze(-1)).squeeze(-1)) * self.scale).relu()
            x = self.second(x)
            x = self.idle(x.unsqueeze(-1)).squeeze(-1)
            return self.head(self.norm(x).relu().mean((2, 3))) + self.shift  # type: ignore[no-any-return]

    with pytest.raises(UserError, match="its layer 'idle' runs before and behind 'first'"):
        cut(made(Late), "first", X, "the student")


@pytest.mark.skipif(not (_compat.installed("timm") and _compat.installed("torchvision")), reason="needs timm")
@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "timm:resnet10t"])
def test_networks_of_timm(name: str) -> None:
    whole = made(name)
    where = cut(whole, "@stage:-2", torch.zeros(2, 3, 32, 32), "the student")
    branch = Branch(whole, where).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, found = TapReader(whole.eval(), {CUT: where.place})(x)
    torch.testing.assert_close(branch.onward(found[CUT])[0], branch.network(x), rtol=1e-4, atol=1e-4)
