"""``docs/reference.md``: made from the models, the commands, the settings and the built-in nodes themselves."""
