"""The command line: one verb, one short function.

    jkd distill --config=configs/digits.py --workdir=runs/digits --config.student.width=16

Exit codes: 0 done, 2 a mistake the message explains, 128 + n stopped by signal n after saving (SIGTERM: 143); of
`replay`, 3 diverged and 4 not comparable.
"""

import argparse
import contextlib
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from jkd import __version__, processes
from jkd.errors import Damaged, Notice, UserError, did_you_mean
from jkd.streams import open_streams, say

FORMAT_WARNING = warnings.formatwarning
Verb = Callable[[argparse.Namespace], int | None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


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
    parser, verbs = _parsers()
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


def _parsers() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="jkd",
        description="Knowledge distillation through a knowledge graph.",
        epilog="example:\n  jkd distill --config=configs/digits.py --workdir=runs/digits\n\njkd VERB --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jkd {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    made: dict[str, argparse.ArgumentParser] = {}

    def verb(name: str, run: Verb, summary: str, example: str, more: str = "") -> argparse.ArgumentParser:
        made[name] = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}" + (f"\n\n{more}" if more else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made[name].set_defaults(run=run)
        return made[name]

    add = verb(
        "distill",
        _distill,
        "Make the teacher, the graph and the students that are not there yet, then the report.",
        "jkd distill --config=configs/digits.py --workdir=runs/digits --config.student.width=16",
    ).add_argument
    _config_flag(add)
    _workdir_flag(add)
    add(
        "--only",
        metavar="NAME/SEED",
        default=None,
        help="only this student and seed, or NAME for all its seeds, or graph, and what it needs; no report",
    )
    add("--replicate", metavar="I", type=int, default=None, help="only this replicate; no report")
    _allow_flag(add)
    add("--strict", action="store_true", help="end where there would be a warning, as of a damaged checkpoint")
    add("--quiet", action="store_true", help="no progress")
    add("--distributed", action="store_true", help="one of several processes, as the cluster's environment says")
    add("--coordinator", metavar="HOST:PORT", default=None, help="of process 0, where no cluster's environment says it")
    add("--processes", metavar="N", type=int, default=None, help="how many processes there are")
    add("--process", metavar="I", type=int, default=None, help="which one this is, from 0")
    add = verb(
        "replay",
        _replay,
        "Train parts of a run again and compare every step with the record.",
        "jkd replay --workdir=runs/digits --student=knowledge_graph/0 --replicate=3",
        "exit codes: 0 the same, 3 diverged, 4 another environment",
    ).add_argument
    _workdir_flag(add)
    add("--student", metavar="NAME/SEED", default="", help="only this student, or 'teacher'; otherwise all parts")
    add("--replicate", metavar="I", type=int, default=None, help="only this replicate")
    add(
        "--from",
        metavar="N",
        type=int,
        default=None,
        dest="first",
        help="begin at the newest checkpoint up to this step",
    )
    add(
        "--to",
        metavar="N",
        type=int,
        default=0,
        dest="last",
        help="stop at this step, and, without --from, begin at the newest checkpoint before it",
    )
    add("--against", metavar="DIR", default="", help="compare with the record of another run of the same config")
    add("--anyway", action="store_true", help="compare even in an environment that gives other bits")
    add("--quiet", action="store_true", help="no progress")
    add = verb(
        "evaluate",
        _evaluate,
        "Evaluate a finished student on the test split of a data set, its own or another with the same classes.",
        "jkd evaluate --workdir=runs/digits --student=knowledge_graph/0 --replicate=3",
    ).add_argument
    _network_flags(add)
    add("--data", metavar="PATH", default="", help="another data set of the same form (config.data.path)")
    add("--min-score", metavar="S", type=float, default=0.0, help="detection: leave out boxes with lower scores")
    add = verb(
        "export",
        _export,
        "Take a finished network out of a run: weights as others read them, and a program that runs without jkd.",
        "jkd export --workdir=runs/digits --student=knowledge_graph/0 --to=student",
    ).add_argument
    _network_flags(add)
    add("--to", metavar="DIR", type=_place, required=True, help="a folder that is new")
    add = verb(
        "report",
        _report,
        "Write the report of what is finished in a workdir, as after a fan-out over many machines.",
        "jkd report --workdir=runs/digits",
    ).add_argument
    _workdir_flag(add)
    add = verb(
        "config",
        _config,
        "Print the resolved config; * marks what is not the default.",
        "jkd config --config=configs/digits.py:full --config.student.width=16",
    ).add_argument
    _config_flag(add)
    add = verb(
        "graph",
        _graph,
        "Build, describe, verify or export a knowledge graph.",
        "jkd graph export --workdir=runs/digits --replicate=0 --to=digits.graphml",
    ).add_argument
    add("action", choices=("build", "show", "check", "export"))
    _config_flag(add, required=False)
    _workdir_flag(add)
    add("--replicate", metavar="I", type=int, default=0)
    _allow_flag(add)
    add("--to", metavar="FILE", default="", help="export: a .graphml or .json file")
    add = verb(
        "methods", _methods, "List the objective terms with their options and papers.", "jkd methods kd review"
    ).add_argument
    add("names", nargs="*", metavar="NAME", help="only these, with all that their functions say")
    return parser, made


def _config_flag(add: Callable[..., argparse.Action], required: bool = True) -> None:
    add("--config", metavar="FILE[:VARIANT]", required=required, help="set keys with --config.KEY=VALUE")


def _allow_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--allow-change",
        metavar="KEY",
        type=_key,
        action="append",
        default=[],
        help="go on although this key (student.train.batch, environment.versions.jax) or group of keys differs from "
        "the manifest's; the manifest records it; can be given several times",
    )


def _key(text: str) -> str:
    if not text.strip("."):
        raise argparse.ArgumentTypeError(f"expected a key such as student.train.batch, got '{text}'")
    return text


def _workdir_flag(add: Callable[..., argparse.Action]) -> None:
    add("--workdir", metavar="DIR", type=_place, required=True, help="the folder of the run, also gs://BUCKET/FOLDER")


def _network_flags(add: Callable[..., argparse.Action]) -> None:
    """Which finished network of a run."""
    _workdir_flag(add)
    add("--student", metavar="NAME/SEED", required=True, help="the student, or 'teacher'")
    add("--replicate", metavar="I", type=int, default=0)


def _place(text: str) -> "places.Path":  # type: ignore[name-defined]
    from jkd import places

    return places.path_of(text)


def _resolved(options: argparse.Namespace) -> "ConfigDict":  # type: ignore[name-defined]
    from jkd import config as configs

    config = configs.load(options.config)
    for override in options.overrides:
        path, _, value = override.removeprefix("--config.").partition("=")
        configs.override(config, path, value)
    return configs.resolve(config)


def _distill(options: argparse.Namespace) -> None:
    if options.only == "":
        raise UserError("--only: expected NAME/SEED, NAME or graph, got nothing.")
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

    given = (options.workdir, options.student, options.replicate, options.data, options.min_score)
    for metric, value in run.evaluate(*given).items():
        say(f"{metric:>10} {'-' if value is None else f'{value:.4f}'}")


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


if __name__ == "__main__":
    sys.exit(main())
