"""The 50 natural classes that the embedded backbone never saw, unpacked into an image folder.

Tiny-ImageNet's shards hold ``train/WNID/NAME.JPEG`` and ``val/WNID/NAME.JPEG``; the class file
names 200 classes, of which the last 50 were kept out of the backbone's training.
"""

import json
import tarfile
from pathlib import Path

from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic

UNSEEN = 50  # the last classes of the class file
CLASS_FILE = "tiny-imagenet-classes.json"
_NAMES, _DONE = "classes.json", "unpacked"
_PATTERNS = {"train": "tiny-imagenet-train-*.tar", "test": "tiny-imagenet-val.tar"}


def unpack(data: Path, folder: Path) -> Flat:
    """Unpack the unseen classes' images once; return the ``[data]`` settings that name them.

    Parameters
    ----------
    data
        Folder of the shards and of the class file.
    folder
        Where ``train/``, ``test/`` and the list of names are put.
    """
    names = unseen(data)
    if not (folder / _DONE).is_file():
        for split, pattern in _PATTERNS.items():
            for shard in sorted(data.glob(pattern)):
                _unpack(shard, folder / split, names)
        write_atomic(folder / _NAMES, json.dumps(names).encode())
        write_atomic(folder / _DONE, b"")
    return {"data.source": str(folder), "data.class_names": str(folder / _NAMES)}


def unseen(data: Path) -> dict[str, str]:
    """Map the unseen classes' folder names to the first synonym of each, in the file's order."""
    names = json.loads((data / CLASS_FILE).read_text())
    last = list(names.items())[-UNSEEN:]
    return {wnid: synonyms.split(", ")[0] for wnid, synonyms in last}


def _unpack(shard: Path, folder: Path, names: dict[str, str]) -> None:
    with tarfile.open(shard) as tar:
        for member in tar:
            wnid = member.name.split("/")[1]
            if wnid in names and (stream := tar.extractfile(member)):
                path = folder / wnid / Path(member.name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream.read())
