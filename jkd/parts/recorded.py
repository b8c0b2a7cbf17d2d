"""What the manifest says of the networks that the config does not: their words, texts cut for them, taps compared."""

from typing import Any

from ml_collections import ConfigDict

from jkd.build import Session
from jkd.data.text_inputs import Texts
from jkd.data.texts import TextSource


def recorded(session: Session) -> dict[str, Any]:
    """JSON-ready, by network.

    `texts` has the SHA-256 of the tokenizer, the most tokens of a text, and how many of each split were cut to that;
    `taps` names, for each term that compares taps, the student's and the teacher's: which layer learns from which.
    """
    config = session.config
    found = {"teacher": _of_texts(session, config.teacher)}
    for name, student in config.students.items():
        where = f"students.{name}"
        terms = session.objective_of(student, len(config.graph.views), where).terms
        taps = {term.name: [list(term.student_taps), list(term.teacher_taps)] for term in terms if term.student_tap}
        found[where] = _of_texts(session, student) | ({"taps": taps} if taps else {})
    return {where: entry for where, entry in found.items() if entry}


def _of_texts(session: Session, network: ConfigDict) -> dict[str, Any]:
    inputs = session.inputs_of(network)
    if not isinstance(inputs, Texts):
        return {}
    sources = (session.dataset.train, session.dataset.test)
    cut = {source.name: inputs.tokens(source).cut for source in sources if isinstance(source, TextSource)}
    entry = {"tokenizer": inputs.tokenizer.fingerprint, "max_length": inputs.max_length, "cut": cut}
    return {"texts": entry}
