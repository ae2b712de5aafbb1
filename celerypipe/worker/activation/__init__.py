"""One Celery task run that drains mailboxes, and what its process keeps for the next one."""
