"""Several tasks on one net."""
