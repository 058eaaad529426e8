"""What mmkd's meta step costs with the mentors' answers stored in its buffer, over one that asks the mentors again.

    python benchmarks/meta_step.py     # resnet8x4, three resnet32x4, batch 64, made-up images; five minutes

The released code asks every mentor four times in a meta step (two virtual steps, each once more for the gradient
through it), for the same answers every time; ``again`` does so here, on the same samples. All in one process,
interleaved in rotating order, one thread, CPU time; the figure is the median over rounds of the ratio in the same
round, with quartiles; the A/A row (the stored one twice) says what the machine can resolve. Untrained networks: what
they say does not change what it costs. Writes ``results/meta_step.json``.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from classroomkd import methods, models
from classroomkd.classroom import Answers, Classroom, PlainContext
from classroomkd.methods.mmkd import MMKD
from classroomkd.train.allocator import keep_large_blocks

HERE = Path(__file__).parent
STUDENT, MENTORS = "resnet8x4", ("resnet32x4",) * 3
B, CLASSES, ROUNDS = 64, 100, 5


def meta_steps() -> dict[str, Callable[[], int]]:
    """A meta step by name; each gives how many passes of mentors it made."""
    torch.manual_seed(0)
    mentors = [models.create(m, CLASSES).to(memory_format=torch.channels_last) for m in MENTORS]
    student = models.create(STUDENT, CLASSES).to(memory_format=torch.channels_last)
    method = methods.create("mmkd")
    assert isinstance(method, MMKD)
    room = Classroom(student, mentors, method, image_shape=(3, 32, 32))
    own = {id(p) for p in method.meta_parameters()}
    trained = [p for p in room.parameters() if id(p) not in own]
    context = PlainContext(room, torch.optim.SGD(trained, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4))
    for _ in range(2):  # as many samples as a meta step takes
        inputs = torch.randn(B, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        lesson = room.collect(inputs, torch.randint(CLASSES, (B,)))
        method.meta.remember(lesson)
    stored = method.meta.recall

    def asked(rows: Sequence[Tensor]) -> Answers:
        found = room.mentors.ask(rows[0])
        assert found is not None
        return found

    def step(recall: Callable[[Sequence[Tensor]], Answers]) -> int:
        before = room.mentors.forwards
        method.meta.recall = recall  # type: ignore[method-assign]
        method.meta.learn(context, lesson, B, method.meta_parameters(), method.see, method.matching)
        return room.mentors.forwards - before

    return {
        "again": lambda: step(asked),
        "stored": lambda: step(stored),
        "stored again (A/A)": lambda: step(stored),
    }


def main() -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    cases = meta_steps()
    names, passes = list(cases), {}
    ratios: dict[str, list[float]] = {"stored / again": [], "stored / stored (A/A)": []}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(ROUNDS):
        took = {}
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.process_time()
            passes[name] = cases[name]()
            took[name] = time.process_time() - start
            seconds[name].append(took[name])
        ratios["stored / again"].append(took["stored"] / took["again"])
        ratios["stored / stored (A/A)"].append(took["stored again (A/A)"] / took["stored"])
    assert passes == {"again": 4 * len(MENTORS), "stored": 0, "stored again (A/A)": 0}
    rows = []
    for name, found in ratios.items():
        low, middle, high = statistics.quantiles(found, n=4)
        rows.append({"step": name, "median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)})
        print(f"{name:32s} {middle:.3f} [{low:.3f} {high:.3f}]")
    (HERE / "results").mkdir(exist_ok=True)
    result = {
        "command": "python benchmarks/meta_step.py",
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__}",
        "student": STUDENT, "mentors": MENTORS, "batch": B, "rounds": ROUNDS, "rows": rows,
        "mentor_passes": passes,
        "cpu_seconds": {name: round(statistics.median(found), 2) for name, found in seconds.items()},
    }  # fmt: skip
    (HERE / "results" / "meta_step.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
