"""What a change does to the results, as a report on its pull request."""
