"""Scripts and manifests for clusters: they parse, and what of them can run here does."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = sorted(path.name for path in (Path(__file__).parents[2] / "launch").glob("*.sh"))
CLUSTER = ("slurm.sh", "tpu_pod.sh", "gke_jobset.yaml")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_parses(root: Path, script: str):
    done = subprocess.run(["bash", "-n", str(root / "launch" / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", "-x", script], cwd=root / "launch", capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "setup.sh"])
def test_a_script_stops_at_the_first_error(root: Path, script: str):
    assert "\nset -euo pipefail\n" in (root / "launch" / script).read_text()


@pytest.mark.parametrize("name", CLUSTER)
def test_what_was_not_run_says_so_at_its_head(root: Path, name: str):
    head = "\n".join((root / "launch" / name).read_text().splitlines()[:3])
    assert "Checked for syntax only." in head


@pytest.fixture
def tools(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Runs a script of a copy of `launch/` whose commands only say what they were given."""
    launch = tmp_path / "launch"
    shutil.copytree(root / "launch", launch)
    (launch / "setup.sh").write_text("")
    (tmp_path / "bin").mkdir()
    for name in ("srun", "gcloud"):
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/usr/bin/env bash\necho "{name} NPROC=${{NPROC:-}} IDS=${{JAX_LOCAL_DEVICE_IDS:-}} $*"\n')
        tool.chmod(0o755)

    def run(script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        everything = {key: value for key, value in os.environ.items() if key != "NPROC"} | {"PATH": path} | environment
        return subprocess.run(
            ["bash", str(launch / script), *arguments], cwd=tmp_path, env=everything, capture_output=True, text=True
        )

    return run


@pytest.fixture
def jkd(tmp_path: Path, tools: Any) -> None:
    """A `jkd` that prints a resolved config of two students and two seeds."""
    tool = tmp_path / "bin" / "jkd"
    lines = "* seeds = [0, 1]\n  students.kd.width = 32\n* students.kd.depth = 2\n  students.plain.width = 3\n"
    tool.write_text(f"#!/usr/bin/env bash\ncat <<'END'\n  name = 'x'\n{lines}END\n")
    tool.chmod(0o755)


def test_slurm_starts_one_process_a_task(tools: Any):
    done = tools("slurm.sh", "c.py", "work dir", "--config.data.pool=3", SLURM_GPUS_ON_NODE="3")
    assert done.stdout == (
        "srun NPROC=8 IDS=0,1,2 jkd distill --distributed --config=c.py --workdir=work dir --quiet "
        "--config.data.pool=3\n"
    )
    done = tools("slurm.sh", "c.py", "w", SLURM_NTASKS_PER_NODE="8", SLURM_GPUS_ON_NODE="8", NPROC="2")
    assert done.stdout == "srun NPROC=2 IDS= jkd distill --distributed --config=c.py --workdir=w --quiet\n"


@pytest.mark.usefixtures("jkd")
def test_slurm_gives_each_job_of_an_array_a_student(tools: Any):
    assert tools("slurm.sh", "--list", "c.py").stdout == "0 kd/0\n1 kd/1\n2 plain/0\n3 plain/1\n"
    done = tools("slurm.sh", "c.py", "w", SLURM_ARRAY_TASK_ID="2")
    assert "--only=plain/0 --quiet\n" in done.stdout and "--distributed" not in done.stdout
    done = tools("slurm.sh", "c.py", "w", SLURM_ARRAY_TASK_ID="4")
    assert done.returncode == 2 and "there are only 4 students" in done.stderr


def test_slurm_and_the_tpu_script_say_how_they_are_used(tools: Any):
    assert "usage: sbatch" in tools("slurm.sh").stderr
    assert "usage: launch/tpu_pod.sh" in tools("tpu_pod.sh", "tpu", "zone", "c.py").stderr
    assert "expected gs://BUCKET/FOLDER" in tools("tpu_pod.sh", "tpu", "zone", "c.py", "runs/x").stderr


def test_the_tpu_script_copies_then_starts_on_every_host(tools: Any):
    done = tools("tpu_pod.sh", "tpu", "zone", "c.py", "gs://b/x y", "--config.name=a b")
    assert done.returncode == 0, done.stderr
    make, copy, install, start = done.stdout.splitlines()
    assert all("--worker=all" in line and "--zone=zone" in line for line in (make, copy, install, start))
    assert r"jkd distill --distributed --config=c.py --workdir=gs://b/x\ y --quiet --config.name=a\ b" in start


def test_the_jobset_is_one_indexed_job_whose_numbers_agree(root: Path):
    yaml = pytest.importorskip("yaml")
    service, jobset = yaml.safe_load_all((root / "launch" / "gke_jobset.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]["containers"][0]
    command, environment = " ".join(pod["args"]), {entry["name"]: entry.get("value") for entry in pod["env"]}
    assert service["spec"]["clusterIP"] == "None" and job["completionMode"] == "Indexed"
    assert jobset["spec"]["network"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"]}
    count = re.search(r"--processes=(\d+)", command)
    assert count and int(count[1]) == job["completions"] == job["parallelism"]
    host, port = environment["COORDINATOR"].split(":")
    assert host == f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{service['metadata']['name']}"
    assert int(port) == pod["ports"][0]["containerPort"]


def test_the_flags_in_them_are_those_of_the_command_line(root: Path):
    from jkd.arguments import parsers
    from jkd.cli import VERBS

    known = {flag for verb in parsers(VERBS)[1].values() for action in verb._actions for flag in action.option_strings}
    text = "\n".join((root / "launch" / name).read_text() for name in CLUSTER)
    calls = re.findall(r"jkd (?:distill|report|config)[^\n]*(?:\n +--[^\n]*)*", text)
    used = {flag for call in calls for flag in re.findall(r"(--[a-z]+)(?==| |$)", call)}
    assert calls and used <= known, used - known
