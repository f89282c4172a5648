"""Overlap of regions, against scikit-learn over all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from visreg.metrics.overlap import Dice, MeanIoU, PixelAccuracy


def masks(seed, classes=5):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (7, 6, 5), generator=generator)  # the last class is never true
    guess = target.where(torch.rand(7, 6, 5, generator=generator) < 0.5, 3 * seed % classes)
    target[torch.rand(7, 6, 5, generator=generator) < 0.2] = 255
    return guess, target


def score(metric, guess, target, cuts=(2, 5)):
    metric.reset()
    for part in zip(guess.tensor_split(cuts), target.tensor_split(cuts), strict=True):
        metric.update({"mask": part[0]}, {"mask": part[1]})
    return metric.compute()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize(("kind", "reference"), [(MeanIoU, jaccard_score), (Dice, f1_score)])
def test_equals_scikit_learn(seed, average, kind, reference):
    guess, target = masks(seed)
    seen = target != 255
    true, found = target[seen].numpy(), guess[seen].numpy()
    metric = kind(num_classes=5, average=average)
    name = kind.title if average == "macro" else f"{kind.title}_{average}"
    expected = reference(true, found, average=average)
    assert score(metric, guess, target) == {name: pytest.approx(expected)}
    assert score(metric, guess, target, cuts=(1, 2, 3, 4, 6)) == {name: pytest.approx(expected)}
    (column,) = metric.per_class().values()
    there = np.unique(np.concatenate([true, found]))
    assert np.array(column)[there] == pytest.approx(reference(true, found, average=None))
    assert np.isnan(np.delete(np.array(column), there)).all()


def test_pixel_accuracy_is_that_of_what_is_not_ignored():
    guess, target = masks(1)
    seen = target != 255
    expected = accuracy_score(target[seen].numpy(), guess[seen].numpy())
    assert score(PixelAccuracy(), guess, target) == {"pixel_accuracy": pytest.approx(expected)}


def test_classes_are_counted_by_the_scores_of_each_pixel():
    guess, target = masks(2)
    metric = MeanIoU()
    metric.update({"mask": guess, "scores": torch.zeros(7, 5, 6, 5)}, {"mask": target})
    metric.compute()
    assert len(metric.per_class()["mean_iou"]) == 5
