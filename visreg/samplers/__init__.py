"""Samplers: which samples an epoch sees, in what order. Without one, each once and shuffled."""

from visreg.registry import SAMPLERS

SAMPLERS.own(
    __name__, {"labelled": "ClassAwareSampler WeightedRandomSampler", "rounds": "InfiniteSampler RepeatAugSampler"}
)
