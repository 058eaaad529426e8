"""Fashion-MNIST with 10,000 training images: ClassroomKD's rules, and what its gate and its temperature add.

The authors' four files lie in ``fashion-mnist`` of the data's folder.
"""

from benchmarks.evidence.arms import ALONE, arm
from benchmarks.evidence.mentors import FASHION, SGD
from benchmarks.evidence.study import Panel, Study

STUDY = Study(
    title="Fashion-MNIST",
    answers="On easy images, which all mentors have seen: do ClassroomKD's rules beat averaging, and what do its gate "
    "and its temperature add?",
    data=FASHION,
    student="resnet8",
    mentors=("resnet20-fashion", "wrn_16_1-fashion", "mobilenetv2-fashion", "vgg8-fashion", "weak-fashion"),
    arms=(
        ALONE,
        arm("average"),
        arm("kd"),
        arm("classroomkd", "tau"),
        arm("classroomkd", "tau", rule="batch", label="classroomkd batch"),
        arm("classroomkd", "tau", rule="rank", label="classroomkd rank"),
        arm("classroomkd", "tau", gate="none", label="classroomkd no gate"),
        arm("classroomkd", "fixed_temperature", 2, 4, 8, mentoring=False, label="classroomkd one temperature"),
        arm(
            "classroomkd",
            "fixed_temperature",
            2,
            4,
            8,
            gate="none",
            mentoring=False,
            label="classroomkd with neither",
        ),
    ),
    train={**SGD, "epochs": 40, "eval_every": 4, "checkpoint_every": 10, "log_every": 1000},
    panels=(Panel("resnet8", "resnet8, 10,000 images", curve=(0.5, 1.5)),),
    recipe={"bank": "views=8"},
    order=80,
)
