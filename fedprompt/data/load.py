"""Load the images of a run, checked, or those of one site."""

import functools
import logging
from dataclasses import dataclass

import numpy as np

from fedprompt.data.check import Examined, examine, first_copies, seen_in
from fedprompt.data.classes import listed, settle
from fedprompt.data.config import DataConfig
from fedprompt.data.image_set import ImageSet, Indices, image_set
from fedprompt.data.partition import partition
from fedprompt.data.shots import few_shot, hold_out, stratified
from fedprompt.data.sources import read
from fedprompt.data.splits import Splits
from fedprompt.errors import DataError

MAX_LEAKED_SHARE = 0.05  # of the training images: more is a mistake, such as one folder twice

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """Hold a run's images and what was found wrong with them.

    Attributes
    ----------
    copies
        int64 [training images], the first training image with the same bytes.
    skipped
        Name and reason of each image that could not be read.
    notes
        What a person should know, one line each.
    """

    train: ImageSet
    test: ImageSet
    copies: Indices
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Site:
    """Hold one site's images, to learn from and to evaluate on; either may be empty."""

    train: ImageSet
    holdout: ImageSet


def load(config: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Return the training and the test images of a run.

    Raises
    ------
    DataError
        The source is missing or broken, has fewer than two classes, a class without images (unless
        ``data.class_names`` lists it), too many unreadable images, or test images that are also in
        training.
    """
    loaded = inspect(config)
    return loaded.train, loaded.test


def site(config: DataConfig, partition_id: int, num_partitions: int) -> Site:
    """Return the images of site ``partition_id``, counted from 0; it may have none.

    One site of one is a real site with images of its own: it keeps them all. Copies of an image
    are never on both sides of the held-out share.

    Raises
    ------
    DataError
        As `load`; or there is no such site, or the images cannot be divided.
    """
    if not 0 <= partition_id < num_partitions:
        raise DataError(
            f"partition-id is {partition_id}; expected 0 to {num_partitions - 1}, because "
            f"num-partitions is {num_partitions}"
        )
    loaded = inspect(config)
    mine = _parts(config, num_partitions)[partition_id]
    kept, held = hold_out(loaded.train.labels[mine], config.holdout, config.seed)
    copies = loaded.copies[mine]
    fresh = ~np.isin(copies[held], copies[kept])
    return Site(
        train=loaded.train.subset(mine[np.sort(np.append(kept, held[~fresh]))]),
        holdout=loaded.train.subset(mine[held[fresh]]),
    )


@functools.lru_cache(maxsize=4)
def inspect(config: DataConfig) -> Loaded:
    """Load and check once a process; what was found is logged then, and kept for reports."""
    splits = read(config)
    train, test = _two_sets(splits, config)
    notes = _check_classes(train, configured=bool(config.class_names.strip()))
    train, test = _take(train, test, config)
    skipped: dict[str, str] = {}
    train, train_digests = _readable(train, config, splits.verified, skipped)
    test, test_digests = _readable(test, config, splits.verified, skipped)
    if skipped:
        first = [f"{name}: {reason}" for name, reason in skipped.items()]
        notes.append(f"{len(skipped)} images cannot be read and are skipped: {listed(first)}")
    # a split made here divides copies by chance: that is no fault of the data
    rule = "drop-all" if splits.test is None and config.leakage != "allow" else config.leakage
    kept = _separate(train, test, seen_in(train_digests, test_digests), rule, notes)
    train, copies = train.subset(kept), first_copies([train_digests[i] for i in kept])
    _note_copies(train, copies, notes)
    for note in notes:
        _log.warning("%s", note)
    return Loaded(train, test, copies, tuple(skipped.items()), tuple(notes))


@functools.lru_cache(maxsize=4)
def _parts(config: DataConfig, count: int) -> tuple[Indices, ...]:
    labels = inspect(config).train.labels
    if count == 1:
        return (np.arange(len(labels), dtype=np.int64),)
    parts = partition(
        labels,
        config.partitioner,
        count,
        config.seed,
        alpha=config.alpha,
        classes_per_client=config.classes_per_client,
        shards_per_client=config.shards_per_client,
        min_images=config.min_images,
    )
    return tuple(parts)


def _two_sets(splits: Splits, config: DataConfig) -> tuple[ImageSet, ImageSet]:
    names, place = settle(splits.classes, config.class_names, numbered=splits.numbered)
    train = image_set(names, place[splits.train.labels], splits.train.source)
    if splits.test is not None:
        return train, image_set(names, place[splits.test.labels], splits.test.source)
    kept, held = hold_out(train.labels, config.test_share, config.seed)
    return train.subset(kept), train.subset(held)


def _check_classes(train: ImageSet, *, configured: bool) -> list[str]:
    counts = train.counts()
    if not len(train):
        raise DataError("found no training images; check data.source and its folders")
    empty = [train.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty and not configured:
        raise DataError(
            f"classes without a training image: {listed(empty)}; remove them, or list the classes "
            "in data.class_names if this site simply has none"
        )
    single = [train.classes[i] for i in np.flatnonzero(counts == 1)]
    notes = [f"classes without a training image here: {listed(empty)}"] if empty else []
    return notes + ([f"classes with a single training image: {listed(single)}"] if single else [])


def _take(train: ImageSet, test: ImageSet, config: DataConfig) -> tuple[ImageSet, ImageSet]:
    if config.shots:
        train = train.subset(few_shot(train.labels, config.shots, config.seed))
    if config.limit:
        train = train.subset(stratified(train.labels, config.limit, config.seed))
    if config.test_limit:
        test = test.subset(stratified(test.labels, config.test_limit, config.seed))
    return train, test


def _readable(
    images: ImageSet, config: DataConfig, verified: bool, skipped: dict[str, str]
) -> tuple[ImageSet, list[bytes | None]]:
    """Return the images that can be read, with their digests."""
    found: Examined = examine(images, config.max_pixels, verified=verified)
    named = {images.name(index): reason for index, reason in found.reasons.items()}
    if len(named) > config.unreadable_share * len(images):
        first = [f"{name}: {reason}" for name, reason in named.items()]
        raise DataError(
            f"{len(named)} of {len(images)} images cannot be read, more than the "
            f"{config.unreadable_share:.0%} of data.unreadable_share: {listed(first)}"
        )
    skipped |= named
    kept = [index for index in range(len(images)) if index not in found.reasons]
    return images.subset(kept), [found.digests[index] for index in kept]


def _separate(
    train: ImageSet, test: ImageSet, twins: dict[int, int], rule: str, notes: list[str]
) -> list[int]:
    """Return the training images to keep, and note those that are also in the test split."""
    everything = list(range(len(train)))
    if not twins:
        return everything
    pairs = [f"{train.name(mine)} = {test.name(other)}" for mine, other in twins.items()]
    found = f"{len(twins)} training images are also in the test split: {listed(pairs)}"
    many = len(twins) > MAX_LEAKED_SHARE * len(train)
    if rule == "refuse" or (rule == "drop" and many):
        raise DataError(
            f"{found}; remove them from one of the two, or set data.leakage to "
            f"{'allow' if many else 'drop or allow'}"
        )
    if rule == "allow":
        notes.append(f"{found}; the test accuracy is too high by them")
        return everything
    notes.append(f"{found}; they are dropped from training")
    return [index for index in everything if index not in twins]


def _note_copies(train: ImageSet, copies: Indices, notes: list[str]) -> None:
    later = np.flatnonzero(copies != np.arange(len(copies)))
    if not later.size:
        return
    pairs = [f"{train.name(int(i))} = {train.name(int(copies[i]))}" for i in later]
    notes.append(f"{len(later)} training images are copies of others: {listed(pairs)}")
    torn = later[train.labels[later] != train.labels[copies[later]]]
    if torn.size:
        names = [train.name(int(i)) for i in torn]
        notes.append(f"{len(torn)} copies have another label than the first: {listed(names)}")
