"""``RESULTS.md`` from ``results/*.json``: ``python benchmarks/render.py``; every table stands beside its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def points(value: float) -> str:
    return f"{100 * value:.2f}"


def difference(row: dict[str, Any], base: str) -> str:
    found = row.get(f"vs {base}")
    if found is None or found[0] is None:
        return "–"
    middle, low, high = (100 * x for x in found)
    mark = "▲ " if low > 0 else "▼ " if high < 0 else ""
    return f"{mark}{middle:+.2f} [{low:.2f}, {high:.2f}]"


def fashion(result: dict[str, Any]) -> list[str]:
    mentors = ", ".join(f"{m['name']} {points(m['accuracy'])}" for m in result["mentors"])
    lines = [
        "## Fashion-MNIST, 10,000 training images, resnet8 student, five mentors",
        "",
        f"`{result['command']}` ({result['environment']['platform']}, torch {result['environment']['torch']}, CPU)",
        "",
        f"Mentors, test accuracy in %: {mentors}. Five epochs, batch 64, SGD, cosine; "
        "mentors' answers to four fixed views of every image are stored once "
        f"({result['answer_seconds']:.0f} s in all); every arm's main knob is tuned on the validation part: three "
        "candidates, two epochs, one seed that is not used again.",
        "",
        "| arm | n | test % (last epoch) | vs student alone | vs average | chosen on validation |",
        "|:---|---:|---:|---:|---:|:---|",
    ]
    for row in result["rows"]:
        setting = ", ".join(f"{k} {v}" for k, v in row["setting"].items())
        lines.append(
            f"| {row['arm']} | {row['n']} | {points(row['mean'])} ± {points(row['sd'])} | {difference(row, 'none')} "
            f"| {difference(row, 'average')} | {setting} |"
        )
    return [
        *lines,
        "",
        "± is the standard deviation over seeds; differences are paired by seed, 95 % t-interval, in points.",
        "",
    ]


def step_cost(result: dict[str, Any]) -> list[str]:
    lines = [
        "## Cost of a step over the student alone",
        "",
        f"`{result['command']}` ({result['machine']}; {result['student']}, batch {result['batch']}, mentors "
        f"{', '.join(result['mentors'])}; median of {result['rounds']} interleaved rounds, quartiles in brackets)",
        "",
        "| step | over the student alone |",
        "|:---|---:|",
    ]
    return [
        *lines,
        *(f"| {r['step']} | {r['median']:.2f} [{r['q1']:.2f}, {r['q3']:.2f}] |" for r in result["rows"]),
        "",
    ]


SECTIONS = {"fashion_mnist": fashion, "step_cost": step_cost}


def main() -> None:
    lines = [
        "# Results",
        "",
        "Made by `python benchmarks/render.py` from `benchmarks/results/`. Scores are test accuracy.",
        "",
    ]
    notes = HERE / "notes.md"
    for name, section in SECTIONS.items():
        file = HERE / "results" / f"{name}.json"
        if file.exists():
            lines += section(json.loads(file.read_text()))
    if notes.exists():
        lines += [notes.read_text().rstrip(), ""]
    (HERE / "RESULTS.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
