"""What may change while a run goes on: differences by name, the keys that a user allows, and what can never change.

A run is one config in one environment. `--allow-change=KEY` lets one differ: a finished part stays what it is, an
unfinished one goes on from its checkpoint under the new setting, and the manifest and the part's result say so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jkd import config as configs
from jkd import digest
from jkd.errors import UserError, did_you_mean

FLAG = "--allow-change"
ENVIRONMENT = "environment"  # that a part is made in, beside what it is made from
PACKAGE = f"{ENVIRONMENT}.package"  # SHA-256 of jkd's files: it counts for what is trained on, and is told of the rest
TEACHER, GRAPH = "digest of the teacher", "digest of the graph"  # what a part calls those it was made from
# Parts that are there could not be read, or would mean something else: another pool, another network.
NEVER = (
    *("task", "data", "graph.views", "graph.files", "graph.diagnosis"),
    # Of what a part is made from:
    *("format", "files", "folder", "split", "seed", "replicate", "loaded", TEACHER, GRAPH),
)
# Of a network, only how it is trained may change: every other key says which function it is, or what it reads.
MAY_OF_NETWORK = ("train", "objective", "graph", "sampling", "dropout", "init", "init_layers")
# Of how a network is trained, what says when something is written down: no bit of what is trained depends on it.
WRITES = ("train.checkpoint_every", "train.digest_every", "train.log_every", "train.eval_every")
MOST = 8  # differences that a message lists


class Change(NamedTuple):
    """A key with the value it had and the one it has now; 'absent' where there is none."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"


def between(old: Mapping[str, Any], new: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[Change]:
    """The leaves in which two trees differ, sorted by key.

    Args:
      old, new: nested dicts of plain values.
      names: prefixes of keys and what the user knows them by, as in `{"network.": "students.kd."}`.
    """
    before, now = _named(configs.flatten(old), names or {}), _named(configs.flatten(new), names or {})
    pairs = ((key, before.get(key, "absent"), now.get(key, "absent")) for key in sorted(before.keys() | now.keys()))
    found = [Change(*pair) for pair in pairs if pair[1] != pair[2]]
    # A group that is empty in one tree is a leaf there; what the other has in it is the change.
    return [it for it in found if not any(other.key.startswith(f"{it.key}.") for other in found)]


def moves_bits(key: str) -> bool:
    """Whether what is trained depends on a key; of one it does not, a change leaves every step comparable."""
    return not any(key.endswith(f".{name}") for name in WRITES)


def listed(changes: Sequence[Change]) -> str:
    """`key: old -> new; ...`, as far as a message has room."""
    more = f"; and {len(changes) - MOST} more" if len(changes) > MOST else ""
    return "; ".join(str(change) for change in changes[:MOST]) + more


@dataclass(frozen=True)
class Allowed:
    """Keys that may differ.

    What moves no bit may differ in any case, and is recorded.

    Attributes:
      keys: `students.kd.train.batch`, or a group: `students.kd.train`, `environment.versions`. `student.KEY` stands
        for that key of every student.
    """

    keys: tuple[str, ...] = ()

    def __contains__(self, key: str) -> bool:
        return not moves_bits(key) or (not _never(key) and any(_below(key, allowed) for allowed in self.keys))

    def refused(self, changes: Iterable[Change]) -> list[Change]:
        """Those of the changes that are not allowed."""
        return [change for change in changes if change.key not in self]

    def with_recorded(self, changes: Iterable[Mapping[str, Any]]) -> "Allowed":
        """These keys, and those that a manifest says were allowed before."""
        return Allowed((*self.keys, *(change["key"] for change in changes)))

    def check(self, known: Iterable[str]) -> None:
        """Refuses a key that is neither one of `known` nor a group of them."""
        groups = {key.rsplit(".", cut)[0] for key in known for cut in range(key.count(".") + 1)}
        for key in self.keys:
            if key not in groups:
                raise UserError(f"{FLAG}={key}: there is no such key.{did_you_mean(key, groups)}")


def remedy(changes: Sequence[Change], otherwise: str) -> str:
    """What to do about refused changes: the flags that would allow them, where all can be allowed."""
    if any(_never(change.key) for change in changes) or not changes:
        return otherwise
    flags = " ".join(f"{FLAG}={change.key}" for change in changes[:MOST])
    return f"{otherwise} To go on with the change, which the manifest then records, give {flags}."


class Inputs(str):
    """The digest of what a part is made from, which also knows what that is and how far a checkpoint may differ.

    Attributes:
      made_of: what is digested, JSON-ready, and, not digested, under "environment" what of it moves bits; None where
        nobody kept it.
      allowed: keys that may differ. The environment always may: where it must not, the manifest has refused it.
      names: what the user knows the keys of `made_of` by (see `between`).
    """

    made_of: dict[str, Any] | None = None
    allowed: Allowed = Allowed()
    names: Mapping[str, str] = {}

    @classmethod
    def of(cls, made_of: dict[str, Any], allowed: Allowed, names: Mapping[str, str]) -> "Inputs":
        self = cls(digest.of_json({key: value for key, value in made_of.items() if key != ENVIRONMENT}))
        self.made_of, self.allowed, self.names = made_of, Allowed((*allowed.keys, ENVIRONMENT)), names
        return self

    def differences(self, saved: Any) -> list[Change] | None:
        """How what a sidecar or a result holds (`inputs`, `made_of`) differs from this; None where it cannot tell."""
        same, was, now = saved.get("inputs") == self, saved.get("made_of"), self.made_of
        if now is None or not isinstance(was, dict):
            return [] if same else None
        known = {ENVIRONMENT} if ENVIRONMENT in was and ENVIRONMENT in now else set()  # older versions kept none
        keys = known if same else (was.keys() | now.keys()) - ({ENVIRONMENT} - known)
        old, new = ({key: some[key] for key in keys if key in some} for some in (was, now))
        return between(old, new, self.names)


def _named(flat: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    def name(key: str) -> str:
        for prefix, known_as in names.items():
            if key.startswith(prefix):
                return known_as + key.removeprefix(prefix)
        return key

    return {name(key): value for key, value in flat.items()}


def _below(key: str, allowed: str) -> bool:
    alias = key
    if f"{allowed}.".startswith("student.") and key.startswith("students.") and key.count(".") > 1:
        alias = "student." + key.split(".", 2)[2]
    return any(it == allowed or it.startswith(f"{allowed}.") for it in (key, alias))


def _never(key: str) -> bool:
    """Whether a key is one of those that no flag lets change."""
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in NEVER):
        return True
    head, *path = key.split(".")
    inside = path[1:] if head == "students" else path if head in ("teacher", "student") else []
    return bool(inside) and inside[0] not in MAY_OF_NETWORK
