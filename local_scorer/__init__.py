"""Score unlearning entries: jobs, metric, score, leaderboard."""
