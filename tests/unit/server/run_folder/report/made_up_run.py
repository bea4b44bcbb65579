"""A run's folder as the server, the site and the artefact leave it, over made-up numbers."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedprompt.artefact import Artefact
from fedprompt.identity import canonical_json, sha256_arrays
from fedprompt.round_record import RoundRecord
from server.run_folder import run_status
from tests import round_lines

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle boot")  # fmt: skip
RUN = "a1" * 32


def verdict(site: int | None, accepted: bool, *reasons: str, detail: str = "") -> dict[str, Any]:
    node = 99 if site is None else 1000 + site
    found = {"site": site, "node": node, "accepted": accepted, "reasons": list(reasons)}
    return found | {"detail": detail}


def lines(rounds: int = 10, sites: int = 10, late: int = 7, small: int = 4) -> list[dict[str, Any]]:
    """Return a record; site ``late`` joins in round 3, site ``small`` has 3 held-out images."""
    return [_line(r, rounds, sites, late, small) for r in range(rounds + 1)]


def _line(r: int, rounds: int, sites: int, late: int, small: int) -> dict[str, Any]:
    there = [s for s in range(sites) if s != late or r >= 3]
    scores = {
        str(s): {
            "accuracy": _accuracy(s, r, 3 if s == small else 40 + 7 * s),
            "nll": 0.8,
            "examples": 3 if s == small else 40 + 7 * s,
        }
        for s in there
    }
    total = sum(score["examples"] for score in scores.values())
    line: dict[str, Any] = {
        "round": r,
        "accuracy": sum(s["accuracy"] * s["examples"] for s in scores.values()) / total,
        "worst_client_acc": min(s["accuracy"] for s in scores.values()),
        "nll": 0.55 + 0.7 * np.exp(-r / 3),
        "sites": scores,
        "evaluation_verdicts": [],
        "evaluation_bytes_up": 230 * len(there),
        "evaluation_bytes_down": 2290 * len(there),
        "information_density": 0.41 + 0.2 * (1 - np.exp(-r / 4)),
        "strikes": {"5": min(r, 4) // 2} if r >= 2 else {},
        "run": RUN,
        "prompt": prompt_hash(artefact()),
        "nodes": {str(s): 1000 + s for s in there},
        "seconds": 1.4 + 0.1 * (r % 3),
    }
    if r == 0:
        refusal = verdict(None, False, "identity", detail="backbone is 00ff, the server has 11aa")
        joining = {"joined": there, "refused": [refusal]}
        return line | joining | {"join_bytes_up": 3000, "join_bytes_down": 2600}
    found = []
    if r in (2, 4):
        found.append(verdict(5, False, "norm", detail="the update's norm is 1e+04, the bound 0.7"))
    if r % 3 == 0:
        found.append(verdict(2, True, "clipped", detail="the update's norm is 1.2, the bound 0.7"))
        found.append(verdict(4, True, "capped", detail="num-examples 17 cut to the enrolled 13"))
    if r == 6:
        found.append(verdict(8, False, "timeout", detail="no reply by the deadline"))
    out = {v["site"] for v in found if not v["accepted"]}
    answered = [s for s in there if not (r == 6 and s == 8)]
    return line | {
        "attempt": 0,
        "asked": there,
        "answered": answered,
        "accepted": [s for s in there if s not in out],
        "verdicts": found,
        "loss": 0.5 + 0.8 * np.exp(-r / 2.5),
        "truncation_error": 0.16 * np.exp(-r / 5),
        "bytes_up": 2310 * len(answered),
        "bytes_down": 2290 * len(there),
    }


def _accuracy(site: int, r: int, examples: int) -> float:
    rng = np.random.default_rng([site, r])
    reached = 0.62 + 0.02 * (site % 5) + 0.17 * (1 - np.exp(-r / 3)) + 0.008 * rng.normal()
    return round(float(np.clip(reached, 0, 1)) * examples) / examples


def artefact(**changes: Any) -> Artefact:
    rng = np.random.default_rng(0)
    tensors = {
        "ctx.A": rng.normal(size=(4, 1)).astype(np.float32),
        "ctx.B": rng.normal(size=(1, 512)).astype(np.float32),
        "ctx.start": rng.normal(size=(4, 512)).astype(np.float32),
    }
    metadata = {
        "method": "dip", "host": "coop", "form": "lowrank", "rank": 1, "tokens": 4,
        "trained": ["ctx.A", "ctx.B"], "dtype": "float32",
        "backbone": {"name": "ViT-B-16", "pretrained": "openai", "sha256": "c" * 64,
                     "parameters": 149_620_737},
        "tokenizer_sha256": "d" * 64, "classes": list(CLASSES), "template": "a photo of a {}.",
        "preprocessing": {"size": 224, "interpolation": "bicubic"},
        "round": 10, "seed": 0, "parent": None, "privacy": None,
        "aggregation": {"rule": "product", "truncation_error": 0.0216},
    }  # fmt: skip
    return Artefact(tensors, metadata | changes)


def predictions(classes: tuple[str, ...] = CLASSES, samples: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    counts = rng.poisson(1.5, (len(classes), len(classes))) + np.diag(
        rng.integers(60, 95, len(classes))
    )
    return {
        "source": "fashion-mnist", "images": int(counts.sum()),
        "accuracy": float(np.trace(counts) / counts.sum()), "zero_shot_accuracy": 0.63,
        "macro_f1": 0.79, "ece": 0.031, "nll": 0.58,
        "classes": list(classes), "confusion": counts.tolist(),
        "samples": [_sample(classes, i, rng) for i in range(samples)],
    }  # fmt: skip


def prompt_hash(found: Artefact) -> str:
    """Return what the record says of a prompt."""
    return sha256_arrays({name: found.tensors[name] for name in found.metadata["trained"]})


def _sample(classes: tuple[str, ...], i: int, rng: np.random.Generator) -> dict[str, Any]:
    true = i % len(classes)
    picture = Image.fromarray(rng.integers(0, 255, (28, 28), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.resize((64, 64), Image.Resampling.NEAREST).save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    return {
        "name": f"test/{i}", "true": classes[true],
        "predicted": classes[true if i % 4 else (true + 2) % len(classes)],
        "probability": float(rng.uniform(0.4, 1)), "png": png,
    }  # fmt: skip


def write(folder: Path, found: list[dict[str, Any]], **parts: Any) -> Path:
    """Write a run's folder with the functions that a real run uses."""
    for line in found:
        round_lines.append(folder, line)
    if prompt := parts.get("prompt"):
        prompt.save(folder / "artefact")
        run_status.write_success(folder, prompt.sha256)
    if "predicted" in parts:
        (folder / "predictions.json").write_bytes(canonical_json(parts["predicted"]))
    return folder


def parse(found: list[dict[str, Any]]) -> list[RoundRecord]:
    """Return a record's lines as the report reads them."""
    return [RoundRecord.model_validate_json(canonical_json(line)) for line in found]
