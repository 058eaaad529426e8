"""What a task's scores, units and samples are called, in tables, pages and messages. Readable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from classroomkd.tasks.metric import Metric

__all__ = ["Vocabulary"]

ACCURACY = Metric("accuracy")


@dataclass(frozen=True)
class Vocabulary:
    """What a task's scores, units and samples are called; of classification unless it says otherwise.

    Attributes:
        metric: the score that counts, within a sentence.
        spelled: the same in as many words as a reader needs, where the metric's name is short for it.
        on_val: the same of the validation part, where it has another name.
        by_unit: the score of one class or joint.
        measure: unit and direction of the scores.
        unit, units: what a sample's answer is about.
        samples: what a part consists of.
        seen: what a network was trained on so many of.
        spot: what a mentor is active on or not.
        share, share_of, whole: of what a heat map by unit shows shares (as a title, under one), over what it has means.
        rebuilt: what a reconstructed rule is, the end of a sentence.
    """

    metric: str = "accuracy"
    on_val: str = ""
    spelled: str = ""
    by_unit: str = "accuracy"
    measure: Metric = ACCURACY
    unit: str = "class"
    units: str = "classes"
    samples: str = "samples"
    seen: str = "labels"
    spot: str = "sample"
    share: str = "% of a class's samples"
    share_of: str = "share of the class's samples"
    whole: str = "samples of the class"
    rebuilt: str = "rebuilt from a description, not from the authors' code"

    @property
    def spots(self) -> str:
        """Several of ``spot``."""
        return f"{self.spot}s"

    @property
    def key(self) -> str:
        """Of a score in the data behind charts, where a metric's own name could not stand."""
        return "accuracy" if self.metric == "accuracy" else "score"

    @property
    def scores(self) -> str:
        """Several of them, at the start of a sentence."""
        return "Accuracies" if self.metric == "accuracy" else "Scores"

    @property
    def suffix(self) -> str:
        """What stands after ``81.2 %`` so that nobody takes it for accuracy."""
        return "" if self.metric == "accuracy" else f" {self.metric}"

    @property
    def heading(self) -> str:
        """Of a column of test scores."""
        return f"test {self.measure.sign}".strip() if self.metric == "accuracy" else self.metric_and_sign

    @property
    def val(self) -> str:
        """The score that counts, of the validation part."""
        return self.on_val or self.metric

    @property
    def metric_and_sign(self) -> str:
        """The score that counts with what stands behind its values: ``accuracy %``, ``PSNR dB``."""
        return f"{self.metric} {self.measure.sign}"

    @property
    def title(self) -> str:
        """The metric at the start of a sentence; one that has a capital (``mAP``) keeps its letters."""
        name = self.spelled or self.metric
        return name if name != name.lower() else name.capitalize()

    def marks(self, task: str) -> dict[str, str | bool]:
        """What a row of a table says of its task; nothing where its scores are accuracies."""
        if self == Vocabulary():
            return {}
        marks: dict[str, str | bool] = {"task": task, "metric": self.metric}
        if self.measure != Metric(self.measure.name):
            marks |= {"metric_unit": self.measure.unit, "higher_is_better": self.measure.higher_is_better}
        return marks
