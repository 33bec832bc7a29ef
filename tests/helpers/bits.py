"""All that a run leaves which has to be the same again, from its directory."""

import hashlib
import json


def bits_of(path):
    """Results, log and last checkpoint of a finished run, without the times in them."""
    results = json.loads((path / "results.json").read_text())
    results["steps"] = [step | {"train_seconds": 0.0, "part_seconds": {}} for step in results["steps"]]
    log = path / "metrics.jsonl"
    rows = [json.loads(line) | {"images_per_s": 0.0} for line in log.read_text().splitlines()] if log.exists() else []
    newest = max((path / "checkpoints").glob("step-*"))
    tensors = hashlib.sha256((newest / "tensors.safetensors").read_bytes()).hexdigest()
    components = json.loads((newest / "state.json").read_text())["components"]
    left = sorted(entry.name for entry in (path / "checkpoints").iterdir())
    return {"results": results, "rows": rows, "tensors": tensors, "components": components, "left": left}
