"""Reports: they read run folders only, never live objects, so any old run can be shown again."""
