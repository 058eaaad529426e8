"""Whether the bench works, on drawn figures; it says nothing about methods."""

from benchmarks.evidence.study import Arm, Panel, Study, Tune

STUDY = Study(
    title="Smoke",
    answers="Does the bench run?",
    data={"source": "puppets", "options": {"train": 200, "test": 100}},
    student="convnet4",
    mentors=("puppets-a", "puppets-b"),
    arms=(Arm("none", knob="train.weight_decay"), Arm("average", ({"name": "average"},)), Arm("kd", ({"name": "kd"},))),
    train={"epochs": 2, "batch_size": 32},
    panels=(Panel("all", "All"),),
    tune=Tune((100,), (0.05, 0.1)),
    seeds=(0, 1),
    recipe={"bank": "views=2"},
    order=10**6,
)
