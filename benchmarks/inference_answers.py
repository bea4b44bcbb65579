"""How far each precision answers from torch, with trained weights on labelled images."""

from benchmarks.inference_speed import RECIPES, Figures
from benchmarks.subject import Subject, open_session
from export.parity.check import SEED, reference_logits, run_graph
from export.parity.compare import PROBES, compare_probes, probe_images

IMAGES = 5_000


def agreement(subject: Subject) -> Figures:
    """Compare every precision with torch on the subject's images and on the exporter's probes."""
    probes = probe_images(SEED, PROBES, subject.clip.preprocessing.size)
    expected = reference_logits(subject.clip, subject.constants, probes)
    found: Figures = {"images": len(subject.real.pictures), "probes": PROBES}
    for name, recipe in RECIPES.items():
        session = open_session(subject.graph(recipe))
        parity = subject.parity(session, recipe.precision)
        probed = compare_probes(run_graph(session, probes), expected, recipe.precision)
        found |= {
            f"{name}_agreement": parity.agreement,
            f"{name}_largest": max(parity.largest, probed.largest),
            f"{name}_probes_agreement": probed.agreement,
            f"{name}_loss_points": 0 + 100 * (parity.loss or 0),
        }
    return found
