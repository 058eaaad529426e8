from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from classroomkd.data import puppets
from classroomkd.data import rng as counter
from classroomkd.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden" / "puppets.npz"
LABELS_SHA = "03a245c3556b8865b2186641195d91b7cdc9059f22b921f802e1b2f4a661bdc4"
JOINTS_SHA = "c370db3ef2cf614a2239af723d61eef9616fa93f7c1e43414c9ec3a1b63f63b5"


def sha(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def scenes() -> puppets.Scenes:
    return puppets.scenes(0, np.arange(64))


def test_labels_and_joints_are_the_same_bits_everywhere(scenes: puppets.Scenes) -> None:
    assert sha(scenes.labels.astype("<i8")) == LABELS_SHA
    assert sha(scenes.joints.astype("<f4")) == JOINTS_SHA


def test_pixels_match_the_stored_ones(scenes: puppets.Scenes) -> None:
    with np.load(GOLDEN) as golden:
        index, images = golden["index"], golden["images"]
    difference = np.abs(scenes.images[index].astype(int) - images.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_counter_is_splitmix64() -> None:
    # The first outputs of the reference generator seeded with 1234567.
    state = (np.arange(1, 6, dtype=np.uint64) * np.uint64(counter.GAMMA)) + np.uint64(1234567)
    assert counter.mix(state).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_uniform_is_uniform() -> None:
    draws = counter.uniform(counter.keys(3, np.arange(2000)), 10)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = 0.001


def test_permutation_is_one_and_depends_on_the_seed() -> None:
    assert sorted(counter.permutation(1, 100).tolist()) == list(range(100))
    assert counter.permutation(1, 100).tolist() != counter.permutation(2, 100).tolist()


def test_a_scene_does_not_depend_on_its_batch(scenes: puppets.Scenes) -> None:
    for index in ([5], [63, 5, 0], [5] * 3):
        again = puppets.scenes(0, np.array(index))
        assert np.array_equal(again.images, scenes.images[index])
        assert np.array_equal(again.joints, scenes.joints[index])
        assert np.array_equal(again.boxes, scenes.boxes[index])


def test_seeds_and_indices_differ(scenes: puppets.Scenes) -> None:
    assert len({sha(image) for image in scenes.images}) == 64
    assert not np.array_equal(puppets.scenes(1, np.arange(64)).joints, scenes.joints)


def test_every_ten_indices_hold_each_class_once() -> None:
    label = puppets.labels(7, np.arange(500)).reshape(50, 10)
    assert (np.sort(label, axis=1) == np.arange(10)).all()
    assert len({tuple(row) for row in label}) > 45  # the order within a block is drawn anew


def test_geometry_scales_with_the_image_size(scenes: puppets.Scenes) -> None:
    large = puppets.scenes(0, np.arange(64), image_size=96)
    assert large.images.shape == (64, 3, 96, 96)
    assert np.array_equal(large.labels, scenes.labels)
    both = (large.joints[..., 2] > 0) & (scenes.joints[..., 2] > 0)
    assert np.abs(large.joints[..., :2] / 2 - scenes.joints[..., :2])[both].max() <= 1 / 64
    assert np.abs(large.boxes / 2 - scenes.boxes).max() <= 2 / 64
    halved = large.images.reshape(64, 3, 48, 2, 48, 2).mean((3, 5))
    quiet = puppets.scenes(0, np.arange(64), noise=0).images
    assert np.abs(halved - quiet).mean() < 6  # grey levels: the same picture, apart from noise and rims


def test_joints_are_rounded_visible_and_inside() -> None:
    made = puppets.scenes(2, np.arange(400), hard=1.0)
    joints, seen = made.joints, made.joints[..., 2]
    assert np.array_equal(joints[..., :2] * 64, np.round(joints[..., :2] * 64))
    assert set(np.unique(seen)) == {0.0, 1.0, 2.0}
    assert (joints[seen == 0] == 0).all()
    assert ((joints[..., :2] >= 0) & (joints[..., :2] < 48)).all()
    x, y, width, height = made.boxes.T
    assert (width > 0).all()
    assert (height > 0).all()
    for joint in range(17):
        there = seen[:, joint] > 0
        assert (joints[there, joint, 0] >= x[there]).all()
        assert (joints[there, joint, 0] <= (x + width)[there]).all()
        assert (joints[there, joint, 1] >= y[there]).all()
        assert (joints[there, joint, 1] <= (y + height)[there]).all()


def test_nothing_is_hidden_when_easy() -> None:
    made = puppets.scenes(0, np.arange(100), hard=0.0)
    assert (made.joints[..., 2] == 2).all()


def joint(made: puppets.Scenes, name: str) -> NDArray[np.float32]:
    return made.joints[:, puppets.JOINTS.index(name), :2]


def test_left_is_the_persons_left_and_postures_are_what_they_say() -> None:
    made = puppets.scenes(0, np.arange(200), hard=0.0)
    assert (joint(made, "left_shoulder")[:, 0] > joint(made, "right_shoulder")[:, 0]).all()
    assert (joint(made, "left_eye")[:, 0] > joint(made, "right_eye")[:, 0]).all()
    assert (joint(made, "nose")[:, 1] < joint(made, "left_hip")[:, 1]).all()
    raised = {
        side: joint(made, f"{side}_wrist")[:, 1] < joint(made, f"{side}_shoulder")[:, 1] - 2
        for side in ("left", "right")
    }
    kicked = {
        side: np.abs(joint(made, f"{side}_ankle") - joint(made, f"{side}_hip"))[:, 0] > 10 for side in ("left", "right")
    }
    both_up = {"arms_up": (True, True), "star": (True, True), "wave_left": (True, False), "wave_right": (False, True)}
    kicks = {"kick_left": (True, False), "kick_right": (False, True)}
    for number, name in enumerate(puppets.CLASSES):
        rows = made.labels == number
        for table, found in ((both_up, raised), (kicks, kicked)):
            left, right = table.get(name, (False, False))
            assert (found["left"][rows] == left).all(), name
            assert (found["right"][rows] == right).all(), name


def test_the_figure_is_painted_where_its_joints_are() -> None:
    made = puppets.scenes(0, np.arange(50), hard=0.0, image_size=64)
    for number in range(50):
        image = made.images[number].astype(int)
        ground = np.median(image[:, :4].reshape(3, -1), axis=1)  # without clutter the border shows the ground
        for name in ("left_knee", "right_knee", "left_shoulder"):
            x, y = (int(value) for value in made.joints[number, puppets.JOINTS.index(name), :2])
            assert np.abs(image[:, y, x] - ground).max() > 40, (number, name)


def test_hard_is_harder() -> None:
    easy, hard = (puppets.scenes(0, np.arange(100), hard=value) for value in (0.2, 1.0))
    roughness = [np.abs(np.diff(made.images.astype(int), axis=-1)).mean() for made in (easy, hard)]
    assert roughness[1] > 1.5 * roughness[0]
    assert (hard.joints[..., 2] == 1).sum() > (easy.joints[..., 2] == 1).sum()


def test_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(UserError, match="image_size is 4"):
        puppets.scenes(0, np.arange(2), image_size=4)
    with pytest.raises(UserError, match="hard is 3"):
        puppets.scenes(0, np.arange(2), hard=3)
    with pytest.raises(UserError, match="hard is nan"):
        puppets.scenes(0, np.arange(2), hard=float("nan"))


def test_no_scenes() -> None:
    made = puppets.scenes(0, np.arange(0))
    assert made.images.shape == (0, 3, 48, 48)
    assert made.joints.shape == (0, 17, 3)


def test_tables_and_puppets_need_no_torch() -> None:
    code = (
        "import sys; import numpy as np; from classroomkd import data; from classroomkd.data import puppets, split;"
        "rows = data.describe_sources(); assert rows[0]['name'] == 'puppets'; data.source_names();"
        "puppets.scenes(0, np.arange(1));"
        "from classroomkd.data.spec import parse; parse('puppets'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
