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
        rebuilt: what a reconstructed rule is, the end of a sentence.
        metric: the score that counts, within a sentence.
        on_val: the same of the validation part, where it has another name.
        by_unit: the score of one class or joint.
        key: of a score in the data behind charts, where a metric's own name could not stand.
        heading: of a column of test scores.
        suffix: what stands after ``81.2 %`` so that nobody takes it for accuracy.
        measure: unit and direction of the scores.
        scores: several of them.
        unit, units: what a sample's answer is about.
        samples: what a part consists of.
        seen: what a network was trained on so many of.
        spot, spots: what a mentor is active on or not.
        share, share_of, whole: of what a heat map by unit shows shares (as a title, under one), over what it has means.
    """

    metric: str = "accuracy"
    on_val: str = ""
    by_unit: str = "accuracy"
    key: str = "accuracy"
    heading: str = "test %"
    suffix: str = ""
    measure: Metric = ACCURACY
    scores: str = "Accuracies"
    unit: str = "class"
    units: str = "classes"
    samples: str = "samples"
    seen: str = "labels"
    spot: str = "sample"
    spots: str = "samples"
    share: str = "% of a class's samples"
    share_of: str = "share of the class's samples"
    whole: str = "samples of the class"
    rebuilt: str = "rebuilt from a description, not from the authors' code"

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
        return self.metric if self.metric != self.metric.lower() else self.metric.capitalize()

    def marks(self, task: str) -> dict[str, str | bool]:
        """What a row of a table says of its task; nothing where its scores are accuracies."""
        if self == Vocabulary():
            return {}
        marks: dict[str, str | bool] = {"task": task, "metric": self.metric}
        if self.measure != Metric(self.measure.name):
            marks |= {"metric_unit": self.measure.unit, "higher_is_better": self.measure.higher_is_better}
        return marks
