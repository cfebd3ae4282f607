"""Image data: loading, splitting, and batches that a seed fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.data.augment import AUGMENTATIONS
from diffnas.data.buckets import Bucket
from diffnas.data.digits import load_digits
from diffnas.data.folder import load_folder, pick
from diffnas.data.hub import is_saved_dataset, load_hub
from diffnas.data.loaded import Asked, Loaded
from diffnas.data.meant import DIGITS, FOLDER, HUB, check_classes, check_meant
from diffnas.data.split import Enough, divide
from diffnas.errors import UserError
from diffnas.names import looks_like_path
from diffnas.progress import Progress


@dataclass(frozen=True)
class Embeddings:
    """What text encoders made of all captions.

    ``rows``: tensors (K, ...) by name, of K different captions; ``nothing``: (1, ...), of none,
    if the model can be told that; ``of``: the row of each image's caption, int64 (N,).
    """

    rows: Mapping[str, np.ndarray]
    nothing: Mapping[str, np.ndarray]
    of: np.ndarray


@dataclass(frozen=True)
class Data:
    """A set of images and its fixed split."""

    name: str  # 'digits', a folder, a hub id
    images: np.ndarray  # uint8 (N, C, H, W), possibly a memmap
    labels: np.ndarray | None  # int64 (N,)
    seen: np.ndarray  # int64 indices of the training part
    held_out: np.ndarray  # int64 indices, never trained on
    augment: str  # 'none' | 'flip' | 'digits'
    skipped: int = 0  # unreadable files
    # What a pipeline's autoencoder makes of the images, float16 (V, N, c, h, w): as they are, then
    # mirrored where they are augmented so. None: not computed beforehand.
    latents: np.ndarray | None = None
    captions: tuple[str, ...] | None = None  # of each image
    embeddings: Embeddings | None = None  # of the captions; None: not computed beforehand
    condition_dropout: float = 0.0  # share of training images without their condition
    # What is trained on, a part for every shape, where shapes differ; else what is seen, as it is.
    buckets: tuple[Data, ...] = ()

    @property
    def remark(self) -> str | None:
        """What a person should know of the loading, in a line; None if there is nothing."""
        found = []
        if self.skipped:
            files = "file" if self.skipped == 1 else "files"
            found.append(f"{self.skipped} unreadable {files} skipped")
        if self.buckets:
            shapes = (
                f"{len(part.seen)} of {part.images.shape[3]} x {part.images.shape[2]}"
                for part in self.buckets
            )
            found.append(f"to train on, in width and height: {', '.join(shapes)}")
        return f"data: {'; '.join(found)}" if found else None


def load_data(
    source: str,
    *,
    size: tuple[int, int],
    channels: int,
    held_out: float = 0.2,
    split_by: str = "file",
    augment: str = "auto",
    image_column: str | None = None,
    label_column: str | None = None,
    classes: int | None = None,
    captioned: bool = False,
    caption_column: str | None = None,
    cache: Path | None = None,
    limit: int | None = None,
    streaming: bool = False,
    shapes: Sequence[tuple[int, int]] = (),
    progress: Progress | None = None,
    enough: Enough = lambda seen, held_out: None,
) -> Data:
    """Load 'digits', a folder of images, or a data set of the Hugging Face Hub.

    size: (H, W) that images are cropped and resized to; channels: 1 or 3.
    split_by: 'file', or 'folder' to hold out whole parent folders (crops of one photograph, say).
    label_column: a Hub data set's column; for a folder, any name asks for its top-level folders.
    classes: how many the model knows, where it takes one; refused, before any image is decoded, are
    data without, or with others.
    captioned: whether every image must have a caption, from a folder's metadata.jsonl or a column.
    cache: where large sets are kept decoded. limit: use at most so many images.
    streaming: of a Hub data set fetch no more than these.
    shapes: for training, further ones (H, W), ``size`` among them; a picture gets the nearest.
    progress: told how many pictures are decoded.
    enough: told, before any is, how many will be seen and held out, where that is known: of a
    folder or data set split by files; not yet known is which of them cannot be read.

    Raises:
        UserError: the source cannot be loaded, lacks what is asked for, or a value is unknown or
            means nothing for such data.
    """
    _check(channels, held_out, split_by, augment, limit)
    folder = Path(source).expanduser()
    given = {
        "split_by": split_by,
        "image_column": image_column,
        "label_column": label_column,
        "caption_column": caption_column,
        "streaming": streaming,
    }
    if caption_column is not None and not captioned:
        raise UserError(
            f"data.caption_column = {caption_column}: the model takes no text; leave it out"
        )
    divided = partial(divide, by=split_by, held_out=held_out)

    def announced(count: int, labels: np.ndarray | None, groups: np.ndarray | None) -> None:
        # Pictures that cannot be read may change which folders are held out, and so how many.
        if split_by == "file":
            enough(*map(len, divided(count, labels, groups)))
        if classes is not None:
            check_classes(labels, classes)

    asked = Asked(
        size,
        channels,
        shapes,
        captioned=captioned,
        caption_column=caption_column,
        cache=cache,
        limit=limit,
        progress=progress or Progress(),
        announced=announced,
    )
    if source == "digits":
        check_meant(DIGITS, given)
        if shapes:
            raise UserError("data.crop = buckets: the digits are of one shape; leave it out")
        found = _picked(load_digits(size, channels), limit)
    elif folder.is_file():
        raise UserError(f"data: {source!r} is a file; give the folder that holds the images")
    elif folder.is_dir() and not is_saved_dataset(folder):
        check_meant(FOLDER, given)
        found = load_folder(folder, asked, labelled=label_column is not None)
    elif folder.exists() or not looks_like_path(source):
        check_meant(HUB, given)
        found = load_hub(
            source,
            asked,
            image_column=image_column,
            label_column=label_column,
            streaming=streaming,
        )
    else:
        raise UserError(f"data: there is no folder {source!r}; give an existing one")
    seen, out = divided(len(found.images), found.labels, found.groups)
    if augment == "auto":
        augment = "digits" if source == "digits" else "flip"
    captions = found.captions if captioned else None
    whole = Data(
        source, found.images, found.labels, seen, out, augment, found.skipped, captions=captions
    )
    return replace(whole, buckets=_parts(whole, found.again(seen)))


def _parts(whole: Data, buckets: Sequence[Bucket]) -> tuple[Data, ...]:
    """Data of each shape, of seen images alone; nothing if all are of one."""
    if not buckets:
        return ()
    nothing = np.empty(0, np.int64)
    elsewhere = np.concatenate([bucket.rows for bucket in buckets])
    parts = [replace(whole, seen=np.setdiff1d(whole.seen, elsewhere), held_out=nothing)]
    for bucket in buckets:
        parts.append(
            replace(
                whole,
                images=bucket.images,
                labels=None if whole.labels is None else whole.labels[bucket.rows],
                captions=whole.captions and tuple(whole.captions[row] for row in bucket.rows),
                seen=np.arange(len(bucket.rows)),
                held_out=nothing,
            )
        )
    return tuple(part for part in parts if len(part.seen))


def _picked(found: Loaded, limit: int | None) -> Loaded:
    """At most ``limit`` of images with classes and captions."""
    rows = pick(len(found.images), limit)
    assert found.labels is not None
    assert found.captions is not None
    captions = tuple(found.captions[row] for row in rows)
    return Loaded(found.images[rows], found.labels[rows], captions)


def _check(channels: int, held_out: float, split_by: str, augment: str, limit: int | None) -> None:
    if channels not in (1, 3):
        raise UserError(f"channels {channels}: cannot be made from images; use 1 or 3")
    if not 0 <= held_out < 1:
        raise UserError(f"data.held_out = {held_out}: is no share; use one from 0 to below 1")
    if split_by not in ("file", "folder"):
        raise UserError(f"data.split_by = {split_by}: is not known; use 'file' or 'folder'")
    if augment not in ("auto", *AUGMENTATIONS):
        known = ", ".join(("auto", *AUGMENTATIONS))
        raise UserError(f"data.augment = {augment}: is not known; use one of {known}")
    if limit is not None and limit < 1:
        raise UserError(f"data.limit = {limit}: leaves no images; use 1 or more")


def to_float(images: np.ndarray) -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1


def to_latents(kept: np.ndarray) -> Tensor:
    """float16 to float32 (B, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(kept)).float()


def mirrored(data: Data, rows: np.ndarray, where: Tensor) -> Tensor:
    """These images, float32 (B, C, H, W) in [-1, 1]; mirrored where ``where`` (B,) says so."""
    images = to_float(data.images[rows])
    return torch.where(where[:, None, None, None], images.flip(-1), images)


def of_one_shape(data: Data, generator: torch.Generator) -> Data:
    """The data, or of their buckets one at random, with as much chance as it has images."""
    if not data.buckets:
        return data
    ends = np.cumsum([len(part.seen) for part in data.buckets])
    drawn = int(torch.randint(int(ends[-1]), (), generator=generator))
    return data.buckets[int(np.searchsorted(ends, drawn, side="right"))]


def batch(
    data: Data, size: int, generator: torch.Generator
) -> tuple[Tensor, np.ndarray, Tensor | None]:
    """Random seen images, augmented, float32 (size, C, H, W) in [-1, 1], and their rows (size,).

    Latents in their place where the data have them; then which are of mirrored images (size,), else
    None.

    All randomness comes from the CPU generator, so that seeding it by (seed, stage, step) fixes
    the batch.
    """
    picks = data.seen[torch.randint(len(data.seen), (size,), generator=generator).numpy()]
    if data.latents is not None:
        version = torch.randint(len(data.latents), (size,), generator=generator)
        return to_latents(data.latents[version.numpy(), picks]), picks, version.bool()
    return AUGMENTATIONS[data.augment](to_float(data.images[picks]), generator), picks, None
