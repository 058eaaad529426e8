"""From a recipe to what every job of a process is given: data, runtime, cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from classroomkd import data
from classroomkd.run.context import RunContext
from classroomkd.run.networks import Networks
from classroomkd.run.precision import decided, known, with_precision
from classroomkd.train.runtime import Runtime

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe

__all__ = ["cache_folder", "open_context"]


def cache_folder(recipe: Recipe, out: Path) -> Path:
    """Where trained mentors and stored answers live: the recipe's ``cache``, or one folder beside the run."""
    return Path(recipe.cache) if recipe.cache else out.resolve().parent / ".cache" / "classroomkd"


def open_context(
    recipe: Recipe,
    out: Path,
    *,
    trust_code: bool = False,
    given: Mapping[str, nn.Module] | None = None,
    source: Any = None,
) -> RunContext:
    """Load the data and open the runtime: everything jobs share."""
    threads = recipe.threads if isinstance(recipe.threads, int) else None
    spec = recipe.data.model_dump(exclude_defaults=True) if source is None else source
    images = data.load(spec, task=recipe.task.name, trust_code=trust_code)
    cache = cache_folder(recipe, out)
    if recipe.train.precision == "auto":
        settled = known(recipe, out)
        if settled is None:
            plain = with_precision(recipe, "fp32")
            probe = RunContext(plain, images, Runtime(recipe.device), cache, trust_code, given or {})
            settled = decided(Networks(probe))
        recipe = with_precision(recipe, settled)
    runtime = Runtime(recipe.device, recipe.train.precision, threads)
    if isinstance(images.train.pixels, data.MemoryPixels):
        images = images.to(runtime.device)
    return RunContext(recipe, images, runtime, cache, trust_code, given or {})
