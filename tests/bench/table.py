"""Writes a benchmark's results: a table on the terminal and .bench/NAME.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(".bench")


@dataclass(frozen=True)
class Result:
    """One measured figure, beside a peer's or a limit measured in the same call."""

    case: str
    metric: str
    unit: str
    ours: float | None
    """None where it could not be measured."""
    peer: float | None = None
    peer_name: str | None = None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.peer and self.ours is not None else None


def publish(name: str, results: list[Result]) -> None:
    """Prints the results and writes them to ``.bench/<name>.json`` in the working folder."""
    print(f"\n{name}")
    for r in results:
        against = (
            f"  {r.ratio:.2f} x {r.peer_name} ({r.peer:.4g} {r.unit})"
            if r.ratio is not None
            else ""
        )
        limit = f"  limit {r.limit:.4g}" if r.limit is not None else ""
        ours = "none" if r.ours is None else f"{r.ours:.4g}"
        print(f"  {r.case:<22} {r.metric:<18} {ours} {r.unit}{against}{limit}")
    FOLDER.mkdir(exist_ok=True)
    rows = [asdict(r) | {"ratio": r.ratio} for r in results]
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
