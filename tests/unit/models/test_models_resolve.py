"""Names to networks: what is found, what is refused, and whether the sentence says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from classroomkd import _compat, models
from classroomkd.errors import UserError


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnt20", "did you mean 'resnet20'?"),
        ("wrn-40-2", "did you mean 'wrn_40_2'?"),
        ("mobilenet_v2", "mobilenet"),
        ("qqqqqq", "unknown model 'qqqqqq'; see `classroomkd list models`"),
        ("tim:resnet18", "did you mean 'timm'?"),
        ("http://x/y", "unknown kind of model 'http:' in 'http://x/y' (known: timm:, torchvision:, py:)"),
        ("py:nets", "py:package.module:factory"),
        ("py::f", "py:package.module:factory"),
        ("", "unknown model ''"),
    ],
)
def test_unknown_names_say_the_nearest(spec: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        models.resolve(spec, 10, trust_code=True)
    assert said in str(caught.value)
    with pytest.raises(UserError):
        models.check(spec, trust_code=True)


@pytest.mark.parametrize("bad", [0, -1, 2.0, "ten", True, None])
def test_class_counts_are_whole_numbers(bad: object) -> None:
    with pytest.raises(UserError, match="num_classes must be a whole number"):
        models.resolve("resnet8", bad)  # type: ignore[arg-type]


def test_the_zoo_takes_no_options() -> None:
    with pytest.raises(UserError, match="'resnet8' takes no options, but got dropout"):
        models.create("resnet8", dropout=0.5)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_library_names_the_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _compat.import_timm.cache_clear()
    _compat.import_torchvision.cache_clear()
    monkeypatch.setattr(_compat, "installed", lambda name: name != package)
    with pytest.raises(UserError, match=rf'{package}:resnet18.*needs {package}.*pip install "classroomkd\[vision\]"'):
        models.resolve(f"{package}:resnet18", 10)


@pytest.mark.skipif(not _compat.installed("torchvision"), reason="torchvision is not installed")
@pytest.mark.parametrize("error", [RuntimeError("version mismatch"), ImportError("libfoo.so")])
def test_a_library_that_does_not_fit_torch_says_so(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(package: str) -> None:
        raise error

    _compat.import_torchvision.cache_clear()
    monkeypatch.setattr(_compat, "_import_quietly", fail)
    with pytest.raises(UserError, match=f"cannot be imported.*{error}.*reinstall the matching pair"):
        _compat.import_torchvision("x")


needs_timm = pytest.mark.skipif(not _compat.installed("timm"), reason="timm is not installed")
needs_torchvision = pytest.mark.skipif(not _compat.installed("torchvision"), reason="torchvision is not installed")


class TestLibraries:
    @needs_timm
    def test_timm(self) -> None:
        module = models.resolve("timm:resnet10t", 7, in_channels=1)
        assert module.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert models.preprocessing(module) is not None
        seen = models.preprocessing("timm:resnet10t.c3_in1k")
        assert seen == {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "size": 176}

    @needs_torchvision
    def test_torchvision(self) -> None:
        module = models.resolve("torchvision:squeezenet1_1", 7)
        assert module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
        seen = models.preprocessing("torchvision:resnet18")
        assert seen == {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "size": 224}
        with pytest.raises(UserError, match="takes images of 3 channels, not 1"):
            models.resolve("torchvision:squeezenet1_1", 7, in_channels=1)

    @needs_torchvision
    def test_torchvision_networks_with_helpers_give_plain_logits_in_training(self) -> None:
        module = models.resolve("torchvision:googlenet", 4).train()
        assert module(torch.randn(2, 3, 64, 64)).shape == (2, 4)

    @needs_timm
    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("timm:resnet181", "has no model 'resnet181' (did you mean 'resnet18"),
            ("torchvision:resnet182", "has no model 'resnet182' (did you mean 'resnet18"),
            ("timm:wrn_40_2", "did you mean 'wrn_40_2', without the prefix?"),
            ("torchvision:fasterrcnn_resnet50_fpn", "has no model"),
            ("resnet50", "did you mean 'timm:resnet50'?"),
        ],
    )
    def test_unknown_names(self, spec: str, said: str) -> None:
        with pytest.raises(UserError) as caught:
            models.resolve(spec, 10)
        assert said in str(caught.value)

    @needs_timm
    def test_what_the_library_dislikes_is_one_sentence(self) -> None:
        with pytest.raises(UserError, match=r"'timm:resnet10t' cannot be built with .*colour='red'"):
            models.create("timm:resnet10t", 10, colour="red")

    def test_the_zoo_has_no_preprocessing_of_its_own(self) -> None:
        assert models.preprocessing("resnet20") is None
        assert models.preprocessing("py:a:b") is None
        assert models.preprocessing(nn.Linear(2, 2)) is None


NETS = """
from torch import nn
import helper_of_nets_for_test
open("was_imported", "w").close()

class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
        self.act = nn.ReLU(inplace=True)
    def forward(self, x):
        return self.act(self.fc(x.mean((2, 3))))

class Space:
    @staticmethod
    def seven(**options):
        return Net(options["num_classes"] + 7)

def plain():
    return nn.Linear(2, 2)
def fails(num_classes):
    return {}["missing"]
def text():
    return "not a module"
NUMBER = 3
"""


class TestPython:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "nets_for_test.py").write_text(NETS)
        (tmp_path / "helper_of_nets_for_test.py").write_text("")
        (tmp_path / "broken_for_test.py").write_text("def f(:\n")
        (tmp_path / "needs_for_test.py").write_text("import package_that_is_not_there\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
        for name in ("nets_for_test", "helper_of_nets_for_test", "broken_for_test", "needs_for_test"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path

    def test_nothing_runs_without_trust(self, folder: Path) -> None:
        for function in (
            lambda: models.resolve("py:nets_for_test:Net", 5),
            lambda: models.check("py:nets_for_test:Net"),
        ):
            with pytest.raises(UserError, match="--trust-code"):
                function()
        assert not (folder / "was_imported").exists()
        assert "nets_for_test" not in sys.modules

    def test_a_class_gets_what_it_takes(self, folder: Path) -> None:
        module = models.resolve("py:nets_for_test:Net", 5, trust_code=True, in_channels=2)
        assert module(torch.zeros(1, 2, 4, 4)).shape == (1, 5)
        assert (folder / "was_imported").exists()
        assert module.get_submodule("act").inplace is False

    def test_dotted_names_keywords_and_factories_without_arguments(self, folder: Path) -> None:
        module = models.resolve("py:nets_for_test:Space.seven", 5, trust_code=True)
        assert module.get_submodule("fc").out_features == 12
        assert isinstance(models.resolve("py:nets_for_test:plain", 5, trust_code=True), nn.Linear)

    def test_the_current_folder_wins_over_installed_packages_only_while_importing(self, folder: Path) -> None:
        before = list(sys.path)
        models.resolve("py:nets_for_test:plain", 5, trust_code=True)
        assert sys.path == [*before, str(folder)]

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("py:nets_for_test:Nett", "there is no 'Nett' in nets_for_test (did you mean 'Net'?)"),
            ("py:nets_for_tests:Net", "there is no module 'nets_for_tests' in "),
            ("py:nets_for_test.sub:Net", "there is no module 'nets_for_test.sub' in "),
            ("py:nets_for_test:NUMBER", "is a int; name a function or a class"),
            ("py:nets_for_test:text", "made a str, not a torch.nn.Module"),
            ("py:nets_for_test:fails", "KeyError: 'missing' ("),
            ("py:broken_for_test:f", "broken_for_test.py, line 1)"),
            ("py:needs_for_test:f", "No module named 'package_that_is_not_there' ("),
        ],
    )
    def test_mistakes_are_placed(self, folder: Path, spec: str, said: str) -> None:
        with pytest.raises(UserError) as caught:
            models.resolve(spec, 5, trust_code=True)
        assert said in str(caught.value)

    @needs_torchvision
    def test_code_that_imports_torchvision_first_works_too(self, folder: Path) -> None:
        """Beside a CPU torch its import fails until the operators are declared; in a fresh process nothing has."""
        import subprocess

        (folder / "uses_torchvision.py").write_text(
            "import torchvision\n"
            "def net(num_classes):\n"
            "    return torchvision.models.squeezenet1_1(num_classes=num_classes)\n"
        )
        code = "import classroomkd.models as m; m.resolve('py:uses_torchvision:net', 3, trust_code=True)"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, check=True)
