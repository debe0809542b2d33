"""A sweep among workers: submits it, reports how it is doing, and checks the services it needs."""
