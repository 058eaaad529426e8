"""Row 5: the six mentors online, made fast, over naive float32; the work is done by ``mentors.py`` here."""

from __future__ import annotations

from classroomkd.train.optimize import has_bf16
from parts.figures import Figure, Found, Plan, five
from parts.mentors import measure

__all__ = ["rows"]

NO_BF16 = "this processor does not compute in bf16"


def rows(plan: Plan) -> Found:
    """See the module."""
    rounds, half = plan.turns(21), has_bf16("cpu")
    made = measure(rounds, plan.compiled)

    def figure(name: str) -> Figure:
        return Figure(five(made[name]), [made[name]["wall"]], five(made["again"]), rounds=rounds)

    found = Found(
        {"mentors_fp32_over_naive": figure("folded"), "mentors_fp32_error": Figure([made["folded"]["error"]])}
    )
    if half:
        found.figures["mentors_bf16_over_naive"] = figure("bf16")
        found.figures["mentors_bf16_error"] = Figure([made["bf16"]["error"]])
    else:
        found.missing |= {"mentors_bf16_over_naive": NO_BF16, "mentors_bf16_error": NO_BF16}
    if plan.compiled:
        found.figures["mentors_compiled_over_naive"] = figure("compiled_bf16" if half else "compiled")
        if not half:
            found.figures["mentors_compiled_over_naive"].note = "float32: " + NO_BF16
    else:
        found.missing["mentors_compiled_over_naive"] = "takes minutes: --compile"
    return found
