"""Many seeds of each model: which trials there are, how one is run, and their records."""
