"""A plain mutator without coverage, for machines that atheris has no wheel for."""

import random
from collections.abc import Callable, Iterator, Sequence

_NOTABLE = (0, 1, 0x7F, 0x80, 0xFF)


def inputs(seeds: Sequence[bytes], longest: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds, then endlessly what a few random edits make of them."""
    yield from seeds
    draw = random.Random(seed)  # noqa: S311 (not for secrets)
    while True:
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 3, 5, 8))):
            draw.choice(_EDITS)(draw, data, seeds)
        yield bytes(data[:longest])


def _flip(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _notable(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice(_NOTABLE)


def _cut(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    begin = draw.randrange(len(data) + 1)
    del data[begin : begin + draw.randrange(1, 32)]


def _double(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    begin = draw.randrange(len(data) + 1)
    data[begin:begin] = data[begin : begin + draw.randrange(1, 64)] * draw.choice((1, 1, 2, 50))


def _insert(draw: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    begin = draw.randrange(len(data) + 1)
    data[begin:begin] = draw.randbytes(draw.randrange(1, 9))


def _splice(draw: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = draw.choice(seeds)
    begin = draw.randrange(len(data) + 1)
    data[begin:] = other[draw.randrange(len(other) + 1) :]


Edit = Callable[[random.Random, bytearray, Sequence[bytes]], None]
_EDITS: tuple[Edit, ...] = (_flip, _flip, _notable, _cut, _double, _insert, _splice)
