"""Labels that training does not see, or that a table gives (``data.labels``)."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from classroomkd import data
from classroomkd.data import split, subsets
from classroomkd.data.images import ImageSet, MemoryPixels, Part
from classroomkd.data.labels import hide_labels
from classroomkd.data.loading import _assemble
from classroomkd.data.sources.base import Raw, Source
from classroomkd.data.spec import parse
from classroomkd.data.targets import UNLABELLED, mask
from classroomkd.errors import UserError
from classroomkd.recipe import load_recipe, make_recipe
from classroomkd.recipe.dump import recipe_yaml

PUPPETS = {"source": "puppets", "options": {"train": 200, "test": 30, "image_size": 32}}
SMALLEST = {"student": "resnet8", "method": "none"}
KEPT = [1, 3, 6, 10, 12, 13, 14, 15]  # of 16 samples of two classes in turn, half


def puppets(share: float | None, **keys: Any) -> ImageSet:
    return data.load({**PUPPETS, "labels": None if share is None else {"share": share}}, **keys)


def seen(images: ImageSet) -> set[int]:
    return set(images.train.ids[images.train.labelled].tolist())


def test_share_hides_labels_of_training_images_alone() -> None:
    whole, some = puppets(None), puppets(0.25)
    assert subsets.class_counts(some.train, 10) == [5] * 10  # of 18, 4.5 rounded up
    assert some.unlabelled == 130
    assert torch.equal(some.train.ids, whole.train.ids)
    known = some.train.labelled
    assert torch.equal(some.train.target[known], whole.train.target[known])
    assert set(some.train.target[~known].tolist()) == {UNLABELLED}
    for name in ("val", "test"):
        mine, theirs = getattr(some, name), getattr(whole, name)
        assert mine.digest() == theirs.digest()
    assert (some.mean, some.std) == (whole.mean, whole.std)
    assert any("50 of 180 training images have a label" in note for note in some.notes)
    assert whole.notes == puppets(1).notes


def test_stored_answers_stay_of_use_and_what_was_trained_does_not() -> None:
    whole, some = puppets(None), puppets(0.5)
    assert some.fingerprint == whole.fingerprint
    assert some.train.digest() != whole.train.digest()
    assert puppets(1).train.digest() == whole.train.digest()


def test_a_larger_share_contains_a_smaller_one_and_the_seed_is_the_splits() -> None:
    shares = [seen(puppets(share)) for share in (0, 0.01, 0.1, 0.3, 0.7, 1)]
    assert [len(one) for one in shares] == [0, 10, 20, 50, 130, 180]
    for smaller, larger in pairwise(shares):
        assert smaller <= larger
    assert seen(puppets(0.1)) == shares[2]
    assert seen(puppets(0.1, split_seed=1)) != shares[2]


def test_which_labels_are_kept_is_known_by_heart() -> None:
    # It must never move: students of one study would see other labels than those before them.
    target, ids, four = np.arange(16) % 2, np.arange(16), np.array([4, 4])
    kept = {name: split.take(target, ids, four, seed=0, purpose=name).tolist() for name in split.PURPOSES}
    assert kept["labels"] == KEPT
    assert sum(places == KEPT for places in kept.values()) == 1  # a stream of its own
    part = Part(MemoryPixels(torch.zeros(16, 3, 8, 8, dtype=torch.uint8)), *map(torch.from_numpy, (target, ids, ids)))
    assert hide_labels(part, 0.5, seed=0).labelled.nonzero().flatten().tolist() == KEPT


def test_at_least_one_a_class_keeps_its_label() -> None:
    target = torch.arange(2).repeat_interleave(torch.tensor([40, 4]))
    images = torch.arange(44, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32) + 100
    some = data.load(TensorDataset(images.contiguous(), target), labels={"share": 0.01})
    assert subsets.class_counts(some.train, 2) == [1, 1]


def test_a_limit_and_a_shard_come_first() -> None:
    some = puppets(0.5, limit=100, shard="1/2")
    assert len(some.train) + len(some.val) == 100
    assert some.unlabelled == 40  # of 90; 5 of 9 keep theirs


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (0.1, "must be a mapping"),
        ({}, "says nothing; give share or file"),
        ({"share": 1.5}, "share must be a share from 0 (no label at all) to 1"),
        ({"share": "half"}, "share must be a number"),
        ({"shares": 0.5}, "has the unknown key 'shares' (did you mean 'share'?)"),
        ({"file": 3}, "file must be the path of a file"),
    ],
)
def test_what_labels_may_not_be(labels: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        data.load({**PUPPETS, "labels": labels})
    assert f"data.labels = {labels!r}: {sentence}" in str(caught.value)
    with pytest.raises(UserError, match=r"data\.labels"):
        make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": labels}})


def test_all_mistakes_of_a_recipe_are_in_one_message() -> None:
    with pytest.raises(UserError) as caught:
        make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": {"share": -1, "sheer": 1}, "limit": 0}})
    for place in ("data.labels.share = -1", "data.labels.sheer", "data.limit = 0"):
        assert place in str(caught.value)


def test_a_recipe_holds_its_labels(tmp_path: Any) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("data: {source: puppets, labels: {share: 0.1}}\nstudent: resnet8\nmethod: none\n")
    recipe = load_recipe(file)
    assert "labels:\n    share: 0.1\n" in recipe_yaml(recipe)
    file.write_text(recipe_yaml(recipe))
    assert load_recipe(file) == recipe
    assert "labels" not in recipe_yaml(make_recipe({**SMALLEST, "data": "puppets"}))
    assert data.load(make_recipe({**SMALLEST, "data": {**PUPPETS, "labels": {"share": 0}}}).data).unlabelled == 180


def test_targets_that_are_no_classes_refuse_labels() -> None:
    with pytest.raises(UserError, match=r"data\.labels\.file: a table has classes, and persons have joints"):
        data.load({**PUPPETS, "labels": {"file": "labels.csv"}}, task="pose")
    table = {"source": "puppets", "labels": {"file": __file__}}
    with pytest.raises(UserError, match=r"data\.labels\.file = .*a table has classes, and persons have joints"):
        make_recipe({"data": table, "task": "pose", "student": "pose_tiny", "method": "none"})
    pixels = data.MemoryPixels(torch.full((20, 3, 32, 32), 100, dtype=torch.uint8))
    raw = Raw(pixels, torch.zeros(20, 32, 32, dtype=torch.uint8), torch.arange(20), 20, mask(255))
    with pytest.raises(UserError, match="not for targets of the kind 'mask'"):
        _assemble(Source("drawn", ("sky",), {"all": raw}, "crop", "mark"), parse("drawn", labels={"share": 0.5}))


def test_persons_have_no_names_of_classes() -> None:
    with pytest.raises(UserError, match=r"data\.classes: is for images with a class each, not for persons"):
        data.load({**PUPPETS, "classes": ["a", "b"]}, task="pose")
    with pytest.raises(UserError, match=r"data\.classes = .*is for images with a class each"):
        make_recipe({"data": {"source": "puppets", "classes": ["a"]}, "task": "pose", "student": "pose_tiny",
                     "method": "none"})  # fmt: skip


def test_an_image_set_that_is_whole_refuses_labels() -> None:
    with pytest.raises(UserError, match=r"data\.labels = \{'share': 0\.1\}: the data are a whole ImageSet"):
        data.load(puppets(None), labels={"share": 0.1})


# --- a table of names and classes -------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/0.png to photos/29.png and photos/more/30.png to photos/more/39.png."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for number in range(40):
        path = root / "more" / f"{number}.png" if number >= 30 else root / f"{number}.png"
        draw = np.random.default_rng(list(os.fsencode(path.name)))
        Image.fromarray(draw.integers(64, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


def table(photos: Path, text: str, name: str = "labels.csv") -> Path:
    file = photos.parent / name
    file.write_text(text, encoding="utf-8")
    return file


def lines(count: int = 20) -> list[tuple[str, str]]:
    return [(f"{number}.png", ("cat", "ant")[number % 2]) for number in range(count)]


def rows(count: int = 20, delimiter: str = ",") -> str:
    return "".join(f"{name}{delimiter}{label}\n" for name, label in lines(count))


def load(photos: Path, file: Path, **keys: Any) -> ImageSet:
    return data.load({"source": f"images:{photos}", "labels": {"file": str(file)}, **keys})


def told(images: ImageSet, photos: Path) -> dict[str, str]:
    """The class of every picture that has one, by its name."""
    order = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    order.sort(key=lambda name: name.split("/"))
    parts = (images.train, images.val, images.test)
    pairs = [(i, t) for part in parts for i, t in zip(part.ids.tolist(), part.target.tolist(), strict=True)]
    return {order[i]: images.classes[t] for i, t in pairs if t != UNLABELLED}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", rows()),
        ("semicolons.csv", "File;Class\n" + rows(delimiter=";")),
        ("tabs.tsv", "what\twhich\n" + rows(delimiter="\t")),
        ("bom.csv", "\ufeff" + rows()),
        ("wide.csv", "score,name,note,label\n" + "".join(f"1,{name},,{label}\n" for name, label in lines())),
        ("to_label.csv", "name,class\n" + rows() + "25.png,\n\n26.png,\n"),
        ("above.csv", "".join(f"photos/{name}, {label} \n" for name, label in lines())),
        ("windows.csv", "".join(f".\\{name},{label}\n" for name, label in lines())),
        ("labels.json", json.dumps(dict(lines()))),
        ("empty.json", json.dumps({**dict(lines()), "25.png": None})),
    ],
)
def test_a_table_gives_labels(photos: Path, name: str, text: str) -> None:
    images = load(photos, table(photos, text, name))
    assert images.classes == ("ant", "cat")
    assert told(images, photos) == dict(lines())
    assert bool(images.val.labelled.all())
    assert bool(images.test.labelled.all())
    assert (len(images.train), len(images.val), len(images.test)) == (34, 2, 4)
    assert images.unlabelled == 20


def test_a_base_name_that_is_there_once_is_enough(photos: Path) -> None:
    images = load(photos, table(photos, rows() + "more/31.png,ant\n32.png,ant\n"))
    assert {name for name in told(images, photos) if "/" in name} == {"more/31.png", "more/32.png"}


def test_more_labels_leave_stored_answers_of_use(photos: Path) -> None:
    some, more = (load(photos, table(photos, rows(count), f"{count}.csv")) for count in (20, 26))
    assert some.fingerprint == more.fingerprint
    assert some.train.digest() != more.train.digest()
    bare = data.load(f"images:{photos}")
    assert bare.fingerprint != some.fingerprint  # its classes are not known
    other = load(photos, table(photos, rows() + "25.png,bee\n26.png,bee\n", "bee.csv"))
    assert other.fingerprint != some.fingerprint


def test_classes_may_be_more_than_the_table_names(photos: Path) -> None:
    images = load(photos, table(photos, rows()), classes=["cat", "bee", "ant"])
    assert images.classes == ("cat", "bee", "ant")
    assert told(images, photos) == dict(lines())
    assert any("no image has a label of the classes bee" in note for note in images.notes)
    with pytest.raises(UserError, match=r"class 'ant'.* is not among the 2 of data\.classes \(cat, bee\)"):
        load(photos, table(photos, rows()), classes=["cat", "bee"])


def test_share_hides_labels_of_the_table(photos: Path) -> None:
    images = data.load({"source": f"images:{photos}", "labels": {"file": str(table(photos, rows())), "share": 0.5}})
    assert int(images.train.labelled.sum()) == 8  # of 14, 7 a class: 3.5 is rounded up
    assert bool(images.test.labelled.all())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "gives no picture a class; write a line NAME,CLASS for each"),
        ("name,class\n0.png,\n", "gives no picture a class"),
        (rows() + "x.png,cat\n", "names 1 picture that photos does not have: x.png"),
        (rows() + "more/33.jpg,cat\n", "(did you mean 'more/33.png'?)"),
        (rows() + "other/31.png,cat\n", "does not have: other/31.png"),
        (rows() + "1.png,cat\n", "row 21: '1.png' is cat here and ant before; keep one of them"),
        (rows() + "21.png\n", "row 21 has 1 column; write NAME,CLASS"),
        (rows() + "21.png,cat,0.5\n", "row 21 has 3 columns; write NAME,CLASS, or a header with name and class"),
        ("0.png,cat\n2.png,cat\n4.png,cat\n", "has 1 class; a classifier needs at least two"),
    ],
)
def test_what_a_table_may_not_say(photos: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(photos, table(photos, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ('["0.png"]', "must be one object of names and classes"),
        ('{"0.png": ["cat"]}', "must be one object of names and classes"),
        ('{"0.png": "cat", "0.png": "ant"}', "'0.png' is ant here and cat before"),
    ],
)
def test_what_a_json_file_may_not_say(photos: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(photos, table(photos, text, "labels.json"))
    assert sentence in str(caught.value)


def test_a_base_name_that_is_there_twice_is_refused(photos: Path) -> None:
    (photos / "again").mkdir()
    (photos / "again" / "31.png").write_bytes((photos / "more" / "31.png").read_bytes())
    with pytest.raises(
        UserError, match=r"'31\.png' is the name of 2 pictures \(again/31\.png, more/31\.png\); write which"
    ):
        load(photos, table(photos, rows() + "31.png,cat\n"))


def test_a_table_is_for_pictures_without_labels(photos: Path) -> None:
    file = table(photos, rows())
    with pytest.raises(UserError, match="'puppets' has some"):
        data.load({**PUPPETS, "labels": {"file": str(file)}})
    with pytest.raises(UserError, match=r"data\.labels\.file: .*absent\.csv cannot be read: No such file"):
        load(photos, photos / "absent.csv")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        load(photos, photos / "0.png")


def test_a_recipe_finds_the_table_beside_it(photos: Path) -> None:
    table(photos, rows())
    recipe = {
        **SMALLEST,
        "data": {"source": "images:photos", "labels": {"file": "labels.csv"}, "classes": ["ant", "cat"]},
    }
    made = make_recipe(recipe, folder=photos.parent)
    assert made.data.labels is not None
    assert made.data.labels.file == str(photos.parent / "labels.csv")
    assert made.data.classes == ("ant", "cat")
    assert told(data.load(made.data), photos) == dict(lines())
    with pytest.raises(UserError, match=r"data\.labels\.file = 'label\.csv': there is no such file \(did you mean"):
        make_recipe(recipe, ["data.labels.file=label.csv"], folder=photos.parent)
