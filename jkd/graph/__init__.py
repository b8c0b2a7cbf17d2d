"""The knowledge graph: what the teacher and the data know about the training set, as arrays to look at.

    sample -> join -> project -> train

Built once per (teacher, training set, settings), validated, stored, hashed, and asked whether it helps. Knows
no trainer: everything that enters training leaves here as plain arrays.

| module | holds |
| --- | --- |
| `knowledge_graph` | the graph itself: typed nodes and edges, frozen, with a digest |
| `build` | `build_graph`: teacher outputs and views in, a validated graph out |
| `nearest` | `similar_to` edges: exact cosine neighbours by blocks, never `[N, N]` |
| `views` | what edges are made of: the input itself, a file of embeddings or edges |
| `text_views` | edges between texts: words in common, or the same beginning |
| `objects` | for objects in images: co-occurrence, spatial relations, surroundings and crops as views |
| `taxonomy` | concepts above the classes |
| `sample` | **sample**: which nodes to train on under a budget |
| `relation` | **join**: beliefs diffused over edges; attention over neighbours' features |
| `projection` | **project**: both sides into one space of unit length |
| `material`, `diagnosis` | labels held back, and what each view scores on them |
| `controls`, `choose` | random edges; a student's edges, choices and joined beliefs |
| `validate`, `store`, `export`, `show` | check, save and load, GraphML and JSON, the graph in words |
"""

from jkd.graph.build import build_graph
from jkd.graph.choose import Choice, attended_edges, choose, edges_of, joined
from jkd.graph.controls import class_random, random_edges
from jkd.graph.diagnosis import Diagnosis, Row, choose_smoothing, diagnose, homophily
from jkd.graph.export import export, to_graphml, to_json, to_networkx
from jkd.graph.knowledge_graph import KnowledgeGraph
from jkd.graph.material import Folds, HoldOut, Material, assign_folds
from jkd.graph.nearest import Edges, neighbours, neighbours_of
from jkd.graph.relation import join_beliefs, q0, row_softmax, sharpen
from jkd.graph.sample import believed_class, facility_location, sampling
from jkd.graph.show import best_of_each, describe
from jkd.graph.store import load, read_manifest, save
from jkd.graph.text_views import lexical_view, opening_view
from jkd.graph.validate import check
from jkd.graph.views import file_view, input_view

__all__ = [
    "Choice",
    "Diagnosis",
    "Edges",
    "Folds",
    "HoldOut",
    "KnowledgeGraph",
    "Material",
    "Row",
    "assign_folds",
    "attended_edges",
    "believed_class",
    "best_of_each",
    "build_graph",
    "check",
    "choose",
    "choose_smoothing",
    "class_random",
    "describe",
    "diagnose",
    "edges_of",
    "export",
    "facility_location",
    "file_view",
    "homophily",
    "input_view",
    "join_beliefs",
    "joined",
    "lexical_view",
    "load",
    "neighbours",
    "neighbours_of",
    "opening_view",
    "q0",
    "random_edges",
    "read_manifest",
    "row_softmax",
    "sampling",
    "save",
    "sharpen",
    "to_graphml",
    "to_json",
    "to_networkx",
]
