"""The ``train`` section: how one network is trained. The student's, the mentors' defaults, and each mentor's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from classroomkd._section import Section

__all__ = ["LATER", "OF_ONE_NETWORK", "ONLY_WITH", "Listed", "MentorTrain", "Section", "TrainSpec"]

Listed = Field(strict=False)  # YAML's lists are accepted where the model holds a tuple
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

# Keys that say how one network with weights is trained on, and on which pictures: mentors do not inherit the student's.
OF_ONE_NETWORK = ("layer_decay", "freeze", "unlabelled_ratio", "outliers", "outlier_weight")
# Keys that came later: at their default they enter no key of what was trained before.
LATER = ("no_decay", *OF_ONE_NETWORK)

# Which keys only one choice of another key reads.
ONLY_WITH: dict[str, tuple[str, str]] = {
    "milestones": ("schedule", "multistep"),
    "gamma": ("schedule", "multistep"),
    "min_lr": ("schedule", "cosine"),
    "momentum": ("optimizer", "sgd"),
    "nesterov": ("optimizer", "sgd"),
}


class TrainSpec(Section):
    """Optimiser, schedule and bookkeeping of one training."""

    epochs: Count = Field(default=20, description="Passes over the training part.")
    batch_size: Count = Field(default=64, description="Samples an optimiser step sees in one forward pass.")
    eval_batch_size: Count = Field(default=256, description="Samples a forward pass sees when scoring.")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd (with momentum) or adamw.")
    lr: float = Field(default=0.05, gt=0, description="Learning rate after warm-up.")
    momentum: Fraction = Field(default=0.9, description="Momentum of sgd.")
    nesterov: bool = Field(default=False, description="Nesterov's form of momentum.")
    weight_decay: float = Field(default=5e-4, ge=0, description="Weight decay; on all parameters but for no_decay.")
    no_decay: Literal["none", "norm_bias"] = Field(
        default="none", description="What has no weight decay; norm_bias: biases and the parameters of normalisations."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Factor of the rate a stage further from the head: lr × layer_decay^depth, the head's depth being "
        "0 and the last stage's 1; null: one rate. Not inherited by mentors.",
    )
    freeze: Annotated[tuple[str, ...], Listed] = Field(
        default=(),
        description="Parts that stay as they are: @stage:I, @penultimate (all before the classifier) or a submodule's "
        "name. Their BatchNorms stay in evaluation mode. Not inherited by mentors.",
    )
    schedule: Literal["multistep", "cosine", "constant"] = Field(
        default="multistep", description="Shape of the learning rate."
    )
    milestones: Annotated[tuple[int | float, ...] | None, Listed] = Field(
        default=None,
        description="multistep: where lr is multiplied by gamma; epochs (>= 1) or fractions of the run (< 1). "
        "null: 5/8, 6/8 and 7/8 of it.",
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="multistep: factor at each milestone.")
    warmup_epochs: float = Field(
        default=0.0, ge=0, description="Epochs over which lr goes linearly from warmup_lr to lr."
    )
    warmup_lr: float = Field(default=0.0, ge=0, description="Learning rate at the start; may lie above lr.")
    min_lr: float = Field(default=0.0, ge=0, description="cosine: learning rate at the end.")
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest norm of the gradient; null: no limit."
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Decay of an averaged copy of the weights, scored beside them; null: none."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="Of the forward pass; auto: bf16 where the hardware has it and a probe finds it faster.",
    )
    accumulate: Count = Field(default=1, description="Batches whose gradients are added before a step.")
    label_smoothing: Fraction = Field(default=0.0, description="Share of the target spread over all classes.")
    outliers: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Pictures without a label on which no mentor is sure count less: those with more entropy of the "
        "mentors' vote than this share of the largest there is; null: all count the same. Not inherited by mentors.",
    )
    outlier_weight: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="How much such a picture counts in every mean over samples; others count 1."
    )
    channels_last: bool | Literal["auto"] = Field(
        default=True, description="Memory layout of images; changes speed only. auto: a probe of a second decides."
    )
    compile: bool = Field(default=False, description="Run the network through torch.compile; pays in long runs.")
    drop_last: bool | Literal["auto"] = Field(
        default="auto",
        description=(
            "Leave out an incomplete last batch; auto: one of a single sample, and one below a quarter of a batch for "
            "methods that compare a batch's samples."
        ),
    )
    unlabelled_ratio: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Samples without a label to one with a label in every batch; an epoch then ends when all of those "
        "were shown that need more batches. null: as the data have them. Of the student alone.",
    )
    log_every: Count = Field(default=50, description="Steps between lines of metrics.jsonl.")
    eval_every: Count = Field(default=1, description="Epochs between scores on the validation part.")
    checkpoint_every: Count = Field(default=1, description="Epochs between checkpoints to resume from.")
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Minutes between checkpoints within an epoch; null: none but at a signal."
    )
    keep_checkpoints: int = Field(
        default=2,
        ge=1,
        le=99,
        description="Checkpoints kept as it trains: where the last is damaged, the one before is taken.",
    )


class MentorTrain(TrainSpec):
    """How a mentor without a checkpoint is trained: any key of ``train``, and what it gets to see."""

    classes: Annotated[tuple[str, ...] | None, Field(strict=False, min_length=1)] = Field(
        default=None, description="A specialist: the classes it sees in full; null: all."
    )
    others: float = Field(
        default=0.0, ge=0, le=1, description="Share of the other classes' samples a specialist keeps."
    )
    samples: Count | None = Field(default=None, description="Stratified cap on the samples it sees; null: all.")
    label_noise: float = Field(default=0.0, ge=0, le=1, description="Share of its labels replaced at random.")
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Another number gives other initial weights and another order of samples."
    )
