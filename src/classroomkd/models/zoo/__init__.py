"""The networks of the distillation benchmarks, one small file a family, plus two tiny families for demos and tests.

Every builder takes ``num_classes`` and ``in_channels`` and gives a module from ``(B, C, H, W)`` to logits
``(B, num_classes)`` for any side of 8 pixels and more. No activation works in place, so what a hook keeps stays as it
was, and one that ends a stage is a module, so that ``@stage:K`` is behind it. State-dict names follow the benchmarks'
habit, so their published checkpoints load. In training, a network that has shrunk the image to one pixel cannot
normalise a batch of one; give it larger images or batches.
"""
