"""What is too large for a mailbox: large bytes, and files, by reference."""
