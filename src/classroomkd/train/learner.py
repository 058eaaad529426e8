"""What is trained, as DistributedDataParallel (DDP) needs it.

DDP waits for a gradient of every parameter that it watches. Two kinds have none of their own in a step: a method's, in
a step that does not use them (the student alone, when its cost is measured; a term that comes later), and a student's
that its forward pass never touches. The first are tied to every loss with a gradient of zero; the second DDP is not
told of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classroomkd.classroom import Classroom

__all__ = ["Learner", "idle_peers", "tied", "to_tie", "untouched"]


Answer = tuple[Tensor, dict[str, Tensor]]  # a prediction, and taps
Run = Callable[[Tensor], Answer]


class Learner(nn.Module):
    """What is trained, and so what Fabric wraps: student, peers and the method's own parameters, never a mentor."""

    _run: Run
    _peers: dict[str, Run]
    _one: Callable[[str, Sequence[Tensor], dict[str, Tensor], Run], Answer]

    def __init__(self, classroom: Classroom, compile: bool = False, untouched: Collection[str] = ()) -> None:
        super().__init__()
        self.reader, self.method = classroom.reader, classroom.method
        # Not as a submodule: the compiled one holds the same parameters under other names.
        object.__setattr__(self, "_run", torch.compile(self.reader) if compile else self.reader)
        if len(classroom.peers):
            self.peers = classroom.peers.readers
        runs = {name: torch.compile(one) if compile else one for name, one in classroom.peers.readers.items()}
        object.__setattr__(self, "_peers", runs)
        object.__setattr__(self, "_one", classroom.peers.run)
        own = {id(p) for p in classroom.method.meta_parameters()}
        names = [name for name, p in self.named_parameters() if id(p) in own]
        # The method updates these by itself; waiting for their gradients would block every rank. Its buffers (a memory
        # of every sample) are the same on all ranks by its own doing; sending them around at every step is not needed.
        names += [name for name, _ in self.named_buffers() if name.startswith("method.")]
        names += [name for name, _ in self.named_parameters() if name.removeprefix("reader.module.") in untouched]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)  # type: ignore[no-untyped-call]

    def forward(
        self, inputs: Tensor, peers: bool = False, others: Sequence[Tensor] = ()
    ) -> Answer | tuple[Answer, dict[str, Answer]]:
        """The student's prediction and taps; with ``peers`` theirs beside it, by name, branches to views of their own
        where there are ``others``."""
        if not peers:
            return self._run(inputs)
        student = self._run(inputs)
        shown = (inputs, *others)
        return student, {name: self._one(name, shown, student[1], run) for name, run in self._peers.items()}


def to_tie(classroom: Classroom) -> list[nn.Parameter]:
    """The method's parameters that DDP waits for."""
    apart = {id(p) for p in classroom.method.meta_parameters()}
    return [p for p in classroom.method.parameters() if p.requires_grad and id(p) not in apart]


def idle_peers(classroom: Classroom) -> list[nn.Parameter]:
    """The peers' parameters, where the method as it is now trains none: a step that is only measured."""
    others = [] if classroom.learning else [*classroom.peers.networks]
    return [p for name in others for p in classroom.trained_with(name) if p.requires_grad]


def tied(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """A loss as it is, on which parameters depend with a gradient of zero, whatever they hold."""
    return _Tied.apply(loss, *parameters) if parameters else loss  # type: ignore[no-untyped-call]


class _Tied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.likes = [(p.shape, p.dtype, p.device) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        zeros = [torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.likes]
        return gradients[0], *zeros


def untouched(classroom: Classroom, inputs: Tensor) -> list[str]:
    """Names of the student's trainable parameters that neither its prediction nor a tap depends on; of peers likewise,
    behind ``peers.NAME.module.``.

    Args:
        classroom: before its first step; weights, buffers and the generators are as before afterwards.
        inputs: a batch in the student's space.
    """
    names = _untouched(classroom.reader, inputs)
    for name, reader in classroom.peers.readers.items():
        names += [f"peers.{name}.module.{own}" for own in _untouched(reader, inputs)]
    return names


def _untouched(reader: Any, inputs: Tensor) -> list[str]:
    student, training = reader.module, reader.module.training
    kept = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.random.fork_rng([inputs.device] if inputs.device.type == "cuda" else []), torch.enable_grad():
        prediction, features = reader.train()(inputs)
        torch.stack([x.float().sum() for x in (prediction, *features.values())]).sum().backward()  # type: ignore[no-untyped-call]
    names = [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None]
    student.zero_grad(set_to_none=True)
    student.load_state_dict(kept)
    student.train(training)
    return names
