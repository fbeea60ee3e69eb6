"""How good is it? Metrics, validators, selection, and the evaluators of each kind of task."""
