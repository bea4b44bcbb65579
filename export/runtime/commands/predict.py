"""``fedprompt predict``: name what a classifier file sees in some images, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedprompt.errors import DataError
from fedprompt.options import JsonOption, show

if TYPE_CHECKING:
    from export.runtime import Classifier, OpenClassifier, Prediction


def predict(
    model: Annotated[
        Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    provider: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, cuda, openvino, coreml, directml or cpu; by default the best."
        ),
    ] = None,
    add_class: Annotated[
        list[str] | None,
        typer.Option(help="One more class for these images, of a bundle; repeatable."),
    ] = None,
    pixels: Annotated[int, typer.Option(help="Largest image, width times height.")] = 64_000_000,
    json: JsonOption = False,
) -> None:
    """Name the most probable classes of each image.

    An image that cannot be read is reported, the others are still classified.
    """
    classifier = _opened(model, provider, add_class or [], pixels)
    found, errors = _predict_each(classifier, images, top_k)
    report = {
        "model": str(model),
        "providers": list(classifier.providers),
        "results": [prediction.to_dict() for prediction in found],
        "errors": errors,
    }
    shown = [f"{model} on {classifier.providers[0]}", *(_line(p) for p in found)]
    show(report, "\n".join(shown), as_json=json)
    if errors:
        listed = "; ".join(error["error"] for error in errors)
        raise DataError(f"{len(errors)} of {len(images)} images could not be read: {listed}")


def _opened(
    model: Path, provider: str | None, added: list[str], max_pixels: int
) -> "Classifier | OpenClassifier":
    """Return what serves a file or a bundle, with more classes."""
    from export.runtime import Classifier
    from export.runtime.open import open_exported

    classifier = open_exported(model, provider=provider, max_pixels=max_pixels)
    for name in added:
        if isinstance(classifier, Classifier):
            raise DataError(
                f"{model} has its classes inside and takes no --add-class; give a bundle, which "
                "`fedprompt export --open-vocabulary` writes"
            )
        classifier.add_class(name)
    return classifier


def _predict_each(
    classifier: "Classifier | OpenClassifier", images: list[Path], top_k: int, batch_size: int = 16
) -> tuple[list["Prediction"], list[dict[str, str]]]:
    """Predict in batches; a batch with a bad image is taken one by one."""
    found: list[Prediction] = []
    errors: list[dict[str, str]] = []
    for begin in range(0, len(images), batch_size):
        part = images[begin : begin + batch_size]
        try:
            found += classifier.predict(part, top_k=top_k)
        except DataError:
            for path in part:
                try:
                    found += classifier.predict([path], top_k=top_k)
                except DataError as error:
                    errors.append({"image": str(path), "error": str(error)})
    return found, errors


def _line(prediction: "Prediction") -> str:
    ranked = zip(prediction.classes, prediction.probabilities, strict=True)
    line = f"{prediction.name}: " + ", ".join(f"{name} {share:.1%}" for name, share in ranked)
    # names are a stranger's: a line break or a change of direction would say something else
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
