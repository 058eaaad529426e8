"""``RESULTS.md`` and the guard's alarms in ``README.md``, from ``latest.json`` and ``results/*.json``:
``python benchmarks/render.py``; every table stands beside its command. What students scored is written by
``python -m benchmarks.evidence render``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from parts import alarms
from parts.table import goals

HERE = Path(__file__).resolve().parent


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


def meta_step(result: dict[str, Any]) -> list[str]:
    passes = result["mentor_passes"]
    return [
        "## MMKD's meta step with stored answers",
        "",
        f"`{result['command']}` ({result['machine']}; {result['student']} from {', '.join(result['mentors'])}, batch "
        f"{result['batch']}; median of {result['rounds']} interleaved rounds, quartiles in brackets). Asking the "
        f"mentors again is {passes['again']} passes of mentors a meta step, the buffer's answers {passes['stored']}.",
        "",
        "| CPU time | ratio |",
        "|:---|---:|",
        *(f"| {r['step']} | {r['median']:.2f} [{r['q1']:.2f}, {r['q3']:.2f}] |" for r in result["rows"]),
        "",
    ]


def decoders(result: dict[str, Any]) -> list[str]:
    lines = [
        "## What a perfect network's joints lose on the way through its head",
        "",
        f"`{result['command']}` ({result['machine']}; {result['joints']:,} joints; errors in input pixels)",
        "",
        "| input | coding | mean error | 95 % below | mean OKS |",
        "|:---|:---|---:|---:|---:|",
    ]
    return [
        *lines,
        *(
            f"| {r['size']} | {r['coding']} | {r['mean']:.3f} | {r['p95']:.3f} | {r['oks']:.4f} |"
            for r in result["rows"]
        ),
        "",
    ]


def formats(result: dict[str, Any]) -> list[str]:
    rows, arithmetic = result["coco"]["rows"], result["mpii"]
    lines = [
        "## COCO's and MPII's formats from end to end",
        "",
        f"`{result['command']}` ({result['machine']}). A student that may know 86 people by heart; 126 others.",
        "",
        "| COCO file | persons | AP, `evaluate` | AP of what `predict` wrote | AP, pycocotools |",
        "|:---|---:|---:|---:|---:|",
    ]
    return [
        *lines,
        *(
            f"| {r['file']} | {r['persons']} | {r['AP']:.6f} | {r['AP of the results']:.6f} "
            f"| {r['AP of pycocotools']:.6f} |"
            for r in rows
        ),
        "",
        f"Largest difference of the ten figures: {result['coco']['apart']:.1e}. PCKh of {len(arithmetic['rows'])} sets "
        f"of answers on the {arithmetic['persons']} people of the MPII sample against the arithmetic written out: "
        f"{arithmetic['apart']:.1e}.",
        "",
    ]


SECTIONS = {
    "latest": goals,
    "step_cost": step_cost,
    "meta_step": meta_step,
    "pose_formats": formats,
    "decoders": decoders,
}


def rendered(here: Path = HERE) -> dict[Path, str]:
    """File and text of everything that is made from the results."""
    lines = [
        "# Results",
        "",
        "What things cost: made by `python benchmarks/render.py` from `latest.json` and `results/`.",
        "What students scored: [the bench of evidence](evidence/RESULTS.md).",
        "",
    ]
    notes = here / "notes.md"
    for name, section in SECTIONS.items():
        file = here / ("latest.json" if name == "latest" else f"results/{name}.json")
        if file.exists():
            lines += section(json.loads(file.read_text()))
    if notes.exists():
        lines += [notes.read_text().rstrip(), ""]
    guard = alarms.page(here / "README.md", here / "guard.json", here / "results" / "guard.json")
    return {here / "RESULTS.md": "\n".join(lines), **guard}


def main() -> None:
    for file, text in rendered().items():
        file.write_text(text)


if __name__ == "__main__":
    main()
