"""The table of every student holds arms of several stages."""

from benchmarks.evidence.render import _of_stages


def test_methods_and_versions_of_an_arm_with_stages() -> None:
    stages = [{"name": "a", "method": ["none", {}, 1]}, {"name": "b", "method": ["ctslmkt", {}, 2]}]
    assert (_of_stages(stages, 0), _of_stages(stages, 2)) == ("none then ctslmkt", "1 then 2")
    assert (_of_stages(["kd", {}, 2], 0), _of_stages(["kd", {}, 2], 2)) == ("kd", "2")
