"""A teacher that chooses examples, and a learner that knows it: python examples/ital.py [TASK] [--out FILE].

Linear learners on regression, Gaussian classes, digits and an 8 x 8 grid world (inverse reinforcement learning). Each
stands beside others of the same step length, since a teacher-aware learner takes longer steps. Seconds at the defaults.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classroomkd.functional import teaching as t
from classroomkd.report import paired, spread, t_quantile

ETA, SHOWN = 1e-3, 20
LONG, KNOWN = ", η (1 + 2βη)", ", η (1 + 2βη), teacher knows it"
ROWS = ("SGD, η", "batch, η", "IMT, η", "ITAL", f"SGD{LONG}", f"batch{LONG}", f"IMT{LONG}", f"IMT{KNOWN}")


@dataclass
class Task:
    """What is learnt: features (N, D), targets (classes (N,) or values (N, C)), the goal w* (C, D), and β.

    ``theirs`` are a teacher's own features (N, D') and ``best`` its own losses (N,) there, if it sees losses alone.
    ``dense`` gives gradients of rows where the learner is not linear; ``test`` is for an accuracy; ``most`` rounds.
    """

    goal: Tensor
    features: Tensor
    target: Tensor
    beta: float
    theirs: Tensor | None = None
    best: Tensor | None = None
    dense: Callable[[Tensor, Tensor], t.Gradients] | None = None
    test: tuple[Tensor, Tensor] | None = None
    most: int = 2000

    def gradients(self, weight: Tensor, rows: Tensor) -> t.Gradients:
        """Of a minibatch."""
        if self.dense is not None:
            return self.dense(weight, rows)
        return t.linear_gradients(weight, self.features[rows], self.target[rows])

    def scores(self, weight: Tensor, rows: Tensor, gradients: t.Gradients, eta: float) -> Tensor:
        """The teacher's, of a minibatch."""
        if self.theirs is None or self.best is None:
            return t.omniscient_scores(gradients, weight, self.goal, eta)
        losses = t.linear_losses(weight, self.features[rows], self.target[rows])
        own = t.Gradients(gradients.outputs, self.theirs[rows])
        return t.imitating_scores(own, losses, self.best[rows], eta)


def with_one(x: Tensor) -> Tensor:
    """Features with a 1 for the bias."""
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)


def fit(features: Tensor, target: Tensor, classes: int) -> Tensor:
    """The softmax weight (C, D) of 4,000 gradient steps of 0.5 with a decay of 1e-4."""
    weight, labels = torch.zeros(classes, features.shape[1], dtype=features.dtype), torch.eye(classes)[target]
    for _ in range(4000):
        weight -= 0.5 * (((features @ weight.T).softmax(1) - labels).T @ features / len(features) + 1e-4 * weight)
    return weight


def regression(g: torch.Generator) -> Task:
    """300 points with 100 uniform inputs, and no noise."""
    goal = torch.rand(1, 100, generator=g) * 2 - 1
    x = torch.rand(300, 100, generator=g) * 2 - 1
    return Task(goal, x, x @ goal.T, 5_000)


def gauss(g: torch.Generator) -> Task:
    """Ten Gaussian classes in 30 dimensions, 90 points each; as many for the test."""
    means = torch.randn(10, 30, generator=g)
    y = torch.arange(10).repeat_interleave(90)
    x, test = (with_one(means[y] + torch.randn(900, 30, generator=g)) for _ in range(2))
    return Task(fit(x, y, 10), x, y, 60_001, test=(test, y))


def digits(g: torch.Generator) -> Task:
    """Handwritten digits, 24 principal components for the learner, 30 for a teacher that sees losses alone."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels, y = torch.tensor(raw.data, dtype=torch.float32) / 16, torch.tensor(raw.target, dtype=torch.int64)
    order = torch.randperm(len(y), generator=g)
    pixels, y = pixels[order], y[order]
    parts = torch.linalg.svd(pixels[:900] - pixels[:900].mean(0), full_matrices=False)[2]
    mine, theirs = (with_one((pixels - pixels[:900].mean(0)) @ parts[:n].T) for n in (24, 30))
    teacher = fit(theirs[:900], y[:900], 10)
    best = t.linear_losses(teacher, theirs[:900], y[:900])
    return Task(
        fit(mine[:900], y[:900], 10), mine[:900], y[:900], 30_001, theirs[:900], best, test=(mine[900:], y[900:])
    )


def irl(g: torch.Generator) -> Task:
    """An 8 x 8 grid of unknown rewards: examples are what somebody who knows them does, a state and a move."""
    side, states = 8, torch.arange(64)
    row, column = states // side, states % side
    moves = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    after = torch.stack([r.clamp(0, side - 1) * side + c.clamp(0, side - 1) for r, c in moves], 1)  # (states, moves)

    def policy(reward: Tensor) -> Tensor:
        value = torch.zeros_like(reward)
        for _ in range(12):  # soft value iteration with a discount of 0.8
            value = reward + 0.8 * value[after].logsumexp(1)
        return value[after].log_softmax(1)

    goal = torch.randn(1, 64, generator=g)
    seen = torch.randint(64, (400,), generator=g)
    taken = torch.multinomial(policy(goal[0]).exp()[seen], 1, generator=g)[:, 0]
    places = 4 * seen + taken

    def dense(weight: Tensor, rows: Tensor) -> t.Gradients:
        def loss(reward: Tensor, place: Tensor) -> Tensor:
            return -policy(reward).flatten().gather(0, place.reshape(1))[0]

        return t.dense_gradients(loss, weight[0], places[rows])

    return Task(goal, places, taken, 30_000, dense=dense, most=200)


TASKS: dict[str, Callable[[torch.Generator], Task]] = {
    "regression": regression, "gauss": gauss, "digits": digits, "irl": irl
}  # fmt: skip


def learn(task: Task, row: str, rounds: int, seed: int, adversary: bool = False) -> dict[str, float]:
    """One learner: its distance to w* as a share of the first one, and its accuracy where there is a test."""
    g = torch.Generator().manual_seed(1000 + seed)
    weight = 0.1 * torch.randn(task.goal.shape, generator=g)
    first, eta = (weight - task.goal).norm(), ETA
    step = eta * (1 + 2 * task.beta * eta) if LONG in row else eta
    thought = step if row.endswith(KNOWN) else eta  # the step that the teacher thinks of
    for _ in range(min(rounds, task.most)):
        rows = torch.randperm(len(task.features), generator=g)[:SHOWN]
        gradients = task.gradients(weight, rows)
        if row.startswith("batch"):
            weight = weight - step * gradients.total(torch.full((len(rows),), 1 / len(rows)))
            continue
        if row.startswith("SGD"):
            chosen = torch.tensor(0)  # rows are in a random order
        else:
            chosen = t.choose(task.scores(weight, rows, gradients, thought), -1.0 if adversary else 1.0)
        if row != "ITAL":
            weight = t.naive_update(weight, gradients, chosen, step)
        elif task.theirs is None:
            weight = t.aware_update(weight, gradients, chosen, eta, -task.beta if adversary else task.beta)
        else:
            x, y = task.features[rows], task.target[rows]
            weight = t.aware_update_by_losses(weight, x, y, chosen, eta, task.beta)
    found = {"distance": float((weight - task.goal).norm() / first)}
    if task.test is not None:
        x, y = task.test
        found["accuracy"] = float(((x @ weight.T).argmax(1) == y).float().mean())
    return found


def study(names: list[str], rounds: int, seeds: int) -> dict[str, Any]:
    """Every learner on every task: values by seed."""
    found: dict[str, Any] = {"rounds": rounds, "seeds": seeds, "tasks": {}}
    for name in names:
        rows: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
        for seed in range(seeds):
            task = TASKS[name](torch.Generator().manual_seed(seed))
            for row in ROWS:
                rows[row].append(learn(task, row, rounds, seed))
        found["tasks"][name] = {
            row: {key: [round(one[key], 6) for one in got] for key in got[0]} for row, got in rows.items()
        }
    return found


def shown(values: list[float]) -> str:
    """The mean with its 95 % t interval over seeds."""
    of = spread(values)
    assert of.mean is not None
    if of.sd is None:
        return f"{of.mean:.4f}"
    half = t_quantile(0.975, of.n - 1) * of.sd / math.sqrt(of.n)
    return f"{of.mean:.4f} [{of.mean - half:.4f}, {of.mean + half:.4f}]"


def table(found: dict[str, Any], key: str = "distance") -> str:
    """One row a learner, one column a task; below, ITAL less the plain learner of the same step, by seed."""
    tasks = {name: rows for name, rows in found["tasks"].items() if key in rows["ITAL"]}
    lines = [f"| learner | {' | '.join(tasks)} |", f"|{'---|' * (1 + len(tasks))}"]
    lines += [f"| {row} | {' | '.join(shown(rows[row][key]) for rows in tasks.values())} |" for row in ROWS]
    if found["seeds"] > 1:
        for other in (f"IMT{LONG}", f"IMT{KNOWN}"):
            gaps = []
            for rows in tasks.values():
                a, b = (dict(enumerate(rows[row][key])) for row in ("ITAL", other))
                gap = paired(a, b)
                gaps.append(f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]")
            lines.append(f"| ITAL less {other} | {' | '.join(gaps)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, print, and write the values where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="which tasks; all by default")
    parser.add_argument("--rounds", type=int, default=100, help="irl takes 200 at most")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file of all values")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = study(given.tasks or list(TASKS), given.rounds, given.seeds)
    print("Distance to w* as a share of the first one, less is better:\n")
    print(table(found))
    if any("accuracy" in rows["ITAL"] for rows in found["tasks"].values()):
        print("\nShare of test examples that are right:\n")
        print(table(found, "accuracy"))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
