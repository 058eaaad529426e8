"""The networks of a run in one process: every mentor is built once, every student once for its arm and seed."""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from classroomkd import models
from classroomkd.classroom import Mentor
from classroomkd.classroom.batches import precision_of
from classroomkd.classroom.trainees import STUDENT
from classroomkd.errors import UserError
from classroomkd.recipe.sections import PRETRAINED, TRAINED, MentorSpec
from classroomkd.run.inputs_of import InputsOf, inputs_of
from classroomkd.taps.taps import remove_readers
from classroomkd.tasks.runner import open_runner
from classroomkd.train.optimize import FastMentor, optimize_for_inference

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from classroomkd.recipe.schema import PeerSpec, StudentSpec
    from classroomkd.run.context import RunContext
    from classroomkd.taps.tap_set import Kind

__all__ = ["Networks", "mentor_seed"]

FIXED = (
    "its factory gives the same weights whatever the seed, as one that loads them does, and the run trains it from "
    "them; where they are trained already, write weights: trained"
)
FAST_KEPT = 2  # fast copies of a mentor that are kept: one without taps, one for the arms that read some


def mentor_seed(spec: MentorSpec) -> int:
    """What a mentor's first weights, and its training, are drawn from."""
    return (zlib.crc32(spec.name.encode()) + (spec.train.seed if spec.train else 0)) % 2**31


class Networks:
    """Builds, keeps, loads and wraps the networks of a run.

    Checks, dry runs, the plan and the work share the mentors. A mentor is frozen and in evaluation mode; one that the
    run trains is brought back to its first weights (:meth:`untrained`). Who asks for a network may read its taps until
    the next one asks: the readers of the one before are taken off.

    Attributes:
        context: of the run.
        task_runner: of the run's task.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._mentors: dict[str, nn.Module] = {}
        self._starts: dict[str, _Start] = {}
        self._weights: dict[str, str] = {}  # by mentor, the file it was loaded from last
        self._began: dict[str, dict[str, str]] = {}  # by network, what is to be said of the weights it starts from
        self._fast: dict[str, dict[Hashable, Mentor]] = {}
        self._converted: dict[str, nn.Module] = {}  # what was handed over in another precision
        self._student: nn.Module | None = None
        self.task_runner = open_runner(context, self)

    def student(self, seed: int) -> nn.Module:
        """A new student for training: equal seeds give equal weights; of one handed over in Python a copy.

        Weights that the recipe gives are loaded by :meth:`begin`.
        """
        if "student" in self.context.given:
            return copy.deepcopy(self._given("student").to(self.context.runtime.device))
        return self._build(self.context.recipe.student.model, "student", seed)

    def peer(self, spec: PeerSpec, seed: int) -> nn.Module:
        """A peer for training, from first weights of its own: by the run's seed and its place among the peers; of one
        handed over in Python a copy.

        Raises:
            UserError: no such network, or weights that do not fit.
        """
        if spec.name in self.context.given:
            return copy.deepcopy(self._given(spec.name).to(self.context.runtime.device))
        place = [peer.name for peer in self.context.recipe.peers].index(spec.name)
        network = self._build(
            spec.model, f"peer '{spec.name}'", zlib.crc32(f"peer {place} of seed {seed}".encode()) % 2**31
        )
        self.begin(network, spec.name)
        return network

    def branches(self, lead: str, number: int, seed: int) -> list[nn.Module] | None:
        """Networks from which branches begin behind their cut: first weights of their own, by the run's seed and their
        place; None for a network handed over in Python, whose layers draw new ones.

        Args:
            lead: who is cut, ``student`` or a peer.
            number: of branches beside it.
            seed: of the run.
        """
        if lead in self.context.given:
            return None
        spec = self.context.recipe.student if lead == STUDENT else self.context.peer(lead)
        seeds = [zlib.crc32(f"branch {place} of seed {seed}".encode()) % 2**31 for place in range(2, 2 + number)]
        return [self._build(spec.model, "student", own) for own in seeds]

    def begin(self, network: nn.Module, trainee: str = STUDENT, weights: str | None = None) -> None:
        """Load what the recipe says that a trainee starts from, its classes or joints by name.

        Args:
            network: its own.
            trainee: the student or a peer.
            weights: another file to start from; None: the recipe's ``weights``.

        Raises:
            UserError: the weights are not there, or do not fit.
        """
        who = STUDENT if trainee == STUDENT else f"peer '{trainee}'"
        spec = self.context.recipe.student if trainee == STUDENT else self.context.peer(trainee)
        other = {} if weights is None else {"weights": weights, "reset_head": False}
        self._begin(network, spec.model_copy(update=other), who)

    def blank_student(self) -> nn.Module:
        """The student for dry runs, the same for all of them; who changes its weights puts them back."""
        if self._student is None:
            self._student = self.student(0)
        remove_readers(self._student)
        return self._student

    def mentor(self, name: str) -> nn.Module:
        """A mentor's network with the weights that it has now.

        Raises:
            UserError: no such network.
        """
        if name in self.context.given:
            return self._given(name).to(self.context.runtime.device)
        if name not in self._mentors:
            spec = self.context.mentor(name)
            network = self._build(spec.model, name, mentor_seed(spec), spec)
            if not spec.taken_as_is:
                self._begin(network, spec, f"mentor '{name}'")
            if not self.has_weights(spec):
                self._starts[name] = _Start(network)
                if spec.model.startswith("py:") and self._gives_the_same(spec, network):
                    self._began[name] = {"fixed": FIXED}
            self._mentors[name] = network
        network = self._mentors[name].to(self.context.runtime.device)
        remove_readers(network)
        return network

    def has_weights(self, spec: MentorSpec) -> bool:
        """Whether a mentor has weights before the run does anything."""
        if spec.name in self.context.given or spec.taken_as_is or self.task_runner.comes_trained(spec.model):
            return True
        return spec.weights == PRETRAINED and not spec.reset_head and self.task_runner.keeps_head(spec)

    def describe(self, name: str) -> dict[str, Any]:
        """What is known of a mentor, or of ``student``, before the run does anything.

        Returns:
            ``how``: ``loaded`` (from a file), ``trained`` (by the run) or ``asked`` (it comes with weights);
            ``weights``: the file, ``pretrained``, ``trained`` or None; ``reset_head``: what was dropped, or None;
            ``note``: what was looked through in the file, or empty; ``size``: (H, W) of its input; ``mean``, ``std``
            and ``normalisation``, who says them (``recipe``, ``checkpoint``, ``library`` or ``data``); ``classes``:
            the names it answers, in its order.

        Raises:
            UserError: no such network, or weights that cannot be had.
        """
        spec = self.context.recipe.student if name == "student" else self.context.mentor(name)
        mentor = spec if isinstance(spec, MentorSpec) else None
        how, inputs = "trained", InputsOf(None, None, None, "data")
        if mentor is not None:
            module, ready = self.mentor(name), self.has_weights(mentor)
            how = "trained" if not ready else "asked" if spec.checkpoint is None else "loaded"
            inputs = inputs_of(self.context, mentor, module, ready)
        data, began = self.context.data, self._began.get(name, {})
        return {
            "how": how,
            "weights": spec.weights,
            "reset_head": began.get("reset_head"),
            "note": "; ".join(filter(None, [began.get("note", ""), began.get("fixed", "")])),
            "size": list(inputs.size or data.shape[1:]),
            "mean": list(inputs.mean or data.mean),
            "std": list(inputs.std or data.std),
            "normalisation": inputs.source,
            "classes": list(self.task_runner.answers_of(mentor)),
        }

    def remarks(self, name: str) -> list[str]:
        """What a user should hear of the weights that a mentor, or ``student``, has been given; a sentence each."""
        beside = name == "student" or name.startswith("peer '")
        who, about = name if beside else f"mentor '{name}'", self._began.get(name, {})
        return [f"{who}: {about[key]}" for key in ("reset_head", "left_out", "reordered", "fixed") if about.get(key)]

    def untrained(self, name: str) -> nn.Module:
        """A mentor's network to be trained: weights, modes and gradients as it was built."""
        if name not in self._starts:
            self._mentors.pop(name, None)  # it has been trained before: it is built again
        network = self.mentor(name)
        self._starts.pop(name).restore(network)
        self._changed(name)
        return network

    def load(self, name: str, weights: str) -> dict[str, str]:
        """Load a mentor's network from a file, and return the file's metadata.

        Raises:
            UserError: the file does not fit.
        """
        self._changed(name)
        metadata: dict[str, str] = models.load_checkpoint(self.mentor(name), weights, what=f"mentor '{name}'")
        self._began[name] = metadata
        self.loaded(name, weights)
        return metadata

    def loaded(self, name: str, weights: str) -> None:
        """Say that a mentor's network has the weights of this file."""
        self._weights[name] = weights

    def with_weights(self, name: str, weights: str) -> nn.Module:
        """A mentor's network with the weights of a file (empty: those it was built with), which is read once."""
        if weights and name not in self.context.given and self._weights.get(name) != weights:
            self.load(name, weights)
        return self.mentor(name)

    def wrap(self, spec: MentorSpec, module: nn.Module, mean: Any = None, std: Any = None, size: Any = None) -> Mentor:
        """A network as the mentor that the recipe describes, with its own normalisation and (H, W)."""
        mentor = self.task_runner.wrap(spec, module, mean, std, (size[0], size[1]) if size else None)
        return mentor.to(self.context.runtime.device)

    def anew(self, spec: MentorSpec, module: nn.Module) -> Mentor:
        """A network that the run makes again and again as a mentor: no fast copy of the one before is taken for it."""
        self._changed(spec.name)
        return self.wrap(spec, module)

    def blank_mentor(self, spec: MentorSpec) -> Mentor:
        """A mentor with whatever weights its network has; for dry runs."""
        return self.wrap(spec, self.mentor(spec.name), spec.mean, spec.std, spec.shape)

    def read(self, mentor: Mentor, taps: Mapping[str, Kind], heads: bool = False) -> dict[str, tuple[int, ...]]:
        """Have a mentor read these taps from now on; the shapes of its activations there, by tap."""
        return mentor.read(taps, self._blank_inputs(mentor), heads)

    def optimized(self, mentor: Mentor) -> Mentor:
        """The same mentor, faster; for whoever is going to be asked often. Read its taps before.

        Equal mentors that read equal taps share one fast copy.
        """
        key = _described(mentor)
        known = self._fast.setdefault(mentor.name, {})
        if (fast := known.get(key)) is not None:
            return fast
        precision, compiled = self.context.mentor_precision, self.context.recipe.mentor_compile
        fast = optimize_for_inference(mentor, self._blank_inputs(mentor), precision=precision, compile=compiled)
        if isinstance(fast, FastMentor):
            known[key] = fast
            if len(known) > FAST_KEPT:
                del known[next(iter(known))]
        return fast

    def can_train(self, name: str) -> bool:
        """Whether a mentor that has no weights yet has parameters to be trained."""
        self.mentor(name)
        return any(self._starts[name].trained)

    def park(self, names: Iterable[str] | None = None) -> None:
        """Leave the device's memory to others: mentors wait in the host's until they are asked for again.

        Args:
            names: whose fast copies stay, and are all that is used of them; None: of nobody, and no copy stays.
        """
        if self.context.runtime.device.type == "cpu":
            return
        for name in self._mentors if names is None else names:
            if name in self._mentors:
                self._mentors[name].to("cpu")
        if names is None:
            self._fast.clear()

    def _blank_inputs(self, mentor: Mentor) -> Tensor:
        """Two blank images in a mentor's own space."""
        blank = mentor.prepare(self.context.blank(), self.context.inputs.mean, self.context.inputs.std)
        return blank.to(precision_of(mentor.module))

    def _begin(self, network: nn.Module, spec: StudentSpec | MentorSpec | PeerSpec, who: str) -> None:
        """Load the weights that a network starts from, where the recipe gives some."""
        if spec.weights in (None, TRAINED):
            return
        about: dict[str, str]
        if spec.weights == PRETRAINED:
            about = self.task_runner.start_pretrained(network, spec)
        else:
            assert spec.weights is not None
            about = models.load_checkpoint(network, spec.weights, what=who, reset_head=spec.reset_head)
            met = "" if spec.reset_head else self.task_runner.meet(network, spec.weights, about)
            if met:
                about |= {"reordered": met, "note": "; ".join(filter(None, [about.get("note", ""), met]))}
        name = spec.name if isinstance(spec, MentorSpec) else who
        self._began[name] = about

    def _gives_the_same(self, spec: MentorSpec, network: nn.Module) -> bool:
        """Whether a factory gives equal weights whatever the seed, as one does that loads them."""
        other = self._build(spec.model, spec.name, mentor_seed(spec) + 1, spec)
        pairs = list(zip(network.parameters(), other.parameters(), strict=False))
        drawn = [(a, b) for a, b in pairs if a.dim() > 1]  # biases and norms start from constants
        return bool(drawn) and all(torch.equal(a, b) for a, b in drawn)

    def _given(self, name: str) -> nn.Module:
        """A network that was handed over in Python; a copy of it where it is not in single precision."""
        given = self.context.given[name]
        if not _other_precision(given):
            return given
        if name not in self._converted:
            self._converted[name] = copy.deepcopy(given).float()
        return self._converted[name]

    def _changed(self, name: str) -> None:
        """A mentor's weights are about to change."""
        self._weights.pop(name, None)
        self._fast.pop(name, None)

    def _build(self, model: str, role: str, seed: int, mentor: MentorSpec | None = None) -> nn.Module:
        """A network by name, on the training device, with the weights that the seed gives it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network = self.task_runner.resolve(model, mentor)
            except UserError as error:
                named = str(error).startswith(f"mentor '{role}'")
                raise UserError(str(error) if named else f"{role}: {error}") from error
        network = network.float() if _other_precision(network) else network
        return network.to(self.context.runtime.device)


def _other_precision(network: nn.Module) -> bool:
    """Whether parameters are stored in half or double precision. Runs compute in what ``train.precision`` and
    ``mentor_precision`` say, beside weights in single precision."""
    return any(p.is_floating_point() and p.dtype != torch.float32 for p in network.parameters())


class _Start:
    """How a network was built: its tensors, and which of its parameters and layers are to be trained."""

    def __init__(self, network: nn.Module) -> None:
        self.tensors = {
            name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)
            for name, value in network.state_dict().items()
        }
        self.trained = [parameter.requires_grad for parameter in network.parameters()]
        self.modes = [layer.training for layer in network.modules()]

    def restore(self, network: nn.Module) -> None:
        network.load_state_dict(self.tensors)
        for parameter, trained in zip(network.parameters(), self.trained, strict=True):
            parameter.requires_grad_(trained)
            parameter.grad = None
        for layer, training in zip(network.modules(), self.modes, strict=True):
            layer.training = training


def _described(mentor: Mentor) -> Hashable:
    """What a fast copy is made for: preprocessing, classes, and the taps that are read."""
    read = None if mentor.tapped is None else (tuple(mentor.tapped.kinds.items()), bool(mentor.tapped.thin))
    return (type(mentor), repr((mentor.mean, mentor.std, mentor.size, mentor.classes)),
            tuple(mentor.reader.places.items()), read)  # fmt: skip
