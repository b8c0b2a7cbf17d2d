"""The table of faults from what tests wrote: `python table.py RECORD`. Exits with 1 where a trial did not pass."""

import json
import sys
from pathlib import Path

# row -> (what is injected, what has to happen)
FAULTS = {
    1: (
        "SIGKILL at a random moment of a save",
        "the run goes on from the last committed one to the same digest; nothing is left behind",
    ),
    2: ("SIGTERM or Ctrl-C at any step", "saved, exit 143 or 130, resumed to the same bits"),
    3: (
        "a checkpoint or graph file cut to 0, 50, 99 %, missing, or added",
        "found before it is read; the one before is used, one warning",
    ),
    4: ("one bit flipped in a checkpoint, graph, record or result", "found"),
    5: ("disk full, at every write of a save", "the good checkpoint stays; the run goes on once there is space"),
    6: ("a workdir that is read-only or another user's", "refused before the first step"),
    7: ("every checkpoint bad", "refused, never started over"),
    8: ("a leaf or tensor of another shape, missing, or more", "all are listed, nothing is loaded"),
    9: ("a leaf or tensor of another type", "listed, never cast"),
    10: ("loss, gradient or parameters not finite", "named at that step; the state before it is kept"),
    11: ("a teacher that is not finite, constant, or masks a class", "refused, by row and sample"),
    12: (
        "images cut, random, empty, misnamed; CMYK, 16 bit, palette, alpha, EXIF, animated",
        "read by rule, or set aside by id; above `data.broken_limit` the run ends",
    ),
    13: ("decompression bombs, headers that lie", "refused from the header, in under 1 s and 1 GB"),
    14: (
        "texts of megabytes, empty, of bytes that do not decode, NUL, half surrogates, right to left",
        "cut, cleaned or refused by a documented rule, counted",
    ),
    15: (
        "boxes reversed, not finite, outside the image, without area, of an unknown class; no boxes",
        "clipped, dropped or refused by a documented rule, counted",
    ),
    16: (
        "a loader process that hangs",
        "found after `data.timeout`, says where, replaced once with the same order, else exit",
    ),
    17: (
        "a loader process killed, or its parent",
        "found in 5 s, replaced once with the same order, else exit; orphans end",
    ),
    18: (
        "one of two or four processes killed, or one of two hanging",
        "the others end in a minute, with rank and step; one alone goes on to the same bits",
    ),
    19: ("typos, wrong types and conflicts in configs", "refused before jax is loaded, with the nearest key"),
    20: ("resumed with another config, data, teacher or graph", "refused, with the differences"),
    21: ("pickles with a payload, by any name", "never loaded; the message says how to convert them"),
    22: (
        "malformed and mutated weights, graphs, records, npz, JSON, CSV",
        "loaded or refused; no crash, no hang, under 256 MB",
    ),
    23: ("archive members that reach outside: `..`, links, devices, set-user-ID", "refused by name, nothing written"),
    24: ("tar, zip and npz bombs", "stopped at the budget of bytes, ratio or members"),
    25: (
        "hostile edges, taxonomies and graphs signed anew",
        "refused by line or row; bounded memory; a lonely node keeps its belief",
    ),
    26: ("a device that runs out of memory", "says what to lower; checkpoints are kept, and it goes on from them"),
    27: ("locale, time zone, hash seed, folder, umask, clock", "the same digests"),
    28: ("several runs in one folder, stale locks", "one waits or is refused; a dead owner's lock is free"),
    29: ("storage that fails once, or for good", "tried again up to 3 times, then one message"),
    30: ("hostile names of classes and files", "escaped on the terminal, the page and in exports"),
}


def main(record: Path) -> int:
    counts, every = {row: [0, 0, 0] for row in FAULTS}, [0, 0]
    for line in map(json.loads, record.read_text(encoding="utf-8").splitlines()):
        row = counts.setdefault(line["row"], [0, 0, 0])
        row[2] += bool(line["skipped"])
        if not line["skipped"]:
            row[0] += line["passed"]
            row[1] += line["tried"]
        if not line["skipped"] and not line["again"]:  # what is about several rows counts once
            every[0] += line["passed"]
            every[1] += line["tried"]
    print("| row | fault | passed | tried | what has to happen |\n| --- | --- | --- | --- | --- |")
    for row, (passed, tried, skipped) in sorted(counts.items()):
        note = f" ({skipped} tests skipped)" if skipped else ""
        fault, demand = FAULTS.get(row, ("", ""))
        print(f"| {row} | {fault}{note} | {passed:,} | {tried:,} | {demand} |")
    print(f"| | all, each once | {every[0]:,} | {every[1]:,} | |")
    return int(any(passed < tried or not tried for passed, tried, _ in counts.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
