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
from classroomkd.run.finished import BEST, EMA, LAST, PEERS
from classroomkd.train.peers import Together

if TYPE_CHECKING:
    from classroomkd.classroom import Classroom
    from classroomkd.run.judging import Judging
    from classroomkd.run.networks import Networks
    from classroomkd.train.peers import PeerResult
    from classroomkd.train.result import Result

__all__ = ["variants"]


def variants(
    networks: Networks,
    judging: Judging,
    classroom: Classroom,
    result: Result,
    entry: Mapping[str, Any],
    folder: Path,
    about: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Test every trainee, its average and the ensemble, and write the peers' files.

    Args:
        networks, judging: of the run.
        classroom: trainees with their last weights, as they are afterwards.
        result: of the training.
        entry: the student's, with its own scores.
        folder: the student's; peers go below it.
        about: by peer, what its files say of it.

    Returns:
        ``entries[].variants`` of ``summary.json``: name, kind (``trainee``, ``ensemble`` or ``ema``), ``test_last``,
        ``test_best``, ``val_best`` and file, relative to the folder, of a teacher its ``role``, and of the ensemble,
        which has no teachers, its last members' ``disagreement``; none where nothing was trained beside the student.
    """
    if not result.peers:
        return []
    judge = _Judge(networks, judging, folder)
    student = {key: entry[key] for key in ("test_last", "test_best", "val_best")}
    found = [_variant(STUDENT, "trainee", student, LAST)]
    if result.ema is not None:
        found.append(_variant(STUDENT, "ema", {"test_last": entry["test_ema"]}, EMA))
    for name, peer in result.peers.items():
        of_teacher = {"role": "teacher"} if name in classroom.teachers else {}
        found += [{**one, **of_teacher} for one in judge.peer(name, peer, about[name])]
    if networks.task_runner.has_together and len(classroom.members) > 1:
        runner = networks.task_runner
        together = Together(classroom.members, runner.together, runner.apart)
        scores = {"test_last": judge.score(together)}
        apart = together.disagreement()
        bests = [result.best, *(p.best for name, p in result.peers.items() if name not in classroom.teachers)]
        if all(best is not None for best in bests):
            with _lent(list(together.networks), bests):
                scores["test_best"] = judge.score(together)
        found.append({**_variant("ensemble", "ensemble", scores, None), "disagreement": apart})
    return found


class _Judge:
    """Scores networks on the test part, and writes peers' files."""

    def __init__(self, networks: Networks, judging: Judging, folder: Path) -> None:
        self.networks, self.judging, self.folder = networks, judging, folder

    def score(self, network: nn.Module) -> float | None:
        context = self.networks.context
        with context.runtime.autocast():
            value = self.judging.test_score(network, context.inputs, context.recipe.train.eval_batch_size).value
        return value if math.isfinite(value) else None

    def peer(self, name: str, peer: PeerResult, about: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """A peer with its last and its best weights, and its average."""
        last = {key: value.detach().clone() for key, value in peer.network.state_dict().items()}
        file = self._write(last, name, LAST, about)
        scores = {"test_last": self.score(peer.network), "val_best": peer.best_value}
        scores["test_best"] = scores["test_last"]
        if peer.best is not None:
            self._write(peer.best, name, BEST, about)
            with _lent([peer.network], [peer.best]):
                scores["test_best"] = self.score(peer.network)
        yield _variant(name, "trainee", scores, file)
        if peer.ema is not None:
            file = self._write(peer.ema, name, EMA, about)
            with _lent([peer.network], [peer.ema]):
                yield _variant(name, "ema", {"test_last": self.score(peer.network)}, file)

    def _write(self, weights: dict[str, Tensor], name: str, like: str, about: Mapping[str, str]) -> str:
        """Write a file called after the student's one of this kind; its place in the folder."""
        place = f"{PEERS}/{like.replace(STUDENT, name, 1)}"
        if self.networks.context.runtime.is_zero:
            (self.folder / PEERS).mkdir(exist_ok=True)
            which = Path(like).stem.partition("-")[2] or "last"
            models.save_checkpoint(weights, self.folder / place, {**about, "which": which}, listed=True)
        return place


def _variant(name: str, kind: str, scores: Mapping[str, Any], file: str | None) -> dict[str, Any]:
    known = {key: scores.get(key) for key in ("test_last", "test_best", "val_best")}
    return {"name": name, "kind": kind, **known, "file": file}


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
