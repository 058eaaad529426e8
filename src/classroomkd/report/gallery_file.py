"""Reading ``gallery.json``: the persons that a run kept pictures of, checked once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from classroomkd.errors import UserError
from classroomkd.report.files import read_json

__all__ = ["Gallery", "Person", "PersonAnswer", "Who", "read_gallery"]

NAME = "gallery.json"
Joint = tuple[float, float, float]
Crop = Annotated[str, Field(pattern=r"^data:image/(jpeg|png|webp);base64,[A-Za-z0-9+/=]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class Who(_Part):
    """Whose joints are kept: a student, by its arm, or a mentor."""

    kind: Literal["student", "mentor"]
    name: str


class PersonAnswer(_Part):
    """One network's answer to a person: (x, y, score) by joint, None where it does not know the joint.

    ``oks`` is the person's, ``right`` the number of joints that are near enough (None: cannot be said) ``of`` those
    that are labelled and answered.
    """

    joints: list[Joint | None]
    oks: float | None
    right: int | None
    of: int


class Person(_Part):
    """One person: crop as data URI, truth (x, y, v) by joint in input pixels, everybody's answers in the order of
    ``who``."""

    id: int
    image: str
    chosen: Literal["random", "worst"]
    error: float | None
    crop: Crop
    truth: list[Joint]
    answers: list[PersonAnswer] = Field(alias="found")


class Bones(_Part):
    """Names of joints and which are linked."""

    joints: list[str]
    links: list[tuple[int, int]]


class Gallery(_Part):
    """``gallery.json``. ``size`` is (H, W) of a crop, ``test`` how many persons there were to choose from."""

    schema_: Literal[1] = Field(alias="schema")
    metric: str
    right_by: str
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    skeleton: Bones
    seed: int
    headline: str
    test: int
    drawn_with: int
    flip_test: bool = False
    who: list[Who]
    persons: list[Person]

    @model_validator(mode="after")
    def _fits(self) -> Gallery:
        joints = len(self.skeleton.joints)
        rows = [person.truth for person in self.persons]
        rows += [answer.joints for person in self.persons for answer in person.answers]  # type: ignore[misc]
        if any(len(row) != joints for row in rows) or any(not 0 <= k < joints for k in sum(self.skeleton.links, ())):
            raise ValueError(f"joints that are not those of its skeleton ({joints})")
        if any(len(person.answers) != len(self.who) for person in self.persons):
            raise ValueError("a person with more or fewer answers than there are networks")
        return self


def read_gallery(root: Path) -> Gallery | None:
    """What a run kept, or None where it kept nothing.

    Raises:
        UserError: a file that was damaged or changed.
    """
    file = root / NAME
    if not file.exists():
        return None
    try:
        return Gallery.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {place + ': ' if place else ''}{first['msg']}. Run again with --resume.") from None
