"""What a command shows while it works, and in the end."""
