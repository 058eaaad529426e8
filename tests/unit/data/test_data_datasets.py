"""Datasets of the user's own: labels, names of classes, randomness, items that cannot be read."""

from __future__ import annotations

import random
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, random_split

from classroomkd import data
from classroomkd.data.images import ImageSet
from classroomkd.data.sources import python
from classroomkd.errors import UserError

NAMES = ("ant", "bee", "cat")


class Folder(Dataset[Any]):
    """Like torchvision's ImageFolder; the colour of an item's picture tells its class: 40, 80 or 120."""

    def __init__(
        self, count: int = 30, names: Any = NAMES, target_transform: Callable[[int], Any] | None = None, first: int = 0
    ) -> None:
        self.classes = names
        self.targets = [row % len(names) for row in range(count)]
        self.target_transform = target_transform
        self.first = first

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        name = str(self.classes[self.targets[row]])
        grey = 40 + 40 * NAMES.index(name) if name in NAMES else 200
        pixels = np.full((32, 32), grey, np.uint8)
        pixels[0, :2] = divmod(self.first + row, 250)
        label = self.targets[row]
        return pixels, label if self.target_transform is None else self.target_transform(label)


@pytest.fixture(params=["in memory", "on demand"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "on demand":
        monkeypatch.setattr(python, "BUDGET", 0)
    return request.param == "in memory"


def named(images: ImageSet) -> None:
    """Every picture has the class that its colour tells."""
    for part in (images.train, images.val, images.test):
        pixels, target, _ = part.batch(torch.arange(len(part)))
        told = [NAMES[int(grey) // 40 - 1] for grey in pixels[:, 0, 5, 5]]
        assert told == [images.classes[label] for label in target.tolist()]


def refused(*args: Any, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        data.from_dataset(*args, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(30)), lambda d: ConcatDataset([d, d])])
def test_labels_are_those_of_the_items(wrap: Callable[[Any], Any]) -> None:
    images = data.from_dataset(wrap(Folder(target_transform=lambda label: (label + 1) % 3)))
    everything = torch.cat([images.train.target, images.val.target, images.test.target])
    ids = torch.cat([images.train.ids, images.val.ids, images.test.ids])
    assert everything.tolist() == [(int(row) % 30 + 1) % 3 for row in ids]
    named(images)  # the names follow
    assert images.classes == ("cat", "ant", "bee")


@pytest.mark.usefixtures("both_ways")
def test_a_rare_class_alone_that_is_numbered_anew() -> None:
    rare = Folder(300)
    rare.targets = [0, 1] * 148 + [2] * 4
    rare.target_transform = lambda label: 1 if label == 2 else label
    images = data.from_dataset(rare)
    assert images.classes == ("0", "1")
    assert sum(int(part.target.sum()) for part in (images.train, images.val, images.test)) == 152
    assert any("class names are not used" in note for note in images.notes)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    "kind",
    [int, np.int32, np.uint8, np.float64, torch.tensor, lambda label: torch.tensor([label], dtype=torch.int32),
     np.array, lambda label: torch.tensor(label, dtype=torch.uint8)],
)  # fmt: skip
def test_kinds_of_whole_numbers(kind: Any) -> None:
    named(data.from_dataset(Folder(target_transform=kind)))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda k: 20240101 + k, r"labels must be 0 to 2 for 3 classes .*from 20240101 to 20240103"),
        (lambda k: 10**30, "labels must be 0 to K-1"),
        (lambda k: k - 1, "the lowest is -1"),
        (lambda k: k + 1, "they go from 1 to 3: subtract 1"),
        (lambda k: torch.eye(3)[k], r"a row of 3 numbers \(one-hot\?\)"),
        (lambda k: [0, 1, 0], "one-hot"),
        (lambda k: np.eye(3)[k], "one-hot"),
        (lambda k: float("nan"), "label of item 0 is nan"),
        (lambda k: float("inf"), "label of item 0 is inf"),
        (lambda k: "ant", "label of item 0 is 'ant'"),
    ],
)
def test_labels_that_are_no_places(label: Callable[[int], Any], message: str) -> None:
    items = [(np.full((32, 32), row, np.uint8), label(row % 3)) for row in range(30)]
    begun = time.perf_counter()
    with pytest.raises(UserError, match=message):
        data.load({"source": items})
    assert time.perf_counter() - begun < 20  # not a name for every number up to the highest


@pytest.mark.parametrize(("change", "message"), [(1, "subtract 1"), (-1, "lowest is -1"), (20240101, "the highest is")])
def test_labels_beside_names(change: int, message: str) -> None:
    said = refused(Folder(target_transform=lambda label: label + change), classes=NAMES)
    assert "labels must be 0 to 2 for 3 classes" in said
    assert message in said


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [list(NAMES), np.array(NAMES), [b"ant", b"bee", b"cat"], dict(enumerate(NAMES))])
@pytest.mark.usefixtures("both_ways")
def test_names_of_any_kind(names: Any) -> None:
    pair = (Folder(), Folder(9, first=500))
    assert data.from_dataset(*pair, classes=names).classes == NAMES
    assert data.load(pair, classes=names, size=40).shape == (3, 40, 40)
    assert data.load({"train": pair[0], "classes": names}).classes == NAMES


@pytest.mark.parametrize(
    ("attribute", "value", "names"),
    [
        ("classes", np.array(["x", "y", "z"]), ("x", "y", "z")),
        ("classes", {0: "x", 1: "y", 2: "z"}, ("x", "y", "z")),
        ("classes", {"x": 2, "y": 1, "z": 0}, ("z", "y", "x")),
        ("class_to_idx", {"x": 2, "y": 1, "z": 0}, ("z", "y", "x")),
        ("classes", [7, 8, 9], ("7", "8", "9")),
        ("classes", [("x", "ex"), ("y",), ("z",)], ("x, ex", "y", "z")),
        ("classes", ["caf\udce9", "y", "z"], ("caf\ufffd", "y", "z")),
        ("classes", "xyz", ("0", "1", "2")),
        ("classes", 3, ("0", "1", "2")),
    ],
)
def test_names_that_a_dataset_has(attribute: str, value: Any, names: tuple[str, ...]) -> None:
    class Plain(Dataset[Any]):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, row: int) -> tuple[Any, int]:
            return np.full((32, 32), row, np.uint8), row % 3

    plain = Plain()
    setattr(plain, attribute, value)
    for wrapped in (plain, Subset(plain, range(27)), ConcatDataset([plain, plain])):
        assert data.from_dataset(wrapped).classes == names


class Wrapped(Dataset[Any]):
    """As people write one, to change pictures or labels."""

    def __init__(self, dataset: Any, label: Callable[[int], int] = int) -> None:
        self.dataset, self.label = dataset, label

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        image, label = self.dataset[row]
        return image, self.label(label)


@pytest.mark.usefixtures("both_ways")
def test_names_through_wrappers() -> None:
    whole = Folder(60)
    one, two = random_split(whole, [40, 20], generator=torch.Generator().manual_seed(0))
    for given in (
        (Subset(whole, range(30)), Subset(whole, range(30, 60))),
        (one, two),
        (ConcatDataset([Folder(30), Folder(30, first=500)]), two),
        (Subset(ConcatDataset([Folder(30), Folder(30, first=500)]), range(50)), two),
        (Wrapped(whole), Wrapped(two)),
    ):
        images = data.load(given)
        assert images.classes == NAMES
        named(images)
    some = Subset(whole, [row for row in range(60) if row % 3 > 0])
    images = data.from_dataset(Wrapped(some, lambda label: label - 1))
    assert images.classes == ("bee", "cat")
    named(images)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("order", [("bee", "ant", "cat"), ("cat", "bee"), np.array(["cat", "ant", "bee"])])
def test_parts_meet_by_name(order: Any) -> None:
    images = data.load((Folder(), Folder(12, order, first=500)))
    assert images.classes == NAMES
    named(images)
    assert images.fingerprint != data.load((Folder(), Folder(12, first=500))).fingerprint


def test_names_that_are_given_are_met_by_name_or_new() -> None:
    named(data.from_dataset(Folder(), classes=("cat", "ant", "bee")))
    assert data.from_dataset(Folder(), classes=["x", "y", "z"]).classes == ("x", "y", "z")
    assert data.from_dataset(Folder(), classes={0: "x", 1: "y", 2: "z"}).classes == ("x", "y", "z")
    assert "give a list of names" in refused(Folder(), classes=3)
    assert "labels must be 0 to 1 for 2 classes" in refused(Folder(), classes=["x", "y"])
    options = {"train": 200, "test": 50, "image_size": 32}
    drawn = data.load("puppets", options=options)
    turned = data.load("puppets", options=options, classes=drawn.classes[::-1])
    assert turned.classes == drawn.classes[::-1]
    assert torch.equal(9 - turned.train.target, drawn.train.target)
    assert data.load("puppets", options=options, classes=[f"c{row}" for row in range(10)]).classes[9] == "c9"
    with pytest.raises(UserError, match=r"data\.classes: 2 names for 10 classes"):
        data.load("puppets", options=options, classes=["x", "y"])
    apart = unicodedata.normalize("NFD", "é")
    assert data.from_dataset(Folder(), classes=["x", "y", apart]).classes == ("x", "y", "\xe9")


def test_parts_from_different_kinds_of_sources_meet_by_name(tmp_path: Path) -> None:
    for row, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for number in range(10):
            image = np.full((32, 32, 3), 40 + 40 * row, np.uint8)
            image[0, 0] = 9 * number
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    images = data.load({"train": Folder(30, ("cat", "bee", "ant")), "test": f"imagefolder:{tmp_path}"})
    assert images.classes == ("cat", "bee", "ant")
    named(images)


def test_names_that_differ_are_an_error() -> None:
    assert "class 'dog' is not among the 3 classes of the training part" in refused(Folder(), Folder(9, ("ant", "dog")))
    assert "did you mean 'ant'" in refused(Folder(), Folder(9, ("Ant", "bee")))
    mixed = ConcatDataset([Folder(), Folder(30, ("ant", "cat", "bee"))])
    assert "dataset 1 of those put together calls class 1 'cat', those before it 'bee'" in refused(mixed)
    assert "has 2 classes, those before it 3" in refused(ConcatDataset([Folder(), Folder(30, ("ant", "bee"))]))


# --- randomness -----------------------------------------------------------------------------------------------------


class Random(Folder):
    """A picture with a left and a right that is mirrored now and then; or a label that changes."""

    def __init__(self, p: float, draw: random.Random, what: str = "image", count: int = 30) -> None:
        super().__init__(count)
        self.p, self.draw, self.what = p, draw, what

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(row)
        if self.draw.random() >= self.p:
            return image, label
        return (image[:, ::-1].copy(), label) if self.what == "image" else (image, (label + 1) % 3)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("what", ["image", "label"])
@pytest.mark.parametrize("p", [0.5, 0.1])
@pytest.mark.parametrize("count", [30, 400])
def test_random_datasets_are_noticed(what: str, p: float, count: int) -> None:
    draw = random.Random(f"{what} {p} {count}")
    for _ in range(5):
        assert f"gives another {what} each time" in refused(Random(p, draw, what, count))


# --- items that cannot be read --------------------------------------------------------------------------------------


class Broken(Folder):
    """Items 4 and 17 raise something."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        image, label = super().__getitem__(row)
        if row not in (4, 17):
            return image, label
        if self.error is None:  # a picture that is read when it is looked at
            import io

            file = io.BytesIO()
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(file, "png")
            return Image.open(io.BytesIO(file.getvalue()[:1000])), label
        raise self.error


@pytest.mark.parametrize("error", [OSError("image file is truncated"), KeyError("x"), RuntimeError("two\nlines"), None])
def test_items_that_cannot_be_read(error: Exception | None, both_ways: bool) -> None:
    assert "item 4" in refused(Broken(error), size=32)
    images = data.from_dataset(Broken(error), unreadable="skip", size=32)
    named(images)
    ids = {int(row) for part in (images.train, images.val, images.test) for row in part.ids}
    assert ids == set(range(30)) - {4, 17}
    assert any("2 unreadable items skipped: 4, 17" in note for note in images.notes)


def test_all_items_cannot_be_read() -> None:
    class Gone(Folder):
        def __getitem__(self, row: int) -> tuple[Any, Any]:
            raise OSError("unplugged")

    assert "unplugged" in refused(Gone())
    assert "unplugged" in refused(Gone(), unreadable="skip")


def test_an_item_that_goes_bad_later_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "BUDGET", 0)
    dataset = Broken(OSError("gone"))
    dataset.__class__ = Folder
    images = data.from_dataset(dataset)
    dataset.__class__ = Broken
    place = int((images.train.ids == 4).nonzero()[0]) if 4 in images.train.ids else None
    part = images.train if place is not None else images.test if 4 in images.test.ids else images.val
    with pytest.raises(UserError, match="item 4 cannot be read: gone"):
        part.batch((part.ids == 4).nonzero()[0])


# --- pixels -----------------------------------------------------------------------------------------------------------


def pixels_of(make: Callable[[np.random.Generator], Any]) -> torch.Tensor:
    """What becomes of the first picture."""
    rows = [(make(np.random.default_rng(row)), row % 2) for row in range(20)]
    images = data.from_dataset(rows, classes=["ant", "bee"])
    part = next(p for p in (images.train, images.val, images.test) if 0 in p.ids.tolist())
    return part.batch((part.ids == 0).nonzero()[0])[0][0]


def wide(numbers: np.random.Generator) -> Any:
    return numbers.integers(0, 2**16, (3, 32, 32)).astype(np.uint16)


@pytest.mark.parametrize(
    "form", [lambda x: x, torch.from_numpy, lambda x: x.astype(">u2"), lambda x: x[:, ::-1][:, ::-1]]
)
def test_sixteen_bits_count_by_their_upper_byte_as_in_files(form: Callable[[Any], Any]) -> None:
    upper = torch.from_numpy((wide(np.random.default_rng(0)) >> 8).astype(np.uint8))
    assert torch.equal(pixels_of(lambda numbers: form(wide(numbers))), upper)


@pytest.mark.parametrize("form", [lambda x: x, torch.from_numpy, lambda x: Image.fromarray(x)])
def test_black_and_white(form: Callable[[Any], Any]) -> None:
    white = pixels_of(lambda numbers: form(numbers.random((32, 32)) > 0.5))
    assert set(white.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("type_", [">f4", "<f8", np.float16, np.float32])
def test_floats_of_any_width_and_byte_order(type_: Any) -> None:
    pixels = pixels_of(lambda numbers: (numbers.integers(0, 256, (3, 32, 32)) / 255).astype(type_))
    expected = np.random.default_rng(0).integers(0, 256, (3, 32, 32))
    assert np.abs(pixels.int().numpy() - expected).max() <= 0.5  # half precision: 255 / 2**11 < 0.5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda n: n.integers(0, 256, (3, 32, 32)), "pixels are int64; give uint8 (0 to 255), uint16"),
        (lambda n: n.integers(0, 256, (3, 32, 32)).astype(object), "pixels are object; give uint8"),
        (lambda n: n.random((32, 32)).astype(np.longdouble), "; give uint8"),
        (lambda n: np.full((32, 32), "x"), "; give uint8"),
        (lambda n: n.random((32, 32)).astype(complex), "pixels are complex128; give uint8"),
        (lambda n: n.random((3, 32, 32)) * 255, "give 0 to 1, without Normalize: divide them by 255, or give uint8"),
        (lambda n: n.random((3, 32, 32)) * 2 - 1, "give 0 to 1, without Normalize (the run"),
        (lambda n: np.zeros((3, 0, 32), np.uint8), "holds no pixel"),
        (lambda n: torch.zeros(3, 32, 0), "holds no pixel"),
    ],
)
def test_pixels_without_a_stated_range_are_refused(make: Callable[[np.random.Generator], Any], said: str) -> None:
    message = refused([(make(np.random.default_rng(row)), row % 2) for row in range(20)])
    assert said in message
    assert "item 0" in message


# --- without labels ---------------------------------------------------------------------------------------------------


class Bare(Folder):
    """The same pictures: alone, with None, or with labels for every third of them."""

    def __init__(self, form: str, **keys: Any) -> None:
        super().__init__(**keys)
        self.form = form

    def __getitem__(self, row: int) -> Any:
        image, label = super().__getitem__(row)
        some = label if row // 3 % 3 == 0 else None
        return {"alone": image, "single": (image,), "none": (image, None), "some": (image, some)}[self.form]


@pytest.mark.parametrize("form", ["alone", "single", "none"])
def test_items_without_a_label(form: str, both_ways: bool) -> None:
    images = data.load(Bare(form))
    assert images.unlabelled == len(images.train) > 0
    assert images.classes == NAMES  # the dataset's own
    pixels = {row: Folder()[row][0] for row in range(30)}
    for part in (images.train, images.val, images.test):
        shown, target, ids = part.batch(torch.arange(len(part)))
        assert set(target.tolist()) == {-1}
        for image, row in zip(shown, ids.tolist(), strict=True):
            assert np.array_equal(image[0].numpy(), pixels[row])


def test_items_of_which_some_have_a_label(both_ways: bool) -> None:
    whole, some = data.load(Folder(90)), data.load(Bare("some", count=90))
    assert some.classes == whole.classes
    labels = dict(zip(range(90), Folder(90).targets, strict=True))
    known = 0
    for part in (some.train, some.val, some.test):
        for row, label in zip(part.ids.tolist(), part.target.tolist(), strict=True):
            assert label == (labels[row] if row // 3 % 3 == 0 else -1)
            known += label >= 0
    assert known == 30
    assert bool(some.test.labelled.all())
    note = f"{int(some.train.labelled.sum())} of {len(some.train)} training images have a label"
    assert any(note in told for told in some.notes)


def test_no_label_is_none_and_not_a_number(both_ways: bool) -> None:
    with pytest.raises(
        UserError, match=r"the lowest is -1 \(there are -1, 0, 1\)\. A picture without a label has None"
    ):
        data.load(Folder(30, target_transform=lambda label: label - 1))


def test_what_is_no_image_is_refused() -> None:
    class Odd(Folder):
        def __getitem__(self, row: int) -> Any:
            return {"image": 0}

    with pytest.raises(UserError, match=r"item 0 is a dict; give \(image, label\), or an image alone"):
        data.load(Odd())


def test_parts_without_labels_meet_those_with(both_ways: bool) -> None:
    other = ("cat", "bee", "ant")
    images = data.load({"train": Bare("none"), "test": Folder(30, names=other)}, classes=NAMES)
    assert images.unlabelled == len(images.train)
    pixels, target, _ = images.test.batch(torch.arange(30))
    assert [NAMES[label] for label in target.tolist()] == [NAMES[int(g) // 40 - 1] for g in pixels[:, 0, 5, 5]]
    from_objects = data.from_dataset(Bare("alone"), Folder(30))
    assert from_objects.unlabelled == len(from_objects.train) == 27
