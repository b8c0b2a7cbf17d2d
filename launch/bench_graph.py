"""Builds `similar_to` edges of 50,000 x 512 features twice: seconds, peak memory above the input, digests.

    python launch/bench_graph.py [--nodes=50000] [--width=512] [--k=8] [--block=2048]

Ends with exit code 1 where the two builds differ, or a limit is passed (120 s, 2 GB above the input).
"""

import argparse
import resource
import sys
import time

import numpy as np

from jkd import digest, random
from jkd.graph import neighbours

SECONDS, BYTES = 120.0, 2e9


def clustered(nodes: int, width: int, clusters: int = 100) -> np.ndarray:
    """Features around `clusters` centres, float32 `[nodes, width]`, the same everywhere."""
    centres = random.uniform("pool", 0, size=clusters * width).reshape(clusters, width) - 0.5
    features = np.empty((nodes, width), np.float32)
    for start in range(0, nodes, 1000):  # in pieces, so that the input's own making does not set the peak
        rows = min(1000, nodes - start)
        noise = random.uniform("pool", 1, start, size=rows * width).reshape(rows, width) - 0.5
        features[start : start + rows] = centres[np.arange(start, start + rows) % clusters] + noise
    return features


def peak() -> int:
    """The most memory this process has held, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("nodes", 50_000), ("width", 512), ("k", 8), ("block", 2048)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    features = clustered(options.nodes, options.width)
    before = peak()
    digests, seconds = [], []
    for _ in range(2):
        start = time.perf_counter()
        edges = neighbours(features, options.k, options.block)
        seconds.append(time.perf_counter() - start)
        digests.append(digest.of_leaves(edges))
    above = peak() - before
    print(f"{options.nodes} x {options.width}, k = {options.k}, block = {options.block}")
    print(f"seconds: {seconds[0]:.1f} (with compilation), {seconds[1]:.1f}; limit {SECONDS:g}")
    print(f"peak memory above the input and jax itself: {above / 1e6:.0f} MB; limit {BYTES / 1e6:.0f} MB")
    print(f"digests: {digests[0]}")
    print(f"two builds are {'byte-identical' if digests[0] == digests[1] else 'DIFFERENT'}")
    return int(digests[0] != digests[1] or max(seconds) > SECONDS or above > BYTES)


if __name__ == "__main__":
    sys.exit(main())
