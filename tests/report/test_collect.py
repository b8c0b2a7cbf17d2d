from collections.abc import Callable

import pytest

from jkd import files
from jkd.errors import UserError
from jkd.report.collect import collect


def test_a_folder_without_a_manifest_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        collect(tmp_path)


def test_a_manifest_of_something_else_is_refused(tmp_path) -> None:
    files.write_json(tmp_path / "manifest.json", {"name": "other"})
    with pytest.raises(UserError, match="expected the key 'config'"):
        collect(tmp_path)


def test_a_result_without_its_digest_is_refused_by_name(make_run: Callable) -> None:
    run = make_run(replicates=1)
    path = run.workdir / "replicates/0/students/kd/0/result.json"
    files.write_signed(path, files.read_json(path) | {"params": "abc"})
    with pytest.raises(UserError, match=r"kd/0/result\.json: 'params' is not a SHA-256"):
        collect(run.workdir)


def test_a_long_list_of_missing_parts_is_cut(make_run: Callable) -> None:
    run = make_run(replicates=1)
    manifest = files.read_json(run.workdir / "manifest.json")
    manifest["config"]["replicates"] = 12
    files.write_json(run.workdir / "manifest.json", manifest)
    assert collect(run.workdir).missing[0] == "the teacher of replicate 1, 2, 3, 4, 5, 6 and 5 more"


def test_a_line_of_metrics_cut_by_a_kill_is_left_out(make_run: Callable) -> None:
    run = make_run(replicates=1)
    path = run.workdir / "replicates/0/teacher/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5')
    curve = collect(run.workdir).teachers[0].curve()
    assert [line["step"] for line in curve] == list(range(50, 501, 50))
