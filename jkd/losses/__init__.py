"""Losses: pure functions of arrays that return a float32 scalar. Nothing here imports the rest of jkd.

An argument's name says which array it gets (`student_logits`, `teacher_feature`, ...; see `jkd.objective`), a
keyword-only argument is an option that a config may set. All of them

- compute in float32 whatever the type of their inputs, and average over the batch;
- see the whole batch: under a sharded jit a relation is between any two samples of the *global* batch;
- do not depend on the order of the batch, and have finite gradients where two samples coincide;
- send no gradient to the teacher.

What detection losses are made of stands here too, as they may import nothing else: `boxes` (overlaps), `yolo_heads`
(what raw outputs mean), `yolo_targets` (which row answers for which box).
"""
