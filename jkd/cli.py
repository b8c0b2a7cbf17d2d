"""The command line: one verb, one short function.

    jkd distill --config=configs/digits.py --workdir=runs/digits --config.student.width=16

Exit codes: 0 done, 2 a mistake the message explains, 128 + n stopped by signal n after saving (SIGTERM: 143); of
`replay`, 3 diverged and 4 not comparable.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence

from jkd import processes
from jkd.arguments import parsers
from jkd.errors import Damaged, Notice, UserError, did_you_mean
from jkd.streams import open_streams, say

FORMAT_WARNING = warnings.formatwarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    open_streams()
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    warnings.formatwarning = _plain_warning
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except (UserError, OSError, Notice) as error:  # a notice is raised with --strict alone
        if os.environ.get("JKD_TRACEBACK"):
            raise
        if isinstance(error, Notice):
            return _ended(f"{error} (--strict)", 2)
        return _ended(str(error) if isinstance(error, UserError) else f"{error}. Check space and permissions.", 2)
    except KeyboardInterrupt:  # before or after the time in which Ctrl-C is a request
        return _ended("stopped by SIGINT; run the same command again to go on", 128 + signal.SIGINT)
    except Exception as error:
        if type(error).__name__ == "Interrupted":  # by name: importing the class would load jax
            return _ended(str(error), int(getattr(error, "code", 1)))
        if processes.count() > 1:  # an orderly end would wait for the others, which wait for this one
            traceback.print_exc()
            return _ended("this process failed, and takes the others with it", 1)
        raise
    return 0


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """After a checkpoint that cannot be read or written, tensorstore's threads still call the loop orbax has closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _plain_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of jkd's is a message to the user; others keep the place in the code that they come from."""
    if issubclass(category, Notice):
        return f"jkd: {message}\n"
    return FORMAT_WARNING(message, category, filename, lineno, line)


def _ended(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"jkd: {message}", file=sys.stderr, flush=True)
    if processes.count() > 1:  # leaving in order would wait for the others, which wait for this one
        os._exit(code)
    return code


def _run(arguments: list[str]) -> int:
    parser, verbs = parsers(VERBS)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in verbs:
        raise UserError(f"unknown verb '{arguments[0]}'.{did_you_mean(arguments[0], verbs)}")
    overrides = [argument for argument in arguments if argument.startswith("--config.")]
    rest = [argument for argument in arguments if not argument.startswith("--config.")]
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override}: expected --config.KEY=VALUE.")
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        flags = [flag for action in verbs[options.verb]._actions for flag in action.option_strings if flag[:2] == "--"]
        raise UserError(f"unknown argument '{unknown[0]}'.{did_you_mean(unknown[0].split('=')[0], flags)}")
    if overrides and not hasattr(options, "config"):
        raise UserError(f"{overrides[0]}: 'jkd {options.verb}' takes no config.")
    options.overrides = overrides
    return options.run(options) or 0


def _resolved(options: argparse.Namespace) -> "ConfigDict":  # type: ignore[name-defined]
    from jkd import config as configs

    config = configs.load(options.config)
    for override in options.overrides:
        path, _, value = override.removeprefix("--config.").partition("=")
        configs.override(config, path, value)
    return configs.resolve(config)


def _distill(options: argparse.Namespace) -> None:
    if options.only == "":
        raise UserError("--only: expected NAME/SEED, NAME, graph or teacher, got nothing.")
    config = _resolved(options)
    with warnings.catch_warnings():
        if options.strict:
            warnings.filterwarnings("error", category=Notice)
        _join_processes(options, config)
        from jkd import report, run
        from jkd.train import interrupt

        with interrupt.listen():
            summary = run.distill(
                config,
                options.workdir,
                only=options.only or "",
                replicate=options.replicate,
                quiet=options.quiet,
                allow_change=options.allow_change,
            )
    if summary is not None:
        say(report.table(summary), _where(options.workdir))


def _join_processes(options: argparse.Namespace, config: "ConfigDict") -> None:  # type: ignore[name-defined]
    """Starts `jax.distributed` where the flags ask for it, with the XLA flags of the config set before."""
    group = (options.coordinator, options.processes, options.process)
    given = [value is not None for value in group]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --processes and --process belong together: all of them, or --distributed alone."
        )
    if any(given) and options.processes < 1:
        raise UserError(f"--processes: expected 1 or more, got {options.processes}.")
    if any(given) and not 0 <= options.process < options.processes:
        raise UserError(f"--process: expected 0 to {options.processes - 1}, got {options.process}.")
    if options.distributed or any(given):
        from jkd import processes, xla

        xla.set_flags(config.reduction, config.deterministic, config.shards)
        processes.start(*(group if any(given) else ()))


def _where(workdir: "places.Path") -> str:  # type: ignore[name-defined]
    return f"\nreport: {workdir / 'report' / 'index.html'}"


def _replay(options: argparse.Namespace) -> int:
    from jkd import replay

    given = ("workdir", "student", "replicate", "first", "last", "against", "anyway", "quiet")
    asked = {key: getattr(options, key) for key in given}
    try:
        found = replay.replay(**asked, told=lambda each: say(str(each)))
    except Damaged as error:
        return _ended(str(error), replay.DIVERGED)
    return min((each.code for each in found if each.code), default=0)  # one that diverged is what matters most


def _evaluate(options: argparse.Namespace) -> None:
    from jkd import run

    given = (options.workdir, options.student, options.replicate, options.data, options.min_score, options.split)
    found = run.evaluate(*given)
    width = max(10, *map(len, found))
    for metric, value in found.items():
        say(f"{metric:>{width}} {'-' if value is None else f'{value:.4f}'}")


def _predict(options: argparse.Namespace) -> None:
    from jkd import predict

    if options.neighbours < 0:
        raise UserError(f"--neighbours: expected 0 or more, got {options.neighbours}.")
    given = (options.workdir, options.student, options.inputs, options.replicate, options.neighbours)
    lines = [json.dumps(answer, ensure_ascii=True) for answer in predict.predict(*given)]
    if options.to is None:
        say("\n".join(lines))
        return
    from jkd import files

    files.write_bytes(options.to, "".join(f"{line}\n" for line in lines).encode())
    say(f"wrote {len(lines)} lines to {options.to}")


def _export(options: argparse.Namespace) -> None:
    from jkd import run

    say(run.export(options.workdir, options.student, options.to, options.replicate))


def _report(options: argparse.Namespace) -> None:
    from jkd import report, run

    say(report.table(run.report(options.workdir)), _where(options.workdir))


def _config(options: argparse.Namespace) -> None:
    from jkd import config as configs

    say(configs.show(_resolved(options)))


def _graph(options: argparse.Namespace) -> None:
    if options.action == "build":
        if not options.config:
            raise UserError("graph build needs --config=FILE.")
        config = _resolved(options)
        from jkd import run
        from jkd.train import interrupt

        with interrupt.listen():
            run.distill(
                config,
                options.workdir,
                only=run.GRAPH,
                replicate=options.replicate,
                allow_change=options.allow_change,
            )
        say(run.graph("show", options.workdir, options.replicate))
        return
    if options.action == "export" and not options.to:
        raise UserError("graph export needs --to=FILE.graphml or --to=FILE.json.")
    from jkd import run

    say(run.graph(options.action, options.workdir, options.replicate, options.to))


def _methods(options: argparse.Namespace) -> None:
    from jkd import methods

    for name in options.names:
        if name not in methods.METHODS:
            raise UserError(f"methods: there is no term '{name}'.{did_you_mean(name, methods.METHODS)}")
    for name in options.names or sorted(methods.METHODS):
        method = methods.METHODS[name]
        keys = ", ".join(f"{key}={value!r}" for key, value in methods.options(name).items())
        say(f"{name}\n    {method.function}\n    {keys}\n    {method.paper}")
        if options.names:
            say(f"\n{textwrap.indent(methods.documented(name), '    ')}\n")


VERBS = {
    "distill": _distill,
    "replay": _replay,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "report": _report,
    "config": _config,
    "graph": _graph,
    "methods": _methods,
}


if __name__ == "__main__":
    sys.exit(main())
