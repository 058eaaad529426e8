"""What a student's training leaves beside the student: its peers, their averages, and the ensemble of the students."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from classroomkd import models
from classroomkd.classroom.trainees import STUDENT
from classroomkd.recipe.peer_section import TRAINED
from classroomkd.run.finished import BEST, EMA, LAST, PEERS, file_of
from classroomkd.train.peers import Head, Together

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.run.judging import Judging
    from classroomkd.run.networks import Networks
    from classroomkd.train.peers import PeerResult
    from classroomkd.train.result import Result

__all__ = ["exported", "variants"]

SCORES = ("test_last", "test_best", "val_best")  # of every variant
OF_TRAINEES = ("val_last", "best_epoch")


def variants(
    networks: Networks,
    judging: Judging,
    classroom: Classroom,
    result: Result,
    entry: Mapping[str, Any],
    folder: Path,
    about: Mapping[str, Mapping[str, str]],
    lead: str = STUDENT,
) -> list[dict[str, Any]]:
    """Test every trainee, its average and the ensemble, and write the peers' files.

    What a stage trains that does not train the student has its first peer in the student's place.

    Args:
        networks, judging: of the run.
        classroom: trainees with their last weights, as they are afterwards.
        result: of the training.
        entry: the student's, with its own scores.
        folder: the student's; peers go below it.
        about: by peer, what its files say of it.
        lead: who stands in the student's place.

    Returns:
        ``entries[].variants`` of ``summary.json``: name, kind (``trainee``, ``branch``, ``ensemble``, ``head`` or
        ``ema``), ``test_last``, ``test_best``, ``val_best`` and file, relative to the folder, of trainees ``val_last``,
        ``best_epoch`` and, where there are any, ``test_metrics``, of a teacher its ``role``, and of the ensemble, which
        has no teachers, its last members' ``disagreement``; none where nothing was trained beside the student.
    """
    if not result.peers:
        return []
    judge = _Judge(networks, judging, folder)
    student = {key: entry[key] for key in (*SCORES, *OF_TRAINEES)}
    found = [_variant(lead, "trainee", student, file_of(lead, LAST), entry.get("test_metrics"))]
    if result.ema is not None:
        found.append(_variant(lead, "ema", {"test_last": entry["test_ema"]}, file_of(lead, EMA)))
    for name, peer in result.peers.items():
        of_teacher = {"role": "teacher"} if name in classroom.teachers else {}
        kind = "branch" if name in classroom.peers.branches else "trainee"
        found += [{**one, **of_teacher} for one in judge.peer(name, peer, about[name], kind)]
    if networks.task_runner.has_together and len(classroom.members) > 1:
        runner = networks.task_runner
        together = Together(classroom.members, runner.together, runner.apart)
        scores: dict[str, Any] = {"test_last": judge.score(together)[0]}
        apart = together.disagreement()
        bests = [result.best, *(p.best for name, p in result.peers.items() if name not in classroom.teachers)]
        if all(best is not None for best in bests):
            with _lent(list(together.networks), bests):
                scores["test_best"] = judge.score(together)[0]
        found.append({**_variant("ensemble", "ensemble", scores, None), "disagreement": apart})
    if classroom.method.has_head:
        found.append(_variant("head", "head", {"test_last": judge.score(Head(classroom))[0]}, None))
    for name, network in classroom.averaged.networks.items() if classroom.averaged is not None else ():
        found.append(judge.mean(f"mean-{name}", network, about[next(iter(result.peers))]))
    return found


class _Judge:
    """Scores networks on the test part, and writes peers' files."""

    def __init__(self, networks: Networks, judging: Judging, folder: Path) -> None:
        self.networks, self.judging, self.folder = networks, judging, folder

    def score(self, network: nn.Module) -> tuple[float | None, dict[str, float]]:
        """A network's score, None where it is not finite, and its further figures."""
        context = self.networks.context
        with context.runtime.autocast():
            found = self.judging.test_score(network, context.inputs, context.recipe.train.eval_batch_size)
        return found.value if math.isfinite(found.value) else None, dict(found.more)

    def peer(self, name: str, peer: PeerResult, about: Mapping[str, str], kind: str) -> Iterator[dict[str, Any]]:
        """A peer, or a branch, with its last and its best weights, and its average."""
        last = {key: value.detach().clone() for key, value in peer.network.state_dict().items()}
        file = self._write(last, name, LAST, about)
        value, more = self.score(peer.network)
        scores = {"test_last": value, "test_best": value, "val_best": peer.best_value}
        scores |= {"val_last": peer.last_value, "best_epoch": peer.best_epoch}
        if peer.best is not None:
            self._write(peer.best, name, BEST, about)
            with _lent([peer.network], [peer.best]):
                scores["test_best"] = self.score(peer.network)[0]
        yield _variant(name, kind, scores, file, more)
        if peer.ema is not None:
            file = self._write(peer.ema, name, EMA, about)
            with _lent([peer.network], [peer.ema]):
                yield _variant(name, "ema", {"test_last": self.score(peer.network)[0]}, file)

    def mean(self, name: str, network: nn.Module, about: Mapping[str, str]) -> dict[str, Any]:
        """An average that took part in the loss."""
        value, more = self.score(network)
        network.train()
        weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        file = self._write(weights, name, LAST, {**about, "peer": name})
        return _variant(name, "ema", {"test_last": value}, file, more)

    def _write(self, weights: dict[str, Tensor], name: str, like: str, about: Mapping[str, str]) -> str:
        """Write a file called after the student's one of this kind; its place in the folder."""
        place = file_of(name, like)
        if self.networks.context.runtime.is_zero:
            (self.folder / PEERS).mkdir(exist_ok=True)
            which = Path(like).stem.partition("-")[2] or "last"
            models.save_checkpoint(weights, self.folder / place, {**about, "which": which}, listed=True)
        return place


def _variant(
    name: str, kind: str, scores: Mapping[str, Any], file: str | None, more: Mapping[str, float] | None = None
) -> dict[str, Any]:
    known = {key: scores.get(key) for key in SCORES} | {key: scores[key] for key in OF_TRAINEES if key in scores}
    return {"name": name, "kind": kind, **known, "file": file, **({"test_metrics": dict(more)} if more else {})}


def exported(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """A student's entry as tables have it: with the scores of who is exported.

    Args:
        entry: the student's, with its own scores.
        name: the trainee that the recipe exports; an arm that does not train it has its student's.
    """
    named = [v for v in entry.get("variants", ()) if v["name"] == name]
    its = {"trained" if v["kind"] in TRAINED else v["kind"]: v for v in named}
    if name == STUDENT or "trained" not in its:
        return entry
    own = {key: value for key, value in entry.items() if key not in ("test_ema", "test_metrics")}
    own |= {key: its["trained"].get(key) for key in (*SCORES, *OF_TRAINEES)} | {"exported": name}
    if "test_metrics" in its["trained"]:
        own["test_metrics"] = its["trained"]["test_metrics"]
    return own | ({"test_ema": its["ema"]["test_last"]} if "ema" in its else {})


@contextmanager
def _lent(networks: list[nn.Module], weights: list[dict[str, Tensor] | None]) -> Iterator[None]:
    """Inside, networks have other weights."""
    before = [{key: value.detach().clone() for key, value in network.state_dict().items()} for network in networks]
    try:
        for network, one in zip(networks, weights, strict=True):
            assert one is not None
            network.load_state_dict(one)
        yield
    finally:
        for network, own in zip(networks, before, strict=True):
            network.load_state_dict(own)
