"""The guided sampler: tensors only. Knows nothing of Celery, Redis, S3 or plans."""
