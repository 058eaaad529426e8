"""From a recipe to what every job shares: data, runtime, cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from classroomkd import data
from classroomkd.run.precision import decided, known, with_precision
from classroomkd.run.setup import Setup
from classroomkd.train.runtime import Runtime

if TYPE_CHECKING:
    from classroomkd.recipe import Recipe

__all__ = ["cache_folder", "start"]


def cache_folder(recipe: Recipe, out: Path) -> Path:
    """Where trained mentors and stored answers live: the recipe's ``cache``, or one folder beside the run."""
    return Path(recipe.cache) if recipe.cache else out.resolve().parent / ".cache" / "classroomkd"


def start(
    recipe: Recipe,
    out: Path,
    *,
    trust_code: bool = False,
    given: dict[str, nn.Module] | None = None,
    source: Any = None,
) -> Setup:
    """Load the data and open the runtime: everything jobs share."""
    threads = recipe.threads if isinstance(recipe.threads, int) else None
    spec = recipe.data.model_dump(exclude_defaults=True) if source is None else source
    images = data.load(spec, task=recipe.task.name, trust_code=trust_code)
    cache = cache_folder(recipe, out)
    if recipe.train.precision == "auto":
        settled = known(recipe, out)
        if settled is None:
            probe = Setup(
                with_precision(recipe, "fp32"), images, Runtime(recipe.device), cache, trust_code, given=given
            )
            settled = decided(probe)
        recipe = with_precision(recipe, settled)
    runtime = Runtime(recipe.device, recipe.train.precision, threads)
    if isinstance(images.train.pixels, data.MemoryPixels):
        images = images.to(runtime.device)
    return Setup(recipe, images, runtime, cache, trust_code, given=given)
