"""Pages and tables: report.html, leaderboard.{csv,md}, the terminal."""
