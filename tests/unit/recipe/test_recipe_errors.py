"""Recipes with the mistakes people make; what is checked is what they read."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from classroomkd import _compat
from classroomkd.errors import UserError
from classroomkd.recipe import Recipe, load_recipe, make_recipe

Mistakes = Callable[..., list[str]]
Load = Callable[..., Recipe]


def test_everything_wrong_is_said_at_once(mistakes: Mistakes) -> None:
    found = mistakes(
        """\
dta: puppets
data:
  source: pupets
  limit: 0
student: {model: resnet9, checkpont: x}
epochs: 10
mentors:
  - convnet8
  - {name: a, model: vgg7, train: {epochs: 5, learning_rate: 0.1, classes: [stand], others: 2}}
method: {name: classroomkd, tua: 8, rule: batches}
train: {epochs: ten, lr: -1e-2, nesterov: yes, schedule: step}
bank: view=3
""",
        "train.batch_size=0",
        "seeds=0,1",
    )
    assert found == [
        "a.yaml:1: dta: unknown key (did you mean 'data'?)",
        "a.yaml:3: data.source = 'pupets': there is no data source 'pupets' (did you mean 'puppets'?); "
        + found[1].partition("(did you mean 'puppets'?); ")[2],
        "a.yaml:4: data.limit = 0: must be at least 1",
        "a.yaml:5: student.checkpont: unknown key (did you mean 'checkpoint'?)",
        "a.yaml:5: student.model = 'resnet9': " + found[4].partition("'resnet9': ")[2],
        "a.yaml:6: epochs: unknown key here; it belongs under 'train:'",
        "a.yaml:9: mentors.1.train.others = 2: must be at most 1",
        "a.yaml:9: mentors.1.train.learning_rate: unknown key; here it is called 'lr'",
        "a.yaml:9: mentors.1.model = 'vgg7': " + found[8].partition("'vgg7': ")[2],
        "a.yaml:10: method.rule = 'batches': must be 'sample', 'batch' or 'rank' (did you mean 'batch'?)",
        "a.yaml:10: method.tua: unknown key (did you mean 'tau'?)",
        "a.yaml:11: train.epochs = 'ten': must be a whole number",
        "a.yaml:11: train.lr = -0.01: must be more than 0",
        "a.yaml:11: train.nesterov = 'yes': must be true or false (write true)",
        "a.yaml:11: train.schedule = 'step': must be 'multistep', 'cosine' or 'constant' (did you mean 'multistep'?)",
        "a.yaml:12: bank = 'view=3': must be auto, off, exact or views=V (V views a sample, for example views=8), "
        "with ,top=K for K logits a sample",
        "command line: train.batch_size = 0: must be at least 1",
        "command line: seeds = '0,1': must be a list (write [0,1])",
    ]
    assert "'resnet8'" in found[4] or "'resnet" in found[4]
    assert "did you mean 'vgg8'" in found[8]


def test_the_message_counts_and_says_that_nothing_began(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load("data: puppets\nstudent: convnet8\nmethod: none\ntrain: {lr: 0, epochs: 0}\n")
    first, *rest = str(caught.value).splitlines()
    assert first == "the recipe has 2 mistakes; nothing was started."
    assert len(rest) == 2
    assert all(line.startswith("  a.yaml:4: train.") for line in rest)


def test_a_hundred_mistakes_fit_on_a_screen(load: Load) -> None:
    unknown = "".join(f"zzz{i}: 1\n" for i in range(100))
    with pytest.raises(UserError) as caught:
        load("data: puppets\nstudent: convnet8\nmethod: none\n" + unknown)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("the recipe has 100 mistakes")
    assert lines[-1] == "  … and 70 more"
    assert len(lines) == 32


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mentros: [convnet8]", "mentros: unknown key (did you mean 'mentors'?)"),
        ("teachers: [convnet8]", "teachers: unknown key; here it is called 'mentors'"),
        ("seed: 3", "seed: unknown key; here it is called 'seeds'"),
        ("lr: 0.1", "lr: unknown key here; it belongs under 'train:'"),
        ("out: runs/b", "out: unknown key; on the command line that is the option --out DIR"),
        ("dry-run: true", "dry-run: unknown key; on the command line that is the option --dry-run"),
        ("learning_rate: 0.1", "learning_rate: unknown key here; it is called 'lr' and belongs under 'train:'"),
        ("tau: 4", "tau: unknown key here; it belongs under 'method:'"),
        ("limit: 4", "limit: unknown key here; it belongs under 'data:'"),
        ("train: {workers: 2}", "train.workers: unknown key here; it belongs at the top level"),
        ("train: {lr:0.1}", "train.lr:0.1: a space is missing after ':'; write lr: 0.1"),
        ("train: {epochs: 1.5}", "train.epochs = 1.5: must be a whole number"),
        ("train: {epochs: '3'}", "train.epochs = '3': must be a whole number (without quotes)"),
        ("train: {epochs: true}", "train.epochs = true: must be a whole number"),
        ("train: {lr: true}", "train.lr = true: must be a number"),
        ("train: {lr: .nan}", "train.lr = nan: must be a finite number"),
        ("train: {clip: None}", "train.clip = 'None': must be a number (nothing is written null)"),
        ("train: {drop_last: no}", "train.drop_last = 'no': must be true or false or 'auto' (write false)"),
        ("train: {milestones: 3}", "train.milestones = 3: must be a list (write [3])"),
        ("train: {milestones: [a, 0.5]}", "train.milestones.0 = 'a': must be a number"),
        ("train: {ema: 1.0}", "train.ema = 1.0: must be less than 1"),
        ("train: 5", "train = 5: must be a mapping (key: value)"),
        ("seeds: []", "seeds = []: must be a list of at least 1"),
        ("seeds: -1", "seeds = -1: must be at least 0"),
        ("seeds: [1, 2, 1]", "seeds = [1, 2, 1]: seed 1 is listed twice; the same run would be counted as two"),
        ("workers: 0", "workers = 0: must be at least 1 or 'auto'"),
        ("device: gpu", "device = 'gpu': must be auto, cpu, cuda, cuda:N or mps"),
        ("check_mentors: warning", "must be 'warn', 'error' or 'off' (did you mean 'warn'?)"),
        ("task: clasification", "there is no such task (did you mean 'classification'?)"),
        ("name: 3", "name = 3: must be text"),
        ("bank: views=0", "must be auto, off, exact or views=V"),
        ("mentors: 5", "mentors = 5: must be a name or a mapping (key: value)"),
        ("mentors: {big: {model: vgg8}}", "must be a list: [resnet20, {name: big, model: wrn_40_2}]"),
        ("mentors: [{name: a}]", "mentors.0.model: is missing"),
        ("mentors: [{name: a, modle: vgg8}]", "mentors.0.modle: unknown key (did you mean 'model'?)"),
        (
            "mentors: [convnet8, convnet8]",
            "mentors.1: is called 'convnet8' like mentors.0; give each its own name: {name: …, model: …}",
        ),
        ("mentors: [{model: vgg8, mean: [120, 110, 100]}]", "mentors.0.mean = [120, 110, 100]: needs 'std' beside it"),
        ("mentors: [{model: vgg8, mean: [0.5], std: [0.5, 1]}]", "must have as many numbers as mean (1)"),
        ("mentors: [{model: vgg8, mean: [0.5], std: [0]}]", "must be above 0 in every channel"),
        ("mentors: [{model: vgg8, mean: [99], std: [0.1]}]", "is for pixels scaled to 0..1; divide by 255"),
        ("mentors: [{model: vgg8, train: {others: 0.2}}]", "acts only on a specialist; add classes: [NAME, …] beside"),
    ],
)
def test_one_mistake_is_one_line(mistakes: Mistakes, line: str, message: str) -> None:
    found = mistakes(f"data: puppets\nstudent: convnet8\nmethod: none\n{line}\n")
    assert len([item for item in found if message in item]) == 1, found
    assert all(item.startswith("a.yaml:4: ") for item in found), found
    assert len(found) == 1 or "mean: [" in line, found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("student: convnet8\nmethod: none\n", "a.yaml: data: is missing; for example data: puppets"),
        ("data: puppets\nmethod: none\n", "a.yaml: student: is missing; for example student: resnet8"),
        (
            "data: puppets\nstudent: {samples: 3}\nmethod: none\n",
            "a.yaml:2: student.model: is missing; name the network",
        ),
        ("data: puppets\nstudent: convnet8\n", "a.yaml: method: is missing; write method: classroomkd, or a grid"),
        ("data:\nstudent: convnet8\nmethod: none\n", "a.yaml:1: data = null: must be a name or a mapping (key: value)"),
        (
            "data: {limit: 3}\nstudent: convnet8\nmethod: none\n",
            "data = {limit: 3}: names no source; write data: puppets",
        ),
        (
            "data: {test: puppets}\nstudent: convnet8\nmethod: none\n",
            "data: has 'test' but no 'train'; add train: SOURCE",
        ),
        ("data: {source: puppets, test: digits}\nstudent: convnet8\nmethod: none\n", "has both 'source' and test"),
    ],
)
def test_missing_sections(mistakes: Mistakes, text: str, message: str) -> None:
    (found,) = mistakes(text)
    assert message in found


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "method: clasroomkd",
            "method: there is no method 'clasroomkd' (did you mean 'classroomkd'?); there are none, kd",
        ),
        ("method: {tau: 3}", "method: has no 'name'; write {name: classroomkd, …}"),
        ("method: {classroomkd: , tau: 3}", "write {name: classroomkd, tau: …} or indent the options deeper"),
        ("method: {classroomkd: 3}", "has no 'name'"),
        ("method: 3", "method = 3: must be a name or a mapping (key: value)"),
        ("method: {name: kd, tau: 3}", "method.tau: unknown key; here it is called 'temperature'"),
        ("method: {name: kd, temperature: 0}", "method.temperature = 0: must be more than 0"),
        ("method: {name: kd, temperature: hot}", "method.temperature = 'hot': must be a number"),
        ("method: {name: kd, mentor: big}", "no mentor 'big'"),
        (
            "method: {name: classroomkd, gate: maybe}",
            "method.gate = 'maybe': must be 'hard', 'strict', 'soft', 'argmax' or 'none'",
        ),
        ("methods: [none, [kd, {name: average, temprature: 2}]]", "methods.1.1.temprature: unknown key (did you mean"),
        ("methods: []", "methods = []: must be a list of at least 1"),
        ("methods: [[]]", "methods.0 = []: must be a list of at least 1"),
        (
            "methods: [none, none]",
            "methods.1: methods.0 and methods.1 are both called 'none'; change an option, or give",
        ),
        ("methods: [none]\nmethod: none", "methods: stands beside 'method'; keep one of them"),
    ],
)
def test_methods(mistakes: Mistakes, method: str, message: str) -> None:
    (found,) = mistakes(f"data: puppets\nstudent: convnet8\nmentors: [vgg8]\n{method}\n")
    assert message in found


def test_a_method_that_needs_mentors_is_told_once_for_all_arms(mistakes: Mistakes) -> None:
    text = "data: puppets\nstudent: convnet8\nmethods: [none, kd, average, {name: kd, temperature: 2}]\n"
    (found,) = mistakes(text)
    assert found == "a.yaml: mentors: too few for 'kd', 'average'; add some, for example mentors: [resnet20]"


def test_none_needs_no_mentor(load: Load) -> None:
    assert load("data: puppets\nstudent: convnet8\nmethod: none\n").mentors == ()


# --- models, code, data -----------------------------------------------------------------------------------------------


def test_code_needs_trust(mistakes: Mistakes, load: Load) -> None:
    text = "data: py:a.b:c\nstudent: py:a.b:d\nmethod: none\n"
    assert mistakes(text) == [
        "a.yaml:1: data = 'py:a.b:c': runs code that is not part of classroomkd; if you trust it, add --trust-code",
        "a.yaml:2: student = 'py:a.b:d': runs code that is not part of classroomkd; if you trust it, add --trust-code",
    ]
    assert load(text, trust_code=True).student.model == "py:a.b:d"
    assert "is not of the form" in mistakes(text, "student=py:a.b", trust_code=True)[0]


def test_an_unknown_kind_of_model(mistakes: Mistakes) -> None:
    (found,) = mistakes("data: puppets\nstudent: hub:resnet18\nmethod: none\n")
    assert "unknown kind of model 'hub:'" in found


def test_library_models_are_checked_by_name() -> None:
    if not _compat.installed("timm"):  # not importorskip: beside a CPU torch a bare import of timm fails
        pytest.skip("timm is not installed")
    base = {"data": "puppets", "method": "none"}
    with pytest.raises(UserError, match=r"has no model 'resnet17' \(did you mean 'resnet1"):
        make_recipe({**base, "student": "timm:resnet17"})
    assert make_recipe({**base, "student": "timm:resnet18"}).student.model == "timm:resnet18"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cifar100", "lacks what follows the colon; write cifar100:DIR"),
        ("puppets:3", "'puppets' takes nothing after it; write puppets"),
        ("{source: puppets, options: {trian: 3}}", "data.options.trian = 3: unknown option of 'puppets' (did you mean"),
        ("{source: puppets, options: {train: 3.5}}", "data.options.train = 3.5: must be a whole number"),
        ("{source: digits, options: {train: 3}}", "unknown option of 'digits'; 'digits' has none"),
        ("{source: puppets, views: crops}", "data.views = 'crops': must be 'crop_flip', 'crop', 'flip', 'none', 'res"),
        ("{source: puppets, val_fraction: 1}", "data.val_fraction = 1: must be less than 1"),
        ("{source: puppets, size: 4}", "data.size = 4: must be at least 8"),
    ],
)
def test_data(mistakes: Mistakes, data: str, message: str) -> None:
    (found,) = mistakes(f"data: {data}\nstudent: convnet8\nmethod: none\n")
    assert message in found


# --- the file itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.yaml is empty; the smallest recipe is: data: puppets"),
        (b"# only a comment\n", "a.yaml is empty"),
        (b"- a\n- b\n", "a.yaml holds a list, but a recipe is a mapping of keys"),
        (b"hello\n", "a.yaml holds the text 'hello', but a recipe is a mapping"),
        (b"\x89PNG\r\n\x1a\n\xff", "a.yaml is not a recipe: not text in UTF-8"),
        (b"a: " + b"x" * 2_000_000, "a.yaml is not a recipe: it has more than 1,000,000 bytes"),
    ],
)
def test_files_that_are_no_recipes(content: bytes, message: str) -> None:
    Path("a.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_recipe("a.yaml")
    assert message in str(caught.value)


def test_a_byte_order_mark_is_no_mistake() -> None:
    Path("a.yaml").write_text("\ufeffdata: puppets\nstudent: convnet8\nmethod: none\n")
    assert load_recipe("a.yaml").name == "a"


def test_recipes_that_are_not_there() -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("data: puppets\nstudent: convnet8\nmethod: none\n")
    Path("run").mkdir()
    Path("my photos").mkdir()
    for path, message in [
        ("min.yaml", "there is no recipe 'min.yaml' (did you mean 'mine'?)"),
        ("recipes/mime.yaml", "(did you mean 'recipes/mine.yaml'?)"),
        ("qqqq", "there is no recipe 'qqqq'; recipes at hand: mine"),
        ("run", "run is a folder without recipe.yaml; give the recipe's file"),
        ("my photos", "or have one written for the data in it: classroomkd init 'my photos'"),
        ("seeds=3", "'seeds=3' looks like an override; the recipe's file comes first: classroomkd run RECIPE seeds=3"),
    ]:
        with pytest.raises(UserError) as caught:
            load_recipe(path)
        assert message in str(caught.value)
    assert load_recipe("mine").name == "mine"
    Path("run/recipe.yaml").write_text("data: puppets\nstudent: convnet8\nmethod: none\nname: old\n")
    assert load_recipe("run").name == "old"


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    Path("a.yaml").write_text("data: puppets\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"a\.yaml cannot be read: Permission denied"):
        load_recipe("a.yaml")


def test_a_newer_format_is_refused_by_name_and_nothing_else_is_said(mistakes: Mistakes) -> None:
    expected = "schema: this recipe is of version 3, this classroomkd reads up to 2; update classroomkd"
    assert mistakes("schema: 3\nnew_key: 3\n") == [f"a.yaml:1: {expected}"]
    assert mistakes("data: puppets\nstudent: convnet8\nmethod: none\n", "schema=3") == [f"command line: {expected}"]
    assert "schema = 'one': must be a whole number" in mistakes("schema: one\ndata: puppets\n")[0]
