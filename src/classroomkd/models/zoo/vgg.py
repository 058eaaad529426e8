"""VGG with batch normalisation and one linear layer, for small images (Simonyan and Zisserman, 2015, table 1).

Five stages of 3x3 convolutions with max-pooling between them. On images below 64 pixels the fourth pooling is left out,
so the last stage still sees 4x4 positions of a 32-pixel image. Published checkpoints name ``block0`` to ``block4``
without their last ReLU, which is a module of its own here (``relu0`` to ``relu4``): the place to read a stage.
"""

from __future__ import annotations

from torch import Tensor, nn

from classroomkd.models.zoo._blocks import initialise

__all__ = ["VGG"]


class VGG(nn.Module):
    """``(B, in_channels, H, W)`` to logits ``(B, num_classes)``.

    The stages work at H, H/2, H/4, H/8 and then H/8 below 64 pixels, H/16 from there on. Each of
    the five ``stages`` lists the channels of its convolutions.
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...], num_classes: int, in_channels: int) -> None:
        super().__init__()
        assert len(stages) == 5, stages
        inputs = in_channels
        for number, widths in enumerate(stages):
            self.add_module(f"block{number}", _stage(inputs, widths))
            self.add_module(f"relu{number}", nn.ReLU())
            if number < 4:
                self.add_module(f"pool{number}", nn.MaxPool2d(2))
            inputs = widths[-1]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, num_classes)
        initialise(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, in_channels, H, W)`` to logits ``(B, num_classes)``."""
        pools = 4 if x.shape[-1] >= 64 else 3
        for number in range(5):
            x = self.get_submodule(f"relu{number}")(self.get_submodule(f"block{number}")(x))
            if number < pools:
                x = self.get_submodule(f"pool{number}")(x)
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def _stage(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolution, normalisation and ReLU for every width; the last ReLU is a module behind it."""
    layers: list[nn.Module] = []
    for outputs in widths:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers[:-1])
