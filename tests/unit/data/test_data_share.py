"""Worker processes get the data through shared memory: the same pixels, no copy of them, nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from classroomkd import data
from classroomkd.data import ImageSet
from classroomkd.errors import UserError

SHM = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="needs /dev/shm")


def images() -> ImageSet:
    return data.load({"source": "puppets", "options": {"train": 200, "test": 60}})


def tensors(image_set: ImageSet) -> list[Tensor]:
    parts = (image_set.train, image_set.val, image_set.test)
    return [x for part in parts for x in (part.pixels.images, part.target, part.ids, part.rows)]  # type: ignore[attr-defined]


def mapped(tensor: Tensor) -> str:
    """Device and inode of the memory that a tensor lies in: the same in two processes where they share it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ (\S+ \d+)", line)
        if match and int(match[1], 16) <= tensor.data_ptr() < int(match[2], 16):
            return match[3]
    raise AssertionError("it lies nowhere")


def look(image_set: ImageSet, answer: Connection) -> None:
    """A worker: say what it sees, then wait to be killed."""
    parts = [part.digest() for part in (image_set.train, image_set.val, image_set.test)]
    pixels = image_set.train.batch(torch.arange(7))[0]
    same = image_set.train.pixels is image_set.val.pixels
    answer.send(([mapped(x) for x in tensors(image_set)], parts, pixels.numpy().tobytes(), same))
    time.sleep(600)


def test_workers_share_the_tensors_and_leave_nothing_behind() -> None:
    image_set, before = images(), set(os.listdir(SHM))
    assert image_set.share() is image_set
    assert all(x.is_shared() for x in tensors(image_set))
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[Any, Connection]] = []
    for _ in range(2):
        here, there = context.Pipe(duplex=False)
        workers.append((context.Process(target=look, args=(image_set, there)), here))
        workers[-1][0].start()
    for process, pipe in workers:
        assert pipe.poll(120), "the worker says nothing"
        places, parts, pixels, same = pipe.recv()
        assert places == [mapped(x) for x in tensors(image_set)]
        assert parts == [part.digest() for part in (image_set.train, image_set.val, image_set.test)]
        assert pixels == image_set.train.batch(torch.arange(7))[0].numpy().tobytes()
        assert same
        process.kill()
        process.join(30)
    left = {name for name in set(os.listdir(SHM)) - before if name.startswith(f"torch_{os.getpid()}_")}
    assert not left
    assert image_set.train.batch(torch.arange(7))[0].numpy().tobytes() == pixels


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"do not fit into shared memory .*No space left.*shm-size"):
        images().share()
