"""How a site trains between two rounds."""

from typing import Literal

from pydantic import Field

from fedprompt.settings.section import Section


class FitConfig(Section):
    """Settings of the ``[fit]`` section."""

    optimiser: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = Field(2e-2, ge=0)  # 0 = nothing is learned
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    schedule: Literal["cosine", "constant"] = "cosine"  # over all rounds of the run
    warmup: float = Field(0.05, ge=0, lt=1)  # share of the run over which the rate rises
    epochs: int = Field(1, ge=1)  # passes over the site's images in a round
    batch: int = Field(32, ge=1)  # images in a step
    rank: int = Field(0, ge=0)  # this site's own rank (rule product); 0 = the server's
    threads: int = Field(1, ge=1)  # CPU threads; equal numbers give equal bytes on every engine
    encode_batch: int = Field(64, ge=1)  # images encoded at a time
    cache: bool = True  # keep image features on disk
