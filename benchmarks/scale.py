"""The bank at ImageNet-1k and at a billion images: sizes by arithmetic, and what can be measured on made-up shards.

    python benchmarks/scale.py             # about a minute; results/scale.json and the tables of docs/scale.md
    python benchmarks/scale.py --render    # the tables alone

Row bytes come from the real codecs. No image of ImageNet and no trained network is involved: logits are drawn. How
many images a second a machine's mentor answers is a parameter (``RATES``), not a measurement.
"""

from __future__ import annotations

import json
import math
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from parts.banked import EIGHT, TOPS, Banked, banked
from scale_parts import error_of_top_k, form, memory_a_sample, row_costs, simulate

from classroomkd import report
from classroomkd.bank import Codec, Dense
from classroomkd.run.mentor_cache import SLAB_MOST

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "scale.json", HERE.parent / "docs" / "scale.md"
FEWEST = 3  # students without which a setting is not shown
WORD = 4  # bytes of a row's checksum
RATES = (500, 2_000, 10_000)  # images a second that one machine's mentor answers
KEPT: tuple[int | None, ...] = (None, 200, 100, 50, 20, 10)


@dataclass(frozen=True)
class Job:
    """What is to be stored: of every mentor, one row for each sample and view."""

    name: str
    samples: int
    views: int
    mentors: int
    machines: int

    @property
    def answers(self) -> int:
        """Forward passes of one sample through one mentor."""
        return self.samples * self.views * self.mentors


JOBS = (Job("ImageNet-1k", 1_281_167, 8, 3, 8), Job("a billion images", 10**9, 1, 3, 256))
FORMS: tuple[tuple[str, Codec], ...] = (
    *((f"logits of 1,000 classes, {'all' if k is None else f'top-{k}'}", form(1000, k)) for k in KEPT),
    ("logits of 21,841 classes, all", form(21_841, None)),
    ("logits of 21,841 classes, top-50", form(21_841, 50)),
    ("pooled features, 2,048", Dense((2048,))),
    ("a map of 2,048 × 7 × 7", Dense((2048, 7, 7))),
)


def sizes(job: Job, codec: Codec) -> dict[str, int]:
    """Bytes: a row and its word; one view of one mentor; everything; what one machine writes of one mentor into its
    file of rows; one view of that file, which lies in one stretch."""
    row = codec.row_bytes + WORD
    own = -(-job.samples // job.machines)
    return {
        "row": row,
        "view": job.samples * row,
        "all": job.answers * row,
        "part": own * job.views * codec.row_bytes,
        "stretch": own * codec.row_bytes,
    }


def machines_for_an_hour(job: Job, rate: float) -> int:
    """How many machines, each answering ``rate`` images a second by one mentor, are done within 3,600 seconds."""
    return math.ceil(job.answers / (rate * 3600))


def slab_fits(job: Job, classes: int) -> bool:
    """Whether a training holds an epoch's logits in memory (as all logits in fp16, also where k are stored)."""
    return 2 * job.samples * job.mentors * classes <= SLAB_MOST


def measure(quick: bool = False) -> dict[str, Any]:
    """Everything; ``quick``: a fraction of it, for the test."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        samples = 200 if quick else 3000
        simulated = [
            simulate(root / f"top-{k}", samples=samples, machines=4, views=2, classes=1000, k=k) for k in (None, 50)
        ]
        more = {} if quick else {"costs": [row_costs(root, form(1000, k)) for k in (None, 50)]}
        memory = {} if quick else {"memory": memory_a_sample(root)}
    return {
        "command": "python benchmarks/scale.py",
        "environment": {
            "platform": platform.platform(),
            "processor": processor(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "threads": 1,
        },
        "arithmetic": [
            {**asdict(job), "form": name, "definition": codec.definition, **sizes(job, codec)}
            for job in JOBS
            for name, codec in FORMS
        ],
        "hour": [
            {"job": job.name, "answers": job.answers, "machines": {str(r): machines_for_an_hour(job, r) for r in RATES}}
            for job in JOBS
        ],
        "simulated": simulated,
        "top_k": error_of_top_k(64 if quick else 2048, 1000, list(KEPT)),
        **more,
        **memory,
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    about = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", about.read_text()) if about.exists() else None
    return found[1] if found else platform.processor()


# Tables


def size(count: float) -> str:
    """Decimal units: 2.57 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def table(head: str, rows: list[list[str]]) -> list[str]:
    columns = head.split(" | ")
    return [f"| {head} |", "|:---|" + "---:|" * (len(columns) - 1), *(f"| {' | '.join(row)} |" for row in rows)]


def table_of_bytes(result: dict[str, Any]) -> list[str]:
    lines = []
    for job in JOBS:
        rows = [r for r in result["arithmetic"] if r["name"] == job.name]
        lines += [
            f"**{job.name}**: {job.samples:,} images, {job.views} view{'s' if job.views > 1 else ''}, "
            f"{job.mentors} mentors, {job.machines} shares.",
            "",
            *table(
                "stored | a row | one view, one mentor | all views, all mentors | a share's file | one view of it",
                [
                    [r["form"], f"{r['row']:,} B", *(size(r[k]) for k in ("view", "all", "part", "stretch"))]
                    for r in rows
                ],
            ),
            "",
        ]
    return lines[:-1]


def table_of_machines(result: dict[str, Any]) -> list[str]:
    head = "to be asked | answers | " + " | ".join(f"at {r:,} images/s" for r in RATES)
    return table(
        head,
        [[r["job"], f"{r['answers']:,}", *(f"{r['machines'][str(rate)]:,}" for rate in RATES)] for r in result["hour"]],
    )


def table_of_errors(result: dict[str, Any]) -> list[str]:
    lines = []
    for spread in dict.fromkeys(r["spread"] for r in result["top_k"]):
        rows = [r for r in result["top_k"] if r["spread"] == spread]
        lines += [
            f"**{spread}** (mean probability of the first class {rows[0]['top_probability']:.2f}, "
            f"entropy {rows[0]['entropy']:.2f} nats)",
            "",
            *table(
                "stored | a row | KL, T = 1 | KL, T = 4 | cosine T = 1, new | late | cosine T = 4, new | late",
                [
                    [r["form"], f"{r['bytes']:,} B", f"{r['T=1']['kl']:.2g}", f"{r['T=4']['kl']:.2g}"]
                    + [f"{r[t][f'cosine_{s}']:.3f}" for t in ("T=1", "T=4") for s in ("new", "late")]
                    for r in rows
                ],
            ),
            "",
        ]
    return lines[:-1]


def table_of_simulation(result: dict[str, Any]) -> list[str]:
    found = result["simulated"]
    about = found[0]
    first = (
        f"{about['samples']:,} made-up images of 8 × 8, {about['views']} views, 1,000 classes, {about['machines']} "
        "folders filled a share each, the second stopped half way by an exception and started again; then merged:"
    )
    rows = []
    for s in found:
        total = s["samples"] * s["views"]
        rows.append(
            [s["form"], f"{s['asked']:,} of {total:,}", f"{s['rows']:,}", str(s["damaged"]), f"{s['row_bytes']:,}"]
            + [f"{s['word_bytes']:,}", f"{s['manifest_bytes']:,}"]
            + ["yes" if s[key] else "NO" for key in ("same_as_one_machine", "read_by_address")]
        )
    head = (
        "stored | samples asked | good rows | damaged | bytes of rows | of words | of the manifest | "
        "as one machine's | read by address"
    )
    return [first, "", *table(head, rows)]


def table_of_costs(result: dict[str, Any]) -> list[str]:
    def cell(found: list[float]) -> str:
        return f"{found[0]:.1f} ({found[1]:.1f}–{found[2]:.1f})"

    about, memory = result["environment"], result["memory"]
    return [
        f"CPU microseconds a row, median and quartiles of 7 rounds, one thread ({about['processor']}, torch "
        f"{about['torch']}):",
        "",
        *table(
            "stored | storing, 256 at a time | reading, 64 anywhere | reading a whole view",
            [[r["form"], *(cell(r[k]) for k in ("store", "read", "slab"))] for r in result["costs"]],
        ),
        "",
        f"Peak memory for each image of the data set, whatever is stored: {memory['fill']:.0f} bytes in a process that "
        f"fills, {memory['read']:.0f} in one that reads (the list of ids, 8 bytes, included); at a billion images "
        f"{size(1e9 * memory['fill'])} and {size(1e9 * memory['read'])}.",
    ]


def table_of_students(result: dict[str, Any]) -> list[str]:
    """Of the newest version that has students with few logits."""
    shown = [(made, kept) for made in result["students"] if (kept := [a for a in TOPS if enough(made, a)])]
    if not shown:
        return [f"Not measured yet: no setting has {FEWEST} students."]
    made, kept = shown[0]
    old = [f"Measured with {made.aged}.", ""] if made.aged else []
    head = "stored | probability outside, T = 1 | accuracy % | less all logits, 95 %"
    return [*old, *table(head, [line_of(made, arm) for arm in (EIGHT, *kept)])]


def enough(made: Banked, arm: str) -> bool:
    """Whether there are students enough to be shown."""
    return made.gap(arm, EIGHT).n >= FEWEST


def line_of(made: Banked, arm: str) -> list[str]:
    """A setting's cells."""
    scores, gap = report.spread(made.scores(arm).values()), made.gap(arm, EIGHT)
    outside = [entry["outside"] for entry in made.students[arm].values() if "outside" in entry]
    less = [100 * value for value in (gap.mean, gap.low, gap.high) if value is not None]
    assert scores.mean is not None
    assert scores.sd is not None
    return [
        "all logits" if arm == EIGHT else arm.split()[-1],
        f"{statistics.fmean(outside):.2g}" if outside else "–",
        f"{100 * scores.mean:.2f} ± {100 * scores.sd:.2f} (n = {scores.n})",
        "–" if arm == EIGHT else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*less) + f", n = {gap.n}",
    ]


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "bytes": table_of_bytes,
    "machines": table_of_machines,
    "errors": table_of_errors,
    "simulation": table_of_simulation,
    "costs": table_of_costs,
    "students": table_of_students,
}


def results() -> dict[str, Any]:
    """What the tables are made of: this program's results, and those of the study of stored answers."""
    return {**json.loads(RESULT.read_text()), "students": banked()}


def rendered(text: str, result: dict[str, Any]) -> str:
    """The page with every table written anew between its markers."""
    for name, write in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        assert text.count(begin) == text.count(end) == 1, name
        head, _, rest = text.partition(begin)
        text = "\n".join([head + begin, "", *write(result), "", end + rest.partition(end)[2]])
    return text


def main() -> None:
    if "--render" not in sys.argv[1:]:
        RESULT.write_text(json.dumps(measure(), indent=1) + "\n")
    PAGE.write_text(rendered(PAGE.read_text(), results()))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
