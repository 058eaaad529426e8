"""Checks between keys of training sections (inheritance included), the machine, and the bank."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from classroomkd.data.spec import ENDLESS_VIEWS
from classroomkd.recipe.nodes import Loc, Node
from classroomkd.recipe.problems import Problem, problem
from classroomkd.recipe.schema import Recipe
from classroomkd.recipe.training import TrainSpec

__all__ = ["check_bank", "check_machine", "check_seeds", "check_training"]


def check_training(tree: Node, loc: Loc, spec: TrainSpec, given: frozenset[str]) -> Iterator[Problem]:
    """What contradicts itself in a training section.

    ``spec`` has the inherited values, ``given`` are the keys the section itself sets; ``loc`` is its place.
    """

    def at(*keys: str) -> Loc:
        """The key to blame: the first of ``keys`` the section sets itself, else the section."""
        return next(((*loc, key) for key in keys if key in given), loc)

    if spec.warmup_epochs >= spec.epochs:
        here = "" if "epochs" in given else " here"
        sentence = (
            f"the warm-up of {spec.warmup_epochs:g} epochs must end before the last; epochs is {spec.epochs}{here}"
        )
        yield problem(tree, at("warmup_epochs", "epochs"), sentence, value=False)
    if "unlabelled_ratio" in given and spec.unlabelled_ratio is not None and loc != ("train",):
        sentence = "acts on the student alone, as mentors are trained on labels; leave it out"
        yield problem(tree, at("unlabelled_ratio"), sentence)
    if spec.milestones is not None:
        yield from (problem(tree, at("milestones", "epochs"), text, value=False) for text in _milestones(spec))
    if spec.optimizer == "adamw" and "optimizer" in given and "lr" not in given:
        sentence = f"adamw needs its own lr beside it (1e-3 is usual); without one it would be sgd's {spec.lr:g}"
        yield problem(tree, at("optimizer"), sentence, value=False)
    if spec.min_lr > spec.lr:
        yield problem(tree, at("min_lr", "lr"), f"min_lr {spec.min_lr:g} must not be above lr {spec.lr:g}", value=False)


def _milestones(spec: TrainSpec) -> Iterator[str]:
    given = list(spec.milestones or ())
    shown = f"milestones {given}"
    if any(value <= 0 for value in given):
        yield f"{shown} must all be above 0"
        return
    if len({value < 1 for value in given}) > 1:
        yield f"{shown} mix fractions of the run (below 1) with epochs (1 and more); use one kind"
        return
    if any(later <= earlier for earlier, later in pairwise(given)):
        yield f"{shown} must grow; write {sorted(set(given))}"
        return
    epochs = [value * spec.epochs if value < 1 else value for value in given]
    late = [value for value, epoch in zip(given, epochs, strict=True) if epoch >= spec.epochs]
    if late:
        remedy = "lower it, or use fractions such as [0.6, 0.8]"
        yield f"milestone {late[0]:g} is not reached in {spec.epochs} epochs; {remedy}"
    early = [value for value, epoch in zip(given, epochs, strict=True) if epoch < spec.warmup_epochs]
    if early:
        yield f"milestone {early[0]:g} lies inside the warm-up of {spec.warmup_epochs:g} epochs"


def check_seeds(tree: Node, recipe: Recipe) -> Iterator[Problem]:
    """Seeds are different from each other."""
    twice = [seed for seed in recipe.seeds if recipe.seeds.count(seed) > 1]
    if twice:
        yield problem(tree, ("seeds",), f"seed {twice[0]} is listed twice; the same run would be counted as two")


def check_bank(tree: Node, recipe: Recipe) -> Iterator[Problem]:
    """The bank can hold the views that are asked for."""
    if recipe.bank == "exact" and recipe.data.views in ENDLESS_VIEWS:
        sentence = f"views '{recipe.data.views}' have no end, so not all can be stored; use bank=views=8 or off"
        yield problem(tree, ("bank",), sentence)


def check_machine(tree: Node, recipe: Recipe) -> Iterator[Problem]:
    """The device exists and can do the precision; asks torch only when the recipe asks for something special."""
    half = [
        (loc, spec)
        for loc, spec in [(("train",), recipe.train), (("mentor_train",), recipe.mentor_train)]
        + [(("mentors", index, "train"), mentor.train) for index, mentor in enumerate(recipe.mentors)]
        if spec is not None and spec.precision == "fp16" and "precision" in spec.model_fields_set
    ]
    if recipe.devices > 1:
        start = f"torchrun --nproc-per-node {recipe.devices} -m classroomkd run"
        yield problem(tree, ("devices",), f"several devices are started from outside: devices: 1 and {start} RECIPE")
    if recipe.device in ("auto", "cpu") and not (half and recipe.device == "auto"):
        kind = "cpu"
    else:
        kind, wrong = _kind(recipe.device)
        if wrong:
            yield problem(tree, ("device",), wrong)
            return
    if kind == "cpu":
        why = "the recipe says device: cpu" if recipe.device == "cpu" else "this machine has none"
        for loc, _ in half:
            yield problem(tree, (*loc, "precision"), f"fp16 needs a GPU and {why}; use bf16 or fp32")


def _kind(device: str) -> tuple[str, str | None]:
    """The kind of device that ``device`` means here, or why it cannot be had."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return ("cuda" if cuda else "mps" if mps else "cpu"), None
    kind, _, index = device.partition(":")
    if kind == "cuda" and not cuda:
        built = "this torch is a CPU build" if torch.version.cuda is None else "torch sees no CUDA device"
        return kind, f"{built}; use device: auto, and see `classroomkd doctor`"
    if kind == "mps" and not mps:
        return kind, "torch sees no Apple GPU; use device: auto"
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        return kind, f"there is no device {index}; they are counted from 0 to {last}"
    return kind, None
