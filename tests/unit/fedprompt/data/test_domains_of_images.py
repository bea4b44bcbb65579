from collections.abc import Callable
from pathlib import Path

import pytest

from fedprompt.data.load import inspect, load, own, share
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig

Encode = Callable[..., bytes]


@pytest.fixture
def scans(tmp_path: Path, encode: Encode) -> Path:
    """Write twelve images a hospital, of two classes, and their manifest."""
    lines = ["path,label,domain"]
    for number in range(36):
        (tmp_path / f"{number}.png").write_bytes(encode(number + 1))
        label, domain = ("cat", "owl")[number % 2], ("ulm", "bern", "graz")[number // 12]
        lines.append(f"{number}.png,{label},{domain}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    return tmp_path / "m.csv"


def config(source: Path, **changes: object) -> DataConfig:
    usual = {"source": str(source), "partitioner": "domain", "test_share": 0}
    return DataConfig.model_validate(usual | changes)


def test_a_site_has_images_of_its_domain_only(scans: Path) -> None:
    settings = config(scans)
    names = inspect(settings).train.domain_names
    assert names == ("bern", "graz", "ulm")
    truth = {f"{n}.png": ("ulm", "bern", "graz")[n // 12] for n in range(36)}
    seen: list[str] = []
    for site in range(7):
        images = share(settings, site, 7)
        domain = site % 3
        for part in (images.train, images.holdout):
            assert part.domain_names == names
            assert set(part.domains.tolist()) == {domain}
            found = [part.name(i) for i in range(len(part))]
            assert {truth[name] for name in found} == {names[domain]}
            seen += found
    assert sorted(seen) == sorted(truth)


def test_the_test_images_know_their_domains(scans: Path) -> None:
    train, test = load(config(scans, test_share=0.25, partitioner="iid"))
    assert (len(train), len(test)) == (27, 9)
    order = {"ulm": 2, "bern": 0, "graz": 1}
    for images in (train, test):
        numbers = [int(images.name(i).removesuffix(".png")) for i in range(len(images))]
        expected = [order[("ulm", "bern", "graz")[n // 12]] for n in numbers]
        assert images.domains.tolist() == expected


def test_a_real_site_keeps_all_its_domains(scans: Path) -> None:
    mine = own(config(scans))
    assert len(mine.train) + len(mine.holdout) == 36
    assert set(mine.train.domains.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("site", "sites", "message"),
    [
        (3, 3, "partition-id is 3; expected 0 to 2"),
        (0, 2, r"cannot give 3 domains \(bern, graz, ulm\) to 2 sites"),
        (0, 1, "to 1 sites"),
    ],
)
def test_a_site_without_one_domain_is_named(
    scans: Path, site: int, sites: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        share(config(scans), site, sites)


def test_images_of_no_domain(scans: Path) -> None:
    rows = [line.rsplit(",", 1)[0] for line in scans.read_text().splitlines()]
    (scans.parent / "plain.csv").write_text("\n".join(rows))
    settings = config(scans.parent / "plain.csv")
    train = inspect(settings).train
    assert (train.domain_names, train.domains.shape) == ((), (0,))
    with pytest.raises(DataError, match="belong to no domains"):
        share(settings, 0, 3)
