"""Few labels: the student has a tenth of the images, or a thirtieth; its mentors have seen them all.

convnet8's arms are tuned. resnet8's are at their defaults: to tune them would take a day, and what is best for convnet8
does not carry over (ClassroomKD's tau 3, chosen there: 52.4 and 50.5 % on resnet8, seeds 0 and 1; its default 57.6 and
56.3; the student alone, with the weight decay chosen there, 43.8 % against 44.8).
"""

from benchmarks.evidence.arms import CORE, EVERY
from benchmarks.evidence.mentors import CIFAR, SGD, WHOLE
from benchmarks.evidence.study import DEFAULTS, Panel, Study

# A training of resnet8 takes a dozen of convnet8.
DOZEN = tuple(each.name for each in CORE)

STUDY = Study(
    title="Few labels",
    answers="What are mentors worth to a student that has few labels, and which method makes most of them?",
    data=CIFAR,
    student={"model": "convnet8"},
    mentors=WHOLE,
    arms=EVERY,
    train={**SGD, "epochs": 200, "eval_every": 10, "checkpoint_every": 50, "log_every": 1000},
    panels=(
        Panel("convnet8-900", "convnet8, 900 labels (10 %)", {"student.samples": 900}),
        Panel("convnet8-300", "convnet8, 300 labels (3 %)", {"student.samples": 300}, tuned="convnet8-900"),
        Panel("resnet8-900", "resnet8, 900 labels (10 %)", {"student.samples": 900, "student.model": "resnet8"},
              tuned=DEFAULTS, curve=(0.5, 1.5), arms=DOZEN),
        Panel("resnet8-300", "resnet8, 300 labels (3 %)", {"student.samples": 300, "student.model": "resnet8"},
              tuned=DEFAULTS, curve=(0.5, 1.5), arms=DOZEN),
    ),
    recipe={"bank": "views=16", "mentor_precision": "fp32"},
    order=20,
)  # fmt: skip
