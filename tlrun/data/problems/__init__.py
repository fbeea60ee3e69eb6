"""What is learned from what: pairs, several sources, tasks, episodes, zero-shot."""
