"""Which prompt is tuned, and how it starts."""

from typing import Literal

from pydantic import Field

from fedprompt.config import Section


class PromptConfig(Section):
    """Settings of the ``[prompt]`` section."""

    # dip = coop in form lowrank; coop = free vectors; template = zero-shot, nothing is trained
    method: Literal["dip", "coop", "template"] = "dip"
    tokens: int = Field(0, ge=0, le=64)  # prompt length n; 0 = as many as the starting words have
    rank: int = Field(1, ge=1, le=64)  # of the low-rank form, at most n
    # words to start from; empty = the words before the name in data.template; random = N(0, 0.02)
    init: str = ""
    dropout: float = Field(0.05, ge=0, lt=1)  # of A B, the light regulariser of DIP
    density_weight: float = Field(0, ge=0)  # lambda of DIP's DO: reward for information density
    tail_weight: float = Field(0, ge=0)  # lambda of DIP's PP: penalty on late singular values
    density_k: int = Field(1, ge=1)  # k of ID_k and of PP's sum over i > k
    seed: int = Field(0, ge=0, lt=2**32)  # of the start
