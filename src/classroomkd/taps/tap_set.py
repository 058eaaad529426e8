"""The taps of one network as a method reads them: where they are, how they lie in memory, how to go on from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from classroomkd.taps.layout import Layout
from classroomkd.taps.roles import survey
from classroomkd.taps.segments import check_forward_from_tap, forward_from_tap

__all__ = ["Kind", "TapSet"]

Kind = Literal["map", "pooled"]


@dataclass
class TapSet:
    """Taps of one network, found by a dry run.

    Attributes:
        places: by tap, the submodule (or its input) that is read.
        kinds: by tap, whether the method wants the map or its mean over space.
        layouts: by tap, how the activation lies in memory.
        shapes: by tap, the shape of one sample after normalising the layout.
        classes: the size of the network's prediction.
        example: a blank input of one sample, for going on from a tap.
        thin: by tap, whether one sample suffices before the tap when going on from it.
    """

    places: dict[str, str]
    kinds: dict[str, Kind]
    layouts: dict[str, Layout]
    shapes: dict[str, tuple[int, ...]]
    classes: int
    example: Tensor
    thin: dict[str, bool]

    @classmethod
    def find(
        cls,
        module: nn.Module,
        taps: Mapping[str, Kind],
        wishes: Mapping[str, str],
        example: Tensor,
        what: str,
        heads: bool = False,
    ) -> TapSet:
        """Find the taps of a network.

        Args:
            module: the network.
            taps: what is to be read, and how.
            wishes: places that the user has named for some of them.
            example: a blank batch in the network's input space.
            what: how messages call the network.
            heads: whether the network's prediction must follow from each tap, for :meth:`forward_from_tap`.

        Raises:
            UserError: a tap that the network does not have, or that is no map.
        """
        seen = survey(module, example, what)
        places = {tap: seen.find(wishes.get(tap, tap)) for tap in taps}
        layouts = {tap: seen.layout(place) for tap, place in places.items()}
        shapes: dict[str, tuple[int, ...]] = {
            tap: layouts[tap].map_shape if kind == "map" else layouts[tap].map_shape[:1] for tap, kind in taps.items()
        }
        thin = {tap: check_forward_from_tap(module, places[tap], example[:1], what) for tap in taps if heads}
        return cls(places, dict(taps), layouts, shapes, seen.classes, example[:1], thin)

    def read(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Activations as the method sees them: ``(B, channels, H, W)`` or ``(B, channels)``; others as they are."""
        read = dict(features)
        for tap, kind in self.kinds.items():
            layout = self.layouts[tap]
            read[tap] = layout.as_map(read[tap]) if kind == "map" else layout.as_pooled(read[tap])
        return read

    def forward_from_tap(self, module: nn.Module, tap: str, value: Tensor) -> Tensor:
        """The network's prediction with its activation at a tap replaced."""
        own = next(module.parameters(), value)
        self.example = self.example.to(own.device, own.dtype)  # kept: a copy between devices waits for both
        return forward_from_tap(module, self.places[tap], value.to(own.dtype), self.example, thin=self.thin[tap])
