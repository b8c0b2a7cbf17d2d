"""The verb `replay`: what is the same, what has diverged, what cannot be compared; and the report says so."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jkd import cli, compress, digest, files, manifest, replay, run
from jkd.errors import Notice, UserError

LIMIT = 180  # seconds a process may take on a machine with other work


def test_every_part_of_a_run_repeats_and_the_report_says_so(tiny: Any, copied: Path):
    found = replay.replay(copied, replicate=1, quiet=True)
    assert len(found) == 7 and {each.code for each in found} == {replay.SAME}
    assert {each.outcome.rows for each in found if each.outcome} == {40}
    before = tiny.digests(copied)
    summary = run.report(copied)
    assert tiny.digests(copied) == before
    assert summary["parts"]["replicates/1/teacher"]["replay"]["code"] == 0
    assert "7 of 7 parts that were trained again" in (copied / "report/index.html").read_text()


def test_it_goes_from_a_checkpoint_to_a_step(copied: Path):
    (found,) = replay.replay(copied, student="kd/1", replicate=0, first=25, last=30, quiet=True)
    assert found.outcome and (found.outcome.first, found.outcome.last, found.outcome.rows) == (20, 30, 10)
    assert str(found).startswith("replicate 0 kd/1: the same from step 20 to 30")
    for last, first, rows in ((30, 20, 10), (20, 0, 20)):  # the checkpoint of a step itself shows nothing of it
        (found,) = replay.replay(copied, student="kd/1", replicate=0, last=last, quiet=True)
        assert found.outcome and (found.outcome.first, found.outcome.last, found.outcome.rows) == (first, last, rows)


def _tamper(folder: Path, step: int, leaf: str) -> None:
    """Changes what the record says of a leaf at a step, and all digests that would give it away."""
    names = [name for name, _ in json.loads((folder / "checksums.json").read_text())["leaves"]]
    rows = np.fromfile(folder / "checksums.bin", "<u4").reshape(-1, len(names))
    rows[step, names.index(leaf)] ^= 1
    rows.tofile(folder / "checksums.bin")
    lines, chain, first = [], "", 0
    for text in (folder / "digests.jsonl").read_text().splitlines():
        line = json.loads(text)
        line["rows"] = digest.of_bytes(rows[first : line["step"]].tobytes())
        line["chain"] = chain = digest.of_json(
            [chain, {key: line[key] for key in line if key not in ("chain", "leaves")}]
        )
        lines.append(json.dumps(line) + "\n")
        first = line["step"]
    (folder / "digests.jsonl").write_text("".join(lines))
    result = files.read_json(folder / "result.json")
    files.write_signed(folder / "result.json", result | {"chain": chain})


def test_another_record_is_told_by_step_stage_and_leaf(tiny: Any, copied: Path):
    _tamper(copied / "replicates/0/students/kd/0", 17, "gradients/student/hidden0/kernel")
    process = tiny.start("replay", f"--workdir={copied}", "--student=kd/0", "--replicate=0", "--quiet", "--anyway")
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == replay.DIVERGED, errors
    assert "kd/0: leaves the record at step 18, in gradients: gradients/student/hidden0/kernel float32[64, 16]" in said
    assert files.read_json(copied / "replicates/0/students/kd/0/replay.json")["outcome"]["parting"]["step"] == 18


def test_a_record_that_is_not_the_results_is_not_compared(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    shutil.copy(copied / "replicates/0/students/kd/1/digests.jsonl", folder)
    shutil.copy(copied / "replicates/0/students/kd/1/checksums.bin", folder)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and "names by its chain" in found.damaged


def test_final_variables_that_are_others_are_told_by_value(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    arrays = files.read_arrays(folder / "variables.safetensors")
    name = next(key for key in arrays if key.endswith("hidden0/bias"))
    arrays[name] = np.nextafter(arrays[name], np.float32(np.inf))
    files.write_arrays(folder / "variables.safetensors", arrays)
    result = files.read_json(folder / "result.json")
    read = compress.load_variables(folder / "variables.safetensors")
    files.write_signed(folder / "result.json", result | {"params": digest.of_tree(read)})
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    parting = found.outcome and found.outcome.parting
    assert parting and (parting.step, parting.stage, parting.seen_at) == (40, "update", 40)
    assert [(leaf.path, leaf.values, leaf.ulps) for leaf in parting.leaves] == [("update/params/hidden0/bias", 16, 1)]


def test_another_run_of_the_same_config_is_held_against_it(tiny: Any, copied: Path, tmp_path: Path):
    run.distill(tiny.config(), tmp_path / "other", only="kd/0", replicate=0, quiet=True)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, against=tmp_path / "other", quiet=True)
    assert found.code == replay.SAME
    assert not (copied / "replicates/0/students/kd/0" / replay.FILE).exists()  # the place of what it finds of itself


def test_a_run_of_another_config_is_told_from_a_difference(tiny: Any, copied: Path, tmp_path: Path):
    other = tiny.config(student__train__optimizer__learning_rate=0.02)
    run.distill(other, tmp_path / "other", only="kd/0", replicate=0, quiet=True)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, against=tmp_path / "other", quiet=True)
    assert found.code == replay.INCOMPARABLE and "learning_rate: 0.02 -> 0.01" in str(found)


def test_another_setting_of_jax_is_another_environment(tiny: Any, copied: Path):
    here = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    arguments = ("replay", f"--workdir={copied}", "--student=kd/0", "--replicate=0", "--quiet")
    process = tiny.start(*arguments, environment=here)
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == replay.INCOMPARABLE and "disable_most_optimizations" in said, errors


def test_another_environment_is_named_and_not_compared(tiny: Any, copied: Path):
    here = {"NPROC": "7"} if os.environ.get("NPROC") != "7" else {"NPROC": "6"}
    arguments = ("replay", f"--workdir={copied}", "--student=kd/0", "--replicate=0", "--quiet")
    process = tiny.start(*arguments, environment=here)
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == replay.INCOMPARABLE, errors
    assert "not comparable" in said and "thread pool" in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"student": "kd/9"}, "expected one of"),
        ({"replicate": 2}, "expected 0 to 1"),
        ({"workdir": Path("nowhere")}, "--workdir: there is no folder"),
        ({"against": Path("nowhere")}, "--against: there is no folder"),
        ({"first": 5, "last": 3}, "the second behind the first"),
        ({"last": -1}, "from 0 on"),
        ({"first": 100}, "--from=100 --to=0: out of range, the record has the steps from 0 to 40"),
        ({"last": 41}, "--to=41: out of range"),
    ],
)
def test_mistakes_are_one_message(copied: Path, given: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        replay.replay(**({"workdir": copied, "quiet": True} | given))


def _results(folder: Path, **changes: Any) -> None:
    files.write_signed(folder / "result.json", files.read_json(folder / "result.json") | changes)


def _flip(path: Path) -> None:
    """One bit of the last byte."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_part_that_cannot_be_run_again_keeps_no_other_from_it(copied: Path, capsys: pytest.CaptureFixture[str]):
    students = copied / "replicates/0/students"
    made_of = files.read_json(students / "kd/0/result.json")["made_of"]
    _results(students / "kd/0", made_of=made_of | {"teacher": "0" * 64})
    _flip(students / "kd/1/variables.safetensors")
    (students / "cross_entropy/0/result.json").write_text("{")
    _flip(students / "cross_entropy/1/checksums.bin")
    shutil.rmtree(students / "knowledge_graph")
    assert cli.main(["replay", f"--workdir={copied}", "--replicate=0", "--quiet"]) == replay.DIVERGED
    teacher, damaged, record, another, flipped = capsys.readouterr().out.splitlines()
    assert teacher.startswith("replicate 0 teacher: the same from step 0 to 40")
    assert damaged.startswith("replicate 0 cross_entropy/0: damaged. ") and "result.json is not valid JSON" in damaged
    assert record.startswith("replicate 0 cross_entropy/1: damaged. The record ") and "digests" in record
    assert another.startswith("replicate 0 kd/0: not comparable. ") and "digest of the teacher: '000" in another
    assert flipped.startswith("replicate 0 kd/1: damaged. ") and "variables.safetensors is damaged" in flipped
    assert files.read_json(students / "kd/1/replay.json")["code"] == replay.DIVERGED
    assert not (students / "kd/0/replay.json").exists()


def test_a_part_that_was_made_under_other_settings_is_not_compared(tiny: Any, copied: Path):
    """A change that was allowed leaves finished parts as they are."""
    kd = {"objective": {"cross_entropy": 0.1, "kd": 0.9}, "train": {"optimizer": {"learning_rate": 0.02}}}
    keys = ["students.kd.train.optimizer.learning_rate"]
    run.distill(tiny.config(students__kd=kd), copied, only="kd/0", replicate=0, quiet=True, allow_change=keys)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.INCOMPARABLE and f"{keys[0]}: 0.01 -> 0.02" in str(found)


@pytest.mark.fault(4)
@pytest.mark.parametrize("old", ["/kernel", 'given": {', '"leaves"'])
def test_names_and_digests_of_what_was_given_that_are_not_as_written_are_damage(copied: Path, old: str):
    """No leaf and no teacher is blamed for rot in the record."""
    path = copied / "replicates/0/students/kd/0/checksums.json"
    data = bytearray(path.read_bytes())
    data[data.index(old.encode()) + 1] ^= 1
    path.write_bytes(data)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and "checksums.json is " in found.damaged


@pytest.mark.fault(4)
@pytest.mark.parametrize("files_left", [("checksums.bin", "digests.jsonl"), ("digests.jsonl",), ()])
def test_a_part_without_its_record_is_damaged_and_not_left_out(copied: Path, files_left: tuple[str, ...]):
    folder = copied / "replicates/0/students/kd/0"
    for name in {"checksums.json", "checksums.bin", "digests.jsonl"} - set(files_left):
        (folder / name).unlink()
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and "the record in" in found.damaged


@pytest.mark.parametrize("file", ["graph/arrays.safetensors", "graph/graph.json", "teacher/variables.safetensors"])
def test_a_damaged_file_that_students_were_made_from_is_damage(copied: Path, file: str):
    _flip(copied / "replicates/1" / file)
    told: list[replay.Replayed] = []
    found = replay.replay(copied, student="kd/0", quiet=True, told=told.append)
    assert [each.code for each in found] == [replay.SAME, replay.DIVERGED] and told == found
    assert file in str(found[1]) and found[1].outcome is None


@pytest.mark.fault(4)
@pytest.mark.parametrize("old, new", [('"batch": 16', '"batch": 17'), ('"changes"', '"changez"'), ("{", "")])
def test_a_damaged_sidecar_of_an_unfinished_part_is_damage(copied: Path, old: str, new: str):
    folder = copied / "replicates/0/students/kd/0"
    (folder / "result.json").unlink()
    newest = max((folder / "checkpoints").glob("*.json"))
    text = newest.read_text()
    assert old in text
    newest.write_text(text.replace(old, new, 1))
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and newest.name in found.damaged


@pytest.mark.fault(4)
def test_a_record_that_is_cut_under_a_finished_part_is_damage(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    path = folder / "digests.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    path = copied / "replicates/1/students/kd/0/checksums.bin"
    path.write_bytes(path.read_bytes()[:-1])
    found = replay.replay(copied, student="kd/0", quiet=True)
    assert [each.code for each in found] == [replay.DIVERGED] * 2 and all(each.damaged for each in found)


def test_a_damaged_manifest_is_damage(copied: Path, capsys: pytest.CaptureFixture[str]):
    path = copied / "manifest.json"
    path.write_text(path.read_text().replace('"name": "', '"name": "x', 1))
    assert cli.main(["replay", f"--workdir={copied}", "--quiet"]) == replay.DIVERGED
    assert "is not what was saved" in capsys.readouterr().err


def test_against_a_run_of_another_config_without_the_part_here_is_not_compared(tiny: Any, copied: Path, tmp_path: Path):
    """Nothing is left in its place, either."""
    folder = copied / "replicates/0/students/kd/0"
    there = tmp_path / "there"
    shutil.copytree(copied, there)
    shutil.rmtree(folder)
    made_of = files.read_json(there / "replicates/0/students/kd/0/result.json")["made_of"]
    _results(there / "replicates/0/students/kd/0", made_of=made_of | {"seed": 5})
    (found,) = replay.replay(copied, student="kd/0", replicate=0, against=there, quiet=True)
    assert found.code == replay.INCOMPARABLE and "seed: 5 -> 0" in str(found) and not folder.exists()


def test_each_part_is_held_against_the_environment_it_was_made_in(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    made_of = files.read_json(folder / "result.json")["made_of"]
    older = made_of["environment"]["versions"] | {"jax": "0.1"}
    _results(folder, made_of=made_of | {"environment": made_of["environment"] | {"versions": older}})
    first, second = replay.replay(copied, student="kd/0", quiet=True)
    assert first.code == replay.INCOMPARABLE and "The version of jax was '0.1'" in str(first)
    assert second.code == replay.SAME
    (anyway,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True, anyway=True)
    assert anyway.code == replay.SAME and "The version of jax was '0.1'" in str(anyway)


def test_a_part_that_does_not_say_where_it_was_made_has_the_environment_of_the_manifest(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    made_of = files.read_json(folder / "result.json")["made_of"]
    _results(folder, made_of={key: it for key, it in made_of.items() if key != "environment"})
    whole = files.read_json(copied / "manifest.json")
    whole["environment"]["versions"]["jax"] = "0.1"
    files.write_json(copied / "manifest.json", manifest.signed(whole))
    first, second = replay.replay(copied, student="kd/0", quiet=True)
    assert (first.code, second.code) == (replay.INCOMPARABLE, replay.SAME)


def test_fewer_devices_than_the_run_had_are_another_environment(copied: Path):
    whole = files.read_json(copied / "manifest.json")
    whole["config"]["devices"] = 8
    files.write_json(copied / "manifest.json", manifest.signed(whole))
    folder = copied / "replicates/0/students/kd/0"
    made_of = files.read_json(folder / "result.json")["made_of"]
    devices = made_of["environment"]["devices"] | {"count": 8, "mesh": {"data": 8}}
    _results(folder, made_of=made_of | {"environment": made_of["environment"] | {"devices": devices}})
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.INCOMPARABLE and "The devices' count was 8 and is 4." in str(found)


@pytest.mark.fault(4)
@pytest.mark.parametrize("file", ["predictions", "projection"])
def test_damaged_predictions_are_damage(copied: Path, file: str):
    _flip(copied / f"replicates/0/students/knowledge_graph/0/{file}.safetensors")
    (found,) = replay.replay(copied, student="knowledge_graph/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and f"{file}.safetensors is damaged" in found.damaged


@pytest.mark.fault(4)
def test_a_flipped_row_of_an_unfinished_part_is_damage(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    (folder / "result.json").unlink()
    (folder / "digests.jsonl").write_bytes(b"")  # as where `digest_every` is large
    data = bytearray((folder / "checksums.bin").read_bytes())
    data[0] ^= 1
    (folder / "checksums.bin").write_bytes(data)
    (found,) = replay.replay(copied, student="kd/0", replicate=0, quiet=True)
    assert found.code == replay.DIVERGED and "knows other rows or lines" in found.damaged


def test_where_nothing_can_be_written_all_is_told(copied: Path):
    """As in an archive: a folder stands where the finding of the first would."""
    (copied / "replicates/0/students/kd/0" / replay.FILE).mkdir()
    with pytest.warns(Notice, match=r"What was found of replicate 0 kd/0 is not kept"):
        found = replay.replay(copied, student="kd/0", quiet=True)
    assert [each.code for each in found] == [replay.SAME] * 2
    assert (copied / "replicates/1/students/kd/0" / replay.FILE).is_file()


def test_a_source_that_changed_since_or_on_the_way_is_told_of_the_part(copied: Path):
    folder = copied / "replicates/0/students/kd/0"
    made_of = files.read_json(folder / "result.json")["made_of"]
    assert made_of["environment"]["package"] == manifest.read(copied)[1]["environment"]["package"]
    change = {"step": 20, "key": "environment.package", "old": "a", "new": "b"}
    _results(folder, made_of=made_of | {"environment": made_of["environment"] | {"package": "b"}}, changes=[change])
    first, second = replay.replay(copied, student="kd/0", quiet=True)
    assert first.points == ("The source of jkd changed at step 20 of it.", "The source of jkd is not that of the part.")
    assert first.code == second.code == replay.SAME and not second.points
