"""The joint space: where the teacher's features and the classes of ImageNet lie.

An image lies at ``axes @ (feature - centre)``. The centre is what all images share. It depends on
the size that the teacher looks at, and is taken half and half from two kinds of pictures: large
ones, whose mean feature is written in the teacher's last batch normalisation, and the small ones
of Tiny-ImageNet, enlarged.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.embedded_clip.data import load_split, trained_only
from tools.embedded_clip.targets import class_vectors, principal_axes
from tools.embedded_clip.teacher import features

JOINT = 256
SIZES = (160, 224)  # pixels
SAMPLE = 500  # small pictures for the centre


@dataclass(frozen=True, kw_only=True)
class JointSpace:
    """Axes ``(joint, features)``, ImageNet's classes ``(1000, joint)``, centres by size."""

    axes: Tensor
    classes: Tensor
    centres: dict[int, Tensor]

    def place(self, values: Tensor, size: int) -> Tensor:
        """Return the unit vectors ``(n, joint)`` of features ``(n, features)``."""
        return F.normalize((values.float() - self.centres[size]) @ self.axes.T, dim=1)


def usual_feature(teacher: nn.Module) -> Tensor:
    """Return the mean feature ``(1280,)`` of the pictures that the teacher learned from.

    Its last normalisation leaves each channel with mean b and deviation g; taken as normal, behind
    ReLU6 it has the mean E min(max(b + g z, 0), 6), integrated here.
    """
    norm = teacher.get_submodule("bn2")
    shift, scale = norm.get_parameter("bias"), norm.get_parameter("weight")
    z = torch.linspace(-5, 5, 2001)
    density = (-z.square() / 2).exp()
    values = (shift.float()[:, None] + scale.float().abs()[:, None] * z).clamp(0, 6)
    return (values * density / density.sum()).sum(dim=1).detach()


def cache_joint(work: Path, teacher: nn.Module) -> JointSpace:
    """Measure the centres, once, and return the joint space."""
    target = work / "joint.npz"
    classifier = teacher.get_parameter("classifier.weight").detach().float()
    axes = principal_axes(classifier, JOINT)
    if not target.exists():
        images, _ = trained_only(*load_split(work, "train"))
        few = images[:: max(1, len(images) // SAMPLE)]
        usual, centres = usual_feature(teacher), {}
        for size in SIZES:
            seen = torch.cat([features(teacher, batch, size) for batch in few.split(32)])
            centres[str(size)] = ((usual + seen.float().mean(dim=0)) / 2).numpy()
        np.savez(target, **centres)
    centres = {int(size): torch.from_numpy(row) for size, row in np.load(target).items()}
    return JointSpace(axes=axes, classes=class_vectors(classifier, axes), centres=centres)
