from __future__ import annotations

import pytest
import torch

from classroomkd.bank.checksum import row_sums


def checksums(rows: torch.Tensor, addresses: torch.Tensor, salt: int = 0) -> torch.Tensor:
    return torch.from_numpy(row_sums(rows.numpy(), addresses.numpy(), salt))


@pytest.mark.parametrize("size", [4, 7, 10, 20, 200])
def test_every_single_bit_counts(size: int) -> None:
    """All flips of all bits, for rows of noise, of zeros and of ones."""
    generator = torch.Generator().manual_seed(size)
    noise = torch.randint(0, 256, (3, size), dtype=torch.uint8, generator=generator)
    for row in (*noise, torch.zeros(size, dtype=torch.uint8), torch.full((size,), 255, dtype=torch.uint8)):
        flips = row.repeat(size * 8, 1)
        bit = torch.arange(size * 8)
        flips[bit, bit // 8] ^= (1 << bit % 8).to(torch.uint8)
        place = torch.full_like(bit, 12345)
        true = checksums(row[None], place[:1], salt=99)
        assert not (checksums(flips, place, salt=99) == true).any()


def test_words_are_never_zero_and_spread() -> None:
    rows = torch.zeros(200_000, 4, dtype=torch.uint8)
    words = checksums(rows, torch.arange(200_000))
    assert (words != 0).all()
    # 200 000 draws of 2^31: about 9 pairs meet by chance.
    assert len(words.unique()) > 199_950


def test_exchanged_words_other_places_and_other_salts_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    # Half precision with a sign turned: the exchange that a sum of 32-bit products would not see.
    values = torch.randn(5000, 100, generator=generator).half()
    values[:, 2] = values[:, 0]
    values[:, 3] = -values[:, 1]
    rows = values.view(torch.uint8)
    swapped = values[:, [2, 3, 0, 1, *range(4, 100)]].contiguous().view(torch.uint8)
    places = torch.arange(5000)
    words = checksums(rows, places)
    assert not (checksums(swapped, places) == words).any()
    assert not (checksums(rows, places + 1) == words).any()
    assert not (checksums(rows, places.flip(0)) == words)[:2500].any()
    assert not (checksums(rows, places, salt=-0x123456789ABCDEF0) == words).any()


def test_a_row_has_one_word_whatever_its_company() -> None:
    rows = torch.randint(0, 256, (64, 20), dtype=torch.uint8)
    places = torch.randint(0, 2**40, (64,))
    alone = torch.cat([checksums(rows[i : i + 1], places[i : i + 1], 5) for i in range(64)])
    assert torch.equal(checksums(rows, places, 5), alone)


def test_the_words_of_version_one_stay() -> None:
    """Stored words must mean the same in the next version: changing them takes a new schema."""
    rows = torch.arange(40, dtype=torch.uint8).view(2, 20)
    assert checksums(rows, torch.tensor([0, 7]), salt=3).tolist() == [-495209120, -621259134]
