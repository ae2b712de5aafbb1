"""The result cache: what was asked, what was found, and where it is kept."""
