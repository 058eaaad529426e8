"""Whether a recipe's batches and optimisers can work, found out before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from classroomkd import methods
from classroomkd.errors import UserError
from classroomkd.train.inputs import batch_sizes, uneven

if TYPE_CHECKING:
    from classroomkd.classroom import Method
    from classroomkd.recipe import TrainSpec
    from classroomkd.run.networks import Networks

__all__ = ["check_batches", "check_optimizer"]


def check_optimizer(method: Method, train: TrainSpec, who: str, where: str) -> None:
    """Refuse an optimiser that the method cannot follow.

    Raises:
        UserError: virtual steps with anything but SGD.
    """
    if method.needs.sgd and train.optimizer != "sgd":
        raise UserError(
            f"{who}: its virtual steps are SGD's, {where}.optimizer is {train.optimizer}; set "
            f"{where}.optimizer=sgd and an lr for it (0.05 is usual)"
        )


def check_batches(networks: Networks, mentor: int | None) -> None:
    """Whether the ranks can share a batch, and the network train on the smallest.

    Args:
        networks: of the run.
        mentor: whose training is meant; None: the student's.

    Raises:
        UserError: a size that does not divide by the ranks; a batch of one sample under batch normalisation that has
            nothing else to take a mean over.
    """
    from classroomkd.run.mentor_data import mentor_part

    context = networks.context
    recipe, world = context.recipe, context.runtime.world
    spec, part, key = recipe.train, context.student_part, "train"
    if mentor is not None:
        spec, part = context.mentor_train(mentor), mentor_part(context, mentor)[0]
        own = recipe.mentors[mentor].train
        key = f"mentors.{mentor}.train" if own else "mentor_train" if recipe.mentor_train else "train"
    if spec.batch_size % world:
        raise UserError(uneven(spec.batch_size, world).replace("train.batch_size", f"{key}.batch_size"))
    if world > 1 or len(part) < 1:
        return  # every rank is filled up to two samples
    whole = mentor is None and all(methods.compose(arm.parts).needs.whole_batch for arm in recipe.arms())
    drop = None if spec.drop_last == "auto" else bool(spec.drop_last)
    sizes, _ = batch_sizes(len(part), min(spec.batch_size, len(part)), drop, whole)
    if min(sizes) > 1:
        return
    name, size = ("student", None) if mentor is None else (recipe.mentors[mentor].name, recipe.mentors[mentor].shape)
    network = networks.blank_student() if mentor is None else networks.mentor(name)
    if (
        reason := _refuses_one(network, torch.zeros(1, context.data.shape[0], *(size or context.data.shape[1:])))
    ) is None:
        return
    what = f"{key}.batch_size={spec.batch_size}" if sizes[0] == 1 else f"{key}.drop_last=false"
    raise UserError(
        f"{what} gives {name} a batch of one sample, which its batch normalisation cannot work with ({reason}); "
        + (f"set {key}.batch_size to 2 or more" if sizes[0] == 1 else f"leave {key}.drop_last at auto")
    )


def _refuses_one(network: nn.Module, image: torch.Tensor) -> str | None:
    """What torch says against training on one sample; None where it does not mind. The network stays as it is."""
    kept, training = {k: v.clone() for k, v in network.state_dict().items()}, network.training
    first = next(network.parameters(), image)
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            network.train()(image.to(first.device, first.dtype))
    except ValueError as error:
        return str(error).partition(",")[0] if "more than 1 value per channel" in str(error) else None
    finally:
        network.load_state_dict(kept)
        network.train(training)
    return None
