"""Settings of a recipe that are given and that nothing will read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from classroomkd.recipe.peers import taken_by, written_out
from classroomkd.recipe.sections import ArmSpec, MethodSpec, RecipeKeys
from classroomkd.recipe.training import ONLY_WITH, TrainSpec

__all__ = ["notes"]


def notes(recipe: RecipeKeys) -> list[str]:
    """Settings that differ from their default and that nothing will read, one sentence each."""
    sections: list[tuple[str, TrainSpec | None]] = [("train", recipe.train), ("mentor_train", recipe.mentor_train)]
    sections += [(f"mentors.{mentor.name}.train", mentor.train) for mentor in recipe.mentors]
    sentences: list[str] = []
    seen: set[tuple[str, object]] = set()
    for where, spec in sections:
        for key, reason in _idle(spec, where == "train") if spec is not None else ():
            if (key, getattr(spec, key)) not in seen:  # what is inherited is said once
                seen.add((key, getattr(spec, key)))
                sentences.append(f"{where}.{key} has no effect{reason}")
    if recipe.mentor_train not in (None, recipe.train) and all(mentor.train is None for mentor in recipe.mentors):
        sentences.append("mentor_train has no effect: no mentor is trained by the run")
    if recipe.peers and not recipe.mentors and recipe.bank not in ("auto", "off"):
        sentences.append(
            "bank has no effect: peers change as they learn, and there are no mentors with answers to store"
        )
    trained = [training for arm in recipe.grid for training in _trainings(arm, recipe.train.epochs)]
    if recipe.mentors and all(entry.name == "none" for some, _ in trained for entry in some):
        sentences.append("the mentors have no effect: the only method is 'none'")
    usual = recipe.mentor_train or recipe.train
    taught = [
        (mentor.taught_by.method or (), (mentor.train or usual).epochs) for mentor in recipe.mentors if mentor.taught_by
    ]
    entries = [(entry, epochs) for some, epochs in (*trained, *taught) for entry in some]
    sentences += _alone(recipe)
    student = recipe.student
    loaded = student.checkpoint is not None or getattr(student, "weights", None) is not None
    if recipe.train.freeze and not loaded and ":" not in student.model:
        sentences.append("train.freeze keeps random weights as they are: the student starts without any of its own")
    sentences += _idle_taps(recipe, [entry for entry, _ in entries])
    for entry, epochs in entries:
        sentences += [*_idle_options(entry, recipe.task.name), *_odd_schedule(entry, epochs)]
    return list(dict.fromkeys(sentences))


def _alone(recipe: RecipeKeys) -> Iterator[str]:
    """Methods of several students that train one."""
    from classroomkd import methods

    roles = {peer.name: peer.role for peer in written_out(recipe.peers)}
    for entry in (entry for arm in recipe.grid for entry in arm if entry.stages is None):
        needs = methods.create(entry.name, **entry.options).needs
        if needs.takes_peers and not any(roles[name] == "peer" for name in taken_by(entry, recipe.peers) or ()):
            yield f"peers: '{entry.label or entry.name}' trains one student, which has nobody to learn with; add a peer"


def _trainings(arm: Sequence[ArmSpec], epochs: int) -> list[tuple[Sequence[MethodSpec], int]]:
    """The trainings of an arm, each with its methods and its epochs: its stages, or one of so many epochs."""
    stages = arm[0].stages
    return [(arm, epochs)] if stages is None else [(stage.method, stage.epochs) for stage in stages]


def _idle_taps(recipe: RecipeKeys, entries: list[MethodSpec]) -> Iterator[str]:
    """Places that a network's ``taps`` name and that no method reads."""
    networks = [("student", recipe.student.taps), *((f"mentors.{m.name}", m.taps) for m in recipe.mentors)]
    if not any(taps for _, taps in networks):
        return
    from classroomkd import methods

    built = [methods.create(e.name, task=recipe.task.name, **e.options) for e in entries]
    read = {tap: None for method in built for tap in method.needs.features}
    for where, taps in networks:
        for tap in taps:
            if tap not in read:
                yield f"{where}.taps.{tap} has no effect: the methods read {', '.join(read) or 'no taps'}"


def _idle_options(entry: MethodSpec, task: str) -> Iterator[str]:
    """What the method itself says about options that act on nothing, but for those that the task's default set."""
    from classroomkd import methods

    own, usual = methods.defaults(entry.name, task), methods.defaults(entry.name)
    unset = {key for key, value in own.items() if value != usual[key] and entry.options.get(key) == value}
    for note in methods.method_class(entry.name).idle(entry.options):
        if note.split()[0] not in unset:
            yield f"method {entry.label or entry.name}: {note}"


def _odd_schedule(entry: MethodSpec, epochs: int) -> Iterator[str]:
    """A schedule that such a training is too short for."""
    from classroomkd import methods

    for schedule in methods.create(entry.name, **entry.options).schedules():
        if remark := schedule.remark(epochs):
            name, length = type(schedule).__name__.lower(), f"{schedule.epochs:g}"
            yield f"method {entry.label or entry.name}: schedule {name} ({length} of {epochs} epochs) {remark}"


def _idle(spec: TrainSpec, student: bool) -> Iterator[tuple[str, str]]:
    if spec.outliers is not None and not student:
        yield "outliers", ": it is about the student's pictures without a label"
    if spec.outlier_weight != TrainSpec.model_fields["outlier_weight"].default and spec.outliers is None:
        yield "outlier_weight", " without outliers"
    for key, (decider, choice) in ONLY_WITH.items():
        if getattr(spec, decider) != choice and getattr(spec, key) != TrainSpec.model_fields[key].default:
            yield key, f": it acts only with {decider}: {choice}"
    if spec.warmup_lr and not spec.warmup_epochs:
        yield "warmup_lr", " without warmup_epochs"
