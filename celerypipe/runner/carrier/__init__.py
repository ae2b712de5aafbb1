"""How messages of warped nodes travel: through Redis, or nowhere, in this process."""
