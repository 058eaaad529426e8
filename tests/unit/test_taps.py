"""Taps: what is read from a network, under which name, below which wrappers."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from classroomkd.classroom import Mentor
from classroomkd.errors import UserError
from classroomkd.taps.roles import find_place, stages
from classroomkd.taps.taps import TapReader, prediction_of, tap_names
from classroomkd.train.optimize import optimize_for_inference


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5)
    )


def small(x: int = 3) -> Tensor:
    return torch.randn(x, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_roles_places_and_inputs() -> None:
    module, x = net().eval(), small()
    reader = TapReader(module, {"early": "1", "again": "1", "before": "2:input", "penultimate": "4:input"})
    copies: list[Tensor] = []
    prediction, taps = reader(x)
    expected = module[1](module[0](x))
    assert list(taps) == list(reader.taps) == ["early", "again", "before", "penultimate"]
    assert taps["early"] is taps["again"]
    for role in ("early", "before"):  # the ReLU overwrites both
        assert (taps[role] < 0).any()
        torch.testing.assert_close(taps[role], expected)
    torch.testing.assert_close(taps["penultimate"], expected.relu().flatten(1))
    taps["before"].sum().backward()
    assert module[0].weight.grad is not None
    assert torch.equal(prediction, module(x))
    copies = [TapReader(copy.deepcopy(module), "0")(x)[1]["0"], copy.deepcopy(reader)(x)[1]["before"]]
    torch.testing.assert_close(copies, [module[0](x), expected])


def test_inputs_by_keyword_and_outputs_beside_others() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.attend = nn.MultiheadAttention(4, 1, batch_first=True)
            self.text = Text()

        def forward(self, x: Tensor) -> Tensor:
            self.text()
            x = self.norm(input=x)
            return self.attend(x, x, x)[0].mean(1)

    class Text(nn.Module):
        def forward(self) -> str:
            return "no tensor"

    module, x = Odd().eval(), torch.randn(2, 9, 4)
    taps = TapReader(module, ["norm:input", "attend"])(x)[1]
    assert torch.equal(taps["norm:input"], x)
    assert taps["attend"].shape == (2, 9, 4)
    for place in ("text", "text:input"):
        with pytest.raises(UserError, match=f"tap '{place}'"):
            TapReader(module, [place])(x)


def test_mistakes_at_taps() -> None:
    for place, message in {
        "5": "no tap '5' in Sequential",
        "": "no tap ''",
        "@stage:-1": "not resolved yet",
        "0:output": "only 'input' is known, as in '0:input'",
    }.items():
        with pytest.raises(UserError, match=message):
            TapReader(net(), [place])
    module = net()
    module[0].unused = nn.ReLU()
    reader = TapReader(module, {"last": "0.unused"})
    with pytest.raises(UserError, match=r"tap 'last' \(0.unused\) exists but did not run"):
        reader(small())


def test_a_place_has_one_name() -> None:
    network, x = net().eval(), small()
    network[2].register_module("again", network[1])
    wrapped = nn.DataParallel(network)
    assert TapReader(wrapped, {"a": "module.2:input", "b": "2.again"}).places == {"a": "2:input", "b": "1"}
    assert find_place(wrapped, "module.4:input", x) == "4:input"
    # A fast copy, which has no wrapper, reads it too, and folding keeps away from it.
    mentor = Mentor(nn.DataParallel(net()), taps={"there": "module.1:input"})
    mentor.read({"there": "map"}, x)
    fast = optimize_for_inference(mentor, x)
    assert torch.equal(fast(x).features["there"], mentor(x).features["there"])
    late = optimize_for_inference(Mentor(network, taps={"there": "2.again:input"}), x)
    with pytest.raises(UserError, match="tap '1:input' is no more what it was"):
        late.read({"there": "map"}, x)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_taps_below_distributed_data_parallel() -> None:
    module, x = net(), small()
    wrapped = nn.parallel.DistributedDataParallel(module)
    assert tap_names(wrapped) == tap_names(module) == ["0", "1", "2", "3", "4"]
    assert stages(wrapped, x) == stages(module, x)
    assert find_place(wrapped, "@penultimate", x) == "4:input"
    for reader in (
        TapReader(wrapped, ["1", "module.4:input"]),
        nn.parallel.DistributedDataParallel(TapReader(net(), "1")),
    ):
        taps = reader(x)[1]
        taps["1"].sum().backward()
        assert next(reader.parameters()).grad is not None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks at it while it compiles
@pytest.mark.parametrize("inner", [False, True])
def test_taps_below_compilation(inner: bool) -> None:
    torch.compiler.reset()
    module, x = net().eval(), small()
    expected = module[0](x)
    compiled = module if inner else torch.compile(module, backend="eager")
    if inner:
        module[0] = torch.compile(module[0], backend="eager")
    assert tap_names(compiled) == ["0", "1", "2", "3", "4"]
    blank = torch.zeros(1, 3, 4, 4)
    assert [stage.name for stage in stages(compiled, blank)] == ["2"]
    reader = TapReader(compiled, ["0", "4:input"])
    for inputs in (x, x + 1):
        taps = reader(inputs)[1]
        torch.testing.assert_close(taps["4:input"], module[:4](inputs))
        torch.testing.assert_close(taps["0"], expected if inputs is x else module[0](inputs))
    again = torch.compile(reader, backend="aot_eager")
    torch.testing.assert_close(again(x)[1]["0"], expected)


def test_a_tap_set_after_the_first_compiled_call_is_not_silent() -> None:
    torch.compiler.reset()
    compiled = torch.compile(net().eval(), backend="eager")
    compiled(small())
    assert len(stages(compiled, small())) == 1  # a dry run does not go through the compiled code
    reader = TapReader(compiled, ["1"])
    with pytest.raises(UserError, match=r"torch.compile had already compiled Sequential.*torch.compiler.reset"):
        reader(small())
    torch.compiler.reset()
    assert reader(small())[1]["1"].shape == (3, 4, 4, 4)


def test_predictions_are_found_in_what_networks_return() -> None:
    x = torch.ones(2)
    for output in (x, (x, 1), [x], {"logits": x}, {"out": (x,)}, type("Output", (), {"logits": x})()):
        assert prediction_of(output) is x
    with pytest.raises(UserError, match="returned str"):
        prediction_of("x")
