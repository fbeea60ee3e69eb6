"""Many experiments: folders of sweeps, jobs, searches, launchers."""
