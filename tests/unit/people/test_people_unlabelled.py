"""Persons without joints: hidden by a share, whole pictures, boxes alone, and beside those who have joints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people_pieces import SMALL, dataset, read, scene, write
from PIL import Image

from classroomkd.data import ImageSet, load, make_views, subset
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError

PUPPETS: dict[str, Any] = {"source": "puppets", "size": [32, 24], "options": {"train": 100, "test": 20}}


def photos(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """Pictures of several sizes, some in a folder inside."""
    (folder / "more").mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(seed + i).integers(0, 256, (40 + 5 * i, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if i % 2 else ".") / f"{i}.png")
    return folder


def boxes(folder: Path, joints: bool = False, **more: Any) -> Path:
    """A COCO file of persons who have boxes and, unless ``joints``, no keypoints; and its pictures."""
    data = scene(2, images=5, seed=7, first=501)
    if not joints:
        for entry in data["annotations"]:
            del entry["keypoints"], entry["num_keypoints"]
        data["categories"] = [{"id": 1, "name": "person"}]
    data.update(more)
    return write(folder, "boxes.json", data)


def bare(images: ImageSet, part: str = "train") -> torch.Tensor:
    target: torch.Tensor = getattr(images, part).target
    return (target == torch.tensor([0.0, 0.0, UNLABELLED])).all(-1).all(-1)


def test_a_share_of_the_people_keeps_its_joints() -> None:
    whole, few, fewer = (
        load({**PUPPETS, "labels": labels}, task="pose") for labels in (None, {"share": 0.5}, {"share": 0.1})
    )
    assert few.unlabelled == 45
    assert fewer.unlabelled == 81
    assert whole.unlabelled == 0
    for images in (few, fewer):
        assert torch.equal(bare(images), ~images.train.labelled)
        assert torch.equal(images.train.target[images.train.labelled], whole.train.target[images.train.labelled])
        assert torch.equal(images.val.target, whole.val.target)
        assert torch.equal(images.test.target, whole.test.target)
        assert torch.equal(images.train.ids, whole.train.ids)
        assert images.train.digest() != whole.train.digest()
        assert set(images.names) == set(images.train.ids[~images.train.labelled].tolist())
    assert not (fewer.train.labelled & ~few.train.labelled).any()  # a larger share contains a smaller one
    assert "9 of 90 training persons have a label; the others train without one" in fewer.notes
    kept = subset(few.train, 20)
    assert int(kept.labelled.sum()) == 10


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.001, 1), (1.0, 90)])
def test_a_share_above_none_leaves_somebody(share: float, kept: int) -> None:
    assert int(load({**PUPPETS, "labels": {"share": share}}, task="pose").train.labelled.sum()) == kept


def test_what_is_hidden_reaches_nothing(tmp_path: Path) -> None:
    """Other joints of those whose joints are hidden: the same targets, pixels and views."""
    data = scene(2, images=12)
    keys: dict[str, Any] = {"labels": {"share": 0.25}, "views": "person"}
    first = read(dataset(tmp_path / "first", train=data), **keys)
    hidden = first.train.ids[~first.train.labelled].tolist()
    for place in hidden:
        data["annotations"][place]["keypoints"] = (np.array(data["annotations"][place]["keypoints"]) + 3).tolist()
        data["annotations"][place]["keypoints"][2::3] = [1] * 17
    again = read(dataset(tmp_path / "again", train=data), **keys)
    assert torch.equal(first.train.target, again.train.target)
    every = torch.arange(len(first.train))
    for view in (0, 3, 4):
        seen = []
        for images in (first, again):
            views = make_views("person", view_seed=0, image_size=(32, 24), images=images)
            pixels, target, ids = images.train.batch(every)
            seen.append(views.render(pixels, target, ids, torch.full_like(ids, view)))
        assert torch.equal(seen[0][0], seen[1][0])
        assert torch.equal(seen[0][1], seen[1][1])


def test_whole_pictures_join_the_training_people(tmp_path: Path) -> None:
    source = f"images:{photos(tmp_path / 'photos')}"
    plain, more = (load({**PUPPETS, "unlabelled": value}, task="pose") for value in (None, source))
    assert len(more.train) == len(plain.train) + 6
    assert torch.equal(bare(more), torch.arange(len(more.train)) >= len(plain.train))
    assert torch.equal(more.train.target[: len(plain.train)], plain.train.target)
    assert torch.equal(more.train.ids[-6:], 120 + torch.arange(6))  # on from all that the labelled source lists
    assert list(more.names.values()) == ["0.png", "2.png", "4.png", "more/1.png", "more/3.png", "more/5.png"]
    assert more.fingerprint != plain.fingerprint
    assert torch.equal(more.val.target, plain.val.target)
    assert "6 persons of 'photos' train without joints" in more.notes
    assert more.people is not None
    person = more.people.of([120])
    assert person.box.tolist() == [[0, 0, 30, 40]]
    corners = more.people.to_input([120], np.array([[[0, 0], [29, 39]]]))  # the whole picture, with room around it
    assert (corners > 0).all()
    assert (corners < [23, 31]).all()
    pixels, target, ids = more.train.batch(torch.arange(85, 96))
    views = make_views("person", view_seed=0, image_size=(32, 24), images=more)
    shown, moved = views.render(pixels, target, ids, torch.full_like(ids, 5))
    assert shown.shape == (11, 3, 32, 24)
    assert torch.equal(moved[5:], target[5:])
    again = load({**PUPPETS, "unlabelled": [source], "options": {**PUPPETS["options"], "memory_gib": 4}}, task="pose")
    assert again.fingerprint == more.fingerprint


def test_a_zip_is_the_same_as_its_folder(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", folder)
    one, other = (load({**PUPPETS, "unlabelled": f"images:{place}"}, task="pose").train for place in (folder, archive))
    assert torch.equal(one.target, other.target)
    assert torch.equal(one.batch(torch.arange(80, 96))[0], other.batch(torch.arange(80, 96))[0])


@pytest.mark.parametrize("joints", [False, True])
def test_boxes_join_the_training_people(tmp_path: Path, joints: bool) -> None:
    path = boxes(tmp_path, joints)
    images = load({**PUPPETS, "unlabelled": f"coco-keypoints:{path}@{tmp_path / 'images'}"}, task="pose")
    assert len(images.train) == 90 + 10
    assert int(bare(images).sum()) == 10  # joints that are annotated there are not read
    assert images.train.ids[-10:].tolist() == list(range(120, 130))
    assert images.names[120] == "000501.png"


def test_they_may_be_cut_whenever_they_are_needed(tmp_path: Path) -> None:
    source = dataset(tmp_path / "coco")
    keys: dict[str, Any] = {"unlabelled": f"images:{photos(tmp_path / 'photos')}"}
    kept, cut = (read(source, **keys, options={"memory_gib": gib}) for gib in (4, 0))
    every = torch.arange(len(kept.train))
    assert len(every) == 22 + 6
    assert torch.equal(kept.train.batch(every)[0], cut.train.batch(every)[0])
    assert torch.equal(kept.train.target, cut.train.target)
    assert torch.equal(bare(cut), every >= 22)


def test_nobody_may_have_joints(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 20)
    images = load({"source": f"images:{tmp_path / 'photos'}", **SMALL, "options": {"skeleton": "lsp"}}, task="pose")
    assert [len(part) for part in (images.train, images.val, images.test)] == [14, 2, 4]
    assert all(bool(bare(images, part).all()) for part in ("train", "val", "test"))
    assert len(images.classes) == 14
    path = boxes(tmp_path / "boxed")
    source = f"coco-keypoints:{path}@{tmp_path / 'boxed/images'}"
    images = load({"source": source, **SMALL, "options": {"skeleton": "coco"}}, task="pose")
    assert images.unlabelled == len(images.train) > 4
    assert all(bool(bare(images, part).all()) for part in ("train", "val", "test"))
    with pytest.raises(UserError, match=r"exactly one category must have keypoints.*data\.options\.skeleton says"):
        load({"source": source, **SMALL}, task="pose")


def test_pictures_of_the_test_part_are_told(tmp_path: Path) -> None:
    source = dataset(tmp_path / "coco")
    again = boxes(tmp_path / "again", joints=True, **scene(2, images=3, seed=1, first=1001))
    images = read(source, unlabelled=f"coco-keypoints:{again}@{tmp_path / 'again/images'}")
    assert any("6 of 6 pictures of data.unlabelled are also in the test part (001001.png" in n for n in images.notes)


def wrong(**keys: Any) -> str:
    with pytest.raises(UserError) as error:
        load({**PUPPETS, **keys}, task="pose")
    return str(error.value)


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = photos(tmp_path / "photos")
    source = f"images:{folder}"
    assert "data.unlabelled: images:" in wrong(unlabelled=f"images:{tmp_path / 'empty'}")
    assert "there is no picture in it" in wrong(unlabelled=f"images:{tmp_path / 'empty'}")
    assert "/photos') has already; give others" in wrong(unlabelled=[source, f"{source}/more"])
    assert "not a Tensor" in wrong(unlabelled=torch.zeros(2))
    assert "'digits' has classes, not persons" in wrong(unlabelled="digits")
    assert "data.labels.file: a table has classes, and persons have joints" in wrong(labels={"file": "a.csv"})
    assert "data.options.colour" in wrong(unlabelled=source, options={"colour": "x"})
    nobody = boxes(tmp_path / "nobody", annotations=[])
    place = f"coco-keypoints:{nobody}@{tmp_path / 'nobody/images'}"
    assert "no person of 'coco-keypoints" in wrong(unlabelled=place)
    tiny = json.loads(boxes(tmp_path / "tiny").read_text())
    for entry in tiny["annotations"]:
        entry["bbox"] = [1, 1, 3, 3]
    (tmp_path / "tiny/annotations/boxes.json").write_text(json.dumps(tiny))
    said = wrong(unlabelled=f"coco-keypoints:{tmp_path / 'tiny/annotations/boxes.json'}@{tmp_path / 'tiny/images'}")
    assert "can be cropped" in said
    assert "smaller than 8 pixels" in said
    assert "no training image has a label" in wrong(source=source, options={"skeleton": "coco"}, labels={"share": 0.5})


def test_a_picture_that_cannot_be_read_is_refused_or_left_out(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "broken.png").write_bytes(b"no picture")
    source = f"images:{folder}"
    assert "broken.png" in wrong(unlabelled=source)
    images = load({**PUPPETS, "unlabelled": source, "unreadable": "skip"}, task="pose")
    assert images.unlabelled == 6
    assert any("people on unreadable images" in note for note in images.notes)
    assert "6 persons of 'photos' train without joints" in images.notes
