from __future__ import annotations

import json
from pathlib import Path

import pytest
from bank_pieces import KEY, filled, store_at

from classroomkd.bank import RowStore, TopK, digest, store_folder, verify
from classroomkd.bank.manifest import MANIFEST, Manifest, nearest
from classroomkd.errors import UserError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "e5f6a7b8" * 8}, r"other weights of mentor 'resnet20' \(a1b2c3d4… there, e5f6a7b8… here\)"),
        ({"views": KEY["views"].replace("pad=4", "pad=2")}, r"for other views \(.*pad=4.* there, .*pad=2.* here\)"),
        ({"data": "0e" * 32}, r"for other data \(0d0d0d0d… there, 0e0e0e0e… here\)"),
        ({"precision": "bf16"}, r"for another precision \(fp32 there, bf16 here\)"),
        ({"preprocessing": {"mean": [0.5], "std": [0.3]}}, r"another preprocessing \(std\) \(\[0.2\] there, \[0.3\]"),
        ({"mentor": "vgg13"}, r"for another mentor \(resnet20 there, vgg13 here\)"),
        ({"something": 3}, r"for another 'something' \(nothing there, 3 here\)"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_another_key_is_refused_in_one_sentence(tmp_path: Path, change: dict[str, str], said: str, write: bool) -> None:
    filled(tmp_path / "bank").close()
    with pytest.raises(UserError, match=said) as error:
        store_at(tmp_path / "bank", 50, 3, write=write, key=change)
    text = str(error.value)
    assert str(tmp_path / "bank") in text
    assert text.endswith("remove this folder or give another cache=")
    assert "\n" not in text
    store_at(tmp_path / "bank", 50, 3, write=write).close()


def test_another_form_or_size_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "bank").close()
    with pytest.raises(UserError, match=r"number of views \(3 there, 4 here\)"):
        store_at(tmp_path / "bank", 50, 4)
    with pytest.raises(UserError, match=r"number of samples \(50 there, 51 here\)"):
        store_at(tmp_path / "bank", 51, 3)
    with pytest.raises(UserError, match=r"in another form \(fp16 \(6,\) there, top-3 of 6 here\)"):
        store_at(tmp_path / "bank", 50, 3, codec=TopK(6, 3))
    with pytest.raises(UserError, match=r"another kind of answer \(logits there, @stage:-1 here\)"):
        store_at(tmp_path / "bank", 50, 3, kind="@stage:-1")


def test_all_differences_are_said_at_once(tmp_path: Path) -> None:
    filled(tmp_path / "bank").close()
    with pytest.raises(UserError, match=r"other data .* other weights .* number of views"):
        store_at(tmp_path / "bank", 50, 2, key={"weights": "0" * 64, "data": "1" * 64})


def test_another_format_and_a_damaged_manifest_are_refused(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / MANIFEST
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "schema": 99}))
    with pytest.raises(UserError, match=r"another format \(99 there, 1 here\)"):
        RowStore.at(tmp_path)
    for text in (whole[: len(whole) // 2], "[]", json.dumps({"schema": 1}), json.dumps({**json.loads(whole), "x": 1})):
        path.write_text(text)
        with pytest.raises(UserError, match=r"damaged|another format"):
            RowStore.at(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"no manifest\.json"):
        RowStore.at(tmp_path)


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    filled(tmp_path).close()
    found = Manifest.read(tmp_path)
    found.write(tmp_path)
    assert Manifest.read(tmp_path) == found
    assert found.software
    assert "classroomkd" in found.software


def test_equal_keys_have_one_folder(tmp_path: Path) -> None:
    folder = store_folder(tmp_path, "resnet 20/a", {"a": 1, "b": (2, 3)})
    assert folder == store_folder(tmp_path, "resnet 20/a", {"b": [2, 3], "a": 1})
    assert folder.parent == tmp_path
    assert folder != store_folder(tmp_path, "resnet 20/a", {"a": 1, "b": [2, 4]})
    assert folder != store_folder(tmp_path, "resnet 20/a", {"a": 1, "b": [2, 3]}, "@penultimate")
    assert digest({"a": 1}) == digest({"a": 1})


def test_the_nearest_store_is_found(tmp_path: Path) -> None:
    for name, key in (
        ("a", {"weights": "0" * 64, "data": "1" * 64}),
        ("b", {"data": "1" * 64}),
        ("c", {"mentor": "vgg13"}),
    ):
        store_at(tmp_path / name, 50, 3, key=key).close()
    store_at(tmp_path / "d", 50, 3, kind="@stage:-1").close()
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / MANIFEST).write_text("{")
    folders = sorted(tmp_path.iterdir())
    wanted = Manifest(KEY, "logits", 3, 50, "fp16 (6,)")
    found = nearest(wanted, folders)
    assert found is not None
    assert found[0] == tmp_path / "b"
    assert nearest(Manifest({**KEY, "mentor": "vgg8"}, "logits", 3, 50, "fp16 (6,)"), folders) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"last": 83', '"last": 93'),
        ('"last": 83', '"last": "3"'),
        ('"first": 10', '"first": 90'),
        ('"samples": 90', '"samples": 80'),
        ('"views": 3', '"views": 0'),
        ("rows-00000", "rowr-00000"),
        ("fp16 (6,)", "fp16 (0,)"),
        ("fp16 (6,)", "top-9 of 6"),
        ("fp16 (6,)", "top-2 of 6 knowing 0-9"),
        ("fp16 (6,)", "top-2 of 6 knowing 0-"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, before: str, after: str) -> None:
    filled(tmp_path, 90, first=10, last=83).close()
    path = tmp_path / MANIFEST
    whole = path.read_text()
    assert before in whole
    path.write_text(whole.replace(before, after))
    with pytest.raises(UserError, match=r"is damaged|is called"):
        verify(tmp_path, repair=True)
    path.write_text(whole)
    assert verify(tmp_path).good == 3 * 73
