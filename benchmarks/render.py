"""``RESULTS.md``, the rows on the methods' pages and the guard's alarms in ``README.md``, from ``results/*.json``:
``python benchmarks/render.py``; every table stands beside its command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from parts import alarms
from parts.pages import pages
from parts.table import goals
from parts.words import cost, difference, named, points, score, setting

HERE = Path(__file__).resolve().parent


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
        setting, arm = ", ".join(f"{k} {v}" for k, v in row["setting"].items()), named(row, _fashion_method(row))
        lines.append(
            f"| {arm} | {row['n']} | {points(row['mean'])} ± {points(row['sd'])} | {difference(row, 'none')} "
            f"| {difference(row, 'average')} | {setting} |"
        )
    return [
        *lines,
        "",
        "± is the standard deviation over seeds; differences are paired by seed, 95 % t-interval, in points.",
        "",
    ]


def _fashion_method(row: dict[str, Any]) -> str:
    """Whose arm a row is: ClassroomKD's ablations are called by what they leave out."""
    first = row["arm"].replace(",", "").split()[0]
    return first if first in ("none", "kd", "average") else "classroomkd"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The best on top; losses are shown like gains."""
    lines = [
        "| arm | n | test % | vs student alone | vs average | cost, × alone | setting chosen | rule |",
        "|:---|---:|---:|---:|---:|---:|:---|:---|",
    ]
    return lines + [
        f"| {named(row)} | {row['n']} | {score(row)} | {difference(row, 'none')} "
        f"| {difference(row, 'average')} | {cost(row)} | {setting(row)} | {row['status']} |"
        for row in sorted(rows, key=lambda r: -r["mean"])
    ]


def every_method(result: dict[str, Any]) -> list[str]:
    if not result["rows"]:
        return []
    rows, wanted = result["rows"], result["wanted"]
    native = [r for r in rows if r["strength"] == "native"]
    matched = [r for r in rows if r["strength"] == "matched"]
    same = [r for r in native if r["arm"] == "none" or r.get("total") == "one"]
    lacking = [r["arm"] + (" (matched)" if r["strength"] == "matched" else "") for r in rows if r["n"] < wanted]
    intervals = sum(r.get(f"vs {base}", [None] * 3)[1] is not None for r in rows for base in ("none", "average"))
    lines = ["## Every method on a part of CIFAR-100", "", f"`{result['command']}`"]
    if "environment" in result:
        data, mentors = result["data"], result["mentors"]
        said = ", ".join(f"{m['name']} {points(m['accuracy'])}" for m in mentors)
        lines[-1] += f" ({result['environment']['platform']}, torch {result['environment']['torch']}, CPU)"
        lines += [
            "",
            f"20 of the 100 classes: {data['student_train']:,} images to train on, {data['val']:,} to choose on, "
            f"{data['test']:,} to test on. {result['student']['model']} student, {len(mentors)} mentors, test accuracy "
            f"in %: {said}. {result['epochs']} epochs.",
        ]
    dear = next((r["as dear as"] for r in native if "as dear as" in r), None)
    lines += [
        "",
        "**A short training of a small student on little data**: what helps here need not help in 240 epochs, and the "
        "other way round. Last epoch; ± is the standard deviation over n seeds; differences are paired by seed, 95 % "
        f"t-interval, in points. Of the {intervals} intervals in both tables about {0.05 * intervals:.0f} would "
        "exclude 0 by chance alone. The cost is that of a training step, meta steps included, with the mentors' "
        "answers and features stored"
        + (f"; the student alone for more epochs costs as much as {dear}." if dear else "."),
        "",
        f"Not complete (fewer than {wanted} seeds): {', '.join(lacking)}."
        if lacking
        else f"All rows have n = {wanted}.",
        "",
        "### Native strength",
        "",
        *table(native),
        "",
    ]
    if matched:
        lines += [
            "### Matched strength",
            "",
            "The mentors' weights sum to 1, and where a method has weights of its own for the two parts they are 1 "
            "and 1 (factors inside a divergence, DKD's and DTKD's alpha and beta, stay). Methods whose native weights "
            "sum to 1 already stand here with their native students.",
            "",
            *table([*matched, *same]),
            "",
        ]
    if result["failures"]:
        lines += [f"Students that could not be finished (not in the rows): {len(result['failures'])}.", ""]
        lines += [f"- {student}: {why}" for student, why in result["failures"].items()] + [""]
    if result["skipped"]:
        lines += ["Not trained: " + ", ".join(result["skipped"]) + ".", ""]
    return lines


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


def pose(result: dict[str, Any]) -> list[str]:
    """People with joints: two scores, the first with its differences."""
    data, first, second = result["data"], "PCK@0.2", "AP_gtbox"
    mentors = ", ".join(
        f"{m['name']} ({m['model']}, {m['parameters']:,} parameters) {points(m['accuracy'])}" for m in result["mentors"]
    )
    lines = [
        "## Human pose: Leeds Sports Poses Extended",
        "",
        f"`{result['command']}` ({result['environment']['platform']}, torch {result['environment']['torch']}, CPU)",
        "",
        f"{data['student_train']:,} people to train on, {data['val']:,} to choose on, {data['test']:,} to test on; "
        f"crops of 64 x 64, {result['student']['model']} student ({result['student']['parameters']:,} parameters), "
        f"{result['epochs']} epochs. Mentors, {first} in %: {mentors}. Small crops and short training: it compares "
        "rules, it is no score for this data. ClassroomKD on pose is this project's design, no pose code was released.",
        "",
        f"| arm | n | {first} % | vs student alone | vs average | {second} % | vs student alone | vs average "
        "| cost, × alone | chosen on validation |",
        "|:---|---:|---:|---:|---:|---:|---:|---:|---:|:---|",
    ]
    lines += [
        f"| {named(row)} | {row['n']} | {score(row[first])} | {difference(row[first], 'none')} "
        f"| {difference(row[first], 'average')} | {score(row[second])} | {difference(row[second], 'none')} "
        f"| {difference(row[second], 'average')} | {cost(row)} | {setting(row)} |"
        for row in sorted(result["rows"], key=lambda r: -r[first]["mean"])
    ]
    costs = "; ".join(
        f"{arm['label']} {arm['x_floor']:.2f} online, {arm['x_floor_bank']:.2f} stored" for arm in result["step_costs"]
    )
    return [
        *lines,
        "",
        "± over seeds; differences paired by seed, 95 % t-interval, in points.",
        "",
        f"A step over the student alone: {costs}.",
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
    "fashion_mnist": fashion,
    "methods": every_method,
    "pose": pose,
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
        "Made by `python benchmarks/render.py` from `benchmarks/results/`. Scores are test accuracy.",
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
    return {
        here / "RESULTS.md": "\n".join(lines),
        **guard,
        **pages(here.parent / "docs" / "methods", here / "results"),
    }


def main() -> None:
    for file, text in rendered().items():
        file.write_text(text)


if __name__ == "__main__":
    main()
