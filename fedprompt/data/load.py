"""Load the images of a run, checked, or those of one site."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedprompt.data.check import (
    Examined,
    examine,
    first_copies,
    note_copies,
    note_doubts,
    seen_in,
    separate,
)
from fedprompt.data.classes import MAX_LISTED, listed, note_names, settle, spoken
from fedprompt.data.decode import Doubt
from fedprompt.data.domain_partition import NAME as DOMAIN
from fedprompt.data.halves import half_of
from fedprompt.data.image_set import ImageSet, Indices, image_set
from fedprompt.data.partition import partition
from fedprompt.data.shots import few_shot, hold_out, stratified
from fedprompt.data.sources import read
from fedprompt.data.splits import Split, Splits
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig

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
class Images:
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


def own(config: DataConfig) -> Images:
    """Return all images of a real site: the training split of its source, a part held out.

    Raises
    ------
    DataError
        As `load`.
    """
    return _held_out(config, np.arange(len(inspect(config).train), dtype=np.int64))


def share(config: DataConfig, partition_id: int, num_partitions: int) -> Images:
    """Return the images of simulated site ``partition_id``, counted from 0; it may have none.

    Copies of an image are never on both sides of the held-out share.

    Raises
    ------
    DataError
        As `load`; or there is no such site, or the images cannot be divided.
    """
    check_site(partition_id, num_partitions)
    return _held_out(config, _parts(config, num_partitions)[partition_id])


def site_sizes(config: DataConfig, count: int) -> dict[int, int]:
    """Return how many images each of ``count`` simulated sites has, held-out ones among them.

    Raises
    ------
    DataError
        As `load`; or the images cannot be divided so.
    """
    return {site: len(part) for site, part in enumerate(_parts(config, count))}


def check_site(partition_id: int, num_partitions: int) -> None:
    """Check that a simulated site exists.

    Raises
    ------
    DataError
        Sites are counted from 0 to ``num_partitions - 1``.
    """
    if not 0 <= partition_id < num_partitions:
        raise DataError(
            f"partition-id is {partition_id}; expected 0 to {num_partitions - 1}, because "
            f"num-partitions is {num_partitions}"
        )


def _held_out(config: DataConfig, mine: Indices) -> Images:
    loaded = inspect(config)
    kept, held = hold_out(loaded.train.labels[mine], config.holdout, config.seed)
    copies = loaded.copies[mine]
    fresh = ~np.isin(copies[held], copies[kept])
    return Images(
        train=loaded.train.subset(mine[np.sort(np.append(kept, held[~fresh]))]),
        holdout=loaded.train.subset(mine[held[fresh]]),
    )


@functools.lru_cache(maxsize=4)
def inspect(config: DataConfig) -> Loaded:
    """Load and check once a process; what was found is logged then, and kept for reports."""
    splits = read(config)
    try:
        sets = _two_sets(splits, config)
        train, test = (half_of(part, config.subsample_classes) for part in sets)
        about = note_names(train.classes)
        about += _check_classes(
            train, splits.passed_over, configured=bool(config.class_names.strip())
        )
    except DataError as error:  # how the source was understood may be the reason
        raise DataError("; ".join([str(error), *splits.notes])) from None
    notes = [*splits.notes, *about]
    train, test = _take(train, test, config)
    counts = len(train), len(test)
    doubts: dict[Doubt, list[str]] = {}
    train, train_digests, bad = _readable(train, config, splits.verified, doubts)
    test, test_digests, bad_test = _readable(test, config, splits.verified, doubts)
    note_doubts(doubts, config.white_level, notes)
    skipped = bad | bad_test
    if splits.test is None:  # a split made here spreads the bad files by chance
        _refuse_many(skipped, sum(counts), config)
    else:
        _refuse_many(bad, counts[0], config)
        _refuse_many(bad_test, counts[1], config)
    if skipped:
        first = [f"{name}: {reason}" for name, reason in skipped.items()]
        notes.append(f"{len(skipped)} images cannot be read and are skipped: {listed(first)}")
    # a split made here divides copies by chance: that is no fault of the data
    rule = "drop-all" if splits.test is None and config.leakage != "allow" else config.leakage
    kept = separate(train, test, seen_in(train_digests, test_digests), rule, notes)
    train, copies = train.subset(kept), first_copies([train_digests[i] for i in kept])
    note_copies(train, copies, notes)
    for note in notes:
        _log.warning("%s", note)
    return Loaded(train, test, copies, tuple(skipped.items()), tuple(notes))


@functools.lru_cache(maxsize=4)
def _parts(config: DataConfig, count: int) -> tuple[Indices, ...]:
    train = inspect(config).train
    if count == 1 and config.partitioner != DOMAIN:  # which refuses one site of several domains
        return (np.arange(len(train), dtype=np.int64),)
    parts = partition(
        train.labels,
        config.partitioner,
        count,
        config.seed,
        alpha=config.alpha,
        classes_per_client=config.classes_per_client,
        shards_per_client=config.shards_per_client,
        min_images=config.min_images,
        domains=train.domains,
        domain_names=train.domain_names,
    )
    return tuple(parts)


def _two_sets(splits: Splits, config: DataConfig) -> tuple[ImageSet, ImageSet]:
    names, place = settle(splits.classes, config.class_names, numbered=splits.numbered)

    def whole(split: Split) -> ImageSet:
        labels, domains = place[split.labels], split.domains
        white = config.white_level
        return image_set(names, labels, split.source, domains, splits.domain_names, white)

    train = whole(splits.train)
    if splits.test is not None:
        return train, whole(splits.test)
    kept, held = hold_out(train.labels, config.test_share, config.seed)
    return train.subset(kept), train.subset(held)


def _check_classes(
    train: ImageSet, passed_over: Mapping[str, str], *, configured: bool
) -> list[str]:
    counts = train.counts()
    if not len(train):
        raise DataError("found no training images; check data.source and its folders")
    empty = [train.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty and not configured:
        lost = [f"{name!r}: {why}" for name, why in passed_over.items() if spoken(name) in empty]
        why = f" ({'; '.join(lost[:MAX_LISTED])})" if lost else ""
        raise DataError(
            f"classes without a training image: {listed(empty)}{why}; remove them, or list the "
            "classes in data.class_names if this site simply has none"
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
    images: ImageSet, config: DataConfig, verified: bool, doubts: dict[Doubt, list[str]]
) -> tuple[ImageSet, list[bytes | None], dict[str, str]]:
    """Return the images that can be read, their digests, and why the others cannot, by name.

    ``doubts`` gets the names of those that may be meant in another way.
    """
    found: Examined = examine(images, config.max_pixels, verified=verified)
    for doubt, places in found.doubts.items():
        doubts.setdefault(doubt, []).extend(map(images.name, places))
    named = {images.name(index): reason for index, reason in found.reasons.items()}
    kept = [index for index in range(len(images)) if index not in found.reasons]
    return images.subset(kept), [found.digests[index] for index in kept], named


def _refuse_many(bad: dict[str, str], count: int, config: DataConfig) -> None:
    if len(bad) > config.unreadable_share * count:
        first = [f"{name}: {reason}" for name, reason in bad.items()]
        raise DataError(
            f"{len(bad)} of {count} images cannot be read, more than the "
            f"{config.unreadable_share:.0%} of data.unreadable_share: {listed(first)}"
        )
