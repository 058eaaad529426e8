"""``data.unlabelled``: pictures without labels join the training part, and nothing else."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from classroomkd import data
from classroomkd._handed import handed
from classroomkd.data import near_copies
from classroomkd.data.images import ImageSet, MemoryPixels
from classroomkd.data.joined import JoinedPixels
from classroomkd.data.sources import python
from classroomkd.data.targets import UNLABELLED
from classroomkd.errors import UserError
from classroomkd.recipe import load_recipe, make_recipe
from classroomkd.recipe.dump import recipe_yaml

PUPPETS = {"source": "puppets", "options": {"train": 100, "test": 20, "image_size": 32}}
SMALLEST = {"student": "resnet8", "method": "none"}
ON_DEMAND = {"memory_gib": 1e-6}


def fill(folder: Path, count: int = 12, side: int = 32) -> Path:
    """Pictures that occur nowhere else: their pixels follow from their path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:02}.png"
        draw = np.random.default_rng(list(os.fsencode(path)))
        Image.fromarray(draw.integers(64, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return folder


def classes(root: Path) -> Path:
    for name in ("ant", "bee"):
        fill(root / name, 20)
    return root


def load(unlabelled: Any, **keys: Any) -> ImageSet:
    return data.load({**PUPPETS, "unlabelled": unlabelled, **keys})


def seen(images: ImageSet) -> dict[int, bytes]:
    """The training images by id."""
    pixels, _, ids = images.train.batch(torch.arange(len(images.train)))
    return dict(zip(ids.tolist(), (one.numpy().tobytes() for one in pixels), strict=True))


def test_pictures_join_the_training_part_behind_all_ids(tmp_path: Path) -> None:
    whole, more = data.load(PUPPETS), load(f"images:{fill(tmp_path / 'photos')}")
    assert more.unlabelled == 12
    assert len(more.train) == len(whole.train) + 12
    known = more.train.labelled
    assert more.train.subset(known.nonzero().flatten()).digest() == whole.train.digest()
    assert more.train.ids[~known].tolist() == list(range(120, 132))
    assert set(more.train.target[~known].tolist()) == {UNLABELLED}
    assert (more.val.digest(), more.test.digest()) == (whole.val.digest(), whole.test.digest())
    pixels = seen(more)
    assert {sample: image for sample, image in pixels.items() if sample < 120} == seen(whole)
    for number in range(12):
        with Image.open(tmp_path / "photos" / f"{number:02}.png") as image:
            assert pixels[120 + number] == np.asarray(image).transpose(2, 0, 1).tobytes()
    assert more.fingerprint != whole.fingerprint
    assert more.mean != whole.mean  # of all training images
    assert isinstance(more.train.pixels, MemoryPixels)
    assert len(more.val.pixels) == 10  # rows that only training uses are not kept twice
    assert "12 pictures of 'photos' train without a label" in more.notes


def test_the_fingerprint_knows_every_source_in_its_order(tmp_path: Path) -> None:
    one, two = (f"images:{fill(tmp_path / name)}" for name in ("one", "two"))
    marks = [load(value).fingerprint for value in (one, two, [one, two], [two, one])]
    assert len(set(marks)) == 4
    assert load([one]).fingerprint == marks[0]
    assert load([one, two]).train.ids[-24:].tolist() == list(range(120, 144))


def test_labels_of_a_source_that_has_some_are_not_read(tmp_path: Path) -> None:
    folder = classes(tmp_path / "animals")
    more = load(f"imagefolder:{folder}")
    assert more.classes == data.load(PUPPETS).classes
    assert more.unlabelled == 40
    reverse = data.load(f"imagefolder:{folder}", unlabelled="puppets", options=PUPPETS["options"])
    assert reverse.unlabelled == 100
    assert "data.unlabelled: of 'puppets' the training part is taken, not its test" in reverse.notes


def test_pictures_are_brought_to_the_labelled_ones_shape(tmp_path: Path) -> None:
    fill(tmp_path / "large", 3, side=80)
    more = load(f"images:{tmp_path / 'large'}")
    assert more.train.pixels.shape == (3, 32, 32)
    assert more.resized
    assert load(f"images:{tmp_path / 'large'}", size=40).shape == (3, 40, 40)
    tall = TensorDataset(torch.randint(64, 256, (20, 3, 40, 48), dtype=torch.uint8), torch.arange(20) % 2)
    with pytest.raises(UserError, match=r"are 80x80, those with labels 40x48; set data\.size to one size for both"):
        data.load(tall, unlabelled=f"images:{tmp_path / 'large'}")


def test_on_demand_and_in_memory_are_the_same(tmp_path: Path) -> None:
    photos, animals = fill(tmp_path / "photos"), classes(tmp_path / "animals")
    keys = {"source": f"imagefolder:{animals}", "unlabelled": f"images:{photos}"}
    memory, demand = data.load(keys), data.load({**keys, "options": ON_DEMAND})
    mixed = load(f"images:{photos}", options={**PUPPETS["options"], **ON_DEMAND})
    assert isinstance(demand.train.pixels, JoinedPixels)
    assert isinstance(mixed.train.pixels, JoinedPixels)
    assert demand.train.pixels.decodes
    assert seen(demand) == seen(memory)
    assert seen(mixed) == seen(load(f"images:{photos}"))
    assert demand.fingerprint == memory.fingerprint
    mixed.share()
    assert seen(pickle.loads(pickle.dumps(mixed))) == seen(mixed)
    assert seen(mixed.to("cpu")) == seen(mixed)


def test_datasets_join_with_or_without_targets() -> None:
    pictures = torch.randint(64, 256, (8, 3, 32, 32), dtype=torch.uint8)
    bare, wrong = TensorDataset(pictures), TensorDataset(pictures.flip(0), torch.arange(8) * 1000 - 5)
    more = load([bare, wrong])
    assert more.unlabelled == 16
    assert [seen(more)[120 + row] for row in range(8)] == [one.numpy().tobytes() for one in pictures]
    labelled = TensorDataset(torch.randint(64, 256, (40, 3, 32, 32), dtype=torch.uint8), torch.arange(40) % 2)
    assert data.load(labelled, unlabelled=bare).unlabelled == 8
    assert data.from_dataset(labelled, unlabelled=bare).unlabelled == 8


def test_datasets_on_demand_are_read_in_the_calling_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", 0)
    labelled = TensorDataset(torch.randint(64, 256, (40, 3, 32, 32), dtype=torch.uint8), torch.arange(40) % 2)
    images = data.load(labelled, unlabelled=f"images:{fill(tmp_path / 'photos')}", options=ON_DEMAND)
    assert isinstance(images.train.pixels, JoinedPixels)
    assert not images.train.pixels.decodes
    assert len(seen(images)) == len(images.train) == 28 + 12


def test_hidden_labels_and_other_pictures_add_up(tmp_path: Path) -> None:
    more = load(f"images:{fill(tmp_path / 'photos')}", labels={"share": 0.5})
    assert more.unlabelled == 12 + 40  # of 9 labels a class 4.5 are hidden, rounded down


# --- twice ------------------------------------------------------------------------------------------------------------


def twice(**keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        data.load(keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_folder_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    animals, photos = classes(tmp_path / "animals"), fill(tmp_path / "photos")
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    source = f"imagefolder:{animals}"
    assert "has pictures that data.source (" in twice(source=source, unlabelled=f"images:{animals}")
    assert "has pictures that data.source (" in twice(source=source, unlabelled="images:animals/../animals/ant")
    assert "has pictures that data.source (" in twice(source=source, unlabelled=f"images:{tmp_path}")
    assert "data.train" in twice(train=source, test=source, unlabelled=["images:photos", source])
    said = twice(source=source, unlabelled=[f"images:{photos}", "images:link"])
    assert "'images:link' has pictures that data.unlabelled ('images:" in said
    assert "'puppets' has pictures that data.source has already" in twice(source="puppets", unlabelled="puppets")


def test_the_same_dataset_twice_is_refused() -> None:
    images = TensorDataset(torch.randint(64, 256, (40, 3, 32, 32), dtype=torch.uint8), torch.arange(40) % 2)
    for keys in ({"source": images, "unlabelled": images}, {**PUPPETS, "unlabelled": [images, images]}):
        assert "the same TensorDataset has pictures that" in twice(**keys)
    with pytest.raises(UserError, match="the same TensorDataset"):
        data.from_dataset(images, unlabelled=images)


# --- near copies ------------------------------------------------------------------------------------------------------


@pytest.fixture
def overlap(tmp_path: Path) -> dict[str, str]:
    """Three pictures without a label are those of the test part, one is of the validation part, in other files."""
    for part, count in (("train", 10), ("val", 5), ("test", 10)):
        for name in ("ant", "bee"):
            fill(tmp_path / "animals" / part / name, count)
    photos = fill(tmp_path / "photos")
    for number, place in enumerate(("test/ant/03", "test/bee/04", "test/bee/05", "val/bee/01")):
        (photos / f"copy{number}.png").write_bytes((tmp_path / "animals" / f"{place}.png").read_bytes())
    return {"source": f"imagefolder:{tmp_path / 'animals'}", "unlabelled": f"images:{photos}"}


def told(images: ImageSet) -> list[str]:
    return [note for note in images.notes if "pictures of data.unlabelled" in note]


TOLD = [
    "3 of 16 pictures of data.unlabelled are also in the test part (copy0.png, copy1.png, copy2.png): what is measured"
    " on it is flattered",
    "1 of 16 pictures of data.unlabelled is also in the validation part (copy3.png): what is chosen by it is chosen by"
    " pictures that were trained on",
]


def test_pictures_that_are_measured_on_are_told(overlap: dict[str, str]) -> None:
    assert told(data.load(overlap)) == TOLD
    assert not told(data.load(overlap["source"]))


def test_the_same_pixels_in_another_file_are_told(overlap: dict[str, str]) -> None:
    folder = Path(overlap["unlabelled"].partition(":")[2])
    for file in folder.glob("copy*.png"):
        with Image.open(file) as image:
            image.save(file, compress_level=1)
    assert told(data.load(overlap)) == TOLD
    file = folder.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    assert told(data.load({**overlap, "unlabelled": f"images:{file}"})) == TOLD


def test_many_files_on_demand_are_compared_by_their_bytes(
    overlap: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_copies, "MOST_DECODED", 5)
    monkeypatch.setattr(near_copies, "_by_pixels", None)
    assert told(data.load({**overlap, "options": ON_DEMAND})) == TOLD


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        fill(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    single = make_recipe({**SMALLEST, "data": {**PUPPETS, "unlabelled": "images:one"}})
    assert single.data.unlabelled == f"images:{tmp_path / 'one'}"
    both = make_recipe({**SMALLEST, "data": {**PUPPETS, "unlabelled": ["images:one", "images:two"]}})
    assert both.data.unlabelled == (f"images:{tmp_path / 'one'}", f"images:{tmp_path / 'two'}")
    for recipe, count in ((single, 12), (both, 24)):
        assert data.load(recipe.data).unlabelled == count
        assert data.load(recipe.data.model_dump(exclude_defaults=True)).unlabelled == count
    file = tmp_path / "both.yaml"
    file.write_text(recipe_yaml(both))
    assert load_recipe(file) == both
    assert "unlabelled" not in recipe_yaml(make_recipe({**SMALLEST, "data": "puppets"}))


def test_all_mistakes_of_a_recipe_are_in_one_message() -> None:
    keys = {"source": "puppets", "unlabelled": ["images:absent", "photo:x"], "options": {"memory_gip": 1}, "limit": 0}
    with pytest.raises(UserError) as caught:
        make_recipe({**SMALLEST, "data": keys})
    for sentence in (
        "data.unlabelled.0 = 'images:absent': there is no folder 'absent'",
        "data.unlabelled.1 = 'photo:x': there is no data source 'photo'",
        "data.options.memory_gip = 1: unknown option",
        "data.limit = 0",
    ):
        assert sentence in str(caught.value)


@pytest.mark.parametrize("wrong", [[], "", [None], 3, [""]])
def test_what_names_no_source(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"data\.unlabelled = .*names no source; write images:DIR"):
        load(wrong)
    with pytest.raises(UserError, match=r"data\.unlabelled"):
        make_recipe({**SMALLEST, "data": {**PUPPETS, "unlabelled": wrong}})


def test_what_is_wrong_with_them_is_told_as_theirs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.unlabelled: images:.*: there is no folder"):
        load(f"images:{tmp_path / 'absent'}")
    with pytest.raises(UserError, match=r"^data\.unlabelled: it is a whole ImageSet .*; give a Dataset"):
        load([data.load(PUPPETS)])
    with pytest.raises(UserError, match=r"data\.options\.memory = 1: unknown option of 'puppets'"):
        load(f"images:{fill(tmp_path / 'photos')}", options={**PUPPETS["options"], "memory": 1})
    with pytest.raises(UserError, match=r"^data\.unlabelled: images:absent: there is no folder"):
        data.load({**PUPPETS, "unlabelled": "images:absent"}, task="pose")
    with pytest.raises(UserError, match=r"data\.unlabelled = 'puppets': the data are a whole ImageSet"):
        data.load(data.load(PUPPETS), unlabelled="puppets")


def test_from_python_they_may_be_handed_over(tmp_path: Path) -> None:
    bare = TensorDataset(torch.zeros(4, 3, 32, 32))
    for given in (bare, [bare, "puppets"]):
        found = handed("run", "resnet8", [], {"source": "digits", "unlabelled": given}, "none", [0], {"limit": 50})
        assert found.source == {"source": "digits", "unlabelled": given, "limit": 50}
        assert found.content["data"] == {"source": "python", "limit": 50}
    named = handed("run", "resnet8", [], "digits", "none", [0], {"unlabelled": ["images:a", "images:b"]})
    assert named.source is None
    assert named.content["data"] == {"source": "digits", "unlabelled": ["images:a", "images:b"]}
