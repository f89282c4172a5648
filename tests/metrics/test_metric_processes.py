"""Metrics whose batches are spread over processes, some of which saw none."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.multiprocessing

from visreg import dist
from visreg.errors import DataError, DistributedError
from visreg.metrics.accuracy import Accuracy, TopKAccuracy
from visreg.metrics.confusion import F1, ConfusionMatrix, MeanClassAccuracy, Precision, Recall
from visreg.metrics.overlap import Dice, MeanIoU

OVERLAPS = (partial(MeanIoU, key="label"), partial(Dice, key="label"))
KINDS = (Accuracy, TopKAccuracy, Precision, Recall, F1, MeanClassAccuracy, ConfusionMatrix, *OVERLAPS)


class Threads:
    """Plays processes that reduce tensors together; all must bring the same shape and dtype."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def reduce(self, value, combine):
        self.values[threading.get_ident()] = value
        self.barrier.wait()
        values = list(self.values.values())
        assert len({(tuple(value.shape), value.dtype) for value in values}) == 1
        result = combine(torch.stack(values))
        self.barrier.wait()
        return result

    def run(self, *calls):
        """Return a future for each of ``calls``, made at the same time."""
        self.values = {}
        self.barrier = threading.Barrier(len(calls), timeout=60)
        self.monkeypatch.setattr(dist, "total", lambda value: self.reduce(value, lambda values: values.sum(0)))
        self.monkeypatch.setattr(dist, "largest", lambda value: self.reduce(value, lambda values: values.amax(0)))
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(call) for call in calls]
        self.monkeypatch.undo()
        return futures


@pytest.fixture(name="threads")
def threads_fixture(monkeypatch):
    return Threads(monkeypatch)


def batches(count, classes=8):
    """Return batches of seven images, but one in the last."""
    generator = torch.Generator().manual_seed(count)
    for index in range(count):
        size = 7 if index < count - 1 else 1
        scores = torch.rand(size, classes, generator=generator)
        target = torch.randint(0, classes - 1, (size,), generator=generator)
        yield {"scores": scores, "label": scores.argmax(1)}, {"label": target}


def fed(metric, part):
    for predictions, batch in part:
        metric.update(predictions, batch)
    return metric


def results(metric):
    return repr((metric.compute(), metric.per_class()))  # as text, NaN equals NaN


@pytest.mark.parametrize("shares", [(2, 3), (5, 0), (0, 5), (1, 0, 4), (0, 1, 0)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_processes_together_give_the_scores_of_one(kind, shares, threads):
    every = list(batches(sum(shares)))
    starts = [sum(shares[:index]) for index in range(len(shares))]
    # In order, so that the last one that saw any holds the partial batch.
    metrics = [fed(kind(), every[start : start + share]) for start, share in zip(starts, shares, strict=True)]
    wanted = results(fed(kind(), every))
    for _ in range(2):  # computing changes nothing
        futures = threads.run(*(lambda metric=metric: results(metric) for metric in metrics))
        assert [future.result() for future in futures] == [wanted] * len(shares)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_all_saw_nothing_have_nan(kind, threads):
    for future in threads.run(kind().compute, kind().compute):
        assert all(math.isnan(value) for value in future.result().values())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_bad_target_on_one_process_stops_all(kind, threads):
    (predictions, batch), *others = batches(3)
    bad = fed(kind(), [(predictions, {"label": batch["label"] + 8})])
    for future in threads.run(bad.compute, fed(kind(), others).compute, kind().compute):
        with pytest.raises(DataError, match="but the 8 classes are 0 to 7"):
            future.result()


@pytest.mark.parametrize("kind", KINDS[2:])
def test_processes_must_agree_on_the_number_of_classes(kind, threads):
    for future in threads.run(fed(kind(), batches(2)).compute, fed(kind(), batches(2, 9)).compute, kind().compute):
        with pytest.raises(DistributedError, match="one process scores 8 classes, another 9"):
            future.result()


def one_of_two(rank, folder):
    """Compute every metric as one of two processes, of which the second saw no batch; leave the results in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", "2")
        torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
        metrics = [fed(kind(), batches(3 * (1 - rank))) for kind in KINDS]
        (folder / f"{rank}.txt").write_text("\n".join(results(metric) for metric in metrics))
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_real_processes_give_the_scores_of_one(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    wanted = "\n".join(results(fed(kind(), batches(3))) for kind in KINDS)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [wanted, wanted]
