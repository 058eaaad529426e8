"""What the mentors think of the training pictures without a label: where they disagree most, and what nobody knows.

Shapes: M mentors, B samples of a batch, N of all. Nothing here knows what an answer is: the task's runner does.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from classroomkd._sums import damage, is_listed, write_listed
from classroomkd.bank import LOGITS
from classroomkd.run.mentor_cache import asker
from classroomkd.run.mentor_record import MentorRecord, load_mentor
from classroomkd.run.summary import earlier

if TYPE_CHECKING:
    from classroomkd.data import Part
    from classroomkd.run.networks import Networks

__all__ = ["FILE", "before", "look"]

FILE = "to_label.csv"
MOST = 1000  # rows
FIRST = 12  # of them that the summary repeats
BOUND = 0.8  # of log C; a vote of more entropy is no answer, where train.outliers says nothing
SHARE, LEAST = 0.1, 30.0  # of the run's time, and seconds that it may take anyway


def before(out: Path) -> dict[str, Any] | None:
    """What an earlier attempt of this run has found out; None where it has not, or one of its files is damaged."""
    file = out / FILE
    there = file.is_file() and is_listed(file) and damage(file) is None
    return earlier(out, "unlabelled") if there else None


def look(networks: Networks, mentors: Sequence[MentorRecord], out: Path, spent: float) -> dict[str, Any] | str | None:
    """Ask the mentors about every training picture without a label, and write those to label first.

    Args:
        networks: of the run.
        mentors: its mentors, ready.
        out: the run folder.
        spent: seconds that the run has taken; asking may take a tenth of that, half a minute at least.

    Returns:
        ``pictures`` (without a label), ``unknown`` (of them those of which the mentors' doubts are above ``bound``: for
        classes the vote's entropy, a share of log C), ``rows`` of the file, ``first``: the first of them by column. A
        sentence where it would take too long; None where there is nothing to ask.
    """
    context, runner = networks.context, networks.task_runner
    part = context.student_part
    if not (runner.task.has_vote and runner.task.has_unlabelled_units) or not mentors or bool(part.labelled.all()):
        return None
    part = part.subset((~part.labelled).nonzero().flatten())
    found = _asked(networks, mentors, part, max(SHARE * spent, LEAST))
    if found is None:
        return f"{FILE} was not written: asking the mentors about {len(part):,} pictures would take too long"
    apart, doubts, _ = found
    order = apart.nan_to_num(-1.0).argsort(descending=True, stable=True)[: min(MOST, int((~apart.isnan()).sum()))]
    header, rows = _table(networks, [m.name for m in mentors], part, order, found)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if context.runtime.is_zero:
        write_listed(out / FILE, text.getvalue().encode("utf-8", "surrogateescape"))
    bound = context.recipe.train.outliers or BOUND
    return {
        "pictures": len(part),
        "unknown": int(((doubts > bound) | doubts.isnan()).sum()),
        "bound": bound,
        "bound_is": "train.outliers" if context.recipe.train.outliers else "usual",
        "rows": len(rows),
        "first": [dict(zip(header, map(_plain, row), strict=True)) for row in rows[:FIRST]],
    }


@torch.no_grad()
def _asked(
    networks: Networks, mentors: Sequence[MentorRecord], part: Part, seconds: float
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Disagreement (N,), doubts (N,) and, of classes, what the vote and each mentor says (M + 1, N); None: it takes too
    long."""
    context = networks.context
    loaded = [load_mentor(networks, record) for record in mentors]
    ask = [(mentor.size, asker(context, networks.optimized(mentor))) for mentor in loaded]
    size, found = context.recipe.train.eval_batch_size, list[tuple[Tensor, Tensor, Tensor | None]]()
    began = time.perf_counter()
    for start in range(0, len(part), size):
        pixels, target, _ = part.batch(torch.arange(start, min(start + size, len(part))))
        shown = {own: context.base_views.eval_view(pixels, target, own)[0] for own, _ in ask}
        answers = torch.stack([one(shown[own])[LOGITS] for own, one in ask])
        apart, doubts, said = networks.task_runner.opinions(answers)
        found.append((apart.cpu(), doubts.cpu(), None if said is None else said.cpu()))
        needed = (time.perf_counter() - began) * len(part) / (start + len(pixels))
        if len(found) == 2 and context.runtime.any(needed > seconds):  # the first also makes everything ready
            return None
    networks.park()
    classes = [said for _, _, said in found if said is not None]
    apart, doubts = (torch.cat(each) for each in ([row[0] for row in found], [row[1] for row in found]))
    return apart, doubts, torch.cat(classes, 1) if classes else None


def _table(
    networks: Networks,
    mentors: Sequence[str],
    part: Part,
    order: Tensor,
    found: tuple[Tensor, Tensor, Tensor | None],
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the file."""
    context, (apart, doubts, said) = networks.context, found
    names = context.data.names
    ids = part.ids.cpu()
    named = all(int(ids[place]) in names for place in order)
    columns = {"name" if named else "id": [names[i] if named else str(i) for i in ids[order].tolist()]}
    columns |= networks.task_runner.identified(ids[order])
    columns |= {} if said is None else {"class": [""] * len(order)}
    numbers = {"disagreement": apart, "doubts" if said is None else "entropy": doubts}
    columns |= {name: [f"{value:.4f}" for value in values[order].tolist()] for name, values in numbers.items()}
    if said is not None:
        for name, row in zip(("vote", *(f"says {m}" for m in mentors)), said[:, order], strict=True):
            columns[name] = [context.classes[k] for k in row.tolist()]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _plain(text: str) -> str:
    """Text that JSON can hold: a name that is no UTF-8 has its odd bytes replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
