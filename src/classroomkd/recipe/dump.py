"""Recipes written down: as YAML that loads to the same recipe, and the JSON schema for editors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from classroomkd._files import atomic_write_text
from classroomkd.recipe.peer_section import STUDENT
from classroomkd.recipe.schema import ArmSpec, MentorSpec, MethodSpec, Recipe, StageSpec

__all__ = ["json_schema", "recipe_yaml", "save_recipe"]


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as YAML; loading it gives an equal recipe. What a mentor inherits unchanged is left out."""
    data = recipe.model_dump(by_alias=True, mode="json")
    for key in ("method", "methods"):
        if data[key] is None:
            del data[key]
    # A recipe that has none is written as before there was the key.
    for key in ("shard", "classes", "labels", "unlabelled"):
        if data["data"][key] is None:
            del data["data"][key]
    if data["data"].get("labels") is not None:
        data["data"]["labels"] = {key: value for key, value in data["data"]["labels"].items() if value is not None}
    if not recipe.peers:
        del data["peers"]
    if recipe.export == STUDENT:
        del data["export"]
    for written, peer in zip(data.get("peers", ()), recipe.peers, strict=True):
        for key in ("reset_head", "train"):
            if not written[key]:
                del written[key]
        if peer.copies == 1:
            del written["copies"]
    for section in (data["train"], data["mentor_train"], *(mentor["train"] for mentor in data["mentors"])):
        if section is not None and section["unlabelled_ratio"] is None:
            del section["unlabelled_ratio"]
    if not recipe.task.options:
        data["task"] = recipe.task.name
    if recipe.method is not None:
        data["method"] = [_arm_entry(entry) for entry in recipe.method]
    if recipe.methods is not None:
        data["methods"] = [[_arm_entry(entry) for entry in arm] for arm in recipe.methods]
    for key in ("taps", "reset_head"):
        if not data["student"][key]:
            del data["student"][key]
    pairs = zip(data["mentors"], recipe.mentors, strict=True)
    data["mentors"] = [_mentor(written, mentor, recipe) for written, mentor in pairs]
    data["mentors"] += [_self(mentor) for mentor in recipe.selves]
    if recipe.mentor_train is None or recipe.mentor_train == recipe.train:
        del data["mentor_train"]
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write :func:`recipe_yaml` to a file, all of it or nothing."""
    atomic_write_text(Path(path), recipe_yaml(recipe))


def _mentor(written: dict[str, Any], mentor: MentorSpec, recipe: Recipe) -> dict[str, Any]:
    if mentor.made_from is not None:
        return _self(mentor)
    del written["from"]
    if mentor.train is None or (recipe.mentor_train is not None and _same(mentor.train, recipe.mentor_train)):
        del written["train"]
    for key in ("taps", "classes", "skeleton", "joints", "head", "reset_head"):
        if not written[key]:
            del written[key]
    if mentor.taught_by is None:
        del written["taught_by"]
    else:
        written["taught_by"]["method"] = [_entry(entry) for entry in mentor.taught_by.method or ()] or None
    return written


def _self(mentor: MentorSpec) -> dict[str, Any]:
    note = {"note": mentor.note} if mentor.note else {}
    return {"name": mentor.name, "model": mentor.model, "from": mentor.made_from, **note}


def _arm_entry(entry: ArmSpec) -> dict[str, Any]:
    if entry.stages is None:
        return _entry(entry)
    return {**_label(entry), "stages": [_stage(stage) for stage in entry.stages]}


def _stage(stage: StageSpec) -> dict[str, Any]:
    trainees = list(stage.trainees) if isinstance(stage.trainees, tuple) else stage.trainees
    about = {"method": [_entry(entry) for entry in stage.method], "trainees": trainees, "epochs": stage.epochs}
    return {"name": stage.name, **about, "start": stage.start}


def _label(entry: MethodSpec) -> dict[str, Any]:
    return {} if entry.label is None else {"label": entry.label}


def _entry(entry: MethodSpec) -> dict[str, Any]:
    peers = {} if entry.peers is None else {"peers": list(entry.peers)}
    return {"name": entry.name, **_label(entry), **peers, **entry.options}


def _same(own: Any, shared: Any) -> bool:
    """Whether a mentor's training is its default and nothing beside it."""
    fields = type(own).model_fields
    return all(getattr(own, key) == getattr(shared, key, field.default) for key, field in fields.items())


class _Dumper(yaml.SafeDumper):
    """Block style, lists of plain values in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts out instead of pointing at each other."""
        return True


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    flat = all(not isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _list)


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a recipe file, short forms included, for editors that check while typing."""
    schema = Recipe.model_json_schema(by_alias=True)
    properties, parts = schema["properties"], schema["$defs"]
    for model in (
        "StudentSpec",
        "MentorSpec",
        "PeerSpec",
        "DataSpec",
        "LabelsSpec",
        "MethodSpec",
        "ArmSpec",
        "StageSpec",
        "TaskSpec",
    ):
        parts[model]["title"] = model.removesuffix("Spec").lower()
    parts["TaughtBy"]["title"] = "taught_by"
    parts["PeerSpec"]["required"] = ["model"]
    del parts["MentorSpec"]["required"]
    parts["MentorSpec"]["anyOf"] = [{"required": ["model"]}, {"required": ["from"]}]
    for model in ("StudentSpec", "MentorSpec", "PeerSpec"):
        alias = {**parts[model]["properties"]["weights"], "description": "Another name of weights."}
        parts[model]["properties"]["checkpoint"] = alias
    parts["MethodSpec"]["additionalProperties"] = parts["ArmSpec"]["additionalProperties"] = True
    parts["ArmSpec"]["anyOf"] = [{"required": ["name"]}, {"required": ["stages"]}]
    text = {"type": "string"}
    # ``{at: {weight: 10}}``: one key, the method's name
    options = {"type": ["object", "null"]}
    keyed = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": options}
    method, arm = (
        _any(entry, {"type": "array", "items": entry, "minItems": 1})
        for entry in (_any(text, {"$ref": f"#/$defs/{model}"}, keyed) for model in ("MethodSpec", "ArmSpec"))
    )
    mentors = {"type": "array", "items": _any(text, {"$ref": "#/$defs/MentorSpec"})}
    names, nothing = _any(text, {"type": "array", "items": text, "minItems": 1}), {"type": "null"}
    inside, taught = parts["TaughtBy"]["properties"], parts["MentorSpec"]["properties"]["taught_by"]
    inside["mentors"] = {**names, "description": inside["mentors"]["description"]}
    inside["method"] = {**_any(method, nothing), "description": inside["method"]["description"]}
    stage = parts["StageSpec"]["properties"]
    stage["method"] = {**method, "description": stage["method"]["description"]}
    stage["trainees"] = {**_any(*names["anyOf"], nothing), "description": stage["trainees"]["description"]}
    taught["anyOf"] = [text, *names["anyOf"][1:], {"$ref": "#/$defs/TaughtBy"}, nothing]
    forms: dict[str, dict[str, Any]] = {
        "data": _any(text, {"$ref": "#/$defs/DataSpec"}),
        "task": _any(text, {"$ref": "#/$defs/TaskSpec"}),
        "student": _any(text, {"$ref": "#/$defs/StudentSpec"}),
        "mentors": _any(text, mentors),
        "peers": _any(text, {"type": "array", "items": _any(text, {"$ref": "#/$defs/PeerSpec"})}),
        "method": arm,
        "methods": {"type": "array", "items": arm, "minItems": 1},
        "seeds": _any({"type": "integer", "minimum": 0}, properties["seeds"]),
    }
    for key, form in forms.items():
        described = properties[key] if "description" in properties[key] else parts[f"{key.capitalize()}Spec"]
        properties[key] = {**form, "description": described["description"]}
    schema["required"] = ["data", "student"]
    schema["oneOf"] = [{"required": ["method"]}, {"required": ["methods"]}]
    schema["title"] = "classroomkd recipe"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _any(*forms: Any) -> dict[str, Any]:
    return {"anyOf": list(forms)}
