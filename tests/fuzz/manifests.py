"""Lists of images (CSV, JSON lines, CoOp's splits) and lists of class names."""

from fedprompt.data.classes import settle
from fedprompt.data.manifest import read_manifest
from tests.fuzz.scratch import folder

CAP = 1 << 16
_KINDS = ("list.csv", "list.jsonl", "list.json")
_NAMES = ("names.txt", "names.json")


def feed(data: bytes) -> None:
    """Read a manifest of the kind that the first byte names; no path may leave its folder."""
    place = folder("manifest")
    path = place / _KINDS[data[0] % 3 if data else 0]
    path.write_bytes(data[1:])
    splits = read_manifest(path)
    for split in (splits.train, splits.test):
        for name in [] if split is None else split.source.paths:
            if ".." in name.split("/") or name.startswith("/"):
                raise AssertionError(f"the path {name!r} leaves the folder")


def feed_names(data: bytes) -> None:
    """Settle class names from a file, or given in words (F33)."""
    kind = data[0] % 3 if data else 0
    configured = data[1:].decode("utf-8", "surrogateescape")
    if kind < 2:
        path = folder("names") / _NAMES[kind]
        path.write_bytes(data[1:])
        configured = str(path)
    elif configured.strip().endswith((".txt", ".json")):
        return  # a path of the fuzzer's own choice
    settle(("cat", "dog_house"), configured, numbered=bool(len(data) % 2))


def seeds() -> list[bytes]:
    """Return honest manifests of each kind and the ways out that are known."""
    rows = "a/1.png,cat,train\nb/2.png,dog,test\n"
    csv = "\0path,label,split\n" + rows
    lines = '\1{"path": "1.png", "label": "cat"}\n{"path": "2.png", "label": 3, "split": "val"}\n'
    coop = '\2{"train": [["1.png", 0, "cat"], ["2.png", 1, "dog"]], "test": [["3.png", 1, "dog"]]}'
    out = '\0path,label\n"../../etc/passwd",cat\n/etc/passwd,dog\n"a\x00",x\n'
    return [text.encode() for text in (csv, lines, coop, out, '\2{"train": [], "val": [[]]}')]


def name_seeds() -> list[bytes]:
    """Return class lists of each kind."""
    made = ["\0cat\ndog house\n", '\1["cat", "dog house"]', '\1{"cat": "a", "dog_house": "b"}']
    return [text.encode() for text in (*made, "\2cat,dog house", "\2cat,cat,,\x01")]
