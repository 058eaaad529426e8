from __future__ import annotations

import json
from pathlib import Path

import pytest
from bank_pieces import KEY, filled, store_at

from classroomkd.bank import RowStore, TopK, digest, store_folder
from classroomkd.bank.manifest import MANIFEST, Manifest
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
