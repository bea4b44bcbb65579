"""A registry of npm packages in a folder, for tests without a network."""

import base64
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from fedprompt.npm import Package

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes) -> Member:
    member = tarfile.TarInfo(f"package/{name}")
    member.size = len(content)
    return member, content


def tarball(members: list[Member]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as opened:
        for member, content in members:
            opened.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def publish(root: Path, name: str, version: str, content: bytes) -> Package:
    """Put an archive where npm's registry would have it, and return it pinned."""
    folder = root / name / "-"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name.split('/')[-1]}-{version}.tgz").write_bytes(content)
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Package(name=name, version=version, integrity=f"sha512-{digest}", size=len(content))


def publish_files(root: Path, name: str, version: str, files: Mapping[str, bytes]) -> Package:
    return publish(root, name, version, tarball([file(*item) for item in files.items()]))
