"""Shapes as types: one alias for each tensor that recurs, in one vocabulary."""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Context = Float[Tensor, "length width"]  # one prompt matrix: prompt length x text width
Tokens = Int[Tensor, "classes length"]  # token ids, one row a class
TextFeatures = Float[Tensor, "classes joint"]
ImageFeatures = Float[Tensor, "batch joint"]
Pixels = UInt8[Tensor, "batch size size 3"]  # as decoded and resized
Images = Float[Tensor, "batch 3 size size"]  # normalised, as a tower takes them
Labels = Int[Tensor, " batch"]
Logits = Float[Tensor, "batch classes"]
