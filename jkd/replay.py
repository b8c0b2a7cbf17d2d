"""The verb `replay`: a part of a run is trained again, and held against what it did the first time.

Nothing of the part is changed; what was found is left beside it as `replay.json`, which the report shows.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jkd import build, changes, compress, files, manifest, parts, places
from jkd.build import Session
from jkd.data import make_split
from jkd.environment import compare_environment, describe_environment, source_differences
from jkd.errors import UserError
from jkd.parts import Place, Training
from jkd.places import Path
from jkd.progress import RunProgress
from jkd.train import checkpoint, record
from jkd.train.rerun import NotComparable, Outcome, Stored, rerun

SAME, DIVERGED, INCOMPARABLE = 0, 3, 4  # exit codes
FILE = "replay.json"


@dataclass(frozen=True)
class Replayed:
    """What was found of a part.

    Attributes:
      part: `replicate I NAME/SEED`, or `replicate I teacher`.
      outcome: of running it again; None where that could show nothing, as `points` say.
      points: in what the environment or the source is not that of the run, or why nothing can be said.
    """

    part: str
    outcome: Outcome | None
    points: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        if self.outcome is None:
            return INCOMPARABLE
        return DIVERGED if self.outcome.parting else SAME

    def __str__(self) -> str:
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
    first: int = 0,
    last: int = 0,
    against: str | Path = "",
    anyway: bool = False,
    quiet: bool = False,
) -> list[Replayed]:
    """Trains parts of a run again and compares every step with the record.

    Args:
      workdir: of the run.
      student: `NAME/SEED` or `teacher`; empty for all that have a record.
      replicate: of which replicate; None for all.
      first: begin at the newest checkpoint at or before this step; 0 = at the beginning.
      last: stop at this step; 0 = at the last.
      against: the workdir of another run of the same config, to compare with its record instead.
      anyway: compare even where the environment differs in what bits depend on.
      quiet: no progress.

    Raises:
      UserError: when there is nothing to run again, or it is no longer what it was.
    """
    workdir = places.path_of(workdir)
    other = places.path_of(against) if against else workdir
    config, saved = manifest.read(workdir)
    if first < 0 or last < 0 or (last and last <= first):
        raise UserError(f"--from={first} --to={last}: expected steps from 0 on, the second behind the first.")
    if replicate is not None and not 0 <= replicate < config.replicates:
        raise UserError(f"--replicate: expected 0 to {config.replicates - 1}, got {replicate}.")
    session = build.open_session(config)
    manifest.check_data(workdir, saved, session.dataset)
    try:
        theirs = manifest.read(other)[1]["environment"]
    except UserError as error:
        raise UserError(str(error).replace("--workdir", "--against" if against else "--workdir")) from None
    here = describe_environment(session.mesh)
    points = tuple(compare_environment(theirs, here, config.reduction))
    if points and not anyway:
        return [Replayed(str(other), None, points)]
    if source_differences(theirs, here):
        points = (*points, "The source of jkd is not that of the run.")
    allowed = changes.Allowed().with_recorded(saved["changes"])
    indices = range(config.replicates) if replicate is None else [replicate]
    wanted = [
        (Place(workdir, index, allowed), Place(other, index, allowed), part)
        for index in indices
        for part in _parts(session, Place(other, index), student)
    ]
    if not wanted:
        raise UserError(f"{other} holds no record of {student or 'any part'}. Only what was trained there has one.")
    done = []
    with RunProgress(len(wanted), quiet) as progress:
        for place, source, part in wanted:
            label = f"replicate {place.replicate} {part}"
            progress.start(label)
            split = make_split(session.dataset, config.data, place.replicate)
            training = parts.training_again(session, split, place, part)
            try:
                _check_inputs(place.part(part), source.part(part))
                found = Replayed(label, _rerun(training, source.part(part), first, last, progress), points)
            except NotComparable as error:
                found = Replayed(label, None, (str(error),))
            files.write_json(place.part(part) / FILE, _plain(found, against, record.chain_of(source.part(part))))
            progress.finish({SAME: "the same", DIVERGED: "differs"}.get(found.code, "not comparable"))
            done.append(found)
    return done


def _parts(session: Session, place: Place, student: str) -> Iterator[str]:
    """The parts of a replicate that have a record, those asked for."""
    everything = ["teacher", *(f"{name}/{seed}" for name in session.config.students for seed in session.config.seeds)]
    if student and student not in everything:
        raise UserError(f"--student: expected one of {', '.join(everything[:8])}, got '{student}'.")
    for part in [student] if student else everything:
        if (place.part(part) / record.NAMES).exists():
            yield part


def _rerun(training: Training, folder: Path, first: int, last: int, progress: RunProgress) -> Outcome:
    finished = folder / "result.json"
    final = None
    if finished.exists():
        result = files.read_signed(finished)
        if not isinstance(result, dict) or not isinstance(result.get("steps"), int):
            raise UserError(f"{finished} is not the result of a part.")
        if result.get("chain") != record.chain_of(folder):
            raise NotComparable(f"The record is not the one that {finished} names by its chain.")
        final = (result["steps"], compress.load_variables(folder / "variables.safetensors"))
    stored = Stored(folder / "checkpoints", training.init(), final)
    return rerun(replace(training.setup, progress=progress.step), record.read(folder), stored, first, last)


def _check_inputs(folder: Path, other: Path) -> None:
    """Whether a part can be expected to do what a record says: it was made from the same, all the way."""
    ours, theirs = made_of(folder), made_of(other)
    for changed in (*ours[1], *theirs[1]):
        raise NotComparable(f"Its {changed['key']} changed at step {changed['step']}: no config makes it again.")
    if ours[0] and theirs[0] and (unlike := changes.between(theirs[0], ours[0])):
        raise NotComparable(f"It was made from something else: {changes.listed(unlike)}.")


def made_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a part is made from and what changed on its way, by its result or its newest checkpoint."""
    newest = checkpoint.steps(folder / "checkpoints")[-1:]
    for path in (folder / "result.json", *(folder / "checkpoints" / f"{step}.json" for step in newest)):
        if path.exists():
            said = files.read_json(path)
            if isinstance(said, dict):
                return said.get("made_of") or {}, said.get("changes") or []
    return {}, []


def _plain(found: Replayed, against: Any, chain: str) -> dict[str, Any]:
    """As JSON; `chain` tells the record that it was held against."""
    plain = {
        "code": found.code,
        "found": str(found),
        "points": list(found.points),
        "against": str(against),
        "chain": chain,
    }
    return plain | {"outcome": found.outcome and asdict(found.outcome)}
