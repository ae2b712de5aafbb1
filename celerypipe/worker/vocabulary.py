"""Celery's settings in the file of a queue: which ones a worker takes, which it refuses, and what to do instead.

Each of Celery's settings is in one of the two: what would do nothing here, or something else than its user means, is no
setting of a worker. The page of reference has both tables.
"""

from __future__ import annotations

from celery.app.defaults import NAMESPACES, Option, flatten

#: Every setting of Celery, by name; ``imports`` means what it means there.
KNOWN: dict[str, Option] = {name: option for name, option in flatten(NAMESPACES) if name != "imports"}

#: The settings that a worker takes, and what they do here.
TAKEN = {
    "worker_pool": "prefork, solo or threads (prefork)",
    "worker_concurrency": "how many messages a worker works on at a time: its slots (one for each core)",
    "worker_pool_start_method": "fork or spawn, for prefork (fork)",
    "worker_max_tasks_per_child": "after so many messages a process of a prefork pool is replaced",
    "worker_max_memory_per_child": "after a message with which its memory exceeds that (KiB) a process is replaced",
    "worker_proc_alive_timeout": "seconds that a process of a pool may take to start (300)",
    "worker_lost_wait": "seconds until Celery gives up the task of a process that died",
    "worker_soft_shutdown_timeout": "seconds that messages at work have once the worker is told to end (10)",
    "worker_enable_remote_control": "false: `celery inspect`, `celery control` and Flower's buttons get no answer",
    "worker_send_task_events": "false: Flower shows no tasks of this worker (true)",
    "worker_state_db": "a file for the numbers of revoked tasks",
    "worker_autoscaler": "the class behind `--autoscale`",
    "worker_hijack_root_logger": "false: handlers of your own stay, and their lines look as they say",
    "worker_redirect_stdouts": "false: what nodes print goes to the worker's output, not to its log",
    "worker_redirect_stdouts_level": "the level of what nodes print, in the log",
    "worker_log_color": "true or false: colours on a terminal",
    "worker_log_format": "the layout of a line of text; besides Celery's fields `%(at_work)s`, `%(run)s`, `%(node)s` "
    "and `%(message_id)s`",
    "worker_log_datefmt": "the layout of its time",
    "worker_task_log_format": "the same for Celery's task logger",
    "worker_task_log_datefmt": "the same for Celery's task logger",
    "broker_connection_timeout": "seconds that connecting to Redis may take",
    "broker_connection_retry": "false: the worker ends when Redis goes away",
    "broker_connection_retry_on_startup": "false: the worker ends when Redis is not there at its start (true)",
    "broker_connection_max_retries": "so many tries until the worker ends (without end)",
    "broker_channel_error_retry": "false: the worker ends when Redis answers with an error (true)",
    "broker_pool_limit": "how many connections are kept for sending",
    "broker_pool_acquire_timeout": "seconds to wait for one of them",
    "broker_transport_options": "options of kombu's way to Redis, such as `socket_timeout`; not those that say where "
    "things are",
}

_REDIS = "give Redis with -b or CELERYPIPE_REDIS_URL: celerypipe and Celery share one address"
_RESULTS = "results go back to their run, and nowhere else"
_JSON = "celerypipe speaks JSON only"
_LIMIT = 'a task works on many messages; write "timeout" in the "warp_configuration" of a node'
_RATE = 'a task works on many messages; write "parallel" in the "warp_configuration" of a node'
_ACKS = "a task only says that there is work; messages stay in Redis until their results are back"
_QUEUES = 'the queues of a worker are those of -Q, and a node names its own: "queue" in its "warp_configuration"'
_PRIORITY = "a task only says that there is work, and has no priority"
_PREFETCH = "a worker takes no task before a slot is free"
_SCHEDULE = "Celery schedules nothing here; start pipelines by cron or a timer of systemd"
_RABBIT = "it is for RabbitMQ"
_AGREED = "workers, runs and Flower have to agree on it; several projects on one Redis: CELERYPIPE_NAMESPACE"
_EAGER = "nodes run here without a worker by `celerypipe run --local`"
_PARTS = "celerypipe has this part of its own"
_SENDING = "celerypipe decides how tasks are sent"

_NAMES = {
    _REDIS: "broker_url broker_read_url broker_write_url broker_failover_strategy broker_host broker_port broker_vhost "
    "broker_transport broker_user broker_password broker_login_method broker_use_ssl",
    _JSON: "accept_content task_serializer event_serializer",
    _LIMIT: "task_time_limit task_soft_time_limit task_annotations",
    _RATE: "task_default_rate_limit worker_disable_rate_limits",
    _ACKS: "task_acks_late task_acks_on_failure_or_timeout task_acks_on_failure task_acks_on_timeout "
    "task_reject_on_worker_lost task_retry_on_worker_lost worker_deduplicate_successful_tasks "
    "worker_cancel_long_running_tasks_on_connection_loss",
    _QUEUES: "task_queues task_routes task_create_missing_queues task_create_missing_queue_type "
    "task_create_missing_queue_exchange_type task_default_queue task_default_queue_type task_default_exchange "
    "task_default_exchange_type task_default_routing_key worker_direct",
    _PRIORITY: "task_inherit_parent_priority task_default_priority task_queue_max_priority",
    _PREFETCH: "worker_prefetch_multiplier worker_disable_prefetch worker_enable_prefetch_count_reduction "
    "worker_eta_task_limit",
    _SCHEDULE: "enable_utc timezone",
    _RABBIT: "broker_heartbeat broker_heartbeat_checkrate broker_native_delayed_delivery_queue_type "
    "task_default_delivery_mode worker_detect_quorum_queues",
    _RESULTS: "task_ignore_result task_store_errors_even_if_ignored task_track_started task_remote_tracebacks "
    "task_allow_error_cb_on_chord_header",
    _EAGER: "task_always_eager task_eager_propagates task_store_eager_result",
    _PARTS: "worker_agent worker_consumer worker_timer worker_timer_precision worker_pool_putlocks "
    "worker_enable_soft_shutdown_on_idle",
    _SENDING: "task_protocol task_publish_retry task_publish_retry_policy task_repr_maxlevels task_send_sent_event",
    "write imports = [...]": "include",
    "a worker unpacks no task: a few bytes would fill its memory": "task_compression",
    "a restart imports whatever modules the one who asks for it names; restart the worker": "worker_pool_restarts",
}
#: What all settings that begin so are about.
_FAMILIES = {
    _RESULTS: "result_ cache_ cassandra_ s3_ azureblockblob_ gcs_ couchbase_ arangodb_ mongodb_ cosmosdbsql_ redis_ "
    "elasticsearch_ database_",
    _SCHEDULE: "beat_",
    _AGREED: "control_ event_",
    "sign messages by CELERYPIPE_KEYS": "security_",
}

#: The settings that a worker refuses, and what to do instead.
REFUSED = {name: why for why, names in _NAMES.items() for name in names.split()}
REFUSED |= {
    name: why
    for why, starts in _FAMILIES.items()
    for name in KNOWN
    if name.startswith(tuple(starts.split())) and name not in REFUSED
}
