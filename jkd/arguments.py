"""What the command line takes: verbs and their flags. Imports no jax."""

import argparse
from collections.abc import Callable, Mapping
from typing import NoReturn

from jkd import __version__
from jkd.errors import UserError

Verb = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def parsers(verbs_run: Mapping[str, Verb]) -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command, and that of each verb, which hands its options to the function of its name."""
    parser = Parser(
        prog="jkd",
        description="Knowledge distillation through a knowledge graph.",
        epilog="example:\n  jkd distill --config=configs/digits.py --workdir=runs/digits\n\njkd VERB --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jkd {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    made: dict[str, argparse.ArgumentParser] = {}

    def verb(name: str, summary: str, example: str, more: str = "") -> argparse.ArgumentParser:
        made[name] = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {example}" + (f"\n\n{more}" if more else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made[name].set_defaults(run=verbs_run[name])
        return made[name]

    add = verb(
        "distill",
        "Make the teacher, the graph and the students that are not there yet, then the report.",
        "jkd distill --config=configs/digits.py --workdir=runs/digits --config.student.width=16",
    ).add_argument
    _config_flag(add)
    _workdir_flag(add)
    add(
        "--only",
        metavar="NAME/SEED",
        default=None,
        help="only this student and seed, or NAME for all its seeds, or graph or teacher, and what it needs; no report",
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
        "Evaluate a finished student on a split of a data set, its own or another with the same classes.",
        "jkd evaluate --workdir=runs/digits --student=knowledge_graph/0 --replicate=3",
    ).add_argument
    _network_flags(add)
    add("--data", metavar="PATH", default="", help="another data set of the same form (config.data.path)")
    add("--split", choices=("test", "val"), default="test", help="test, or val: what was put aside for choices")
    add("--min-score", metavar="S", type=float, default=0.0, help="detection: leave out boxes with lower scores")
    add = verb(
        "predict",
        "What a finished network says of new inputs, as JSON lines, and the training samples it puts them next to.",
        "jkd predict --workdir=runs/digits --student=knowledge_graph/0 --inputs=FOLDER",
    ).add_argument
    _network_flags(add)
    add("--inputs", metavar="PATH", type=_place, required=True, help="images: a file or folder; texts: a file of lines")
    add("--neighbours", metavar="K", type=int, default=5, help="most training samples of an answer; 0 for none")
    add("--to", metavar="FILE", type=_place, default=None, help="write there instead of to the terminal")
    add = verb(
        "export",
        "Take a finished network out of a run: weights as others read them, and a program that runs without jkd.",
        "jkd export --workdir=runs/digits --student=knowledge_graph/0 --to=student",
    ).add_argument
    _network_flags(add)
    add("--to", metavar="DIR", type=_place, required=True, help="a folder that is new")
    add = verb(
        "report",
        "Write the report of what is finished in a workdir, as after a fan-out over many machines.",
        "jkd report --workdir=runs/digits",
    ).add_argument
    _workdir_flag(add)
    add = verb(
        "config",
        "Print the resolved config; * marks what is not the default.",
        "jkd config --config=configs/digits.py:full --config.student.width=16",
    ).add_argument
    _config_flag(add)
    add = verb(
        "graph",
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
        "methods", "List the objective terms with their options and papers.", "jkd methods kd review"
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
