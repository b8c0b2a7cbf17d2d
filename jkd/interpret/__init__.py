"""Evidence for a student's predictions: the graph nodes nearest in the projected space."""

from jkd.interpret.cards import Evidence, cards, choose, evidence, nearest, neighbours, surrogate

__all__ = ["Evidence", "cards", "choose", "evidence", "nearest", "neighbours", "surrogate"]
