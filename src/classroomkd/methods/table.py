"""The table of methods: one line each, readable without torch; a method's own module is loaded when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

__all__ = ["METHODS", "MethodEntry", "entries"]

GROUP = "classroomkd.methods"


class MethodEntry(NamedTuple):
    """A row: where it lives, one line, how faithful it is, what it asks of a task, and its rules.

    ``status`` is ``baseline``, ``paper``, ``released rule`` or ``reconstructed``. Plug-ins provide a row through the
    entry-point group ``classroomkd.methods``: the point's name is the method's, its value ``module:Class``.
    """

    target: str
    summary: str
    status: str
    asks: tuple[str, ...] = ()  # what a task must offer beside credibility and a divergence: ``joints``, ``votes``
    rules: tuple[str, ...] = ()
    by_rule: tuple[tuple[str, str], ...] = ()  # statuses that depend on the option ``rule``
    version: int = 1  # raised by every change of the method's rule or of a default
    peers: int = 0  # how many networks it must have beside the student, which it trains with it
    teachers: int = 0  # how many of these are teachers

    def status_of(self, options: Mapping[str, Any]) -> str:
        """How faithful this method is with these options."""
        rule = options.get("rule", self.rules[0] if self.rules else "")
        return dict(self.by_rule).get(str(rule), self.status)


METHODS: dict[str, MethodEntry] = {
    "none": MethodEntry("classroomkd.methods.none:Alone", "the student alone, from labels", "baseline"),
    "kd": MethodEntry("classroomkd.methods.kd:KD", "one mentor at a fixed temperature (Hinton)", "paper", version=2),
    "average": MethodEntry(
        "classroomkd.methods.average:Average", "all mentors count the same (AVER)", "paper", version=2
    ),
    "classroomkd": MethodEntry(
        "classroomkd.methods.classroomkd:ClassroomKD",
        "mentors who beat the student teach, at a temperature set by the gap",
        "released rule (batch, rank); reconstructed (sample)",
        rules=("sample", "batch", "rank"),
        by_rule=(("sample", "reconstructed"), ("batch", "released rule"), ("rank", "released rule")),
        version=3,
    ),
    "random": MethodEntry(
        "classroomkd.methods.random_mentor:RandomMentor",
        "one mentor drawn anew for every sample",
        "baseline",
        version=2,
    ),
    "votes": MethodEntry(
        "classroomkd.methods.votes:Votes",
        "the mentors' vote as the label of pictures without one",
        "baseline",
        asks=("votes",),
    ),
    "weighted": MethodEntry(
        "classroomkd.methods.weighted:Weighted",
        "any weighting of the mentors with any divergence",
        "composition",
        version=3,
    ),
    "mmkd": MethodEntry(
        "classroomkd.methods.mmkd:MMKD",
        "a meta-learned weighting of mentors' logits and features",
        "corrected rule (paper); released rule (reference)",
        rules=("paper", "reference"),
        by_rule=(("paper", "corrected rule"), ("reference", "released rule")),
        version=2,
    ),
    "camkd": MethodEntry(
        "classroomkd.methods.camkd:CAMKD",
        "mentors near the label count more, on logits and features",
        "corrected rule (paper); released rule (reference)",
        rules=("paper", "reference"),
        by_rule=(("paper", "corrected rule"), ("reference", "released rule")),
        version=2,
    ),
    "ebkd": MethodEntry(
        "classroomkd.methods.ebkd:EBKD",
        "sure mentors (low entropy) count more",
        "corrected rule (paper); released rule (reference)",
        rules=("paper", "reference"),
        by_rule=(("paper", "corrected rule"), ("reference", "released rule")),
        version=2,
    ),
    "aekd": MethodEntry(
        "classroomkd.methods.aekd:AEKD",
        "the mentors' shortest common gradient decides who counts",
        "corrected rule (paper); released rule (reference); baseline (mgda)",
        rules=("paper", "reference", "mgda"),
        by_rule=(("paper", "corrected rule"), ("reference", "released rule"), ("mgda", "baseline")),
        version=2,
    ),
    "amtml": MethodEntry(
        "classroomkd.methods.amtml:AMTML",
        "latent mentor representations give each sample its mixture of mentors",
        "corrected rule (paper); released rule (reference)",
        rules=("paper", "reference"),
        by_rule=(("paper", "corrected rule"), ("reference", "released rule")),
        version=2,
    ),
    "fitnet": MethodEntry(
        "classroomkd.methods.fitnet:FitNet", "hints: mentors' features through a projector", "paper", version=2
    ),
    "kcd": MethodEntry(
        "classroomkd.methods.kcd:KCD",
        "a mentor's channels, brought once into the order of the student's, before a loss that compares them",
        "reconstructed",
    ),
    "at": MethodEntry(
        "classroomkd.methods.at:AttentionTransfer", "mentors' spatial attention maps", "paper", version=2
    ),
    "rkd": MethodEntry("classroomkd.methods.rkd:RKD", "distances and angles between samples", "paper", version=2),
    "sp": MethodEntry(
        "classroomkd.methods.sp:SimilarityPreserving", "similarities between samples", "paper", version=2
    ),
    "crd": MethodEntry(
        "classroomkd.methods.crd:CRD",
        "contrastive representation with a memory of all samples",
        "paper",
        version=2,
    ),
    "dkd": MethodEntry("classroomkd.methods.dkd:DKD", "the target class and the rest, decoupled", "paper", version=3),
    "dist": MethodEntry("classroomkd.methods.dist:DIST", "correlations within and between classes", "paper", version=3),
    "dtkd": MethodEntry(
        "classroomkd.methods.dtkd:DTKD",
        "one temperature for the mentor, one for the student",
        "paper",
        version=2,
    ),
    "takd": MethodEntry(
        "classroomkd.methods.takd:TAKD", "an assistant, itself taught by a mentor, teaches", "paper", version=2
    ),
    "dgkd": MethodEntry(
        "classroomkd.methods.dgkd:DGKD", "the teacher and all assistants teach, some left out by draw", "released rule"
    ),
    "dml": MethodEntry(
        "classroomkd.methods.dml:DML", "networks that are trained together teach each other (DML)", "paper", peers=1
    ),
    "kdml": MethodEntry(
        "classroomkd.methods.kdml:KDML",
        "one teacher, and students that teach each other (KD + peer-to-peer)",
        "reconstructed",
        peers=1,
        teachers=1,
    ),
    "ctslmkt": MethodEntry(
        "classroomkd.methods.ctslmkt:CTSLMKT",
        "networks teach each other answers and relations, each held by its own earlier self",
        "reconstructed",
        peers=1,
    ),
    "one": MethodEntry(
        "classroomkd.methods.one:ONE", "branches of one student learn from their gated ensemble (ONE)", "released rule"
    ),
    "pcl": MethodEntry(
        "classroomkd.methods.pcl:PCL",
        "branches of one student learn from their ensemble and each other's averages (PCL)",
        "paper",
    ),
    "tfkd": MethodEntry(
        "classroomkd.methods.tfkd:TFKD",
        "the student's earlier self teaches, or a teacher that is written down",
        "released rule",
    ),
    "ital": MethodEntry(
        "classroomkd.methods.ital:ITAL",
        "a mentor chooses which samples teach, and the student knows of the choice",
        "reconstructed",
        asks=("one_layer",),
    ),
    "dwpose": MethodEntry(
        "classroomkd.methods.dwpose:DWPose",
        "one mentor's last map and bins, fading out (stage 1 of 2)",
        "released rule (stage 1)",
        asks=("joints",),
        version=2,
    ),
    "fpd": MethodEntry(
        "classroomkd.methods.fpd:FPD", "half the labels, half one mentor's heatmaps", "paper", asks=("joints",)
    ),
}


@cache
def entries() -> dict[str, MethodEntry]:
    """The table with the rows of installed plug-ins; a plug-in cannot replace a row of ours."""
    table = dict(METHODS)
    for point in metadata.entry_points(group=GROUP):
        table.setdefault(point.name, MethodEntry(point.value, f"plug-in from {point.value}", "plug-in"))
    return table
