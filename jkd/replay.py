"""The verb `replay`: a part of a run is trained again, and held against what it did the first time.

Nothing of the part is changed; what was found is left beside it as `replay.json`, which the report shows. What stands
in the way of one part is found of that part, and the others go on.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
from ml_collections import ConfigDict

from jkd import build, changes, files, manifest, parts, places
from jkd.build import Session
from jkd.data import make_split
from jkd.environment import Environment, compare_environment, describe_environment
from jkd.errors import Damaged, Notice, UserError
from jkd.parts import Place
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.train import checkpoint, record
from jkd.train.rerun import NotComparable, Outcome, Stored, rerun

SAME, DIVERGED, INCOMPARABLE = 0, 3, 4  # exit codes
NOTES = {SAME: "the same", DIVERGED: "differs", INCOMPARABLE: "not comparable"}
FILE = "replay.json"


@dataclass(frozen=True)
class Replayed:
    """What was found of a part.

    Attributes:
      part: `replicate I NAME/SEED`, or `replicate I teacher`.
      outcome: of running it again; None where that could show nothing, as `points` say.
      points: in what the environment or the source is not that of the run, or why nothing can be said.
      damaged: which file is not what was written, where one is not: it has diverged from its digest.
    """

    part: str
    outcome: Outcome | None
    points: tuple[str, ...] = ()
    damaged: str = ""

    @property
    def code(self) -> int:
        if self.damaged:
            return DIVERGED
        if self.outcome is None:
            return INCOMPARABLE
        return DIVERGED if self.outcome.parting else SAME

    def __str__(self) -> str:
        if self.damaged:
            return f"{self.part}: damaged. {self.damaged[0].upper()}{self.damaged[1:]}"
        if self.outcome is None:
            return f"{self.part}: not comparable. {' '.join(self.points)}"
        done, parting = self.outcome, self.outcome.parting
        if parting is None:
            return self._noted(
                f"{self.part}: the same from step {done.first} to {done.last} ({done.rows} rows of checksums, "
                f"{done.digests} digests of the whole state)"
            )
        named = "; ".join(map(str, parting.leaves)) or "some value, as a SHA-256 or the loss tells"
        named += f"; and {parting.more} more" if parting.more else ""
        seen = f" (values after step {parting.seen_at})" if parting.seen_at is not None else ""
        return self._noted(f"{self.part}: leaves the record at step {parting.step}, in {parting.stage}: {named}{seen}")

    def _noted(self, told: str) -> str:
        """With what else differs, which need not change a bit."""
        return " ".join([f"{told}.", *self.points]) if self.points else told


def replay(
    workdir: str | Path,
    student: str = "",
    replicate: int | None = None,
    first: int | None = None,
    last: int = 0,
    against: str | Path = "",
    anyway: bool = False,
    quiet: bool = False,
    told: Callable[[Replayed], None] | None = None,
) -> list[Replayed]:
    """Trains parts of a run again and compares every step with the record.

    Args:
      workdir: of the run.
      student: `NAME/SEED` or `teacher`; empty for all that have a record.
      replicate: of which replicate; None for all.
      first: begin at the newest checkpoint at or before this step; 0 = at the beginning. None = there, too, or, where
        `last` is given, at the newest checkpoint before that.
      last: stop at this step; 0 = at the last.
      against: the workdir of another run of the same config, to compare with its record instead.
      anyway: compare even where the environment differs in what bits depend on.
      quiet: no progress.
      told: each part as soon as it is found.

    Raises:
      UserError: for a mistake in what is asked for, or where the run as a whole cannot be read or is on other data.
    """
    workdir = places.path_of(workdir)
    other = places.path_of(against) if against else workdir
    config, saved = manifest.read(workdir)
    if first is None:
        first = max(0, last - 1)
    if first < 0 or last < 0 or (last and last <= first):
        raise UserError(f"--from={first} --to={last}: expected steps from 0 on, the second behind the first.")
    if replicate is not None and not 0 <= replicate < config.replicates:
        raise UserError(f"--replicate: expected 0 to {config.replicates - 1}, got {replicate}.")
    session = _open(config)
    manifest.check_data(workdir, saved, session.dataset)
    try:
        theirs = manifest.read(other)[1]["environment"]
    except UserError as error:
        raise UserError(str(error).replace("--workdir", "--against" if against else "--workdir")) from None
    allowed = changes.Allowed().with_recorded(saved["changes"])
    indices = range(config.replicates) if replicate is None else [replicate]
    wanted = [
        (Place(workdir, index, allowed), Place(other, index, allowed), part)
        for index in indices
        for part in _parts(session, Place(other, index), student)
    ]
    if not wanted:
        raise UserError(f"{other} holds no record of {student or 'any part'}. Only what was trained there has one.")
    _check_range([source.part(part) for _, source, part in wanted], first, last)
    again, done = _Again(session, theirs, first, last, anyway), []
    with RunProgress(len(wanted), quiet) as progress:
        for place, source, part in wanted:
            label = f"replicate {place.replicate} {part}"
            progress.start(label)
            found = again.part(label, place, source, part, progress)
            progress.finish(NOTES[found.code] if not found.damaged else "damaged")
            done.append(found)
            if told:  # first: it may be that nothing can be written here
                with progress.aside():
                    told(found)
            about = found.outcome or found.damaged
            if about and not against:  # what was found of the part itself would go
                _leave(found, place.part(part) / FILE, _chain(place.part(part)))
    return done


@dataclass(frozen=True)
class _Again:
    """How parts are run again.

    Attributes:
      session: of the run.
      environment: as its manifest has it, for parts that do not say in which they were made.
      first, last, anyway: as `replay` was given them.
    """

    session: Session
    environment: Environment
    first: int
    last: int
    anyway: bool

    def part(self, label: str, place: Place, source: Place, part: str, progress: RunProgress) -> Replayed:
        """What is found of a part at `place` by the record at `source`, whatever is wrong with it."""
        config, folder = self.session.config, source.part(part)
        here = describe_environment(self.session.mesh)
        try:
            made_in = parts.made_of(folder)[0].get(changes.ENVIRONMENT) or self.environment
            points = tuple(compare_environment(made_in, here, config.reduction))
            if points and not self.anyway:
                return Replayed(label, None, points)
            points = (*points, *_of_source(self.environment | made_in, parts.made_of(folder)[1], here))
            _check_inputs(place.part(part), folder)
            final = _final(folder)
            training = parts.training_again(
                self.session, make_split(self.session.dataset, config.data, place.replicate), place, part, source
            )
            stored = Stored(folder / "checkpoints", training.init(), final)
            setup = replace(training.setup, progress=progress.step)
            return Replayed(label, rerun(setup, record.read(folder), stored, self.first, self.last), points)
        except Damaged as error:
            return Replayed(label, None, damaged=str(error))
        except (NotComparable, UserError, OSError) as error:
            return Replayed(label, None, (str(error),))


def _of_source(made_in: Environment, changed: list[dict[str, Any]], here: Environment) -> list[str]:
    """What is to be said of jkd's source: that it changed while the part was trained, or since."""
    on_the_way = [change["step"] for change in changed if change["key"] == changes.PACKAGE]
    told = [f"The source of jkd changed at step {step} of it." for step in on_the_way]
    return told + ["The source of jkd is not that of the part."] * (made_in.get("package") != here["package"])


def _open(config: ConfigDict) -> Session:
    """The session of a run, on the devices that are here where it had more: whether that matters is compared."""
    try:
        return build.open_session(config)
    except UserError:
        if config.devices <= jax.device_count():
            raise
        with config.unlocked():
            config.devices = 0
        return build.open_session(config)


def _check_range(folders: list[Path], first: int, last: int) -> None:
    """Refuses steps that none of the parts has."""
    lengths = []
    for folder in folders if first or last else ():
        with contextlib.suppress(Damaged):  # found when it is its turn
            lengths.append(len(record.read(folder).rows))
    longest = max(lengths, default=0)
    if lengths and (first >= longest or last > longest):
        raise UserError(f"--from={first} --to={last}: out of range, the record has the steps from 0 to {longest}.")


def _parts(session: Session, place: Place, student: str) -> Iterator[str]:
    """The parts of a replicate that have a record, or should have one, those asked for."""
    everything = ["teacher", *(f"{name}/{seed}" for name in session.config.students for seed in session.config.seeds)]
    if student and student not in everything:
        raise UserError(f"--student: expected one of {', '.join(everything[:8])}, got '{student}'.")
    for part in [student] if student else everything:
        if _was_trained(place.part(part)):
            yield part


def _was_trained(folder: Path) -> bool:
    """Whether any file of a record is there, or a result that speaks of steps; what cannot be read may be one."""
    if any((folder / name).exists() for name in record.FILES):
        return True
    try:
        return (folder / "result.json").exists() and files.read_signed(folder / "result.json").get("steps") != 0
    except UserError:
        return True


def _final(folder: Path) -> tuple[int, Any] | None:
    """The last step of a finished part and the variables it left, as they were written; None of an unfinished one."""
    finished = folder / "result.json"
    if not finished.exists():
        for step in checkpoint.steps(folder / "checkpoints")[-1:]:
            record.check_mark(folder, record.read(folder), step, checkpoint.record_at(folder / "checkpoints", step))
        return None
    result = files.read_signed(finished)
    if not isinstance(result.get("steps"), int) or "params" not in result:
        raise UserError(f"{finished} is not the result of a part.")
    variables = parts.read_variables(folder, result)
    if "predictions" in result:
        files.read_arrays(folder / "predictions.safetensors", result["predictions"])
    if "projection" in result:
        files.read_arrays(folder / parts.PROJECTION, result["projection"])
    if not result.get("chain"):
        raise NotComparable(f"{finished} names no record: it was damaged before the part was finished.")
    kept = record.read(folder)
    if result["chain"] != record.chain_of(folder):
        raise Damaged(f"the record in {folder} is not the one that {finished} names by its chain.")
    if len(kept.rows) < result["steps"]:
        raise Damaged(f"{folder / record.ROWS} has {len(kept.rows)} of the {result['steps']} steps of its part.")
    return result["steps"], variables


def _chain(folder: Path) -> str:
    """What tells the record of a part: its chain, or, where it is damaged, the one that the result names."""
    try:
        return record.chain_of(folder)
    except UserError:
        with contextlib.suppress(UserError):
            return str(files.read_signed(folder / "result.json").get("chain", ""))
        return ""


def _check_inputs(folder: Path, other: Path) -> None:
    """Whether a part can be expected to do what a record says: it was made from the same, all the way."""
    ours, theirs = parts.made_of(folder), parts.made_of(other)
    for changed in (*ours[1], *theirs[1]):
        if changes.moves_bits(changed["key"]) and changed["key"] != changes.PACKAGE:  # which is told, and may move none
            raise NotComparable(f"Its {changed['key']} changed at step {changed['step']}: no config makes it again.")
    old, new = ({key: it for key, it in some[0].items() if key != changes.ENVIRONMENT} for some in (theirs, ours))
    unlike = [change for change in changes.between(old, new) if changes.moves_bits(change.key)]
    if old and new and unlike:
        raise NotComparable(f"It was made from something else: {changes.listed(unlike)}.")


def _leave(found: Replayed, path: Path, chain: str) -> None:
    """Writes what was found beside the part. Where that cannot be, as in an archive, it has been told all the same."""
    try:
        files.write_json(path, _plain(found, chain))
    except UserError as error:
        warnings.warn(f"{error} What was found of {found.part} is not kept.", Notice, stacklevel=3)


def _plain(found: Replayed, chain: str) -> dict[str, Any]:
    """As JSON; `chain` tells the record that it was held against."""
    plain = {"code": found.code, "found": str(found), "points": list(found.points), "chain": chain}
    return plain | {"outcome": found.outcome and asdict(found.outcome)}
