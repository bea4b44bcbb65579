"""Write ten Fashion-MNIST test images as PNG files, one of each class, to have photos to classify.

Usage: python examples/save_photos.py FOLDER
"""

import sys
from pathlib import Path

from PIL import Image

from fedprompt.data.load import load
from fedprompt.settings.data import DataConfig


def main(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    _, test = load(DataConfig(test_limit=100))
    for label, name in enumerate(test.classes):
        index = int((test.labels == label).nonzero()[0][0])
        file = folder / f"{name.lower().replace(' ', '-').replace('/', '-')}.png"
        Image.fromarray(test.pixels(index)).save(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
