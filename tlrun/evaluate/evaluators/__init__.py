"""Evaluators by kind of task: they turn the net and the data into figures."""
