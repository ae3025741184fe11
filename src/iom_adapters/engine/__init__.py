"""Engines: what runs the commands of the outbox, the pullers and the jobs."""

from iom_adapters.engine.local import LocalEngine, Queue, Runner
from iom_core.retry import ActionLimits, Backoff

__all__ = ["ActionLimits", "Backoff", "LocalEngine", "Queue", "Runner"]
