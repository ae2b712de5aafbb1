"""Which nodes there are, what their code is, and one of them made and warm."""
