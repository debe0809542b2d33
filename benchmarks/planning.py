"""How long it takes to plan a large sweep, and how much memory: `python benchmarks/planning.py`.

Each case runs in a process of its own: reading the YAML text, checking, compiling, the id, the bytes to store and the
first and last job. The preview is what `printroom plan` counts besides.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

_WORDS = "|".join(f"w{number}" for number in range(100))


def prompts_and_seeds() -> str:
    """Return 100,000 prompts times 100 seeds: ten million jobs."""
    prompts = "".join(
        f"- a portrait of somebody, number {number}, by a window\n" for number in range(100_000)
    )
    return f"prompt:\n{prompts}seed: {{start: 0, count: 100}}\n"


def sample_of_a_product() -> str:
    """Return a sample of 100,000 of 10^12 jobs."""
    template = f"a {{{_WORDS}}} {{{_WORDS}}} {{{_WORDS}}}"
    sample = "sample: {count: 100000, seed: 1}"
    return f"expand: all\nprompt: '{template}'\nseed: {{start: 0, count: 1000000}}\n{sample}\n"


CASES: dict[str, Callable[[], str]] = {
    "100,000 prompts x 100 seeds": prompts_and_seeds,
    "100,000 of 10^12": sample_of_a_product,
}


def measure(case: str) -> dict[str, Any]:
    """Plan one case here, and say what it took."""
    from producer.language.sweep import parse_sweep
    from producer.planning.compile import compile_sweep
    from producer.preview import preview
    from shared.fingerprint import ResolvedModel

    text = CASES[case]()
    started = time.perf_counter()
    model = ResolvedModel(name="any", fingerprint="sha:" + "0" * 32)
    plan = compile_sweep(parse_sweep(text), resolve=lambda name: model)
    size = len(plan.to_bytes())
    jobs = [plan.job(index).id for index in (0, len(plan) - 1)]
    planned = time.perf_counter()
    preview(plan)
    looked = time.perf_counter()
    count = 20_000
    for index in range(0, len(plan), max(1, len(plan) // count)):
        plan.job(index)
    read = time.perf_counter()
    assert len(set(jobs)) == 2
    return {
        "case": case,
        "jobs": len(plan),
        "plan_seconds": round(planned - started, 2),
        "preview_seconds": round(looked - planned, 2),
        "job_microseconds": round((read - looked) / count * 1e6, 1),
        "plan_bytes": size,
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure every case, each in a process of its own, and print a line of JSON for each."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    for case in CASES:
        subprocess.run([sys.executable, __file__, case], check=True)


if __name__ == "__main__":
    main()
