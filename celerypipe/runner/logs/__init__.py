"""What the workers of a run log and print, as the run shows it."""
