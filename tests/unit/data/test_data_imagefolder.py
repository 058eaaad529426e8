from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classroomkd import data
from classroomkd.data import decode, subsets
from classroomkd.data.file_pixels import FilePixels
from classroomkd.data.images import ImageSet, MemoryPixels
from classroomkd.errors import UserError

CLASSES = ("ant", "bee", "cat")


def picture(number: int, height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fill(
    root: Path, count: int = 20, first: int = 0, names: tuple[str, ...] = CLASSES, size: tuple[int, int] = (40, 40)
) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = picture(first + 1000 * label + number, *size)
            Image.fromarray(image).save(root / name / f"{number:03}.png", compress_level=0)
    return root


def by_id(images: ImageSet) -> dict[int, tuple[np.ndarray, int]]:
    found = {}
    for part in (images.train, images.val, images.test):
        pixels, target, ids = part.batch(torch.arange(len(part)))
        for row, number in enumerate(ids.tolist()):
            assert number not in found
            found[number] = (pixels[row].numpy(), int(target[row]))
    return found


@pytest.mark.parametrize("memory_gib", [2.0, 0])
def test_flat_folder(tmp_path: Path, memory_gib: float) -> None:
    fill(tmp_path)
    images = data.load({"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": memory_gib}})
    assert isinstance(images.train.pixels, MemoryPixels if memory_gib else FilePixels)
    assert images.classes == CLASSES
    assert images.shape == (3, 40, 40)
    assert (len(images.train), len(images.val), len(images.test)) == (42, 6, 12)
    for part, each in ((images.train, 14), (images.val, 2), (images.test, 4)):
        assert subsets.class_counts(part, 3) == [each] * 3
    for number, (pixels, label) in by_id(images).items():
        assert label == number // 20
        assert np.array_equal(pixels, picture(1000 * label + number % 20).transpose(2, 0, 1))
    assert images.views == "crop_flip"
    assert not images.notes


def test_memory_and_files_are_the_same_data(tmp_path: Path) -> None:
    fill(tmp_path / "photos", size=(50, 70))
    spec: dict[str, Any] = {"source": f"imagefolder:{tmp_path / 'photos'}", "size": 32}
    memory = data.load(spec)
    files = data.load({**spec, "options": {"memory_gib": 0}})
    assert memory.fingerprint == files.fingerprint
    assert memory.train.digest() == files.train.digest()
    assert memory.mean == files.mean
    ours, theirs = by_id(memory), by_id(files)
    assert all(np.array_equal(ours[number][0], theirs[number][0]) for number in ours)
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = data.load({**spec, "source": f"imagefolder:{tmp_path / 'moved'}"})
    assert moved.fingerprint == memory.fingerprint
    other = picture(5, 50, 70)
    Image.fromarray(other).save(tmp_path / "moved" / "ant" / "000.png", compress_level=0)
    assert data.load({**spec, "source": f"imagefolder:{tmp_path / 'moved'}"}).fingerprint != memory.fingerprint


def test_a_small_picture_that_changed_in_its_middle_is_other_data(tmp_path: Path) -> None:
    for label in CLASSES:
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.fromarray(picture(number, 64, 64)).save(tmp_path / label / f"{number}.bmp")
    before = data.load({"source": f"imagefolder:{tmp_path}"}).fingerprint
    path = tmp_path / CLASSES[0] / "3.bmp"
    changed = bytearray(path.read_bytes())
    changed[6000] ^= 255
    path.write_bytes(changed)
    assert len(changed) > 12_000
    assert data.load({"source": f"imagefolder:{tmp_path}"}).fingerprint != before


def test_files_go_to_other_processes(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    files = data.load({"source": f"imagefolder:{tmp_path / 'photos'}", "options": {"memory_gib": 0}})
    again = pickle.loads(pickle.dumps(files.share()))
    assert isinstance(again.train.pixels, FilePixels)
    index = torch.tensor([3, 0, 41])
    assert torch.equal(again.train.batch(index)[0], files.train.batch(index)[0])


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_part_folders(tmp_path: Path, val: str) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / val, 5, first=300)
    fill(tmp_path / "test", 7, first=600)
    images = data.load(f"imagefolder:{tmp_path}")
    assert (len(images.train), len(images.val), len(images.test)) == (60, 15, 21)
    found = by_id(images)
    assert sorted(found) == list(range(96))
    assert np.array_equal(found[60 + 5][0], picture(1300).transpose(2, 0, 1))
    assert np.array_equal(found[75 + 8][0], picture(1601).transpose(2, 0, 1))


def test_train_and_test_folders_split_val_off(tmp_path: Path) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 7, names=("bee", "cat"))  # a class without test images is no mistake
    images = data.load(f"imagefolder:{tmp_path}")
    assert (len(images.train), len(images.val), len(images.test)) == (54, 6, 14)
    assert subsets.class_counts(images.test, 3) == [0, 7, 7]


def test_train_and_val_folders_test_on_val(tmp_path: Path) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / "val", 7)
    images = data.load(f"imagefolder:{tmp_path}")
    assert (len(images.train), len(images.val), len(images.test)) == (54, 6, 21)
    assert any("val/ is used as the test part" in note for note in images.notes)


def test_parts_that_live_apart(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    fill(tmp_path / "b", 5, first=500)
    images = data.load({"train": f"imagefolder:{tmp_path / 'a'}", "test": f"imagefolder:{tmp_path / 'b'}"})
    assert (len(images.train), len(images.val), len(images.test)) == (54, 6, 15)
    fill(tmp_path / "c", 5, names=("ant", "bee", "dog"))
    with pytest.raises(UserError, match=r"data\.test: class 'dog' is not among the 3 classes of data\.train"):
        data.load({"train": f"imagefolder:{tmp_path / 'a'}", "test": f"imagefolder:{tmp_path / 'c'}"})
    fill(tmp_path / "d", 5, names=("ant", "bee"))
    with pytest.raises(UserError, match=r"class 'cat' of data\.train is missing"):
        data.load({"train": f"imagefolder:{tmp_path / 'a'}", "test": f"imagefolder:{tmp_path / 'd'}"})
    fill(tmp_path / "e", 5, size=(44, 44))
    with pytest.raises(UserError, match=r"3x44x44.*3x40x40.*data\.size"):
        data.load({"train": f"imagefolder:{tmp_path / 'a'}", "test": f"imagefolder:{tmp_path / 'e'}"})


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, names=("boat", "plane", "train"))
    assert data.load(f"imagefolder:{tmp_path}").classes == ("boat", "plane", "train")
    assert data.load(f"imagefolder:{fill(tmp_path / 'two', names=('test', 'train'))}").classes == ("test", "train")


def test_nested_hidden_and_other_files(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    (tmp_path / "ant" / "deep" / "er").mkdir(parents=True)
    Image.fromarray(picture(9)).save(tmp_path / "ant" / "deep" / "er" / "x.PNG")
    (tmp_path / ".git").mkdir()
    (tmp_path / "ant" / ".DS_Store").write_text("x")
    (tmp_path / "bee" / "notes.txt").write_text("x")
    images = data.load(f"imagefolder:{tmp_path}")
    assert images.classes == CLASSES
    assert len(by_id(images)) == 31
    assert np.array_equal(by_id(images)[10][0], picture(9).transpose(2, 0, 1))
    assert any("1 files are no images by their name" in note and "bee/notes.txt" in note for note in images.notes)


def test_sizes_that_differ_become_224_with_a_note(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    Image.fromarray(picture(1, 300, 260)).save(tmp_path / "ant" / "big.jpg")
    images = data.load(f"imagefolder:{tmp_path}")
    assert images.shape == (3, 224, 224)
    assert images.views == "resized_crop"
    assert any("different sizes" in note and "data.size" in note for note in images.notes)
    assert data.load({"source": f"imagefolder:{tmp_path}", "size": 32}).shape == (3, 32, 32)


@pytest.mark.parametrize("memory_gib", [2.0, 0])
def test_unreadable_images(tmp_path: Path, memory_gib: float) -> None:
    fill(tmp_path)
    (tmp_path / "bee" / "007.png").write_bytes(b"no image at all")
    (tmp_path / "cat" / "003.png").write_bytes(b"")
    spec: dict[str, Any] = {"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": memory_gib}}
    for size in (None, 32):
        with pytest.raises(UserError) as caught:
            data.load({**spec, "size": size})
        message = str(caught.value)
        assert "2 images cannot be decoded" in message
        assert "bee/007.png: it is no image" in message
        assert "data.unreadable: skip" in message
        images = data.load({**spec, "size": size, "unreadable": "skip"})
        assert any("2 unreadable images skipped: bee/007.png, cat/003.png" in note for note in images.notes)
        found = by_id(images)
        assert set(found) == set(range(60)) - {27, 43}  # ids are those of the full folder
        if size is None:
            assert np.array_equal(found[28][0], picture(1008).transpose(2, 0, 1))


@pytest.mark.parametrize("memory_gib", [2.0, 0])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_a_cut_off_image(tmp_path: Path, memory_gib: float, ending: str) -> None:
    fill(tmp_path)
    spec: dict[str, Any] = {"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": memory_gib}}
    path = tmp_path / "bee" / f"007.{ending}"
    (tmp_path / "bee" / "007.png").unlink()
    Image.fromarray(picture(1007)).save(path)
    assert len(by_id(data.load(spec))) == 60
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the head is sound, the pixels are not
    with pytest.raises(UserError, match=rf"1 image cannot be decoded: .*bee/007\.{ending}"):
        data.load(spec)
    assert len(by_id(data.load({**spec, "unreadable": "skip"}))) == 59


def test_an_image_damaged_in_its_middle_is_skipped_before_training(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "bee" / "007.png"
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)  # head and end are sound
    path.write_bytes(content)
    for memory_gib in (2.0, 0):
        spec: dict[str, Any] = {"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": memory_gib}}
        images = data.load({**spec, "unreadable": "skip"})
        assert len(by_id(images)) == 59
        assert any("1 unreadable image skipped: bee/007.png" in note for note in images.notes)


def test_on_demand_names_the_file_when_it_fails(tmp_path: Path) -> None:
    fill(tmp_path)
    images = data.load({"source": f"imagefolder:{tmp_path}", "options": {"memory_gib": 0}})
    assert isinstance(images.train.pixels, FilePixels)
    name = images.train.pixels.paths[int(images.train.rows[0])]
    (tmp_path / name).write_bytes(b"gone bad")
    with pytest.raises(UserError, match=name):
        images.train.batch(torch.tensor([0]))
    Image.fromarray(picture(0, 50, 50)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"is now \(3, 50, 50\)"):
        images.train.batch(torch.tensor([0]))
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="No such file"):
        images.train.batch(torch.tensor([0]))


def test_empty_class(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match=r"no images in .*/dog: an empty class"):
        data.load(f"imagefolder:{tmp_path}")
    images = data.load({"source": f"imagefolder:{tmp_path}", "unreadable": "skip"})
    assert images.classes == CLASSES
    assert any("empty class folders were left out: dog" in note for note in images.notes)


def test_a_class_whose_images_are_all_unreadable(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "x.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"too few in 'dog' \(0\)"):
        data.load({"source": f"imagefolder:{tmp_path}", "unreadable": "skip"})


def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one folder per class.*found nothing"):
        data.load(f"imagefolder:{tmp_path}")
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="found 1 images that lie in it directly"):
        data.load(f"imagefolder:{tmp_path}")
    with pytest.raises(UserError, match="is a file"):
        data.load(f"imagefolder:{tmp_path / 'a.png'}")
    with pytest.raises(UserError, match=r"no folder .*photoz \(looked from .* exists and holds a\.png"):
        data.load(f"imagefolder:{tmp_path / 'photoz'}")
    fill(tmp_path / "one", names=("ant",))
    with pytest.raises(UserError, match="at least two"):
        data.load(f"imagefolder:{tmp_path / 'one'}")


def test_val_and_valid_together(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        fill(tmp_path / name, 3)
    with pytest.raises(UserError, match="both val/ and valid/"):
        data.load(f"imagefolder:{tmp_path}")


def test_test_folder_with_another_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 5, names=("ant", "dog"))
    with pytest.raises(UserError, match="test/dog is a class that the train folder lacks"):
        data.load(f"imagefolder:{tmp_path}")


# --- decoding -------------------------------------------------------------------------------------------------------


def saved(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: Any) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return decode.decode(tmp_path / name, None, "crop")


def test_modes(tmp_path: Path) -> None:
    rgb = picture(3)
    colour = Image.fromarray(rgb)
    planes = rgb.transpose(2, 0, 1)
    grey = rgb[..., 0]
    assert np.array_equal(saved(tmp_path, colour), planes)
    assert np.array_equal(saved(tmp_path, Image.fromarray(grey)), np.stack([grey] * 3))
    clear = np.concatenate([rgb, np.full((40, 40, 1), 255, np.uint8)], -1)
    clear[:20, :, 3] = 0
    seen = saved(tmp_path, Image.fromarray(clear))
    assert np.array_equal(seen[:, 20:], planes[:, 20:])
    assert seen[:, :20].max() == 0
    both = np.stack([grey, np.full_like(grey, 255)], -1)
    assert np.array_equal(saved(tmp_path, Image.fromarray(both)), np.stack([grey] * 3))
    palette = colour.quantize(16)
    assert np.array_equal(saved(tmp_path, palette), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    assert saved(tmp_path, palette, transparency=0).shape == (3, 40, 40)
    assert np.array_equal(saved(tmp_path, palette, "x.gif"), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    assert set(np.unique(saved(tmp_path, Image.fromarray(grey > 128)))) == {0, 255}
    cmyk = saved(tmp_path, colour.convert("CMYK"), "x.jpg", quality=100, subsampling=0)
    assert np.abs(cmyk.astype(int) - planes).mean() < 3


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    wide = (np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40)
    for name in ("x.png", "x.tif"):
        assert np.array_equal(saved(tmp_path, Image.fromarray(wide), name)[1], (wide >> 8).astype(np.uint8))


def test_modes_that_have_no_way_are_refused_by_name(tmp_path: Path) -> None:
    for image in (Image.fromarray(np.zeros((8, 8), np.float32)), Image.new("LAB", (8, 8))):
        image.save(tmp_path / "x.tif")
        with pytest.raises(decode.DecodeError, match=f"mode {image.mode} has no stated way"):
            decode.decode(tmp_path / "x.tif", None, "crop")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(decode.DecodeError, match="exceed 16 bits"):
        decode.decode(tmp_path / "x.tif", None, "crop")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    block = np.zeros((48, 64, 3), np.uint8)
    block[:16, :16] = (250, 10, 10)  # a mark in the corner that is stored first
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(block).save(tmp_path / "x.jpg", exif=exif, quality=95)
    seen = decode.decode(tmp_path / "x.jpg", None, "crop")
    shape = (48, 64) if orientation <= 4 else (64, 48)
    assert seen.shape == (3, *shape)
    assert decode.oriented_size(tmp_path / "x.jpg") == shape
    # Where the stored first row and first column are shown, by the EXIF standard.
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    rows, columns = (slice(2, 10) if at == 0 else slice(-10, -2) for at in corner)
    assert seen[0, rows, columns].mean() > 200
    assert seen[0].mean() < 60


def test_large_jpegs_shrink_as_without_the_shortcut(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(picture(1, 9, 12)).resize((1200, 900), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as opened:
        want = np.asarray(opened.resize((85, 64), Image.Resampling.BOX))[:, 10:74].transpose(2, 0, 1)
    got = decode.decode(tmp_path / "x.jpg", 64, "pad")
    assert np.abs(got.astype(int) - want).mean() < 3
