"""Read emoji: the same things drawn by different hands, a domain a vendor.

Classes are kinds of emoji (`KINDS`), those of which every vendor drew at least `MIN_EMOJI`. An
emoji that a vendor lacks is left out for all, and so are variants of skin tone, so that vendors
differ in drawing and in nothing else: each has one image of each emoji. Of each kind a third of the
emoji, chosen once with a fixed seed, are the test split, the same emoji for all vendors: no hand's
drawing of a test emoji is seen in training.

The images are 64-pixel PNG files (``fluent``: 256-pixel WebP) with transparency, which the one
decode rule lays on white. They are fetched at the first call from npm's registry (`VENDORS`, 246 MB
of archives), checked, and kept in the cache, 20 MB, with the vendors' licences beside them.
"""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprompt.data.cache import cache_folder
from fedprompt.data.emoji_kinds import KINDS, Emoji, read_catalogue
from fedprompt.data.emoji_vendors import CATALOGUE, VENDORS, Vendor
from fedprompt.data.image_set import Indices
from fedprompt.data.shots import hold_out
from fedprompt.data.splits import Split, Splits
from fedprompt.errors import DataError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.npm import fetch_files
from fedprompt.storage import write_atomic

NAME = "emoji"
MIN_EMOJI = 12  # of a kind
TEST_SHARE = 1 / 3  # of the emoji of a kind
_SEED = 0  # of the test split
_IMAGES = "images.zip"
_CREDIT = "CREDIT.txt"
_MAX_KEPT_BYTES = 64 << 20  # of one vendor
_PLAIN = re.compile(r"(?!.*1f3f[b-f]|1f1[ef])[0-9a-f-]+\.\w+")  # no skin tone, no nation's flag

_Files = dict[str, bytes]


@dataclass(frozen=True, eq=False)
class _Drawings:
    """Give images that are held in memory; they are small."""

    contents: Sequence[bytes]
    names: Sequence[str]

    def content(self, index: int) -> bytes:
        return self.contents[index]

    def name(self, index: int) -> str:
        return self.names[index]


def read_emoji() -> Splits:
    """Return training and test images of all vendors, fetched at the first call.

    Raises
    ------
    DataError
        A vendor's images are not in the cache and could not be fetched.
    """
    drawn = {vendor.name: _images(vendor) for vendor in VENDORS}
    emoji = _of_all(read_catalogue(drawn[VENDORS[0].name][CATALOGUE]), drawn)
    classes = tuple(kind for kind in KINDS if any(one.kind == kind for one in emoji))
    labels = np.array([classes.index(one.kind) for one in emoji], dtype=np.int64)
    train, test = (
        _split(emoji, labels, places, drawn) for places in hold_out(labels, TEST_SHARE, _SEED)
    )
    return Splits(classes, True, train, test, verified=True, domain_names=tuple(drawn))


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return one SHA-256 over the names and bytes of files."""
    return sha256_bytes(canonical_json({name: sha256_bytes(files[name]) for name in files}))


def _of_all(catalogue: Sequence[Emoji], drawn: Mapping[str, _Files]) -> list[Emoji]:
    """Return the emoji that every vendor drew, of kinds with enough of them."""
    common = [one for one in catalogue if all(v.file(one.codes) in drawn[v.name] for v in VENDORS)]
    kinds = [one.kind for one in common]
    return [one for one in common if kinds.count(one.kind) >= MIN_EMOJI]


def _split(
    emoji: Sequence[Emoji], labels: Indices, places: Indices, drawn: Mapping[str, _Files]
) -> Split:
    """Return the drawings of some emoji, vendor after vendor."""
    chosen = [(v, emoji[place]) for v in VENDORS for place in places]
    contents = [drawn[v.name][v.file(one.codes)] for v, one in chosen]
    names = [f"{v.name}/{v.file(one.codes)} ({one.name})" for v, one in chosen]
    domains = np.repeat(np.arange(len(VENDORS)), len(places)).astype(np.int64)
    return Split(np.tile(labels[places], len(VENDORS)), _Drawings(contents, names), domains)


def _images(vendor: Vendor) -> _Files:
    folder = cache_folder() / NAME / vendor.name
    files = _unpacked(folder / _IMAGES)
    if digest_of(files) != vendor.sha256:  # also when there are none yet
        files = _fetch(vendor, folder)
    return files


def _fetch(vendor: Vendor, folder: Path) -> _Files:
    try:
        found = fetch_files(vendor.package, lambda name: _is_wanted(vendor, name))
        papers = {name: found.pop(name) for name in vendor.papers}
        files = {name.removeprefix(vendor.folder): content for name, content in found.items()}
        if digest_of(files) != vendor.sha256:
            raise DataError(
                f"the images have the hash {digest_of(files)}; expected {vendor.sha256}"
            )
    except (DataError, KeyError) as error:
        raise DataError(
            f"the emoji of {vendor.name} could not be fetched: {error}. Connect to the internet, "
            f"copy {folder} from a machine that has it, or set data.source to images of your own"
        ) from error
    for name, content in papers.items():
        write_atomic(folder / name, content)
    write_atomic(folder / _CREDIT, f"{vendor.credit}.\n".encode())
    write_atomic(folder / _IMAGES, _packed(files))
    return files


def _is_wanted(vendor: Vendor, name: str) -> bool:
    folder, _, file = name.rpartition("/")
    if name in (*vendor.papers, *vendor.extra):
        return True
    return f"{folder}/" == vendor.folder and bool(_PLAIN.fullmatch(file))


def _packed(files: _Files) -> bytes:
    """Return a zip archive of files as they are: images do not shrink."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in sorted(files):
            opened.writestr(zipfile.ZipInfo(name), files[name])
    return archive.getvalue()


def _unpacked(path: Path) -> _Files:
    """Return the files of an archive that `_packed` wrote; none of a missing or damaged one."""
    try:
        if path.stat().st_size > _MAX_KEPT_BYTES:
            return {}
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                return {}  # not ours; what is stored as it is cannot swell
            return {member.filename: archive.read(member) for member in members}
    except Exception:  # zipfile raises a dozen types on damaged bytes
        return {}
