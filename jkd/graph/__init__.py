"""The knowledge graph: what the teacher and the data know about the training set, as arrays to look at."""
