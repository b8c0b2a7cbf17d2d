"""The engine: state, optimiser, the one jitted step, the loop around it, and checkpoints that are checked."""
