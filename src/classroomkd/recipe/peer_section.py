"""Parts of the ``peers`` section: what a peer's keys may hold, and how its copies are called."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from classroomkd.recipe.training import Count, Section

__all__ = ["PEER_NAME", "STUDENT", "TRAINED", "Copies", "PeerTrain", "Role", "copies_of"]

STUDENT = "student"  # what the recipe's student is called among the trainees

TRAINED = ("trainee", "branch")  # kinds of variants that are networks trained together

PEER_NAME = r"[A-Za-z0-9_-]+"
Role = Literal["peer", "teacher"]
Copies = Annotated[Count, Field(description="How many of it, from different first weights: NAME-1, NAME-2, …")]


class PeerTrain(Section):
    """What differs in a peer's training from the student's."""

    lr: float | None = Field(default=None, gt=0, description="Its learning rate; null: the student's.")
    weight_decay: float | None = Field(default=None, ge=0, description="Its weight decay; null: the student's.")


def copies_of(name: str, copies: int) -> list[str]:
    """The names of a peer's copies; its own where there is one."""
    return [name] if copies <= 1 else [f"{name}-{number}" for number in range(1, copies + 1)]
