"""What producer and worker agree on: jobs, plans, the queue, the ledger, the store, image files. Light: no torch."""
