"""The table of faults from what tests wrote: `python table.py RECORD`. Exits with 1 where a trial did not pass."""

import json
import sys
from pathlib import Path

FAULTS = {
    1: "killed (SIGKILL) while a checkpoint is saved",
    2: "SIGTERM or Ctrl-C at any step",
    3: "checkpoint or graph file cut, missing or added",
    4: "one bit flipped in a checkpoint or graph",
    5: "disk full, at every write",
    6: "read-only or forbidden workdir",
    7: "every checkpoint bad",
    8: "leaf or tensor of another shape, missing, or more",
    9: "leaf or tensor of another type",
    10: "loss, gradient or parameter not finite",
    11: "teacher not finite, constant, or ruling a class out",
    12: "image broken or strange",
    13: "decompression bomb, lying header",
    16: "loader process hung",
    17: "loader process killed, or orphaned",
    19: "config typo, wrong type, conflict",
    20: "resumed with another config, data, teacher or graph",
    21: "pickle with a payload",
    22: "malformed or mutated weight, graph and data files",
    23: "archive member that reaches outside",
    24: "tar, zip or npz bomb",
    25: "hostile edges, taxonomy or graph",
    27: "locale, time zone, hash seed, folder, umask, clock",
    28: "several runs in one folder, stale lock",
    29: "storage that fails now and then, or for good",
    30: "hostile names: terminal, page, exports",
}


def main(record: Path) -> int:
    counts = {row: [0, 0, 0] for row in FAULTS}
    for line in map(json.loads, record.read_text(encoding="utf-8").splitlines()):
        row = counts.setdefault(line["row"], [0, 0, 0])
        row[2] += bool(line["skipped"])
        if not line["skipped"]:
            row[0] += line["passed"]
            row[1] += line["tried"]
    print("| row | fault | passed | tried |\n| --- | --- | --- | --- |")
    for row, (passed, tried, skipped) in sorted(counts.items()):
        note = f" ({skipped} tests skipped)" if skipped else ""
        print(f"| {row} | {FAULTS.get(row, '')}{note} | {passed} | {tried} |")
    passed, tried = (sum(row[column] for row in counts.values()) for column in (0, 1))
    print(f"| | all | {passed} | {tried} |")
    return int(passed < tried or any(not tried for _, tried, _ in counts.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
