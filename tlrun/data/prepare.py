"""`tlrun prepare data=...`: download, verify and build caches, so that a job finds all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlrun.data.examples.download import cache_root, data_roots
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, build_data


def main(cfg: Mapping[str, Any]) -> Data:
    """Build the pair of `cfg.data` (labels untouched) and print what is there. Raises DataError."""
    data = build_data(cfg["data"], Options(seed=int(cfg.get("seed", 0)), trains=False))
    print(table(data))
    return data


def table(data: Data) -> str:
    """A line per role: examples, shape, bytes, checksum; then each domain's place and licence."""
    lines = [f"{data.name}: {data.num_classes} classes, the net sees {data.input_shape}", ""]
    lines.append(f"{'role':<14}{'examples':>10}  {'shape':<16}{'MB':>8}  {'kept':<8}checksum")
    for domain in data.domains:
        for split in ("train", "val", "test"):
            examples = data.role(f"{domain}_{split}")
            if examples is None:
                lines.append(f"{domain + '_' + split:<14}{'-':>10}")
                continue
            kept = "memory" if examples.in_memory else "files"
            lines.append(
                f"{domain + '_' + split:<14}{len(examples):>10,}  "
                f"{'x'.join(map(str, examples.shape)):<16}"
                f"{examples.nbytes / 1e6:>8.1f}  {kept:<8}{examples.checksum[:16]}"
            )
    lines.append("")
    for key, domain_ in data.domains.items():
        card = domain_.card
        lines.append(
            f"{key}: {card.name} in {card.root or '-'}; licence: {card.licence}; cite: "
            f"{card.citation}"
        )
        lines += [f"  note: {note}" for note in card.notes]
    lines.append(f"searched: {', '.join(map(str, data_roots()))}; cache: {cache_root()}")
    return "\n".join(lines)
