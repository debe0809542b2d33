"""What producer and worker agree on: jobs, plans, the queue, the ledger, the store. Light: no torch, no pixels."""
