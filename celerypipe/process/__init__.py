"""What belongs to one process: the lines of its log, its terminals, and what it leaves to those that it forks."""
