"""What docs/scale.md says: its arithmetic against real files, its tables against the figures, its simulation small."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from classroomkd.bank import LOGITS, Codec, Dense, RowStore, TopK

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


scale = load("scale")
parts = sys.modules["scale_parts"]


@pytest.mark.parametrize(
    "codec", [Dense((30,)), TopK(30, 4), TopK(40_000, 2), Dense((5, 2, 2))], ids=lambda c: c.definition
)
def test_sizes_are_those_of_real_files(codec: Codec, tmp_path: Path) -> None:
    job = scale.Job("small", samples=60, views=3, mentors=2, machines=4)
    said = scale.sizes(job, codec)
    row_files = word_files = 0
    for mentor in range(job.mentors):
        for k in range(job.machines):
            first, last = (i * job.samples // job.machines for i in (k, k + 1))
            folder = tmp_path / f"{mentor}-{k}"
            more: dict[str, Any] = {"views": job.views, "samples": job.samples, "codec": codec, "kind": LOGITS}
            with RowStore.open(folder, {"mentor": mentor}, write=True, first=first, last=last, **more) as store:
                rows, words = (folder / span for span in (store.manifest.parts[0].rows, store.manifest.parts[0].sums))
                assert rows.stat().st_size == said["part"]
                assert said["stretch"] == said["part"] // job.views
                assert store.nbytes == rows.stat().st_size + words.stat().st_size
                assert (folder / "manifest.json").stat().st_size < 2000
            row_files += rows.stat().st_size
            word_files += words.stat().st_size
    assert row_files + word_files == said["all"] == job.mentors * job.views * said["view"]
    assert said["row"] * job.samples == said["view"]
    assert word_files == 4 * job.answers


def test_the_words_of_the_page_about_row_bytes() -> None:
    assert TopK(1000, 7).row_bytes == TopK(2**15, 7).row_bytes == 4 + 4 * 7
    assert TopK(2**15 + 1, 7).row_bytes == 4 + 6 * 7
    assert Dense((1000,)).row_bytes == 2 * 1000


def test_machines_for_an_hour() -> None:
    job = scale.Job("", samples=3600, views=5, mentors=2, machines=1)
    assert job.answers == 36_000
    assert [scale.machines_for_an_hour(job, rate) for rate in (10, 9.99, 1, 1e9)] == [1, 2, 10, 1]


def test_what_stays_in_memory() -> None:
    imagenet = scale.JOBS[0]
    assert not scale.slab_fits(imagenet, 1000)
    assert not scale.slab_fits(scale.Job("", imagenet.samples, 1, 1, 1), 1000)
    assert scale.slab_fits(scale.Job("", 50_000, 8, 6, 1), 100)


def test_shares_of_real_stores_and_the_error_of_top_k() -> None:
    found = scale.measure(quick=True)
    for run in found["simulated"]:
        assert run["asked"] == run["rows"] == 200 * 2
        assert run["damaged"] == 0
        assert run["parts"] == 4
        assert run["same_as_one_machine"]
        assert run["read_by_address"]
        assert run["word_bytes"] == 4 * run["rows"]
    assert [run["row_bytes"] for run in found["simulated"]] == [400 * 2000, 400 * 204]
    for spread in {r["spread"] for r in found["top_k"]}:
        rows = [r for r in found["top_k"] if r["spread"] == spread]
        for t, s in (("T=1", "late"), ("T=4", "new"), ("T=4", "late")):
            kl, cosine = ([r[t][key] for r in rows] for key in ("kl", f"cosine_{s}"))
            assert kl == sorted(kl), "fewer logits, more error"
            assert cosine == sorted(cosine, reverse=True)
            assert kl[0] < 1e-5
            assert cosine[0] > 0.999
        assert all(r["T=1"]["cosine_late"] > r["T=4"]["cosine_late"] for r in rows[1:])
    kept = {key: found[key] for key in ("arithmetic", "hour")}
    published = json.loads(scale.RESULT.read_text())
    assert kept == {key: published[key] for key in kept}, "run: python benchmarks/scale.py"


def test_a_copy_of_the_mentor_and_one_that_knows_nothing() -> None:
    """The measure itself: no error of what is the same, and a known one of an even distribution."""
    given = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    student = {"s": torch.randn(64, 50, generator=torch.Generator().manual_seed(1))}
    same = parts.compared(given, given, student, 4)
    assert abs(same["kl"]) < 1e-9
    assert same["cosine_s"] == pytest.approx(1)
    even = parts.compared(given, torch.zeros(64, 50), student, 1)
    p = given.double().softmax(1)
    assert even["kl"] == pytest.approx((torch.tensor(50.0).log() + (p * p.log()).sum(1)).mean().item(), rel=1e-3)


def test_the_page_shows_the_figures() -> None:
    page, result = scale.PAGE.read_text(), scale.results()
    assert scale.rendered(page, result) == page, "run: python benchmarks/scale.py --render"
    assert "NO" not in "".join(scale.table_of_simulation(result))
    result["simulated"][0]["rows"] -= 1
    assert scale.rendered(page, result) != page
