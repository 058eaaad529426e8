"""Places by their role in the network: the last map of each stage, the input of the classifier.

Found by one dry run in evaluation mode that leaves the network as it was, so that a recipe can say ``@stage:-1`` of any
network. The outputs that follow each other on the way from the image to the prediction are grouped by their resolution;
a stage is such a group, its place the group's last output.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from classroomkd.errors import UserError, did_you_mean
from classroomkd.taps.layout import Layout, image_size, layout_of
from classroomkd.taps.taps import canonical, locate, unwrapped
from classroomkd.taps.trace import Node, watch

__all__ = ["Stage", "Survey", "find_place", "stages", "survey"]

_BLOCKS = 4  # a run of so many equal blocks makes the stages of a network whose maps all have one resolution
_LAST, _PENULTIMATE = "@stage:-1", "@penultimate"
Grid = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """One stage of a network.

    Attributes:
        name: the place to tap.
        shape: ``(channels, H, W)`` of one sample's map there.
    """

    name: str
    shape: tuple[int, int, int]


def survey(module: nn.Module, example: Tensor, what: str | None = None) -> Survey:
    """Run ``module`` once on ``example`` (B, channels, H, W) and say what places it has.

    ``what`` is how messages call the network; None = its class.

    Raises:
        UserError: it cannot take the example.
    """
    return Survey(module, example, what)


def stages(module: nn.Module, example: Tensor) -> list[Stage]:
    """The stages of a network, from image to prediction; see :class:`Survey`."""
    return survey(module, example).stages


def find_place(module: nn.Module, place: str, example: Tensor) -> str:
    """The place that ``@stage:I``, ``@penultimate`` or a plain name means in this network; see :meth:`Survey.find`."""
    return survey(module, example).find(place)


class Survey:
    """What one dry run of a network showed.

    Args:
        module: any network, bare or wrapped. Its modes, its buffers and the random state are as before afterwards.
        example: ``(B, channels, H, W)`` inputs; zeros will do.
        what: how messages call the network; None = its class.
    """

    def __init__(self, module: nn.Module, example: Tensor, what: str | None = None) -> None:
        self.module = module
        self.what = what or type(unwrapped(module)).__name__
        self._batch = example.shape[0]
        self._image = image_size(example)
        self._root, self._nodes, self._prediction = watch(module, example, self.what)

    @property
    def classes(self) -> int:
        """The size of a prediction."""
        return int(self._prediction.shape[-1])

    @cached_property
    def stages(self) -> list[Stage]:
        """The stages, from image to prediction; empty for a network without maps."""
        units = self._trunk(self._chain(self._root))
        while len(units) == 1 and (inner := self._trunk(self._chain(units[0]))):
            units = inner  # a body in one piece: what it is made of
        groups: list[list[Node]] = []
        for unit in units:
            if not groups or self._grid(groups[-1][-1]) != self._grid(unit):
                groups.append([])
            groups[-1].append(unit)
        places = [group[-1] for group in groups]
        if len(groups) == 1:
            blocks = max((run for node in self._nodes.values() for run in self._runs(node)), key=len, default=[])
            if len(blocks) >= _BLOCKS:
                places = [blocks[-(-len(blocks) * quarter // 4) - 1] for quarter in (1, 2, 3, 4)]
        return [Stage(node.name, self._layout(node.output).map_shape) for node in places]

    @cached_property
    def penultimate(self) -> str | None:
        """The input of the layer that produced the prediction, or None where no single layer did."""
        return None if self._classifier is None else f"{self._classifier.name}:input"

    @cached_property
    def _classifier(self) -> Node | None:
        """The layer whose output is the prediction; where more follows, the last one if it has as many outputs."""
        finished = sorted((n for n in self._nodes.values() if n.calls == 1 and n.name), key=lambda node: node.finished)
        layers = [node for node in finished if node.is_weighing]
        if self._prediction.dim() == 3:  # bins of joints: the layer that makes a map of each joint
            joints = self._prediction.shape[1]
            makers = [n for n in layers if n.output is not None and len(n.output) == 4 and n.output[1] == joints]
            if makers:
                return makers[-1]
        own = [node for node in finished if node.layer._parameters and node.input and node.input != node.output]
        for group in (layers, own):  # then modules with weights of their own that change the shape: no normalisation
            makers = [node for node in group if node.is_output(self._prediction)]
            if makers:
                return makers[-1]
        classes = self._prediction.shape[1] if self._prediction.dim() > 1 else None
        return layers[-1] if layers and layers[-1].width == classes else None

    def find(self, place: str) -> str:
        """The tap that a place means.

        ``@stage:I`` is the last map of stage I (negative: from the end), ``@penultimate`` the classifier's input; any
        other name is checked.

        Raises:
            UserError: what this network does not have, with what it has.
        """
        if place.startswith("@stage:"):
            return self._stage(place).name
        if place == _PENULTIMATE:
            if self.penultimate is None:
                raise UserError(
                    f"{self.what} has no single layer that makes its prediction, so {place} cannot be found; name a "
                    "tap (`classroomkd inspect` lists them), for instance NAME:input of its last layer"
                )
            return self.penultimate
        if place.startswith("@"):
            near = did_you_mean(place, (_LAST, _PENULTIMATE))
            raise UserError(f"{self.what}: unknown place '{place}'{near}; known are @stage:I and {_PENULTIMATE}")
        self._node(place)
        return canonical(self.module, place)

    def stage_of(self, name: str) -> int:
        """The stage that a module's own weights act in: the first that ends with it or behind it; the number of stages
        where it comes after the last (the head).

        What holds others acts where the first of them does (a class token, positions); what does not run by itself
        (a layer whose weights another one reads) where its holder does. Without stages every layer with weights is one,
        and the last of them the head.
        """
        rank = self._rank(name)
        if self.stages:
            ends = [self._node(stage.name).finished for stage in self.stages]
            return sum(end < rank for end in ends)
        ranks = {self._rank(other) for other, node in self._nodes.items() if node.layer._parameters}
        return min(sum(other < rank for other in ranks), self.depth)

    @cached_property
    def depth(self) -> int:
        """How many stages lie before the head, by :meth:`stage_of`."""
        if self.stages:
            return len(self.stages)
        ranks = {self._rank(name) for name, node in self._nodes.items() if node.layer._parameters}
        return max(len(ranks) - 1, 0)

    def in_head(self, name: str) -> bool:
        """Whether a module acts behind ``@penultimate``.

        Raises:
            UserError: this network has no such place.
        """
        self.find(_PENULTIMATE)
        assert self._classifier is not None
        return self._rank(name) >= self._classifier.finished

    def _rank(self, name: str) -> int:
        """When a module has done its work, among all; see :meth:`stage_of`."""
        node = self._nodes[name]
        while node is not self._root and not node.calls:
            name = name.rpartition(".")[0]
            node = self._nodes.get(name, self._root)
        return min((child.finished for child in node.children), default=node.finished)

    def layout(self, place: str) -> Layout:
        """How the activation at a place lies in memory.

        Raises:
            UserError: what is no map, tokens or vector.
        """
        place = self.find(place)
        shape = self._node(place).shape(place.endswith(":input"))
        what = f"tap '{place}' of {self.what}"
        if shape is None:
            raise UserError(f"{what} holds no tensor; choose another tap")
        if shape[0] != self._batch:
            raise UserError(f"{what} has shape {shape}, whose first axis is not the batch of {self._batch}")
        return layout_of(shape, image=self._image, what=what)

    def _stage(self, place: str) -> Stage:
        number = place.removeprefix("@stage:")
        if not number.removeprefix("-").isdecimal():
            raise UserError(f"{self.what}: {place} needs a whole number, as in @stage:0 or {_LAST}")
        if not self.stages:
            raise UserError(f"{self.what} has no stages, for none of its modules gives a map; name a tap instead")
        try:
            return self.stages[int(number)]
        except IndexError:
            shown = ", ".join(f"{s.name} ({'x'.join(map(str, s.shape))})" for s in self.stages)
            count = f"{len(self.stages)} stage{'s' * (len(self.stages) > 1)}"
            raise UserError(f"{self.what} has {count}: {shown}; {place} does not exist") from None

    def _node(self, place: str) -> Node:
        layer, _ = locate(self.module, place)
        node = next((node for node in self._nodes.values() if node.layer is unwrapped(layer)), None)
        if node is None or node.calls != 1:
            times = f"runs {node.calls} times in one pass" if node and node.calls else "does not run"
            raise UserError(f"{self.what}: tap '{place}' {times}, so it is no single activation; choose another")
        return node

    def _layout(self, shape: tuple[int, ...] | None) -> Layout:
        return layout_of(shape or (), image=self._image)

    def _grid(self, node: Node, is_input: bool = False) -> Grid | None:
        """Height and width of a node's map; (1, 1) for a vector, None for what is neither."""
        shape = node.shape(is_input)
        if shape is None or shape[0] != self._batch:
            return None
        try:
            return self._layout(shape).grid
        except UserError:
            return None

    def _chain(self, node: Node) -> list[Node]:
        """What runs inside a node, one after the other; containers that change the resolution are opened."""
        units = []
        for child in node.children:
            units += self._chain(child) if self._opens(child) else [child]
        return units

    def _opens(self, node: Node) -> bool:
        """What holds the classifier, a sequence with two resolutions, or a module with three that only shrink.

        Nothing else is opened, for a block's inner outputs are not all on the way to the prediction.
        """
        if self._classifier is not None and node is not self._classifier and self._classifier in node.inside():
            return True
        grids = [self._grid(child) for child in node.children if child.calls == 1]
        areas = [grid[0] * grid[1] for grid in grids if grid is not None and grid != (1, 1)]
        if isinstance(node.layer, nn.Sequential):
            return len(set(grids) - {None}) >= 2
        return len(set(areas)) >= 3 and areas == sorted(areas, reverse=True)

    def _trunk(self, units: list[Node]) -> list[Node]:
        """The units that make maps, from the first with weights to the one before the head."""
        first = next((i for i, unit in enumerate(units) if unit.has_parameters), len(units))
        units = [unit for unit in units[first : self._head(units)] if unit.calls == 1 and unit.single]
        maps = [unit for unit in units if not unit.passes and self._grid(unit) and len(unit.output or ()) > 2]
        larger = [i for i, unit in enumerate(maps) if self._grid(unit) != (1, 1)]
        after = larger[-1] if larger else -1  # what is 1x1 before a larger map is a gate beside the trunk
        return [unit for i, unit in enumerate(maps) if i > after or self._grid(unit) != (1, 1)]

    def _head(self, units: list[Node]) -> int:
        """Where the head begins: at the pooling to 1x1 behind which no window slides, or at the classifier."""
        last: Grid | None = None
        for i, unit in enumerate(units):
            if self._classifier is not None and unit.finished >= self._classifier.finished:
                return i
            before, after = self._grid(unit, is_input=True), self._grid(unit)
            pools = not unit.has_parameters and after == (1, 1) and (before != (1, 1) or unit.is_pooling)
            pooled = before == (1, 1) and last not in (None, (1, 1))
            if (pools or pooled) and not any(later.has_window for later in units[i:]):
                return i
            last = after if after is not None else last
        return len(units)

    def _runs(self, node: Node) -> list[list[Node]]:
        """Runs of neighbouring children of one class that have parts and give maps of one shape."""
        runs: list[list[Node]] = [[]]
        for child in node.children:
            fits = child.calls == 1 and bool(child.children) and self._grid(child) is not None
            last = runs[-1][-1] if runs[-1] else child
            if not fits or (type(child.layer), child.output) != (type(last.layer), last.output):
                runs.append([])
            if fits and len(child.output or ()) > 2:
                runs[-1].append(child)
        return runs
