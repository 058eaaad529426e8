"""Stored texts of the right form, or one sentence with the place and the remedy."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from classroomkd._stored import (
    MAPPING,
    Damaged,
    log_line,
    parse_json,
    parse_log_line,
    read_json,
    read_text,
    read_yaml,
    trusted,
)
from classroomkd.errors import UserError
from classroomkd.run.answers_file import load_answers, save_answers
from classroomkd.tasks.pose.coding import Heatmap
from classroomkd.tasks.pose.written import written_coding, written_skeleton
from classroomkd.train import checkpoint
from classroomkd.train.metrics_log import open_log


def test_what_was_stored_is_read(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "é", {"b": -(2**62)}]}
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "x.json", MAPPING, remedy="-") == value
    (tmp_path / "link").symlink_to("x.json")  # reading leads nowhere
    assert read_text(tmp_path / "link", remedy="-") == json.dumps(value)
    (tmp_path / "x.yaml").write_text("a: [1, 2]\nb: {c: d}\n")
    assert read_yaml(tmp_path / "x.yaml", remedy="-") == {"a": [1, 2], "b": {"c": "d"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cut off or damaged at line 1"),
        ('{"a": ', "cut off or damaged at line 1"),
        ("[]", "Input should be a valid dictionary"),
        ("[" * 50_000, "maximum recursion depth|inside each other"),
        ("[" * 65 + "]" * 65, "more than 64 lists and mappings inside each other"),
        ("9" * 20, "a number of 20 digits"),
        ("9" * 5000, "a number of 5000 digits"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=rf"x\.json is .*({says}).*; remove it$"):
        read_json(tmp_path / "x.json", MAPPING, remedy="remove it")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, says in {"folder": "is a folder", "pipe": "is no plain file", "bytes": "is not a text file",
                       "absent": "cannot be read"}.items():  # fmt: skip
        for read in (read_text, read_yaml):
            with pytest.raises(UserError, match=f"{name} {says}.*; do so"):
                read(tmp_path / name, remedy="do so")


def test_a_recipe_that_would_grow(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    for text in (
        "\n".join(lines),
        "[" * 50_000,
        "- " * 20_000,
        "a: !!python/object/apply:os.system [ls]",
        "a: 2024-99-99",
    ):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(UserError, match=r"recipe\.yaml (is damaged|was not written by a run)"):
            read_yaml(tmp_path / "recipe.yaml", remedy="-")


def test_a_number_is_no_text_and_text_no_number() -> None:
    for text, form in (
        ('"1"', TypeAdapter(int)),
        ("1", TypeAdapter(str)),
        ("1.5", TypeAdapter(int)),
        ("true", TypeAdapter(int)),
    ):
        with pytest.raises(Damaged):
            parse_json(text, form)


def test_whatever_goes_wrong_inside_is_said() -> None:
    for error in (KeyError("k"), TypeError("t"), OverflowError("o"), RecursionError(), ZeroDivisionError(), EOFError()):
        with pytest.raises(UserError, match=r"here is damaged .*; remedy"), trusted("here", "remedy"):
            raise error
    with pytest.raises(UserError, match=r"^mine$"), trusted("here", "remedy"):
        raise UserError("mine")
    with pytest.raises(KeyboardInterrupt), trusted("here", "remedy"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 99_999, b"3", b'{"step": "x"}', b'{"step": []}', b""])
def test_a_log_that_is_gone_on_with(tmp_path: Path, content: bytes) -> None:
    """A damaged line costs that line, and is named; what follows is kept."""
    path, good = tmp_path / "metrics.jsonl", b'{"kind": "val", "step": 1}\n'
    path.write_bytes(good + content + b"\n" + good)
    notes: list[dict[str, Any]] = []
    log = open_log(tmp_path, 5, notify=notes.append)
    assert notes == [{"event": "note", "text": f"{path}: line 2 damaged, and left out"}]
    log({"kind": "val", "step": 6})
    kept = path.read_text().splitlines()
    assert kept[0] == kept[1] == good.decode().strip()
    assert json.loads(kept[-1]) == {"kind": "val", "step": 6, "crc": "9a2da2ab"}
    assert log.lines == log.stored() == 3
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"metrics\.jsonl is no plain file; remove it to begin a new one"):
        open_log(tmp_path, 5)


def test_every_bit_of_a_log_line() -> None:
    """Whatever a flipped bit makes of a line, what is read is what was written, or it is damaged."""
    record = {"kind": "train", "step": 50, "loss": 1.25, "terms": {"supervised": 0.5}}
    text = log_line(record).encode()
    assert parse_log_line(text.decode(), MAPPING) == record
    noticed = 0
    for bit in range(8 * len(text)):
        other = bytearray(text)
        other[bit // 8] ^= 1 << bit % 8
        try:
            found = parse_log_line(other.decode(errors="replace"), MAPPING)
        except Damaged:
            noticed += 1
        else:  # the name of the checksum is another: then it is an unknown key
            assert {key: found[key] for key in record} == record
    assert noticed > 8 * len(text) - 40


def test_a_checkpoint_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.pt")
    torch.save([1], tmp_path / "list.pt")
    for name in ("last.pt", "list.pt"):
        with pytest.raises(UserError, match=rf"{name} .*remove it to start this part again"):
            checkpoint.load(tmp_path / name)


SKELETON = '{"name": "x", "joints": ["a"], "links": [], "sigmas": [0.1], "flip_pairs": [], "upper": []}'


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"name": 1}', SKELETON.replace('["a"]', "3"),
                                  SKELETON.replace("[0.1]", '["y"]'),
                                  SKELETON.replace('"links": []', '"links": [1]')])  # fmt: skip
def test_a_students_joints(text: str) -> None:
    assert written_skeleton("x", {"skeleton": SKELETON}).joints == ("a",)
    with pytest.raises(UserError, match=r"x: its metadata 'skeleton'.* again"):
        written_skeleton("x", {"skeleton": text})


def test_a_students_coding() -> None:
    plain = Heatmap(size=(64, 48), joints=3).plain()
    assert written_coding("x", {"coding": json.dumps(plain)}).plain() == plain
    for change in ({"kind": "morse"}, {"kind": []}, {"size": 3}, {"new": 1}, {"joints": None, "kind": None}):
        with pytest.raises(UserError, match=r"x: its metadata 'coding'.* again"):
            written_coding("x", {"coding": json.dumps(plain | change)})


def test_answers_and_every_bit_of_them(tmp_path: Path) -> None:
    path, answers = tmp_path / "a.npy", np.arange(12, dtype=np.float32).reshape(4, 3)
    save_answers(path, answers)
    assert np.array_equal(load_answers(path, 4), answers)
    assert np.array_equal(np.load(path), answers)  # any reader of the format
    whole, sums = path.read_bytes(), (tmp_path / "SHA256SUMS").read_bytes()
    for listed in (True, False):  # without the list, the checksum in the file tells
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(UserError, match=r"a\.npy .*; remove it, and the mentor is asked again"):
                load_answers(path, 4)
        if listed:
            (tmp_path / "SHA256SUMS").unlink()
    assert hashlib.sha256(whole).hexdigest() in sums.decode()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at])
        if at == len(whole) - 39:
            continue
        with pytest.raises(UserError, match=r"a\.npy"):
            load_answers(path, 4)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="holds 4 answers, not 5"):
        load_answers(path, 5)
    np.save(path, answers)  # of an earlier version
    assert np.array_equal(load_answers(path, 4), answers)
    for other in (answers.astype(np.float64), answers[0], answers.astype(object)):
        np.save(path, other, allow_pickle=True)
        with pytest.raises(UserError, match=r"a\.npy"):
            load_answers(path)
    np.savez(tmp_path / "b.npz", answers)
    (tmp_path / "b.npz").rename(path)
    with pytest.raises(UserError, match=r"a\.npy"):
        load_answers(path)
