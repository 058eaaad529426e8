"""What students and mentors start from: loaded, trained, or only asked; classes by name; heads of other classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from classroomkd import models
from classroomkd._compat import installed
from classroomkd.errors import UserError
from classroomkd.models.published import published
from classroomkd.recipe import load_recipe
from classroomkd.run.checks import check
from classroomkd.run.networks import Networks
from classroomkd.run.opening import open_context
from classroomkd.run.session import Session

RECIPE = """
data: {source: puppets, options: {train: 60, test: 20, image_size: 32}}
student: convnet4
mentors: [{name: big, model: convnet8}]
method: average
train: {epochs: 1, batch_size: 30, channels_last: false}
mentor_train: {epochs: 1}
check_mentors: "off"
workers: 1
threads: 1
device: cpu
"""


def recipe(folder: Path, *words: str, trust_code: bool = False) -> Any:
    (folder / "recipe.yaml").write_text(RECIPE)
    return load_recipe(str(folder / "recipe.yaml"), list(words), trust_code=trust_code)


def networks(folder: Path, *words: str, trust_code: bool = False) -> Networks:
    return Networks(open_context(recipe(folder, *words, trust_code=trust_code), folder / "run", trust_code=trust_code))


def names(folder: Path) -> tuple[str, ...]:
    return tuple(networks(folder).context.classes)


def saved(folder: Path, model: str, classes: tuple[str, ...], file: str = "net.safetensors", **about: str) -> nn.Module:
    """A network in a file that names its classes."""
    torch.manual_seed(5)
    network = models.create(model, len(classes))
    models.save_checkpoint(network, folder / file, {"classes": json.dumps(list(classes)), **about})
    return network.eval()


IMAGES = torch.linspace(-2, 2, 4 * 3 * 32 * 32).view(4, 3, 32, 32)


class TestClassesMeetByName:
    @torch.no_grad()
    def test_a_mentor_of_another_order(self, tmp_path: Path) -> None:
        own = names(tmp_path)
        order = tuple(reversed(own))
        net = saved(tmp_path, "convnet8", order)
        for key in ("weights", "checkpoint"):
            run = networks(tmp_path, f"mentors.0.{key}={tmp_path / 'net.safetensors'}")
            check(run)
            spec = run.context.mentor("big")
            answer = run.blank_mentor(spec).eval()(IMAGES).prediction
            torch.testing.assert_close(answer, net(IMAGES)[:, [order.index(name) for name in own]])
            assert run.describe("big")["classes"] == list(order)
            assert run.task_runner.lineage(spec, run.blank_mentor(spec)) == {"known": order}

    def test_a_mentor_of_the_same_order_has_the_key_it_had(self, tmp_path: Path) -> None:
        saved(tmp_path, "convnet8", names(tmp_path))
        run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'net.safetensors'}")
        spec = run.context.mentor("big")
        assert run.task_runner.lineage(spec, run.blank_mentor(spec)) == {}

    def test_a_mentor_of_some_classes(self, tmp_path: Path) -> None:
        own = names(tmp_path)
        saved(tmp_path, "convnet8", own[2:0:-1])
        run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'net.safetensors'}")
        check(run)
        answer = run.blank_mentor(run.context.mentor("big")).eval()(IMAGES).prediction
        assert answer.isfinite().sum(1).tolist() == [2] * 4
        assert answer[:, 1:3].isfinite().all()

    FORMS: ClassVar[dict[str, Any]] = {  # what training scripts leave beside the weights
        "classes": lambda order: {"classes": list(order)},
        "class_to_idx": lambda order: {"class_to_idx": {name: place for place, name in enumerate(order)}},
        "idx_to_class": lambda order: {"idx_to_class": dict(enumerate(order))},
        "meta": lambda order: {"meta": {"CLASSES": tuple(order)}},
    }

    @pytest.mark.parametrize("form", FORMS)
    @torch.no_grad()
    def test_names_beside_the_weights_of_a_script(self, tmp_path: Path, form: str) -> None:
        own = names(tmp_path)
        order = tuple(reversed(own))
        net = saved(tmp_path, "convnet8", order)
        torch.save({"state_dict": net.state_dict(), **self.FORMS[form](order)}, tmp_path / "net.pth")
        run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'net.pth'}")
        check(run)
        answer = run.blank_mentor(run.context.mentor("big")).eval()(IMAGES).prediction
        torch.testing.assert_close(answer, net(IMAGES)[:, [order.index(name) for name in own]])
        other = [f"n{place}" for place in range(len(own))]  # nobody knows which of the data's they are
        torch.save({"state_dict": net.state_dict(), **self.FORMS[form](other)}, tmp_path / "other.pth")
        run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'other.pth'}")
        check(run)
        torch.testing.assert_close(run.blank_mentor(run.context.mentor("big")).eval()(IMAGES).prediction, net(IMAGES))

    @pytest.mark.parametrize("who", ["student", "mentors.0"])
    def test_a_class_that_the_data_lacks_is_named(self, tmp_path: Path, who: str) -> None:
        own = names(tmp_path)
        saved(tmp_path, "convnet4" if who == "student" else "convnet8", (*own[1:], "zebra"))
        run = networks(tmp_path, f"{who}.weights={tmp_path / 'net.safetensors'}")
        with pytest.raises(
            UserError, match=r"^(student|mentor 'big'): .* knows 10 classes, .* has 10, and 'zebra' is none"
        ):
            check(run)

    def test_the_recipe_says_which_is_which(self, tmp_path: Path) -> None:
        own = names(tmp_path)
        saved(tmp_path, "convnet8", tuple(f"n{n}" for n in range(len(own))))
        words = [f"mentors.0.weights={tmp_path / 'net.safetensors'}", f"mentors.0.classes={json.dumps(list(own))}"]
        check(networks(tmp_path, *words))

    @torch.no_grad()
    def test_a_student_starts_in_the_datas_order(self, tmp_path: Path) -> None:
        own = names(tmp_path)
        order = tuple(reversed(own))
        net = saved(tmp_path, "convnet4", order)
        run = networks(tmp_path, f"student.weights={tmp_path / 'net.safetensors'}")
        student = run.student(0)
        run.begin(student)
        expected = net(IMAGES)[:, [order.index(name) for name in own]]
        torch.testing.assert_close(student.eval()(IMAGES), expected)
        assert "its classes were put into the data's order" in run.describe("student")["note"]


class TestResetHead:
    def test_a_file_of_other_classes_says_the_remedy(self, tmp_path: Path) -> None:
        torch.save(models.create("convnet8", 1000).state_dict(), tmp_path / "net.pth")
        run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'net.pth'}")
        with pytest.raises(UserError, match=r"has 1000 classes, the data 10 .*; reset_head: true starts from it"):
            check(run)

    def test_a_mentor_is_trained_from_it(self, tmp_path: Path) -> None:
        net = models.create("convnet8", 1000)
        torch.save({"model": net.state_dict(), "epoch": 3}, tmp_path / "net.pth")
        cache = tmp_path / "cache"
        words = [f"mentors.0.weights={tmp_path / 'net.pth'}", "mentors.0.reset_head=true", f"cache={cache}"]
        run = networks(tmp_path, *words)
        check(run)
        said = run.describe("big")
        assert said["how"] == "trained"
        assert "(1000 rows, 10 are wanted)" in said["reset_head"]
        assert said["normalisation"] == "data"
        start = {key: value.clone() for key, value in run.untrained("big").state_dict().items()}
        different = [key for key, value in net.state_dict().items() if not value.equal(start[key])]
        assert different
        assert all(start[key].shape[0] == 10 for key in different)
        heard: list[str] = []
        outcome = Session(recipe(tmp_path, *words), tmp_path / "run", say=lambda kind, text: heard.append(text)).run()
        assert outcome.summary["mentors"][0]["samples"]  # it was trained
        assert "mentor 'big': dropped" in str(heard)
        first = {path.parent.name for path in cache.glob("mentors/*/mentor.safetensors")}
        torch.save(models.create("convnet8", 1000).state_dict(), tmp_path / "net.pth")  # other weights: another key
        Session(recipe(tmp_path, *words), tmp_path / "again").run()
        assert {path.parent.name for path in cache.glob("mentors/*/mentor.safetensors")} > first

    def test_a_student_keeps_its_own_head(self, tmp_path: Path) -> None:
        net = models.create("convnet4", 1000)
        models.save_checkpoint(
            net, tmp_path / "net.safetensors", {"classes": json.dumps([f"c{n}" for n in range(1000)])}
        )
        run = networks(tmp_path, f"student.weights={tmp_path / 'net.safetensors'}", "student.reset_head=true")
        fresh, student = run.student(3), run.student(3)
        run.begin(student)
        for key, value in student.state_dict().items():
            source = net.state_dict()[key]
            assert value.equal(source if source.shape == value.shape else fresh.state_dict()[key])


FACTORY = """
import torch
from torch import nn

def trained(num_classes):
    torch.manual_seed(11)
    return fresh(num_classes)

def fresh(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))
"""


def test_a_factorys_trained_network_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_trained_net.py").write_text(FACTORY)
    cache = tmp_path / "cache"
    words = ["mentors.0.model=py:own_trained_net:trained", "mentors.0.weights=trained", f"cache={cache}"]
    run = networks(tmp_path, *words, trust_code=True)
    check(run)
    assert run.describe("big")["how"] == "asked"
    before = {key: value.clone() for key, value in run.mentor("big").state_dict().items()}
    outcome = Session(recipe(tmp_path, *words, trust_code=True), tmp_path / "run", trust_code=True).run()
    (mentor,) = outcome.summary["mentors"]
    assert mentor["samples"] is None
    assert mentor["note"] == "as its factory gave it"
    assert list(cache.glob("mentors/*.npy"))
    assert not list(cache.glob("mentors/*/mentor.safetensors"))
    again = networks(tmp_path, *words, trust_code=True).mentor("big").state_dict()
    assert all(value.equal(again[key]) for key, value in before.items())


@pytest.mark.parametrize(("factory", "noticed"), [("trained", True), ("fresh", False)])
def test_a_factory_that_loads_weights_and_does_not_say_so_is_noticed(
    factory: str, noticed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loading_net.py").write_text(FACTORY)
    word, heard = f"mentors.0.model=py:own_loading_net:{factory}", list[str]()
    said = networks(tmp_path, word, trust_code=True).describe("big")
    assert said["how"] == "trained"
    assert ("write weights: trained" in said["note"]) == noticed
    run = recipe(tmp_path, word, trust_code=True)
    Session(run, tmp_path / "run", trust_code=True, say=lambda kind, text: heard.append(text)).run()
    assert any("write weights: trained" in text for text in heard) == noticed


def test_what_is_loaded_is_described(tmp_path: Path) -> None:
    shape = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "shape": [3, 40, 40]}
    saved(tmp_path, "convnet8", names(tmp_path), preprocessing=json.dumps(shape))
    run = networks(tmp_path, f"mentors.0.weights={tmp_path / 'net.safetensors'}")
    check(run)
    said = run.describe("big")
    assert said["how"] == "loaded"
    assert said["weights"] == str(tmp_path / "net.safetensors")
    assert (said["mean"], said["normalisation"], said["size"]) == ([0.1, 0.2, 0.3], "checkpoint", [40, 40])
    assert networks(tmp_path).describe("big")["how"] == "trained"


@pytest.mark.skipif(not installed("timm"), reason="timm is not installed")
class TestPretrained:
    @pytest.fixture
    def there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
        """resnet10t's published file in the local cache, with weights of our own."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        torch.manual_seed(9)
        network = models.create("timm:resnet10t", 1000)
        folder = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        models.save_checkpoint(network, folder / "snapshots" / "abc" / "model.safetensors")
        return network

    def test_a_run_starts_from_them(self, tmp_path: Path, there: nn.Module) -> None:
        words = ["student={model: timm:resnet10t, weights: pretrained}", "mentor_train.epochs=1",
                 "mentors=[{name: big, model: timm:resnet10t.c3_in1k, weights: pretrained}]"]  # fmt: skip
        run = networks(tmp_path, *words)
        check(run)
        said = run.describe("big")
        assert (said["how"], said["normalisation"]) == ("trained", "data")
        assert "(1000 rows, 10 are wanted)" in said["reset_head"]
        student = run.student(0)
        run.begin(student)
        for network in (student, run.untrained("big")):
            own = network.state_dict()
            assert all(own[key].equal(value) for key, value in there.state_dict().items() if not key.startswith("fc."))
        heard: list[str] = []
        outcome = Session(recipe(tmp_path, *words), tmp_path / "run", say=lambda kind, text: heard.append(text)).run()
        assert len(outcome.summary["entries"]) == 1
        assert any(text.startswith("student: dropped fc.weight") for text in heard)
        assert any(text.startswith("mentor 'big': dropped fc.weight") for text in heard)

    def test_a_mentor_of_the_same_classes_is_taken_as_it_is(
        self, tmp_path: Path, there: nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from classroomkd.tasks.classification import runner

        def with_a_head(module: nn.Module, name: str, **options: Any) -> dict[str, str]:
            about = models.start_pretrained(module, name)
            return {"note": about["note"]}

        monkeypatch.setattr(runner, "published", lambda name: replace(published(name), classes=10))
        monkeypatch.setattr(runner, "start_pretrained", with_a_head)
        run = networks(tmp_path, "mentors=[{name: big, model: timm:resnet10t, weights: pretrained}]")
        check(run)
        said = run.describe("big")
        assert (said["how"], said["normalisation"], said["mean"]) == ("asked", "library", [0.485, 0.456, 0.406])
        resets = networks(
            tmp_path, "mentors=[{name: big, model: timm:resnet10t, weights: pretrained, reset_head: true}]"
        )
        assert resets.describe("big")["how"] == "trained"


def planned(folder: Path, *words: str) -> list[str]:
    """What a dry run says."""
    said: list[str] = []
    Session(recipe(folder, *words), folder / "run", say=lambda kind, text: said.append(text)).plan(1.0)
    return said


def test_a_dry_run_says_what_becomes_of_weights(tmp_path: Path) -> None:
    saved(tmp_path, "convnet8", ("a", "b", "c"))
    saved(tmp_path, "convnet4", names(tmp_path)[::-1], "other.safetensors")
    said = planned(
        tmp_path, f"student={{model: convnet4, weights: {tmp_path}/other.safetensors}}",
        f"mentors=[{{name: big, model: convnet8, weights: {tmp_path}/net.safetensors, reset_head: true}}]",
    )  # fmt: skip
    assert "student: its classes were put into the data's order" in said
    assert "mentor 'big': dropped fc.weight, fc.bias (3 rows, 10 are wanted)" in said


@pytest.mark.parametrize(("side", "noticed"), [(48, True), (32, False)])
def test_a_mentor_of_padded_pictures(side: int, noticed: bool, tmp_path: Path) -> None:
    """The run's pictures have their size; of another size they are not what the mentor learned from."""
    about = json.dumps({"mean": [0.5], "std": [0.5], "shape": [3, side, side]})
    saved(tmp_path, "convnet8", names(tmp_path), preprocessing=about)
    said = planned(tmp_path, f"mentors=[{{name: big, model: convnet8, weights: {tmp_path}/net.safetensors}}]")
    assert any("learned from pictures of data.resize: pad" in text for text in said) is noticed
