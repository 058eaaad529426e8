"""OKS and its average precision, by hand and on made-up people; no pycocotools needed."""

from __future__ import annotations

import numpy as np
import pytest

from classroomkd.data.skeleton import COCO
from classroomkd.errors import UserError
from classroomkd.tasks.pose.oks import FIGURES, by_visibility, keypoint_ap, oks, oks_nms
from classroomkd.tasks.pose.truth import Predictions, Truth

K = 17


def person(x: float, y: float, v: int = 2, size: float = 100.0) -> np.ndarray:
    """Joints (17, 3) on a small grid with its corner at x, y."""
    k = np.arange(K)
    return np.stack([x + size * (k % 4) / 4, y + size * (k // 4) / 5, np.full(K, v)], -1)


def truth(*people: np.ndarray, image: list[int] | None = None, area: float = 10_000.0, **more: object) -> Truth:
    joints = np.array(people).reshape(-1, K, 3)
    box = np.concatenate([joints[..., :2].min(1), np.ptp(joints[..., :2], axis=1)], 1)
    ids = list(range(len(people))) if image is None else image
    return Truth(ids, joints, np.full(len(people), area), box, **more)  # type: ignore[arg-type]


def test_oks_by_hand() -> None:
    joints = person(10, 10)
    joints[5:, 2] = 0
    xy = joints[:, :2] + [3.0, 0.0]
    expected = np.mean([np.exp(-9 / (2 * 5000 * (2 * s) ** 2)) for s in COCO.sigmas[:5]])
    nobody = joints * [1, 1, 0]
    got = oks([xy, joints[:, :2], xy], [joints, joints, nobody], [5000, 5000, 5000], COCO.sigmas)
    assert got[0] == pytest.approx(expected, abs=1e-12)
    assert got[1] == 1
    assert np.isnan(got[2])


def test_three_pixels_off_with_all_joints() -> None:
    """A figure that pycocotools gives as well (specs, A7)."""
    got = oks([person(0, 0)[:, :2] + [3.0, 0.0]], [person(0, 0)], [10_000.0], COCO.sigmas)[0]
    expected = np.mean(np.exp(-9 / 20_000 / (2 * np.array(COCO.sigmas)) ** 2))
    assert got == pytest.approx(expected, abs=1e-12)


def test_perfect_answers() -> None:
    people = truth(person(0, 0), person(50, 50))
    figures = keypoint_ap(people, Predictions([0, 1], people.joints, [0.5, 0.4]), COCO.sigmas)
    assert tuple(figures) == FIGURES
    assert figures["AP_M"] == figures["AR_M"] == -1  # both are large
    assert [figures[n] for n in FIGURES if not n.endswith("_M")] == pytest.approx([1.0] * 8)


def test_false_alarm_before_and_after_the_right_answer() -> None:
    people = truth(person(0, 0))
    joints = np.array([person(0, 0), person(500, 500)])
    after = keypoint_ap(people, Predictions([0, 0], joints, [0.9, 0.1]), COCO.sigmas)
    before = keypoint_ap(people, Predictions([0, 0], joints, [0.1, 0.9]), COCO.sigmas)
    assert after["AP"] == pytest.approx(1.0)
    assert before["AP"] == pytest.approx(0.5)
    assert before["AR"] == 1.0


def test_an_oks_of_exactly_one_half_is_enough() -> None:
    joints = person(0, 0)
    joints[16, 2] = 0
    answer = joints[:, :2].copy()
    answer[:8] += 1e5
    figures = keypoint_ap(truth(joints), Predictions([0], [answer], [1.0]), COCO.sigmas)
    assert (figures["AR50"], figures["AR"]) == (1.0, 0.1)


def test_a_person_is_found_once() -> None:
    people = truth(person(0, 0), person(900, 900), image=[0, 0])
    joints = np.array([person(0, 0), person(0, 0), person(900, 900)])
    figures = keypoint_ap(people, Predictions([0, 0, 0], joints, [0.9, 0.8, 0.7]), COCO.sigmas)
    assert figures["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)  # half at once, the rest behind a double


@pytest.mark.parametrize(("crowd", "expected"), [(True, 1.0), (False, 0.5)])
def test_a_crowd_takes_any_number_of_answers(crowd: bool, expected: float) -> None:
    """A jointless region swallows what lies in it: all of it if it is a crowd, one answer if it is a person."""
    people = truth(person(0, 0, v=0), person(900, 900), image=[0, 0], crowd=[crowd, False])
    joints = np.array([person(0, 0), person(0, 0), person(900, 900)])
    figures = keypoint_ap(people, Predictions([0, 0, 0], joints, [0.9, 0.8, 0.7]), COCO.sigmas)
    assert figures["AP"] == pytest.approx(expected)


def test_only_twenty_answers_an_image_count() -> None:
    people = truth(person(0, 0))
    joints = np.array([*(person(3000 * (i + 1), 0) for i in range(20)), person(0, 0)])
    score = np.linspace(1, 0, 21)
    assert keypoint_ap(people, Predictions([0] * 21, joints, score), COCO.sigmas)["AR"] == 0
    assert keypoint_ap(people, Predictions([0] * 20, joints[1:], score[1:]), COCO.sigmas)["AR"] == 1


def test_answers_on_images_without_people_are_false_alarms() -> None:
    people = truth(person(0, 0), image=[3], images=np.array([3, 7]))
    joints = np.array([person(0, 0), person(0, 0)])
    assert keypoint_ap(people, Predictions([3, 7], joints, [0.1, 0.9]), COCO.sigmas)["AP"] == pytest.approx(0.5)


def test_no_answers_and_no_people() -> None:
    people = truth(person(0, 0), area=5000.0)
    nothing = keypoint_ap(people, Predictions([], np.zeros((0, K, 2)), []), COCO.sigmas)
    assert (nothing["AP"], nothing["AR"], nothing["AP_M"], nothing["AP_L"]) == (0, 0, 0, -1)
    nobody = Truth([], np.zeros((0, K, 3)), [], np.zeros((0, 4)), images=np.array([1]))
    assert set(keypoint_ap(nobody, Predictions([1], [person(0, 0)], [1.0]), COCO.sigmas).values()) == {-1.0}


def test_size_of_an_answer_decides_where_its_false_alarm_counts() -> None:
    people = truth(person(0, 0), image=[0], area=5000.0)  # medium
    joints = np.array([person(0, 0), person(900, 900, size=300)])
    large = Predictions([0, 0], joints, [0.1, 0.9])
    assert keypoint_ap(people, large, COCO.sigmas)["AP_M"] == pytest.approx(1.0)
    told = Predictions([0, 0], joints, [0.1, 0.9], area=[5000.0, 5000.0])
    assert keypoint_ap(people, told, COCO.sigmas)["AP_M"] == pytest.approx(0.5)


def test_by_visibility() -> None:
    joints = person(0, 0)
    joints[:8, 2] = 1  # hidden, and answered far off
    answer = joints.copy()
    answer[:8, :2] += 500
    both = by_visibility(truth(joints), Predictions([0], [answer], [1.0]), COCO.sigmas)
    assert both["visible"]["AP"] == pytest.approx(1.0)
    assert both["hidden"]["AP"] == 0.0
    assert set(both) == {"visible", "hidden"}
    only = by_visibility(truth(person(0, 0)), Predictions([0], [person(0, 0)], [1.0]), COCO.sigmas)
    assert only["hidden"]["AP"] == -1


def test_nms_keeps_the_best_of_each_image() -> None:
    xy = np.array([person(0, 0), person(1, 0), person(1, 0), person(400, 0), person(0, 0)])[..., :2]
    args = ([1, 1, 2, 1, 1], xy, [0.5, 0.9, 0.1, 0.2, 0.5], np.full(5, 20_000.0), COCO.sigmas)
    assert oks_nms(*args).tolist() == [1, 2, 3]
    assert oks_nms(*args, threshold=1.0).tolist() == [0, 1, 2, 3, 4]
    between = oks([xy[0]], [person(1, 0)], [20_000.0], COCO.sigmas)[0]
    assert oks_nms(*args, threshold=between - 1e-9).tolist() == [1, 2, 3]
    assert oks_nms(*args, threshold=between + 1e-9).tolist() == [0, 1, 2, 3]  # place 4 is the same as place 0
    assert oks_nms([], np.zeros((0, K, 2)), [], [], COCO.sigmas).tolist() == []


def test_nms_uses_the_mean_area() -> None:
    xy = np.array([person(0, 0), person(6, 0)])[..., :2]
    at = float(np.exp(-36 / 2 / 6000 / (2 * np.array(COCO.sigmas)) ** 2).mean())
    for threshold, kept in ((at - 1e-6, [0]), (at + 1e-6, [0, 1])):
        assert oks_nms([0, 0], xy, [1, 0.5], [2000.0, 10_000.0], COCO.sigmas, threshold).tolist() == kept


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Truth([0], np.zeros((1, K, 2)), [1.0], np.zeros((1, 4))), r"truth\.joints must .* shape \(1, K, 3"),
        (lambda: Truth([0], np.zeros((1, K, 3)), [1.0, 2.0], np.zeros((1, 4))), r"truth\.area must .* shape \(1\)"),
        (lambda: Truth([0], np.zeros((1, K, 3)), [1.0], np.zeros((1, 4)), images=np.array([4])), r"truth \(0\)"),
        (lambda: Truth(["a"], np.zeros((1, K, 3)), [1.0], np.zeros((1, 4))), "whole numbers"),
        (lambda: Predictions([0, 0], np.zeros((2, K, 3)), [1.0, np.nan]),
         r"predictions\.score of person 1 is not finite"),
        (lambda: Predictions([0], np.full((1, K, 2), np.inf), [1.0]), r"predictions\.joints of person 0 is not finite"),
        (lambda: keypoint_ap(truth(person(0, 0)), Predictions([8], [person(0, 0)], [1.0]), COCO.sigmas),
         r"the truth \(8\)"),
        (lambda: keypoint_ap(truth(person(0, 0)), Predictions([0], [person(0, 0)], [1.0]), (0.1,) * 16), "16 sigmas"),
        (lambda: keypoint_ap(truth(person(0, 0)), Predictions([0], np.zeros((1, 4, 2)), [1.0]), COCO.sigmas),
         "has 4 joints"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
