"""The worker's wing: what happens in a process of ``celery -A celerypipe worker``."""
