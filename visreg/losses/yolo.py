"""The loss of a dense detector, with the assignment of objects to places that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from visreg.errors import ConfigError, Problem

TINY = 1e-30  # above 0, and below any power of an overlap


class YOLOLoss(nn.Module):
    """What is wrong with a dense detector's classes, boxes and distances.

    Task-aligned assignment (TOOD, Feng et al. 2021): an object is learnt by the ``topk`` places inside its box whose
    prediction suits it best, by ``score^alpha * IoU^beta``; they are to score that, scaled so that an object's best
    place is to score its IoU. Classes are learnt by binary cross-entropy, weighted by how far the score is off to the
    power of ``gamma`` (quality focal loss, Li et al. 2020), boxes by their generalized IoU (Rezatofighi et al. 2019) or
    complete IoU (Zheng et al. 2020), and, of a model that predicts a box's distances from its place as distributions,
    those by the two bins around the true distance (distribution focal loss, Li et al. 2020). Each is divided by the sum
    of what is to be scored, at least 1, in the images it is given: those of one process, and with ``run.accumulate`` of
    one part of the batch.

    Args:
        topk: places that learn one object.
        alpha: how much the score counts in the assignment.
        beta: how much the IoU counts.
        gamma: 0 for plain binary cross-entropy.
        iou: ``"giou"`` or ``"ciou"``.
        class_weight: of the classes' loss.
        box_weight: of the boxes' loss.
        distance_weight: of the distributions' loss.
    """

    def __init__(
        self,
        topk: int = 13,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 2.0,
        iou: str = "giou",
        class_weight: float = 1.0,
        box_weight: float = 2.0,
        distance_weight: float = 0.5,
    ) -> None:
        super().__init__()
        kinds = {"giou": generalized_box_iou_loss, "ciou": complete_box_iou_loss}
        if iou not in kinds:
            raise ValueError(f"iou: expected 'giou' or 'ciou', got {iou!r}")
        for name, value in (("topk", topk), ("class_weight", class_weight), ("box_weight", box_weight)):
            if value <= 0:
                raise ValueError(f"{name}: must be above 0, got {value!r}")
        self.topk, self.alpha, self.beta, self.gamma = topk, alpha, beta, gamma
        self.box_loss = kinds[iou]
        self.class_weight, self.box_weight, self.distance_weight = class_weight, box_weight, distance_weight

    def forward(self, output: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses ``class``, ``box`` and, if there are distances, ``distance``: scalars.

        Args:
            output: ``logits`` (N, A, C), ``boxes`` (N, A, 4) and ``points`` (A, 2), the places that predict them, x and
                y in pixels; and, as of the model ``YOLO``, ``distances`` (N, A, 4, bins) and ``strides`` (A,).
            targets: of each image ``boxes`` (M, 4), x1, y1, x2, y2 in pixels, and ``labels``, int64 (M,).

        Raises:
            ConfigError: if ``output`` is something else.
        """
        if not isinstance(output, Mapping) or not {"logits", "boxes", "points"} <= output.keys():
            problem = "YOLOLoss takes 'logits', 'boxes' and 'points' of a dense detector such as YOLO"
            found = f"only {', '.join(map(repr, output))}" if isinstance(output, Mapping) else type(output).__name__
            raise ConfigError([Problem("loss", f"{problem}; got {found}")])
        logits, boxes = output["logits"].float(), output["boxes"].float()
        true, labels, real = _padded(targets, boxes)
        with torch.no_grad():
            chosen, quality = self.assign(logits.sigmoid(), boxes, output["points"], true, labels, real)
            goal = torch.zeros_like(logits)
            if true.shape[1]:
                wanted = labels.gather(1, chosen)[..., None]
                goal.scatter_(2, wanted, quality[..., None])
        total = goal.sum().clamp(min=1.0)
        wrong = functional.binary_cross_entropy_with_logits(logits, goal, reduction="none")
        if self.gamma:
            wrong = wrong * (logits.sigmoid() - goal).abs() ** self.gamma
        learnt = quality > 0
        target = true.gather(1, chosen[..., None].expand(-1, -1, 4)) if true.shape[1] else boxes.detach()
        weight, box, target = quality[learnt], boxes[learnt], target[learnt]
        losses = {
            "class": self.class_weight * wrong.sum() / total,
            "box": self.box_weight * (self.box_loss(box, target) * weight).sum() / total,
        }
        if "distances" in output:
            off = _off_distances(output, learnt, target)
            losses["distance"] = self.distance_weight * (off * weight).sum() / total
        return losses

    def assign(
        self, scores: Tensor, boxes: Tensor, points: Tensor, true: Tensor, labels: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return which object each place learns, int64 (N, A), and what it is to score, (N, A): 0 for none.

        Args:
            scores: predicted probabilities (N, A, C).
            boxes: predicted (N, A, 4).
            points: of the places (A, 2).
            true: boxes of the objects (N, M, 4).
            labels: their classes (N, M).
            real: which of them are not padding (N, M).
        """
        count = true.shape[1]
        if not count:
            none = scores.new_zeros(boxes.shape[:2])
            return none.long(), none
        inside = ((points > true[:, :, None, :2]) & (points < true[:, :, None, 2:])).all(dim=-1) & real[..., None]
        iou = _pairwise_iou(true, boxes) * inside  # (N, M, A)
        score = scores.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, scores.shape[1]))
        aligned = score**self.alpha * iou**self.beta
        # Where nothing overlaps yet, the tiny number keeps the places inside ahead of those outside.
        best = (aligned + TINY * inside).topk(min(self.topk, aligned.shape[2]), dim=2).indices
        taken = torch.zeros_like(inside).scatter_(2, best, True) & inside
        chosen = (iou + TINY).where(taken, -1.0).argmax(dim=1)  # (N, A): of several objects the one it overlaps most
        mine = taken & (chosen[:, None] == torch.arange(count, device=boxes.device)[:, None])
        aligned, iou = aligned * mine, iou * mine
        scaled = aligned / aligned.amax(dim=2, keepdim=True).clamp(min=TINY) * iou.amax(dim=2, keepdim=True)
        return chosen, scaled.amax(dim=1)


def _off_distances(output: Mapping[str, Tensor], learnt: Tensor, box: Tensor) -> Tensor:
    """Return (P,) how far the distributions of P places are from the true distances to the sides of their boxes.

    Args:
        output: the model's.
        learnt: which places these are, bool (N, A).
        box: what each of them learns (P, 4).
    """
    logits = output["distances"][learnt].float()
    points, strides = (output[key].expand(len(learnt), *output[key].shape)[learnt] for key in ("points", "strides"))
    true = torch.cat([points - box[:, :2], box[:, 2:] - points], dim=1) / strides[:, None]
    true = true.clamp(0, logits.shape[-1] - 1.01)
    low = true.floor()
    upper = true - low  # the share that the upper of the two bins is to have
    likely = logits.log_softmax(dim=-1)
    index = low.long()[..., None]
    one, other = likely.gather(-1, index)[..., 0], likely.gather(-1, index + 1)[..., 0]
    return -(one * (1 - upper) + other * upper).mean(dim=-1)


def _padded(targets: Sequence[Mapping[str, Tensor]], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the objects of all images as boxes (N, M, 4), labels (N, M) and which of them are real (N, M)."""
    counts = [len(target["boxes"]) for target in targets]
    most = max(counts, default=0)
    boxes = like.new_zeros(len(targets), most, 4)
    labels = torch.zeros(len(targets), most, dtype=torch.int64, device=like.device)
    real = torch.zeros(len(targets), most, dtype=torch.bool, device=like.device)
    for place, (target, count) in enumerate(zip(targets, counts, strict=True)):
        boxes[place, :count] = target["boxes"].to(like)
        labels[place, :count] = target["labels"]
        real[place, :count] = True
    return boxes, labels, real


def _pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU (N, M, A) of boxes (N, M, 4) and (N, A, 4)."""
    low = torch.maximum(one[:, :, None, :2], other[:, None, :, :2])
    high = torch.minimum(one[:, :, None, 2:], other[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (one, other)]
    return both / (areas[0][:, :, None] + areas[1][:, None] - both).clamp(min=TINY)
