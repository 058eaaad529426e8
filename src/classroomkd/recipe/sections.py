"""The keys of a recipe and of its sections, as plain values; nothing is built and torch is not imported.

These models hold the written-out form (``short_forms.py``). :class:`classroomkd.recipe.schema.Recipe` is the whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from classroomkd._limits import MOST_SIDE
from classroomkd.recipe.bank_spec import PATTERN
from classroomkd.recipe.data_section import DataSpec, Names, Seed, Text
from classroomkd.recipe.peer_section import Copies, PeerTrain, Role
from classroomkd.recipe.training import Count, Listed, MentorTrain, Section, TrainSpec
from classroomkd.tasks import DEFAULT, TASKS

__all__ = [
    "PRETRAINED",
    "SCHEMA",
    "TRAINED",
    "WEIGHTS_WORDS",
    "ArmSpec",
    "DataSpec",
    "MentorSpec",
    "MentorTrain",
    "MethodSpec",
    "PeerSpec",
    "RecipeKeys",
    "StageSpec",
    "StudentSpec",
    "TaskSpec",
    "TaughtBy",
    "TrainSpec",
]

SCHEMA = 2  # 1 had no data.resize: pictures were padded
PRETRAINED, TRAINED = "pretrained", "trained"
WEIGHTS_WORDS = (PRETRAINED, TRAINED)  # what weights may be beside a file
OwnSide = Annotated[int, Field(ge=1, le=MOST_SIDE)]
Sides = Annotated[tuple[OwnSide, OwnSide], Field(strict=False)]
Channels = Annotated[tuple[float, ...] | None, Field(strict=False, min_length=1)]
Model = Annotated[str, Field(min_length=1, description="A zoo name, timm:NAME, torchvision:NAME or py:module:factory.")]
Taps = Annotated[
    dict[str, str], Field(description="Where this network has a place that a method reads: {'@stage:-1': layer4}.")
]
Weights = Annotated[
    Text | None,
    Field(
        description="What it starts from: FILE (.safetensors or .pth, loaded strictly); pretrained: the published "
        "weights of timm: and torchvision: networks; trained: what a py: factory gives; null: fresh weights."
    ),
]
ResetHead = Annotated[
    bool, Field(description="Load the weights without the head, which starts afresh: for a file of other classes.")
]


class _Network(Section):
    """What student and mentors have in common."""

    model: Model
    weights: Weights = None
    reset_head: ResetHead = False

    @model_validator(mode="before")
    @classmethod
    def _alias(cls, value: Any) -> Any:
        """``checkpoint`` is another name of ``weights``; a check of the tree refuses both together."""
        if not isinstance(value, dict) or "checkpoint" not in value:
            return value
        rest = {key: item for key, item in value.items() if key != "checkpoint"}
        return rest if rest.get("weights") is not None else {**rest, "weights": value["checkpoint"]}

    @property
    def checkpoint(self) -> str | None:
        """The file that ``weights`` names; None where it names none."""
        return None if self.weights in WEIGHTS_WORDS else self.weights


class StudentSpec(_Network):
    """The network that is taught."""

    samples: Count | None = Field(
        default=None,
        description="Stratified cap on the samples it sees; those without a label are a stratum. null: all.",
    )
    taps: Taps = Field(default_factory=dict)


class _WithOptions(Section):
    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that stand beside those of the section, by name."""
        return dict(self.__pydantic_extra__ or {})


class MethodSpec(_WithOptions):
    """One method and its options, which stand beside ``name`` and ``label``."""

    name: Text
    label: Text | None = Field(default=None, description="What tables and the run folder call this arm.")
    peers: Names | None = Field(
        default=None, description="The peers it trains, of a method that takes some; null: all of the recipe's."
    )


Entries = Annotated[tuple[MethodSpec, ...], Field(strict=False, min_length=1)]


class StageSpec(Section):
    """One of the trainings that an arm does in order."""

    name: Text = Field(description="What its folder, starts of later stages and mentors made from it call it.")
    method: Entries = Field(description="How the mentors teach in it; several entries are added up.")
    trainees: Annotated[Literal["all"] | Names | None, Field(union_mode="left_to_right")] = Field(
        default=None,
        description="Who learns: all, or names of student and peers; null: whom the method needs.",
    )
    epochs: Count = Field(description="Passes over the training part.")
    start: Text | None = Field(
        default=None,
        description="Where its trainees begin: fresh, as after an earlier STAGE, or a FILE of one network; null: as "
        "after the stage before, the first fresh.",
    )


class ArmSpec(MethodSpec):
    """One entry of an arm: a method and its options, or in their place the stages that the arm is trained in."""

    name: Annotated[str, Field(description="The method.")] = ""
    stages: Annotated[tuple[StageSpec, ...] | None, Field(strict=False, min_length=1)] = Field(
        default=None, description="Several trainings in order, in place of a method; label may stand beside."
    )


ArmEntries = Annotated[tuple[ArmSpec, ...], Field(strict=False, min_length=1)]


class TaughtBy(Section):
    """Mentors of the recipe who teach a mentor that the run trains, which makes it an assistant; and how they do it."""

    mentors: Names = Field(description="Names of the mentors who teach it; they are made ready first.")
    method: Entries | None = Field(
        default=None, description="How they teach it; null: kd from one, average from several."
    )

    @property
    def parts(self) -> list[tuple[str, dict[str, Any]]]:
        """``(name, options)`` of every entry, as :func:`classroomkd.methods.compose` takes them."""
        if self.method is None:
            return [("kd" if len(self.mentors) == 1 else "average", {})]
        return [(entry.name, entry.options) for entry in self.method]


class MentorSpec(_Network):
    """A frozen network that teaches: with weights of its own, or trained by the run."""

    name: Annotated[str, Field(min_length=1, description="What tables and the report call it; unique.")]
    made_from: Text | None = Field(
        default=None,
        alias="from",
        description="A frozen self: STAGE.NETWORK, student or a peer as it is after a stage, or STAGE, one of each; it "
        "teaches in later stages of the arms that have it. null: a network of its own.",
    )
    train: MentorTrain | None = Field(
        default=None, description="How the run trains it, where it has no weights or its head is reset."
    )
    taught_by: TaughtBy | None = Field(
        default=None, description="Mentors who teach it while the run trains it (an assistant); null: labels alone."
    )
    mean: Channels = Field(
        default=None,
        description="Mean it was trained with, of pixels in 0..1; null: its checkpoint's or library's, else the data's",
    )
    std: Channels = Field(default=None, description="Standard deviation it was trained with; null: likewise.")
    size: Annotated[OwnSide | Sides | None, Field(union_mode="left_to_right")] = Field(
        default=None, description="Side, or [height, width], of the images it was trained with; null: the student's."
    )
    skeleton: Annotated[Text | Names | None, Field(union_mode="left_to_right")] = Field(
        default=None, description="Pose: the joints it answers: coco, mpii, lsp or a list of names; null: the data's."
    )
    joints: dict[str, str] = Field(
        default_factory=dict, description="Pose: which of its joints stands for one of the data's: {neck: upper_neck}."
    )
    taps: Taps = Field(default_factory=dict)
    classes: Annotated[tuple[str, ...] | None, Field(strict=False, min_length=1)] = Field(
        default=None, description="The data's classes it knows, in its order, where it knows fewer; null: all."
    )
    head: dict[str, Any] = Field(
        default_factory=dict,
        description="Pose: what differs in its head from what is assumed, e.g. {aligned: stride} of published HRNets.",
    )
    note: str = Field(default="", description="Shown beside it in the report.")

    @property
    def taken_as_is(self) -> bool:
        """Whether its weights are surely not trained by the run; published ones are where their classes do not fit."""
        return self.weights is not None and self.weights != PRETRAINED and not self.reset_head

    @property
    def shape(self) -> tuple[int, int] | None:
        """``size`` as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class PeerSpec(_Network):
    """A network that is trained beside the student and, by the method, teaches it and is taught by it."""

    name: Annotated[str, Field(min_length=1, description="What terms, files and tables call it; unique.")]
    copies: Copies = 1
    role: Role = Field(default="peer", description="What methods take it for: peer, or teacher of the others.")
    train: PeerTrain | None = Field(
        default=None, description="What differs in its training from the student's; freeze and layer_decay never act."
    )


class TaskSpec(_WithOptions):
    """What an answer is; the task's options stand beside ``name``."""

    name: Text = DEFAULT

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A name alone, as recipes are written down where there are no options."""
        return {"name": value} if isinstance(value, str) else value


class RecipeKeys(Section):
    """The keys of a whole recipe."""

    schema_version: int = Field(default=SCHEMA, ge=1, le=SCHEMA, alias="schema", description="Version of this format.")
    name: Text = Field(description="Name of the experiment; the file's name when left out.")
    task: TaskSpec = Field(
        default_factory=TaskSpec, description=f"What an answer is: {' or '.join(TASKS)}, or a package's own."
    )
    data: DataSpec
    student: StudentSpec
    mentors: Annotated[tuple[MentorSpec, ...], Listed] = Field(default=(), description="The networks that teach.")
    peers: Annotated[tuple[PeerSpec, ...], Listed] = Field(
        default=(), description="Networks that are trained beside the student; an arm takes what its method needs."
    )
    export: Text = Field(
        default="student",
        description="Who is exported, whose scores an arm has: student, a peer, or a branch (branch-2); of an arm "
        "without it the student.",
    )
    method: ArmEntries | None = Field(default=None, description="How they teach; several entries are added up.")
    methods: Annotated[tuple[ArmEntries, ...] | None, Field(strict=False, min_length=1)] = Field(
        default=None, description="A grid: each entry is trained and compared."
    )
    train: TrainSpec = Field(default_factory=TrainSpec, description="How the student is trained.")
    mentor_train: TrainSpec | None = Field(
        default=None, description="How mentors without a checkpoint are trained; keys not given are those of train."
    )
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = Field(
        default=(0,), description="One run each."
    )
    bank: Annotated[str, Field(pattern=PATTERN)] = Field(
        default="auto", description="Stored mentor answers: auto, off, exact or views=V; the last two with ,top=K."
    )
    mentor_precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Of the mentors' weights; auto: bf16 where the hardware multiplies it faster."
    )
    mentor_compile: bool = Field(default=False, description="Run mentors through torch.compile; for long runs.")
    check_mentors: Literal["warn", "error", "off"] = Field(
        default="warn", description="What to do about mentors near chance."
    )
    on_bad_mentor: Literal["skip", "stop"] = Field(
        default="skip",
        description="What to do where a mentor's answer is not finite (NaN, inf): leave it out and say so, or stop.",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")] = Field(
        default="auto", description="Where to run."
    )
    devices: Count = Field(default=1, description="How many devices of that kind.")
    workers: Count | Literal["auto"] = Field(default="auto", description="One-thread jobs side by side on a CPU.")
    threads: Count | Literal["auto"] = Field(default="auto", description="Threads of one job.")
    cache: Text | None = Field(
        default=None, description="Folder of trained mentors and banks; null: beside the run folder."
    )

    @property
    def grid(self) -> tuple[ArmEntries, ...]:
        """The arms' entries: of ``methods``, or of the one ``method``."""
        return self.methods or ((self.method,) if self.method is not None else ())
