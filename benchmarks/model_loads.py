"""How often a fleet loads models, and how long an urgent sweep of another model waits: real workers, small jobs.

python benchmarks/model_loads.py [--workers 2] [--models 3] [--chunks 50] [--json FILE]

One sweep of each model, all of one priority, on a Valkey of its own and a folder. When half of it is done, a sweep of
one job and one more model comes with a higher priority. Runs in a few minutes.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from producer import Printroom
from producer.local.valkey import EmbeddedValkey
from shared.settings import Settings
from testing.random_weights import create_random_model

#: A chunk holds 16 of these jobs.
JOBS_PER_CHUNK = 64
SWEEP = {"prompt": "a cat", "steps": 4, "size": "32x32"}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=50, help="of each model")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    with EmbeddedValkey() as server, tempfile.TemporaryDirectory(prefix="printroom-bench-") as place:
        folder = Path(place)
        for number in range(arguments.models + 1):
            create_random_model(folder / "models" / f"model-{number}", family="sd1", seed=number)
        settings = Settings(redis_url=server.url, store=str(folder / "store"), models=(folder / "models",))
        workers = [_start(settings, folder, number) for number in range(arguments.workers)]
        try:
            figures = _measure(Printroom(settings), arguments.models, arguments.chunks, arguments.workers)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.wait()
        logs = [path.read_text() for path in sorted(folder.glob("worker-*.log"))]
    loads = [re.findall(r"model_loaded model=(\S+)", log) for log in logs]
    figures |= {"loads": sum(map(len, loads)), "loads_by_worker": loads}
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _start(settings: Settings, folder: Path, number: int) -> subprocess.Popen[bytes]:
    variables = {
        "PRINTROOM_REDIS_URL": settings.redis_url.get_secret_value(),
        "PRINTROOM_STORE": settings.store,
        "PRINTROOM_MODELS": str(folder / "models"),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / f"worker-{number}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "worker", "--device", "cpu"],
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
        )


def _measure(client: Printroom, models: int, chunks: int, workers: int) -> dict[str, object]:
    """Submit, wait for half of it, submit the urgent sweep, wait for all of it."""
    while len(client.ledger.workers()) < workers:
        time.sleep(0.2)
    seeds = {"start": 0, "count": chunks * JOBS_PER_CHUNK}
    started = time.monotonic()
    sweeps = [
        client.submit({**SWEEP, "name": f"model {n}", "model": f"model-{n}", "seed": seeds}).sweep
        for n in range(models)
    ]
    while sum(client.ledger.status(sweep).chunks_done for sweep in sweeps) < models * chunks / 2:
        time.sleep(0.1)
    submitted = time.monotonic()
    seconds_a_chunk = (submitted - started) * workers / (models * chunks / 2)
    urgent = client.submit({**SWEEP, "seed": 7, "model": f"model-{models}"}, priority=10).sweep
    while client.ledger.status(urgent).state != "done":
        time.sleep(0.02)
    waited = time.monotonic() - submitted
    while any(client.ledger.status(sweep).state != "done" for sweep in sweeps):
        time.sleep(0.1)
    return {
        "workers": workers,
        "models": models,
        "chunks_of_each": chunks,
        "seconds": round(time.monotonic() - started, 1),
        "seconds_a_chunk": round(seconds_a_chunk, 2),
        "urgent_done_after_seconds": round(waited, 2),
    }


if __name__ == "__main__":
    main()
