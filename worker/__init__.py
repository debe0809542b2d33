"""Takes chunks from the queue, renders them, and records what it made."""
