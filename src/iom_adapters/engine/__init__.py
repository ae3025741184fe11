"""Engines: what runs the commands of the outbox, the pullers and the jobs."""

from iom_adapters.engine.local import ActionLimits, Backoff, LocalEngine, Queue, Runner

__all__ = ["ActionLimits", "Backoff", "LocalEngine", "Queue", "Runner"]
