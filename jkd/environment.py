"""Where a run is computed: all that can move its bits and is neither config nor data.

`describe_environment` is what the manifest holds under "environment"; `compare_environment` says in which points two of
them cannot be compared bit for bit. The source of jkd is described, too, but changing it is the business of whoever
changes it: it is recorded and told, never refused. So are the versions of packages that compute nothing.
"""

import functools
import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jkd import __version__, changes, digest, xla
from jkd.changes import Change

# What computes: these move bits. Whatever else jkd requires is recorded besides.
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow"),
    *("scipy", "tokenizers"),  # neighbours among texts; what a text is to a network
)
# Compilers of other devices: recorded where they are installed.
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
# Beginnings of those of jax's settings that change no bit of what is computed: every other may. The last line is of
# those that `precision` has.
IDLE = tuple(
    f"jax_{name}"
    for name in (
        *("compilation_cache", "persistent_cache", "enable_compilation_cache", "raise_persistent", "remove_custom"),
        *("log", "debug", "explain", "dump", "include", "traceback", "tracer", "send_traceback", "pprint", "captured"),
        *("check_", "enable_checks", "error_checking", "transfer_guard", "thread_guard", "array_garbage", "no_tracing"),
        *("disallow", "disable_vmap_shmap_error", "legacy_prng_key", "explicit_x64", "numpy_rank", "mutable_array"),
        *("hlo_source", "source_url", "compiler_detailed", "export", "serialization", "pallas_verbose"),
        *("distributed", "cross_host", "force_dcn", "share_binary", "enable_preemption", "enable_recoverability"),
        *("cpu_get", "cpu_collectives", "cpu_enable_async", "num_cpu_devices", "pjrt_client", "mock", "sort_devices"),
        *("platform", "backend", "xla_backend", "default_device", "cuda_visible", "rocm_visible", "oneapi_visible"),
        *("default_matmul_precision", "enable_x64", "default_prng_impl", "threefry_partitionable"),
    )
)
VARIABLES = (
    *("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
    *("TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE"),
)
MOST_PATCH = 2**20  # bytes of a patch that are kept
DIFF = (
    *("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
# Instruction sets that XLA's code generator picks code by; the rest of the kernel's list says nothing of arithmetic.
ISA = re.compile(r"(sse|ssse|avx|fma|bmi|f16c|amx|asimd|neon|sve|sme(?!p)|fphp|bf16|i8mm|dotprod|popcnt|lzcnt|abm)")
RECORDED = ("threads.pinned", "cpu.model", "cpu.isa_sha256", "devices.seen", "devices.computing")  # and no more
PLAIN = "plain"  # the reduction whose bits depend on how many devices there are

Environment = dict[str, Any]


def describe_environment(mesh: Mesh | None = None, computing: int = 0) -> Environment:
    """The environment of this process, JSON-ready.

    Args:
      mesh: of the run; without one, all devices are taken to be used.
      computing: how many devices of all processes compute; 0 = those of the mesh.

    Returns:
      versions: of Python, jkd, all that jkd requires, jaxlib, and the plugins that are there.
      xla_flags: in force, sorted, without the number of pretended devices.
      threads: `pool`, the size of XLA's pool on CPU, and `pinned`, what the variable NPROC says, or None.
      cpu: `model`, `machine`, `isa` (instruction sets that arithmetic is compiled for) and its digest.
      devices: `platform`, `kind`, `runtime` (the driver's version), `seen` (by jax), `count` (in the mesh),
        `processes`, `mesh` (axis -> size; `{}` without one), and `computing`: with the elastic reduction the mesh has
        one device, and others work for it.
      jax: settings of jax that change what is computed.
      variables: of the environment, that compilers of accelerators read; those that are set.
      precision: jax's defaults: `matmul`, `x64`, `random` (generator), `partitionable`.
      source: `commit` and `patch` (see `source`), or None.
      package: SHA-256 of jkd's files (see `package_digest`).
    """
    device = mesh.devices.flat[0] if mesh else jax.devices()[0]
    of_source, setting = source(), lambda name: getattr(jax.config, f"jax_{name}")
    count = int(mesh.devices.size) if mesh else jax.device_count()
    return {
        "versions": versions(),
        "xla_flags": xla.flags(),
        "threads": threads(),
        "cpu": cpu(),
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "runtime": "" if device.platform == "cpu" else str(device.client.platform_version),
            "seen": jax.device_count(),
            "count": count,
            "computing": computing or count,
            "processes": jax.process_count(),
            "mesh": {str(axis): int(size) for axis, size in mesh.shape.items()} if mesh else {},
        },
        "jax": {name: str(value) for name, value in sorted(jax.config.values.items()) if _computes(name)},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "precision": {
            "matmul": str(setting("default_matmul_precision") or "default"),
            "x64": bool(setting("enable_x64")),
            "random": str(setting("default_prng_impl")),
            "partitionable": bool(setting("threefry_partitionable")),
        },
        "source": of_source and {key: value for key, value in of_source.items() if key != "text"},
        "package": package_digest(),
    }


def of_bits(environment: Environment, reduction: str = PLAIN) -> Environment:
    """What of an environment moves bits: groups of plain values, which a part keeps with its result."""

    def kept(name: str, group: Any) -> Any:
        if not isinstance(group, dict):
            return group
        return {key: value for key, value in group.items() if _matters(f"{name}.{key}", reduction)}

    return {name: kept(name, group) for name, group in environment.items() if _matters(name, reduction)}


def compare_environment(old: Environment, new: Environment, reduction: str = PLAIN) -> list[str]:
    """In which points two environments are not comparable bit for bit, a sentence each; [] where they are.

    With the reduction `elastic` the number of devices and processes makes no difference; the size of the thread pool
    does in both, because a matrix product is cut by it.
    """
    return [sentence(change) for change in differences(old, new, reduction)]


def differences(old: Environment, new: Environment, reduction: str = PLAIN) -> list[Change]:
    """What `compare_environment` says, as keys below `environment.` with both values."""
    unknown_mesh = not all(some.get("devices", {}).get("mesh") for some in (old, new))
    # A package of these is always there: without its version, whoever wrote that did not look.
    listed = [some.get("versions", {}) for some in (old, new)]
    unknown = {f"versions.{name}" for name in PACKAGES if not all(name in versions for versions in listed)}
    # So is every setting, in one version of jax.
    unknown |= {f"jax.{name}" for name in old.get("jax", {}).keys() ^ new.get("jax", {}).keys()}
    return [
        Change(f"environment.{change.key}", change.old, change.new)
        for change in changes.between(old, new)
        if _matters(change.key, reduction)
        and change.key not in unknown
        and not (unknown_mesh and change.key.startswith("devices.mesh"))
    ]


def source_differences(old: Environment, new: Environment) -> list[Change]:
    """How the source of jkd differs: `environment.source`, as one change, and `environment.package`; or not at all."""
    found = [Change("environment.source", old.get("source"), new.get("source"))]
    if "package" in old and "package" in new:
        found.append(Change(changes.PACKAGE, old["package"], new["package"]))
    return [change for change in found if change.old != change.new]


def sentence(change: Change) -> str:
    """A difference in words."""
    _, group, *rest = change.key.split(".")
    key = ".".join(rest)
    old, new = change.old, change.new
    if group == "cpu" and isinstance(old, list) and isinstance(new, list):
        gone, more = sorted(set(old) - set(new)), sorted(set(new) - set(old))
        parts = [f"lacks {', '.join(gone)}"] * bool(gone) + [f"has {', '.join(more)} besides"] * bool(more)
        return f"The CPU {' and '.join(parts)}."
    what = {
        "versions": f"The version of {key}",
        "xla_flags": "The XLA flags",
        "threads": "The size of the thread pool (set NPROC to pin it)",
        "cpu": f"The CPU's {key}",
        "devices": f"The devices' {key}",
        "precision": f"jax's default of {key}",
        "jax": f"jax's setting {key}",
        "variables": f"The environment's variable {key}",
    }.get(group, change.key)
    return f"{what} was {_spelled(old)} and is {_spelled(new)}."


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that results depend on, and of all others that jkd requires."""
    found = {"python": platform.python_version(), "jkd": __version__}
    for package in (*PACKAGES, *PLUGINS, *required()):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package not in PLUGINS:
                found[package] = "not installed as a package"
    return found


@functools.cache
def required() -> tuple[str, ...]:
    """Names of the packages that jkd requires without extras; none where jkd itself is not installed."""
    try:
        listed = metadata.requires("jkd") or []
    except metadata.PackageNotFoundError:
        return ()
    names = (re.match(r"[\w.-]+", each) for each in listed if "extra ==" not in each)
    return tuple(re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name)


def threads() -> dict[str, int | None]:
    """XLA's pool on CPU: as many threads as NPROC says, else as there are cores to run on; at least one a device."""
    pinned = xla.pinned()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return {"pool": max(cores if pinned is None else pinned, devices), "pinned": pinned}


@functools.cache
def cpu() -> dict[str, Any]:
    """Model, machine, and the instruction sets that arithmetic may be compiled for; empty where the system hides it."""
    model, isa = platform.processor(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                isa = {flag for flag in value.split() if ISA.match(flag)}
                break
    except OSError:
        pass
    listed = sorted(isa)
    return {"model": model, "machine": platform.machine(), "isa": listed, "isa_sha256": digest.of_json(listed)}


@functools.cache
def package_digest(package: Path | None = None) -> str:
    """SHA-256 over the files of a package, that of jkd: relative path and bytes of each, sorted by path.

    Compiled Python, which comes and goes while others start, and hidden files, such as an editor's, are left out.
    """
    package = package or Path(__file__).resolve().parent
    every = {path.relative_to(package): path for path in package.rglob("*") if path.is_file()}
    found = {
        path.as_posix(): file
        for path, file in every.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts) and path.suffix != ".pyc"
    }
    return digest.of_bytes(*(part for name in sorted(found) for part in (name.encode(), found[name].read_bytes())))


@functools.cache
def source(package: Path | None = None) -> dict[str, Any] | None:
    """The commit that jkd was loaded from, and what was not committed, where the package lies in a git checkout.

    The patch is `git diff HEAD` of the checkout and the package's untracked files, cut after `MOST_PATCH` bytes.

    Args:
      package: folder of the package; that of jkd.

    Returns:
      `commit`, `patch` (SHA-256 of the patch, '' where there is none), `whole` (False where the patch was cut), and
      `text` (the patch, bytes); None without git, or where git does not track the package.
    """
    package = package or Path(__file__).resolve().parent
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    top = _git(package, "rev-parse", "--show-toplevel")
    if tracked is None or top is None:
        return None
    root, diff = Path(os.fsdecode(top.rstrip(b"\n"))), ("diff", *DIFF)
    commit, patch = _git(root, "rev-parse", "HEAD"), _git(root, *diff, "HEAD")
    if commit is None or patch is None:
        return None
    pattern = str(package.relative_to(root)) if package.is_relative_to(root) else "*.py"
    untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", pattern) or b""
    for name in sorted(filter(None, untracked.split(b"\0"))):
        if len(patch) <= MOST_PATCH:
            patch += _git(root, *diff, "--no-index", "--", os.devnull, os.fsdecode(name)) or b""
    text = patch[:MOST_PATCH]
    return {
        "commit": commit.decode().strip(),
        "patch": hashlib.sha256(text).hexdigest() if text else "",
        "whole": len(patch) <= MOST_PATCH,
        "text": text,
    }


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What a git command prints, or None where there is no git, no checkout, or no answer in time."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 or "--no-index" in arguments else None


def _computes(name: str) -> bool:
    """Whether one of jax's settings may change what is computed."""
    return name.startswith("jax_") and not name.startswith(IDLE)


def _matters(key: str, reduction: str) -> bool:
    if key.startswith(("source", "package")) or key in RECORDED:
        return False
    if key.startswith("versions."):
        return key.removeprefix("versions.") in ("python", "jkd", *PACKAGES, *PLUGINS)
    layout = key in ("devices.count", "devices.processes") or key.startswith("devices.mesh")
    return reduction == PLAIN or not layout


def _spelled(value: Any) -> str:
    return "absent" if value == "absent" else repr(value)
