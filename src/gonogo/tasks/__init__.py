"""The queue: tasks, files and batches in a ledger of their own; Celery only rings (docs/decisions/0010)."""
