"""Predicting what is in image files with a checkpoint: annotated pictures, and one file of JSON.

``predictions.json`` holds ``checkpoint``, ``step``, ``threshold`` and ``images``, a list in the order of the files. Of
each there is ``file`` and either ``error``, why it could not be read, or

- ``picture``, the name of the annotated picture beside the JSON; ``width`` and ``height``, of the image in pixels;
- ``seen``: x1, y1, x2, y2, the part of the image that the model saw, where that is not all of it;
- ``label`` (or another key of the dataset's): ``label``, the class index, and ``name``; ``classes``: the best of all
  classes, each with ``label``, ``name`` and ``score``, its probability;
- ``objects``: the best first, each with ``label``, ``name``, ``score``, ``box`` (x1, y1, x2, y2 in pixels of the image)
  and, if there are masks, ``mask``, COCO's run lengths: ``size`` (height, width) and ``counts``, column by column;
- ``mask``: the name of a PNG of the class of each pixel, 255 where the model saw nothing; ``areas``: ``label``,
  ``name`` and ``pixels`` of each class in it, the largest first;
- ``heads``: by name, the same of each head, for a model of several.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from visreg.data import DataInfo, printable
from visreg.draw import entries_of, heads_of, picture
from visreg.errors import DataError, ResourceError
from visreg.findings import as_data, mask_image
from visreg.image_files import Names
from visreg.predictor import Predictor, Seen
from visreg.whole_file import write_whole

logger = logging.getLogger("visreg")

SHOWN = 20  # lines on a screen


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 16,
    threshold: float = 0.3,
    top: int = 5,
) -> list[str]:
    """Write an annotated picture of each file, and ``predictions.json``, to ``out``; return why files were left out.

    Args:
        predictor: of the checkpoint.
        files: images; those that cannot be read are named, and the others done.
        out: a folder, which is made; none of the ``files`` in it is written over.
        batch_size: how many images of one size are predicted at once.
        threshold: what an object must score.
        top: of how many classes of the whole image the scores are told.

    Raises:
        ResourceError: if the results cannot be written.
        ConfigError: if what is found cannot be traced back to any image.
    """
    rows: dict[int, dict[str, Any]] = {}
    names = Names(out, kept=files)
    stems = [names.give(file.stem, ".png", ".mask.png")[0].removesuffix(".png") for file in files]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for group in predictor.groups(files, batch_size):
            if isinstance(group, tuple):
                rows[group[0]] = _failed(files[group[0]], group[1])
                continue
            try:
                predictions = predictor.predict(group)
            except DataError as error:
                rows |= {seen.place: _failed(files[seen.place], error) for seen in group}
                continue
            for seen, predicted in zip(group, predictions, strict=True):
                try:
                    found = predictor.original(predicted, seen, threshold)
                except DataError as error:
                    rows[seen.place] = _failed(files[seen.place], error)
                    continue
                data = _write_pictures(found, seen, predictor.info, out / stems[seen.place], top)
                rows[seen.place] = {"file": str(files[seen.place]), **data}
                _tell(len(rows), files[seen.place], found, predictor.info)
        head = {"checkpoint": str(predictor.path), "step": predictor.state["step"], "threshold": threshold}
        write_whole(out / "predictions.json", _json(head, [rows[place] for place in sorted(rows)]).encode())
    except OSError as error:
        raise ResourceError(f"{out}: cannot write the predictions: {error.strerror}; give --out FOLDER") from None
    return [row["error"] for row in rows.values() if "error" in row]


def _json(head: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> str:
    """Return all that was found as JSON, with a line for each image."""
    lines = ",\n".join(f"  {json.dumps(image, ensure_ascii=False)}" for image in images)
    start = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    return f'{start},\n "images": [\n{lines}\n ]\n}}\n'


def _failed(file: Path, error: DataError) -> dict[str, Any]:
    """Tell of a file that nothing can be predicted for, and return that as data."""
    name, text = printable(file), str(error)
    text = text if name in text else f"{name}: {text}"
    logger.warning("%s", text)
    return {"file": str(file), "error": text}


def _write_pictures(found: Mapping[str, Any], seen: Seen, info: DataInfo, stem: Path, top: int) -> dict[str, Any]:
    """Write what was found in an image as pictures, and return it as data."""
    drawn = picture(seen.image, found, info)
    drawn.save(stem.with_name(f"{stem.name}.png"))
    masks = {}
    for head, each in heads_of(found).items():
        if "mask" in each:
            masks[head] = f"{stem.name}.{_safe(head)}.mask.png" if head else f"{stem.name}.mask.png"
            mask_image(each["mask"], info.classes_of("mask")).save(stem.with_name(masks[head]))
    part = seen.placement.part if seen.placement is not None else None
    return {
        "picture": f"{stem.name}.png",
        "width": seen.image.shape[2],
        "height": seen.image.shape[1],
        **({"seen": [round(side, 3) for side in part]} if part else {}),
        **as_data(found, info, top, masks),
    }


def _safe(head: str) -> str:
    """Return the name of a head as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in head)


def _tell(count: int, file: Path, found: Mapping[str, Any], info: DataInfo) -> None:
    """Print what was found in one of the first files."""
    if count <= SHOWN:
        entries = entries_of(found, info)
        texts = [entry.text if entry.share is None else f"{entry.text} {entry.share:.3f}" for entry in entries]
        _print(f"{printable(file)}: {', '.join(texts)}".replace(":,", ":"))
    elif count == SHOWN + 1:
        _print("…")


def _print(text: str) -> None:
    with suppress(BrokenPipeError):  # nobody need listen
        print(text, flush=True)
