"""What issue and design ask of inference, and whether a run reached it."""

from benchmarks.inference_tables import Figures, Table, ratio_cell

FLOORS = {  # the best that was measured before the exporter was written, and what was asked
    "vit_b32_b1_fp32_vs_eager": 1.37,
    "vit_b32_b16_fp32_vs_eager": 1.02,
    "vit_b16_b1_fp32_vs_eager": 1.05,
    "vit_b16_b16_fp32_vs_eager": 1.02,
    "vit_b32_b1_int8_vs_eager": 3.02,
    "vit_b32_b16_int8_vs_eager": 2.09,
    "vit_b16_b1_int8_vs_eager": 2.28,
    "vit_b16_b16_int8_vs_eager": 2.17,
    "prompted_vit_b32_b1_fp32_vs_eager": 1.49,
    "prompted_vit_b32_b16_fp32_vs_eager": 1.10,
    "fp32_top1_agreement": 1.0,
    "fp16_agreement": 0.995,
}
CEILINGS = {
    "fp32_largest": 1e-3,
    "int8_loss_points": 1.0,
    "end_to_end_vs_graph_b16": 1.3,
    "classes_10000_vs_10": 1.2,
}


def goal_table(found: Figures) -> Table:
    """Return each goal with what was measured."""
    rows = [_goal(found, key, bound, least=True) for key, bound in FLOORS.items()]
    rows += [_goal(found, key, bound, least=False) for key, bound in CEILINGS.items()]
    return ["figure", "goal", "measured", "reached"], rows


def _goal(found: Figures, key: str, bound: float, *, least: bool) -> list[str]:
    reached = key in found and (found[key] >= bound if least else found[key] <= bound)
    asked = f"at {'least' if least else 'most'} {bound:g}"
    return [f"`{key}`", asked, ratio_cell(found, key), "yes" if reached else "**no**"]
