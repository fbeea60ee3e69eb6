"""What several tests share, one subject a file: nets, sessions, run folders, toy data."""
