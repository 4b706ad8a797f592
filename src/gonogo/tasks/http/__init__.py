"""The queue's HTTP interface, behind the gateway: tasks of our own, and OpenAI's files and batches."""
