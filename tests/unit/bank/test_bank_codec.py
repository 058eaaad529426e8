from __future__ import annotations

import pytest
import torch

from classroomkd.bank import Codec, Dense, TopK, codec
from classroomkd.errors import UserError

inf = torch.inf


@pytest.mark.parametrize(
    "made",
    [Dense(()), Dense((5,)), Dense((3, 2, 2)), TopK(10, 3), TopK(40_000, 5), TopK(12, 12), TopK(9, 2, [0, 1, 2, 7])],
)
def test_the_definition_says_all(made: Codec) -> None:
    again = codec(made.definition)
    assert (again.definition, again.row_bytes, again.shape) == (made.definition, made.row_bytes, made.shape)
    rows = made.encode(torch.randn(4, *made.shape))
    assert (rows.dtype, rows.shape) == (torch.uint8, (4, made.row_bytes))
    assert torch.equal(made.decode(rows), again.decode(rows))
    assert made.decode(rows).dtype == made.dtype


def test_dense_is_half_precision_and_keeps_what_is_not_finite() -> None:
    values = torch.tensor([[1.0, -inf, inf, torch.nan, 1e-3, 70_000.0]])
    found = Dense((6,)).decode(Dense((6,)).encode(values))
    assert torch.equal(found, values.half()) or torch.equal(found.nan_to_num(7), values.half().nan_to_num(7))
    assert Dense((100,)).row_bytes == 200
    assert Dense((100,)).definition == "fp16 (100,)"


def test_top_k_keeps_the_largest_and_the_mass_of_the_rest() -> None:
    logits = 4 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    made = TopK(1000, 50)
    assert made.row_bytes == 4 + 50 * 4
    found = made.decode(made.encode(logits))
    top, classes = logits.topk(50, dim=1)
    assert torch.equal(found.gather(1, classes), top.half().float())
    rest = torch.ones_like(found, dtype=torch.bool).scatter(1, classes, False)
    true = logits.softmax(1)
    mass, stored = (true * rest).sum(1), (found.softmax(1) * rest).sum(1)
    rounded = (2**-11 * top.abs().max()).expm1()  # what half precision does to the k logits themselves
    assert (stored / mass - 1).abs().max() < rounded
    others = found[rest].view(200, 950)
    assert torch.equal(others.amin(1), others.amax(1))
    # The stated error of the probabilities: nothing beyond what spreading the rest evenly changes.
    assert (found.softmax(1) - true).abs().sum(1).max() < 2 * (mass.max() + rounded)


def test_top_k_of_all_is_exact_to_half_precision() -> None:
    logits = torch.randn(5, 7)
    found = TopK(7, 7).decode(TopK(7, 7).encode(logits))
    assert torch.equal(found, logits.half().float())


def test_minus_infinity_survives() -> None:
    few = torch.full((2, 10), -inf)
    few[:, [3, 8]] = torch.tensor([1.0, 2.0])
    for made in (TopK(10, 3), TopK(10, 2), TopK(10, 2, [3, 8]), TopK(10, 5, [3, 8])):
        assert torch.equal(made.decode(made.encode(few)), few), made.definition
    some = torch.randn(4, 10)
    some[:, 6:] = -inf
    made = TopK(10, 2, range(6))
    found = made.decode(made.encode(some))
    assert (found[:, 6:] == -inf).all()
    assert found[:, :6].isfinite().all()
    top = some.topk(2, dim=1).indices
    rest = torch.ones(4, 10).scatter(1, top, 0)
    torch.testing.assert_close((found.softmax(1) * rest).sum(1), (some.softmax(1) * rest).sum(1), rtol=5e-3, atol=0)


def test_an_answer_of_nan_stays_not_finite() -> None:
    logits = torch.randn(2, 10)
    logits[0, 4] = torch.nan
    found = TopK(10, 3).decode(TopK(10, 3).encode(logits))
    assert not found[0].isfinite().all()
    assert found[1].isfinite().all()


def test_a_damaged_row_can_be_decoded() -> None:
    TopK(1000, 5).decode(torch.randint(0, 256, (50, 24), dtype=torch.uint8))


@pytest.mark.parametrize("text", ["", "fp8 (100,)", "top-50", "fp16 (100,) twice"])
def test_an_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no way of storing"):
        codec(text)


def test_top_k_says_what_it_leaves_out() -> None:
    logits = 4 * torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    made = TopK(1000, 50)
    expected = 1 - logits.softmax(1).topk(50, dim=1).values.sum(1)
    torch.testing.assert_close(made.left_out(made.encode(logits)), expected, rtol=1e-2, atol=1e-6)
    whole = TopK(4, 4)
    assert whole.left_out(whole.encode(torch.randn(3, 4))).tolist() == [0, 0, 0]
    few, values = TopK(9, 2, [0, 1, 2, 7]), torch.full((1, 9), -inf)
    values[0, [0, 1, 2, 7]] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    assert few.left_out(few.encode(values)).item() == pytest.approx(0.3, rel=1e-3)
