"""Numbers that the papers published, each with its source, from paper_numbers.yaml; nothing there
was measured by us."""

from pathlib import Path

import yaml

_NUMBERS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SCALING = _NUMBERS["scaling"]  # {accuracy or asr: {model and task: [[λ_BV, percent]]}}
CLIP = _NUMBERS["clip"]  # {criterion: [[what, percent, source]]}
BADMERGING_ON = _NUMBERS["badmerging_on"]  # {merging method: percent}
