"""A vocabulary from texts, for when no tokenizer is at hand: the same texts give the same bytes.

Pairs of pieces are merged by how often they stand side by side, as in byte-pair encoding; a piece inside a word is
written `##piece`. The trainers of the `tokenizers` library do the same, but break ties by the order of a hash table, so
that no two of their runs agree.

Reference: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, ACL 2016; Wu et al., Google's
Neural Machine Translation System, 2016 (WordPiece).
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

LONGEST = 100  # characters of a word; longer ones are unknown to BERT's tokenizer, too
ALPHABET = 1000  # most characters that become pieces of their own
INSIDE = "##"

Pair = tuple[str, str]


def frequent_words(counts: Mapping[str, int], size: int, least: int = 1) -> list[str]:
    """The `size` most frequent words of at least `least` occurrences, ties in the order of their characters."""
    kept = (word for word, count in counts.items() if count >= least and len(word) <= LONGEST)
    return sorted(kept, key=lambda word: (-counts[word], word))[:size]


def pieces(counts: Mapping[str, int], size: int, least: int = 2) -> list[str]:
    """At most `size` pieces of words: characters first, then merged pairs, the most frequent first.

    Args:
      counts: how often each word occurs.
      size: of the vocabulary, special tokens not counted.
      least: occurrences that a pair needs to be merged.
    """
    words = sorted(word for word in counts if 0 < len(word) <= LONGEST)
    letters: Counter[str] = Counter()
    for word in words:
        for at, letter in enumerate(word):
            letters[letter if at == 0 else INSIDE + letter] += counts[word]
    most = min(2 * ALPHABET, size)
    kept = set(sorted(letters, key=lambda letter: (-letters[letter], letter))[:most])
    vocabulary = sorted(kept)
    split = [[letter if at == 0 else INSIDE + letter for at, letter in enumerate(word)] for word in words]
    whole = [at for at, parts in enumerate(split) if kept.issuperset(parts)]
    return _merged(vocabulary, [split[at] for at in whole], [counts[words[at]] for at in whole], size, least)


def _merged(vocabulary: list[str], split: list[list[str]], times: list[int], size: int, least: int) -> list[str]:
    """Adds merges to the vocabulary, in order, until it is full or no pair is frequent enough."""
    count: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for at, parts in enumerate(split):
        for pair in pairwise(parts):
            count[pair] += times[at]
            places[pair].add(at)
    # Entries of the heap may be out of date: one whose count has changed since is dropped when it comes up.
    heap = [(-number, pair) for pair, number in count.items()]
    heapq.heapify(heap)
    known = set(vocabulary)
    while heap and len(vocabulary) < size:
        number, pair = heapq.heappop(heap)
        if -number != count[pair] or -number < least:
            continue
        made = pair[0] + pair[1].removeprefix(INSIDE)
        if made not in known:  # two ways of merging may end in one piece
            known.add(made)
            vocabulary.append(made)
        touched: set[Pair] = set()
        for at in places.pop(pair):
            for old in pairwise(split[at]):
                count[old] -= times[at]
                touched.add(old)
            split[at] = _joined(split[at], pair, made)
            for new in pairwise(split[at]):
                count[new] += times[at]
                places[new].add(at)
                touched.add(new)
        count.pop(pair, None)
        for changed in touched - {pair}:
            if count[changed] > 0:
                heapq.heappush(heap, (-count[changed], changed))
    return vocabulary


def _joined(parts: list[str], pair: Pair, made: str) -> list[str]:
    joined, at = [], 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) == pair:
            joined.append(made)
            at += 2
        else:
            joined.append(parts[at])
            at += 1
    return joined
