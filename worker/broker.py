"""Celery's settings for each kind of broker. Each line is there for a measured reason."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from store.settings import Settings

COMMON: dict[str, Any] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "worker_prefetch_multiplier": 1,
    # True kills the running job when Redis reconnects, and nothing delivers it again.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "task_reject_on_worker_lost": False,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "worker_send_task_events": False,
    "task_create_missing_queues": True,
}

# A server that a network has lost says nothing, and a worker that waits for a message neither.
KEEPALIVE = {
    getattr(socket, name): seconds
    for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
# Late acknowledgement with Redis' visibility timeout starts a long task several times.
REDIS: dict[str, Any] = {
    "task_acks_late": False,
    "worker_disable_prefetch": True,
    "broker_transport_options": {
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
    },
}
# Who only publishes need not wait for a server that hangs; a worker's reads are kombu's to watch.
REDIS_PUBLISHER: dict[str, Any] = {"socket_timeout": 5.0}
RABBITMQ: dict[str, Any] = {"task_acks_late": True}
BY_SCHEME = {
    "redis": REDIS,
    "rediss": REDIS,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
    "pyamqp": RABBITMQ,
}


def broker_url(settings: Settings) -> str:
    """Return the broker's URL; raises SystemExit with the next step when there is none."""
    if settings.broker_url is None:
        raise SystemExit("CSTAR_BROKER_URL is not set; `make up` starts a broker of its own")
    return settings.broker_url


def celery_configuration(url: str, settings: Settings) -> dict[str, Any]:
    """Return the settings for the broker behind `url`."""
    scheme = url.split(":", 1)[0].split("+", 1)[0]
    if scheme == "filesystem":
        return {**COMMON, **_filesystem(settings), "broker_url": url}
    if scheme not in BY_SCHEME:
        known = ", ".join(sorted([*BY_SCHEME, "filesystem"]))
        raise SystemExit(f"broker {scheme!r} is not supported; CSTAR_BROKER_URL takes: {known}")
    return {**COMMON, **BY_SCHEME[scheme], "broker_url": url}


def publisher_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return transport options for a process that publishes and receives nothing."""
    own = REDIS_PUBLISHER if url.startswith(("redis:", "redis+", "rediss:")) else {}
    return {**options, **own}


def _filesystem(settings: Settings) -> dict[str, Any]:
    folder = settings.data_dir.resolve() / "broker"
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "task_acks_late": False,
        "broker_transport_options": {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.2,
        },
    }
