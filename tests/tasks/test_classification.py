"""Classification: what reaches the model, what comes out of it."""

from __future__ import annotations

import math
from collections import namedtuple

import pytest
import torch
from tiny import Constant
from torch import nn

from visreg.data import DataInfo
from visreg.tasks.classification import Classification

LOGITS = torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
BATCH = {"image": torch.full((2, 3, 1, 1), 51, dtype=torch.uint8), "label": torch.tensor([2, 1])}


def task(output=LOGITS, **options):
    return Classification(model=Constant(output), loss=nn.CrossEntropyLoss(), **options)


def test_pixels_are_scaled_and_normalised():
    classification = task(mean=[0.0, 0.1, 0.2], std=[1.0, 0.5, 0.1])
    classification(BATCH)
    assert classification.model.seen[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.0])
    assert classification.model.seen.dtype == torch.float32


def test_it_is_torchvisions_preprocessing_bit_for_bit():
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    mine = task(mean=[0.1307], std=[0.3081]).preprocess(image)
    theirs = functional.normalize(functional.to_tensor(image[0, 0].numpy()), [0.1307], [0.3081])
    assert torch.equal(mine[0], theirs)


def test_without_mean_and_std_pixels_are_0_to_1():
    assert task().preprocess(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[[[0.0, 1.0]]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_are_taken_as_0_to_1(dtype):
    image = torch.full((1, 1, 2, 2), 0.5, dtype=dtype)
    assert torch.equal(task().preprocess(image), image.float())


def test_the_constants_travel_with_the_weights():
    other = task(mean=[0.0], std=[1.0])
    other.load_state_dict(task(mean=[0.5], std=[0.25]).state_dict())
    assert (float(other.mean), float(other.std)) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": [0.0]}, "std: must be above 0"),
        ({"std": [float("nan")]}, "std: must be above 0"),
        ({"mean": [0.1, 0.2], "std": [1.0, 1.0, 1.0]}, "one has 2 channels, the other 3"),
        ({"mean": []}, "mean: expected a number for each channel"),
    ],
)
def test_impossible_constants_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        task(**options)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="for 2 channels, but the images have 3"):
        task(mean=[0.1, 0.2])(BATCH)
    with pytest.raises(ValueError, match=r"expected uint8 .* got torch\.int64"):
        task().preprocess(torch.zeros(1, 1, 2, 2, dtype=torch.int64))


def test_loss():
    assert task()(BATCH).keys() == {"loss"}
    expected = nn.functional.cross_entropy(LOGITS, BATCH["label"])
    assert torch.equal(task()(BATCH)["loss"], expected)
    log_softmax = LOGITS.log_softmax(1)  # the tutorial's negative log-likelihood of log-softmax is the same
    assert torch.allclose(expected, nn.functional.nll_loss(log_softmax, BATCH["label"]))


def test_auxiliary_heads():
    inception = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
    losses = task(inception(LOGITS, -LOGITS))(BATCH)
    assert list(losses) == ["loss", "aux_loss"]
    assert torch.allclose(losses["aux_loss"], 0.4 * nn.functional.cross_entropy(-LOGITS, BATCH["label"]))
    assert list(task(inception(LOGITS, None))(BATCH)) == ["loss"]
    googlenet = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
    losses = task(googlenet(LOGITS, LOGITS, LOGITS))(BATCH)
    assert torch.allclose(losses["aux_loss1"] + losses["aux_loss2"], 0.6 * losses["loss"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictions(dtype):
    predictions = task(LOGITS.to(dtype)).predict(BATCH)
    assert predictions["label"].tolist() == [2, 0]
    assert predictions["label"].dtype == torch.int64
    assert predictions["scores"].dtype == torch.float32
    assert torch.equal(predictions["scores"], LOGITS.softmax(1))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"out": LOGITS}, "got a dict of 'out'; the task of such a model is Semantic"),
        (LOGITS[0], r"got shape \(3,\)"),
        (LOGITS[..., None], r"got shape \(2, 3, 1\)"),
    ],
)
def test_a_model_that_is_no_classifier_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        task(output)(BATCH)


def test_mismatch_of_outputs_and_classes():
    classification = task()
    assert classification.mismatch(BATCH, DataInfo(name="unknown")) is None
    assert classification.mismatch(BATCH, DataInfo(name="three", classes=("a", "b", "c"))) is None
    assert "3 outputs for the 2 classes" in classification.mismatch(BATCH, DataInfo(name="two", classes=("a", "b")))


def test_a_clip_is_normalised_frame_by_frame_and_its_channels_come_first():
    model = Constant(torch.zeros(2, 5))
    task = Classification(model=model, loss=nn.CrossEntropyLoss(), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    clip = torch.randint(0, 256, (2, 4, 3, 6, 7), dtype=torch.uint8)
    batch = {"clip": clip, "label": torch.tensor([0, 1])}
    assert task(batch)["loss"] == pytest.approx(math.log(5))
    assert model.seen.shape == (2, 3, 4, 6, 7)
    for frame in range(4):
        assert torch.equal(model.seen[:, :, frame], task.preprocess(clip[:, frame]))
    assert task.predict(batch)["scores"].shape == (2, 5)
    assert task.mismatch(batch, DataInfo(name="clips", classes=tuple("abcde"))) is None


class Places(nn.Module):
    """Logits that are the pixels of the first channel, one by one."""

    def forward(self, image):
        return image[:, 0].flatten(1)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 3, 5, 4, 4)])
def test_predictions_are_the_mean_of_several_views(shape):
    batch = {"image" if len(shape) == 4 else "clip": torch.rand(shape)}
    image = batch["image"] if len(shape) == 4 else batch["clip"].transpose(1, 2)
    mirror = image.flip(-1)
    framed = nn.functional.pad(image.flatten(1, -3), (1, 1, 1, 1), mode="reflect").unflatten(1, image.shape[1:-2])
    corners = [framed[..., 2:, 2:], framed[..., :-2, :-2]]
    expected = {
        "single": image,
        "mirrored": (image + mirror) / 2,
        "shifted": (image + mirror + sum(corner + corner.flip(-1) for corner in corners) / 2) / 4,
    }
    for views, mean in expected.items():
        task = Classification(model=Places(), loss=nn.CrossEntropyLoss(), views=views)
        wanted = mean[:, 0].flatten(1).softmax(dim=1)
        torch.testing.assert_close(task.predict(batch)["scores"], wanted, msg=views)
        losses = task({**batch, "label": torch.tensor([0, 1])})  # training sees the images as they are
        plain = nn.functional.cross_entropy(image[:, 0].flatten(1), torch.tensor([0, 1]))
        torch.testing.assert_close(losses["loss"], plain)


def test_unknown_views_are_refused():
    with pytest.raises(ValueError, match="views: must be 'single', 'mirrored' or 'shifted', got 'flip'"):
        task(views="flip")
