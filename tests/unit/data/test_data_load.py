from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from classroomkd import data
from classroomkd.data import split, subsets
from classroomkd.data.images import ImageSet, MemoryPixels, Part
from classroomkd.data.sources import python
from classroomkd.data.statistics import mean_std
from classroomkd.errors import UserError
from classroomkd.recipe import make_recipe

SMALL = {"train": 200, "test": 50, "image_size": 32}


@pytest.fixture(scope="module")
def puppets() -> ImageSet:
    return data.load({"source": "puppets", "options": SMALL})


def ids(part: Part) -> set[int]:
    return set(part.ids.tolist())


def test_puppets(puppets: ImageSet) -> None:
    assert puppets.shape == (3, 32, 32)
    assert (len(puppets.train), len(puppets.val), len(puppets.test)) == (180, 20, 50)
    assert puppets.views == "crop"  # a flip would turn wave_left into wave_right
    assert ids(puppets.train) | ids(puppets.val) == set(range(200))
    assert puppets.test.ids.tolist() == list(range(200, 250))
    for part, each in ((puppets.train, 18), (puppets.val, 2), (puppets.test, 5)):
        assert subsets.class_counts(part, 10) == [each] * 10


def test_more_training_scenes_leave_the_test_scenes_alone(puppets: ImageSet) -> None:
    more = data.load({"source": "puppets", "options": {**SMALL, "train": 400}})
    assert torch.equal(more.test.batch(torch.arange(50))[0], puppets.test.batch(torch.arange(50))[0])
    assert more.fingerprint != puppets.fingerprint
    seen = {image.numpy().tobytes() for image in more.train.batch(torch.arange(len(more.train)))[0]}
    assert len(seen) == 360
    assert not seen & {image.numpy().tobytes() for image in more.test.batch(torch.arange(50))[0]}


def test_batches_subsets_and_ids_belong_together(puppets: ImageSet) -> None:
    part = puppets.train
    index = torch.tensor([5, 0, 5, 179])
    pixels, target, got = part.batch(index)
    assert pixels.shape == (4, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[0], pixels[2])
    sub = part.subset(index)
    again = sub.batch(torch.arange(4))
    assert torch.equal(again[0], pixels)
    assert torch.equal(again[1], target)
    assert torch.equal(again[2], got)
    assert sub.pixels is part.pixels
    # An image is the one that its id says, whatever the split.
    from classroomkd.data.puppets import scenes

    assert np.array_equal(pixels.numpy(), scenes(0, got.numpy(), image_size=32).images)


def test_limit_and_test_limit_are_stratified_and_keep_ids(puppets: ImageSet) -> None:
    small = data.load({"source": "puppets", "options": SMALL, "limit": 100, "test_limit": 20})
    assert (len(small.train), len(small.val), len(small.test)) == (90, 10, 20)
    assert subsets.class_counts(small.train, 10) == [9] * 10
    assert small.fingerprint == puppets.fingerprint  # the content is the same: banks can be shared
    assert small.train.digest() != puppets.train.digest()  # what was trained on it is not
    assert len(small.train.pixels) == 100  # rows nobody uses are not kept
    place = {int(i): n for n, i in enumerate(puppets.train.ids)}
    both = [int(i) for i in small.train.ids if int(i) in place]
    there = torch.tensor([place[i] for i in both])
    here = torch.tensor([n for n, i in enumerate(small.train.ids) if int(i) in place])
    assert len(both) > 70
    assert torch.equal(small.train.batch(here)[0], puppets.train.batch(there)[0])


def test_split_seed_moves_the_split_and_nothing_else() -> None:
    first, second = (data.load({"source": "puppets", "options": SMALL, "split_seed": seed}) for seed in (0, 1))
    assert ids(first.val) != ids(second.val)
    assert ids(first.train) | ids(first.val) == ids(second.train) | ids(second.val)
    assert first.fingerprint == second.fingerprint


def test_mean_and_std_are_those_of_the_train_part(puppets: ImageSet) -> None:
    pixels = puppets.train.batch(torch.arange(len(puppets.train)))[0].numpy().astype(np.float64) / 255
    assert np.allclose(puppets.mean, pixels.mean((0, 2, 3)), rtol=0, atol=1e-12)
    assert np.allclose(puppets.std, pixels.std((0, 2, 3)), rtol=0, atol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = 255
    images[:2, 1] = 51
    four = torch.arange(4)
    mean, std, seen = mean_std(Part(MemoryPixels(images), four, four, four))
    assert mean == (1.0, 0.1, 0.0)
    assert std == (1.0, pytest.approx(0.1, abs=1e-15), 1.0)
    assert seen == 4


def test_size_changes_the_shape_and_the_fingerprint(puppets: ImageSet) -> None:
    large = data.load({"source": "puppets", "options": SMALL, "size": 40})
    assert large.shape == (3, 40, 40)
    assert large.fingerprint != puppets.fingerprint


def test_digits() -> None:
    pytest.importorskip("sklearn")
    digits = data.load({"source": "digits", "resize": "pad"})
    assert digits.shape == (3, 32, 32)
    assert digits.classes == tuple("0123456789")
    assert len(digits.train) + len(digits.val) + len(digits.test) == 1797
    assert abs(len(digits.test) - 359) <= 5
    parts = [ids(part) for part in (digits.train, digits.val, digits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels, target, number = digits.test.batch(torch.arange(5))
    assert np.array_equal(target.numpy(), bunch.target[number])
    assert np.array_equal(pixels[:, 2, ::4, ::4].numpy(), np.round(bunch.images[number] * 255 / 16).astype(np.uint8))


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r'pip install "classroomkd\[digits\]"'):
        data.load("digits")


def test_train_and_test_from_different_sources(puppets: ImageSet) -> None:
    spec = {"train": "puppets", "test": "puppets", "options": SMALL}
    both = data.load(spec)
    assert torch.equal(both.test.batch(torch.arange(9))[0], puppets.test.batch(torch.arange(9))[0])
    assert not ids(both.train) & ids(both.test)
    assert data.load({"train": "puppets", "options": SMALL}).fingerprint == puppets.fingerprint
    pytest.importorskip("sklearn")
    with pytest.raises(UserError, match=r"data\.test: class '0' is not among the 3 classes of data\.train"):
        data.load({"train": Pictures(colour), "test": "digits"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pupets", r"no data source 'pupets' \(did you mean 'puppets'\?\)"),
        ("cifar100", "write cifar100:DIR"),
        ("imagefolder: ", "write imagefolder:DIR"),
        ("digits:here", "takes nothing after it"),
        ("cifar10:/no/such/folder", r"no folder /no/such/folder .*/ exists and holds"),
        ({"source": "puppets", "limitt": 3}, r"data\.limitt: unknown key \(did you mean 'limit'\?\)"),
        ({"source": "puppets", "val_fraction": 1.0}, r"data\.val_fraction = 1\.0: must be less than 1"),
        ({"source": "puppets", "limit": 0}, r"data\.limit = 0: must be at least 1"),
        ({"source": "puppets", "limit": True}, r"data\.limit = True: must be a whole number"),
        ({"source": "puppets", "shard": "0/2"}, r"data\.shard = '0/2': must be k/n, .* k from 1 to n"),
        ({"source": "puppets", "shard": 2}, r"data\.shard = 2: must be k/n"),
        ({"source": "puppets", "unreadable": "skp"}, r"did you mean 'skip'"),
        ({"source": "puppets", "limit": 5, "options": SMALL}, "5 images cannot cover 10 classes"),
        ({"source": "puppets", "limit": 10, "options": SMALL}, "no image is left for the validation part"),
        ({"source": "puppets", "val_fraction": 0, "options": SMALL}, r"data\.val_fraction: 0"),
        ({"source": "puppets", "options": {"hrd": 1}}, r"data\.options\.hrd = 1: .*did you mean 'hard'"),
        ({"source": "puppets", "options": {"train": "many"}}, r"data\.options\.train = 'many': must be a whole number"),
        ({"source": "puppets", "options": {"train": 3}}, r"data\.options\.train: 3 puppets"),
        ({"source": "digits", "options": {"seed": 3}}, "'digits' has none"),
        ({"source": "puppets", "test": "puppets"}, "both 'source' and test"),
        ({"test": "puppets"}, "has 'test' but no 'train'"),
        ({}, "no source"),
        ("py:os:getcwd", "--trust-code"),
    ],
)
def test_mistakes_are_named(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"source": "pupets"},
        {"source": "cifar100"},
        {"source": "puppets:3"},
        {"source": "mpii:x"},
        {"source": "py:a.b:c"},
        {"source": "puppets", "test": "puppets"},
        {"test": "puppets"},
        {"limit": 3},
        {"source": "puppets", "limit": 0},
        {"source": "puppets", "limit": "x"},
        {"source": "puppets", "limit": True},
        {"source": "puppets", "split_seed": -1},
        {"source": "puppets", "shard": "0/2"},
        {"source": "puppets", "shard": "3/2"},
        {"source": "puppets", "shard": "1/0"},
        {"source": "puppets", "shard": "a"},
        {"source": "puppets", "shard": "1/2\n"},
        {"source": "puppets", "shard": 2},
        {"source": "puppets", "val_fraction": 1},
        {"source": "puppets", "val_fraction": -0.5},
        {"source": "puppets", "test_fraction": "x"},
        {"source": "puppets", "test_fraction": float("nan")},
        {"source": "puppets", "size": 4},
        {"source": "puppets", "unreadable": "skp"},
        {"source": "puppets", "views": "crops"},
        {"source": "puppets", "options": {"hrd": 1}},
        {"source": "puppets", "options": {"train": 3.5}},
        {"source": "digits", "options": {"train": 3}},
    ],
)
def test_a_recipe_and_the_library_say_the_same(spec: Any) -> None:
    with pytest.raises(UserError) as ours:
        data.load(spec)
    with pytest.raises(UserError) as theirs:
        make_recipe({"data": spec, "student": "convnet8", "method": "none"})
    sentence = str(ours.value).split(": ", 1)[1]
    assert sentence in str(theirs.value)
    assert len(str(ours.value).splitlines()) == 1


def test_all_mistakes_at_once() -> None:
    with pytest.raises(UserError) as caught:
        data.load({"source": "puppets", "sise": 3, "limit": "x", "views": "flop"})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("photos", "imagefolder:photos"),
        ("./photos", "imagefolder:./photos"),
        ("folder:photos", "imagefolder:photos"),
        ("photos:photos #2", "imagefolder:photos #2"),
        ("people", "coco-keypoints:people"),
        ("people/annotations/train.json", "coco-keypoints:people/annotations/train.json"),
        ("coco:people", "coco-keypoints:people"),
        ("coco:gone", "coco-keypoints:gone"),
        ("lsp:x.zip", "coco-keypoints:x.zip"),
        ("persons", "mpii:persons"),
        ("clothes", "fashion-mnist:clothes"),
        ("cifar:x", "cifar10:x"),
        ("imagefoldr:photos", "imagefolder:photos"),
        ("imagefoldr:gone", "imagefolder"),
        ("elsewhere", "imagefolder:elsewhere"),
    ],
)
def test_a_source_that_was_meant(spec: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photos/cat", "photos #2/cat", "people/annotations", "persons/annot", "clothes", "data/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("people/annotations/train.json", "persons/annot/train.json", "clothes/train-images-idx3-ubyte.gz"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLASSROOMKD_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError) as caught:
        data.load(spec)
    assert f"(did you mean '{meant}'?)" in str(caught.value)
    with pytest.raises(UserError) as caught:
        make_recipe({"data": spec, "student": "convnet8", "method": "none"})
    assert f"(did you mean '{meant}'?)" in str(caught.value)


# --- datasets from Python -------------------------------------------------------------------------------------------


class Pictures(Dataset[Any]):
    """24 items of 3 classes; ``make`` gives the image of an item."""

    classes = ("ant", "bee", "cat")

    def __init__(self, make: Any, count: int = 24) -> None:
        self.make, self.count = make, count
        self.targets = [row % 3 for row in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.make(row), self.targets[row]


def colour(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (3, 40, 40), dtype=np.uint8)


def makers() -> dict[str, Any]:
    from PIL import Image

    return {
        "uint8 tensor": lambda row: torch.from_numpy(colour(row)),
        "float tensor": lambda row: torch.from_numpy(colour(row)) / 255,
        "array HWC": lambda row: colour(row).transpose(1, 2, 0),
        "array CHW": colour,
        "float array": lambda row: colour(row).astype(np.float32) / 255,
        "PIL": lambda row: Image.fromarray(colour(row).transpose(1, 2, 0)),
    }


@pytest.mark.parametrize("kind", list(makers()))
@pytest.mark.parametrize("budget", [python.BUDGET, 0])
def test_every_kind_of_item_gives_the_same_pixels(kind: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", budget)
    made = data.load(Pictures(makers()[kind]))
    assert isinstance(made.train.pixels, MemoryPixels) == bool(budget)
    assert made.classes == ("ant", "bee", "cat")
    assert (len(made.train), len(made.val), len(made.test)) == (15, 3, 6)
    for part in (made.train, made.val, made.test):
        pixels, target, got = part.batch(torch.arange(len(part)))
        assert np.array_equal(pixels.numpy(), np.stack([colour(int(row)) for row in got]))
        assert target.tolist() == [int(row) % 3 for row in got]


def test_pairs_dicts_and_from_dataset() -> None:
    train, test = Pictures(colour), Pictures(lambda row: colour(row + 100), 9)
    sets = [
        data.load((train, test)),
        data.load({"train": train, "test": test}),
        data.from_dataset(train, test),
        data.load({"source": {"train": train, "test": test}}),
    ]
    for made in sets:
        assert (len(made.train), len(made.val), len(made.test)) == (21, 3, 9)
        assert made.test.ids.tolist() == list(range(24, 33))
    assert len({made.fingerprint for made in sets}) == 1
    named = data.from_dataset(train, test, classes=("x", "y", "z"), limit=12, name="mine")
    assert named.classes == ("x", "y", "z")
    assert named.name == "mine"
    assert len(named.train) + len(named.val) == 12
    three = data.load((train, test, Pictures(colour, 6)))
    assert (len(three.train), len(three.val), len(three.test)) == (24, 9, 6)


def test_labels_through_subsets_without_reading_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", 0)
    asked: list[int] = []

    def make(row: int) -> np.ndarray:
        asked.append(row)
        return colour(row)

    whole = Pictures(make, 3000)
    made = data.load(Subset(whole, list(range(1, 3000))))
    assert made.train.target.tolist() == [(int(row) + 1) % 3 for row in made.train.ids]
    assert len(set(asked)) < 2400  # a sample for the fingerprint and for mean and std, not everything
    assert any("measured on 2000 of" in note for note in made.notes)


def test_float_pixels_are_rounded() -> None:
    made = data.load(TensorDataset(torch.full((30, 3, 32, 32), 0.999), torch.arange(30) % 3))
    assert int(made.train.batch(torch.tensor([0]))[0].min()) == 255


def test_tensor_dataset_without_class_names() -> None:
    made = data.load(TensorDataset(torch.rand(30, 1, 28, 28), torch.arange(30) % 3))
    assert made.classes == ("0", "1", "2")
    assert made.shape == (3, 32, 32)


class Endless:
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Pictures(lambda row: torch.randn(3, 8, 8)), "without Normalize"),
        (Pictures(lambda row: torch.rand(3, 40, 40)), "random augmentation"),
        (Pictures(lambda row: np.zeros((3, 40 + row, 40), np.uint8)), r"item 1 is 3x41x40.*data\.size"),
        (Pictures(lambda row: np.zeros((4, 40, 40), np.uint8)), "only 1 or 3 channels"),
        (Pictures(lambda row: np.zeros((40, 40, 2, 2), np.uint8)), "give .height, width."),
        (Pictures(lambda row: np.zeros((40, 40), np.int32)), "give uint8"),
        (Pictures(lambda row: "cat.jpg"), "the image is a str"),
        (Pictures(colour, 0), "empty"),
        (Endless(), "map-style"),
        (7, "map-style"),
        ([3, 4, 5], "give .image, label."),
        ([(colour(0), "ant")] * 5, "label of item 0 is 'ant'"),
        ([(colour(0), 0.5)] * 5, "label of item 0 is 0.5"),
        ([(colour(0), -1)] * 5, "labels must be 0 to"),
        ([(colour(0), 0)] * 5, "at least two"),
    ],
)
def test_unfit_datasets_are_refused(dataset: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.load({"source": dataset})


def test_sizes_that_differ_are_made_one_on_request() -> None:
    made = data.load({"source": Pictures(lambda row: np.full((3, 40 + row, 50), row, np.uint8)), "size": 36})
    assert made.shape == (3, 36, 36)


def test_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_pictures.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def make(count=30):\n    return TensorDataset(torch.ones(count, 3, 32, 32), torch.arange(count) % 3)\n"
        "def pair():\n    return {'train': make(), 'test': make(9), 'classes': ['a', 'b', 'c']}\n"
        "def wrong():\n    return {'train': make(), 'tset': make(9)}\n",
        encoding="utf-8",
    )
    made = data.load({"source": "py:my_pictures:make", "options": {"count": 60}}, trust_code=True)
    assert len(made.train) + len(made.val) + len(made.test) == 60
    assert data.load("py:my_pictures:pair", trust_code=True).classes == ("a", "b", "c")
    for spec, message in (
        ("py:my_pictures:mke", "did you mean 'make'"),
        ("py:my_picturs:make", "no module 'my_picturs'"),
        ("py:my_pictures", "py:package.module:factory"),
        ("py:my_pictures:wrong", "tset"),
    ):
        with pytest.raises(UserError, match=message):
            data.load(spec, trust_code=True)


# --- parts, classes, processes ---------------------------------------------------------------------------------------


def test_class_sizes() -> None:
    def counted(*counts: int) -> Any:
        target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return TensorDataset(torch.ones(len(target), 3, 32, 32), target)

    with pytest.raises(UserError, match=r"at least 2 training images to be split; too few in '1' \(1\)"):
        data.load(counted(20, 1))
    made = data.load(counted(20, 2, 3, 7))
    assert subsets.class_counts(made.test, 4) == [4, 1, 1, 1]
    assert subsets.class_counts(made.val, 4) == [2, 0, 1, 1]
    assert subsets.class_counts(made.train, 4) == [14, 1, 1, 5]
    assert any("fewer than 5 images" in note and "1 (2), 2 (3)" in note for note in made.notes)
    assert any("fewer than 10 images" in note and "3 (7)" in note for note in made.notes)
    assert not data.load(counted(20, 20)).notes
    both = data.from_dataset(counted(20, 1), counted(5, 5))
    assert subsets.class_counts(both.train, 2) == [18, 1]
    with pytest.raises(UserError, match="at least 1 training image; too few in '1'"):
        data.from_dataset(counted(20, 0, 5), counted(5, 5, 5))


def test_subset_is_stratified_and_refuses_nothing(puppets: ImageSet) -> None:
    some = subsets.subset(puppets.train, 50)
    assert subsets.class_counts(some, 10) == [5] * 10
    assert set(split.PURPOSES) >= {"student", "mentor"}
    assert ids(some) != ids(subsets.subset(puppets.train, 50, purpose="mentor"))
    assert len(subsets.subset(puppets.train, 10**6)) == 180
    with pytest.raises(UserError, match="samples is 0"):
        subsets.subset(puppets.train, 0)


def test_parts_that_share_pixels_share_the_copy_on_a_device(puppets: ImageSet) -> None:
    there = puppets.to("meta")
    assert there.train.pixels is there.val.pixels
    assert there.train.pixels is not there.test.pixels
    assert puppets.to("cpu").train.pixels is puppets.train.pixels


def test_pixels_survive_pickling(puppets: ImageSet) -> None:
    puppets.train.pixels.to("meta")
    again = pickle.loads(pickle.dumps(puppets))
    assert torch.equal(again.train.batch(torch.arange(5))[0], puppets.train.batch(torch.arange(5))[0])


def test_a_process_gets_the_same_data(puppets: ImageSet) -> None:
    again = pickle.loads(pickle.dumps(puppets))
    for name in ("name", "classes", "mean", "std", "views", "fingerprint", "notes", "shape"):
        assert getattr(again, name) == getattr(puppets, name), name
    for name in ("train", "val", "test"):
        ours, theirs = getattr(puppets, name), getattr(again, name)
        assert ours.digest() == theirs.digest()
        index = torch.arange(len(ours))
        for one, two in zip(ours.batch(index), theirs.batch(index), strict=True):
            assert torch.equal(one, two)
    assert again.train.pixels is again.val.pixels


def test_packing_is_gone_and_says_so(puppets: ImageSet, tmp_path: Path) -> None:
    for gone in (data.pack, data.unpack):
        with pytest.raises(UserError, match="give the ImageSet itself"):
            gone(puppets, tmp_path)


def test_what_is_said_about_data_has_an_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="DataSpec is called DataSettings now"):
        assert data.DataSpec is data.DataSettings
