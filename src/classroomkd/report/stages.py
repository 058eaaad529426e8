"""The table of the page about arms of several trainings: what each of them gave and took."""

from __future__ import annotations

from classroomkd.report import vocabulary as words
from classroomkd.report.context import ReportContext
from classroomkd.report.html import Html, card, el, table
from classroomkd.report.statistics import spread

__all__ = ["stages"]


def stages(context: ReportContext) -> Html | None:
    """A row a stage, means over the finished seeds; None where no arm has any."""
    say, rows = context.say, list[list[str | None]]()
    for arm, colour in zip(context.summary.arms, context.arm_colours, strict=True):
        done = [entry.stages for entry in context.summary.entries if entry.method == arm.label]
        for number, stage in enumerate(arm.stages):
            its = [made[number] for made in done if len(made) == len(arm.stages)]
            score = spread(one.test_last for one in its)
            seconds = spread(one.seconds for one in its).mean
            rows.append(
                [
                    context.named(colour, arm.label) if number == 0 else None,
                    stage.name,
                    stage.method,
                    ", ".join(stage.trainees),
                    words.count(stage.epochs),
                    words.plus_minus(score.mean, score.sd, context.decimals, say.measure),
                    words.duration(seconds),
                ]
            )
    if not rows:
        return None
    columns = [("arm", ""), ("stage", ""), ("method", ""), ("who learned", ""), ("epochs", "num")]
    columns += [(f"test {say.measure.sign} after it", "num"), ("took", "num")]
    text = (
        "the trainings of an arm, in order; the score is the student's or, in a stage without it, the first trainee's"
    )
    caption = el("figcaption", "Stages", el("span", text))
    return card(el("figure", caption, table(columns, rows, "Stages of the arms")))
