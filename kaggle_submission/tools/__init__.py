"""From an entry file to a Kaggle notebook, and its rehearsal at home."""
