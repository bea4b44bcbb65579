"""Shapes as types: one alias for each tensor that recurs, in one vocabulary."""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Context = Float[Tensor, "length width"]  # one prompt matrix: prompt length x tower width
TextTokens = Float[Tensor, "layers length width"]  # one matrix for each prompted text block
VisualTokens = Float[Tensor, "layers length vision_width"]  # the same of the image tower
Activations = Float[Tensor, "batch tokens vision_width"]  # entering a block of the image tower
Tokens = Int[Tensor, "classes length"]  # token ids, one row a class
Places = Int[Tensor, "classes positions"]  # row of a context at each token's place, -1 = none
TextFeatures = Float[Tensor, "classes joint"]
DomainWeights = Float[Tensor, "batch domains"]  # of an image, of sum one
DomainVectors = Float[Tensor, "domains classes joint"]  # class vectors, one set a domain
ImageFeatures = Float[Tensor, "batch joint"]
Pixels = UInt8[Tensor, "batch size size 3"]  # as decoded and resized
UnitPixels = Float[Tensor, "batch 3 size size"]  # the same on the scale 0 to 1, channels first
Images = Float[Tensor, "batch 3 size size"]  # normalised, as a tower takes them
Labels = Int[Tensor, " batch"]
Logits = Float[Tensor, "batch classes"]
