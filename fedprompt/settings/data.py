"""State where images come from, how many are taken and how they are divided among sites."""

from typing import Literal

from pydantic import Field, field_validator

from fedprompt.data.decode import MAX_PIXELS, MAX_WHITE, PILLOW_MAX_PIXELS
from fedprompt.data.halves import Half
from fedprompt.data.partition import NAMES as PARTITIONERS
from fedprompt.settings.section import Place, Section


class DataConfig(Section):
    """Settings of the ``[data]`` section."""

    # "fashion-mnist"; "emoji" (four domains); a folder of images; a .csv, .jsonl or
    # split_zhou_*.json manifest; a folder written by datasets' save_to_disk; or
    # "hf:owner/name[:configuration]" on the hub
    source: Place = "fashion-mnist"
    root: Place = ""  # folder that a manifest's paths start at and stay in; "" = the manifest's own
    image_column: str = ""  # of a Hugging Face dataset; "" = its only image column
    # of a Hugging Face dataset, "" = its only class column; of a manifest, "" = label
    label_column: str = ""
    # class names with commas between, or a .txt (one a line) or .json file (a list, or
    # {"label in the data": "name in the prompt"}); "" = as the data has them
    class_names: Place = ""
    # classes that take part: base = the first half of the list, new = the second (CoCoOp's)
    subsample_classes: Half = "all"
    template: str = "a photo of a {}."  # "{}" is replaced by a class name
    shots: int = Field(0, ge=0)  # images of each class taken from the training split; 0 = all
    limit: int = Field(0, ge=0)  # images taken from the training split, classes kept in share
    test_limit: int = Field(0, ge=0)  # the same of the test split
    test_share: float = Field(0.2, ge=0, lt=1)  # of a source that has no test split of its own
    holdout: float = Field(0.2, ge=0, lt=1)  # share of a site's images kept for its evaluation
    # iid, dirichlet, inner-dirichlet, pathological, shard, size, linear, square, exponential;
    # domain: a site has images of one domain; disjoint: no class lies at two sites
    partitioner: str = "dirichlet"
    alpha: float = Field(0.3, ge=0.001, le=1e6)  # Dirichlet concentration: small is uneven
    classes_per_client: int = Field(2, ge=1)  # of the pathological partitioner
    shards_per_client: int = Field(2, ge=1)  # of the shard partitioner
    min_images: int = Field(0, ge=0)  # least images a site may get from the Dirichlet partitioner
    clients: int = Field(10, ge=1)  # sites of a simulation
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)  # of one image, at most
    # level of 16-bit grey that is white, such as 4095 for 12 bits; 0 = the highest of the type
    white_level: int = Field(0, ge=0, le=MAX_WHITE)
    unreadable_share: float = Field(0.05, ge=0, lt=1)  # images skipped at most before refusing
    # training images whose bytes are also in the test split: dropped from training (more than 5 %
    # are refused), refused at once, or allowed
    leakage: Literal["drop", "refuse", "allow"] = "drop"
    seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("partitioner")
    @classmethod
    def _known_partitioner(cls, name: str) -> str:
        if name not in PARTITIONERS:
            raise ValueError(f"expected one of {', '.join(PARTITIONERS)}")
        return name

    @field_validator("template")
    @classmethod
    def _one_place_for_the_name(cls, template: str) -> str:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise ValueError(
                'expected text with "{}" once and no other braces, such as "a photo of a {}."'
            )
        return template
