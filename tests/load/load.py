"""Load a service: many clients at once, mixed requests, some bad, some leaving early.

    python -m tests.load.load                      # serves the embedded model itself, and compares
    python -m tests.load.load --address http://127.0.0.1:8000 --clients 16 --requests 32

Every answer is compared, sample for sample, with what the engine makes of the same request without
any server. Rounds alternate between the engine alone and the service, so that whatever else the
machine does slows both. Ends with one line of JSON, and with 1 where an answer was lost, wrong, or
another's, a refusal not as documented, or memory grew.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np

from musicgen_lab.clip import decode_audio
from musicgen_lab.request import GenerationRequest
from tests.support.command import MUSICGEN_LAB
from tests.support.demo_engine import SLOTS, open_engine

BAD = ({}, {"prompt": "x", "duration": 45}, {"prompt": "x", "nonsense": 1}, {"prompt": ""})
PROMPTS = ("calm acoustic guitar melody", "upbeat electronic dance music with heavy bass", "x")
LEAVE_AFTER_S = 0.2
MEMORY_GROWTH_MAX = 1.1  # from the end of the first round to the end of the last


def make_requests(count, first_seed):
    """Return requests of mixed durations and parameters, no two alike, in no order."""
    mixed = itertools.product((1.0, 1.5, 2.0), (0.7, 1.0, 1.3), (1.0, 3.0), PROMPTS)
    points = list(itertools.islice(itertools.cycle(mixed), count))
    np.random.default_rng(first_seed).shuffle(points)
    return [
        GenerationRequest(prompt=prompt, duration=s, temperature=t, cfg_coef=c, seed=seed)
        for seed, (s, t, c, prompt) in enumerate(points, first_seed)
    ]


def memory_mib(pid):
    """Return a process's resident memory, or None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


class Clients:
    """That many clients of the service at an address, and what they were answered."""

    def __init__(self, address, count):
        self.address, self.count = address, count
        self.answers, self.statuses, self.unlike_documented = {}, {}, []
        self.finished_s = 0.0

    async def send(self, requests, bad, leaving):
        """Send everything, mixed, and return the seconds until the last clip was there."""
        work = [(self.ask, request) for request in requests]
        work += [(self.ask_badly, BAD[i % len(BAD)]) for i in range(bad)]
        work += [(self.leave, request) for request in leaving]
        order = np.random.default_rng(requests[0].seed).permutation(len(work))
        queue = iter([work[i] for i in order])
        limits = httpx2.Limits(max_connections=self.count)
        async with httpx2.AsyncClient(base_url=self.address, timeout=600, limits=limits) as http:

            async def client():
                for action, what in queue:
                    await action(http, what)

            started_s = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(self.count)))
            return self.finished_s - started_s

    async def ask(self, http, request):
        answer = await self.post(http, request.model_dump(exclude={"model"}))
        while answer.status_code == 429:
            self.see(answer, expected=429)
            await asyncio.sleep(int(answer.headers["Retry-After"]))
            answer = await self.post(http, request.model_dump(exclude={"model"}))
        self.see(answer, expected=200)
        self.answers[request.seed] = answer.content
        self.finished_s = time.perf_counter()

    async def ask_badly(self, http, fields):
        self.see(await self.post(http, fields), expected=422)

    async def leave(self, http, request):
        with contextlib.suppress(TimeoutError, httpx2.TransportError):
            await asyncio.wait_for(self.post(http, request.model_dump()), LEAVE_AFTER_S)
        self.count_one("left")

    def post(self, http, fields):
        return http.post("/generate_endpoint", json=fields, params={"sample_format": "FLOAT"})

    def see(self, answer, *, expected):
        self.count_one(answer.status_code)
        documented = {429: "Retry-After" in answer.headers, 422: b'"limit"' in answer.content}
        if answer.status_code != expected or not documented.get(expected, True):
            self.unlike_documented.append(f"{answer.status_code} {answer.text[:200]}")

    def count_one(self, what):
        self.statuses[what] = self.statuses.get(what, 0) + 1

    def fault(self, request, samples):
        """Return what is wrong with the answer to a request, or None."""
        content = self.answers.get(request.seed, b"")
        try:
            body = json.loads(content)
            sound, _ = decode_audio(base64.b64decode(body["audio_base64"]))
        except (KeyError, ValueError):
            return f"no clip: {content[:200]!r}"
        if body["seed"] != request.seed:
            return f"the clip of seed {body['seed']}"
        if sound.shape != samples.shape:
            return f"{sound.shape} samples instead of {samples.shape}"
        if not np.array_equal(sound, samples):
            other = np.flatnonzero((sound != samples).any(axis=0))
            most = np.abs(sound - samples).max()
            return f"{len(other)} other samples, from {other[0]} on, by up to {most:.3g}"
        return None


@contextlib.contextmanager
def served(options):
    """Yield the address and, where it is started here, the process of the service."""
    if options.address is not None:
        yield options.address, None
        return
    command = ["serve", "--port", "0", "--device", "cpu"]
    command += ["--max-clips", str(options.max_clips), "--waiting", str(options.waiting)]
    with subprocess.Popen(
        [MUSICGEN_LAB, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            yield server.stdout.readline().split()[-1], server.pid
        finally:
            server.terminate()


def run(options):
    """Alternate between the engine alone and the service, and return what happened."""
    engine = open_engine(options.max_clips)
    offline_s, service_s, memory, wrong = [], [], [], {}
    with served(options) as (address, pid):
        clients = Clients(address, options.clients)
        for number in range(options.rounds):
            requests = make_requests(options.requests, first_seed=number * options.requests)
            leaving = [
                GenerationRequest(prompt=PROMPTS[0], duration=30, seed=1_000_000 + i)
                for i in range(options.leaving)
            ]
            started_s = time.perf_counter()
            made = {clip.request.seed: clip.samples for clip in engine.generate(requests)}
            offline_s.append(time.perf_counter() - started_s)
            service_s.append(asyncio.run(clients.send(requests, options.bad, leaving)))
            faults = {r.seed: clients.fault(r, made[r.seed]) for r in requests}
            wrong |= {seed: fault for seed, fault in faults.items() if fault is not None}
            clients.answers.clear()
            memory.append(memory_mib(pid))
    audio_s = sum(request.duration for request in requests)  # the same in every round
    flat = memory[0] is None or memory[-1] <= MEMORY_GROWTH_MAX * memory[0]
    shares = [alone / behind for alone, behind in zip(offline_s, service_s, strict=True)]
    return {
        "clients": options.clients,
        "max_clips": options.max_clips,
        "requests": options.requests * options.rounds,
        "statuses": {str(status): n for status, n in sorted(clients.statuses.items(), key=str)},
        "lost_or_wrong": wrong,
        "unlike_documented": clients.unlike_documented,
        "offline_audio_s_per_s": [round(audio_s / s, 2) for s in offline_s],
        "service_audio_s_per_s": [round(audio_s / s, 2) for s in service_s],
        "share_of_offline": round(statistics.median(shares), 3),
        "memory_mib": memory,
        "load_average": os.getloadavg()[0],
        "ok": not wrong and not clients.unlike_documented and flat,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="a service of the demo model; started here by default")
    parser.add_argument("--max-clips", type=int, default=SLOTS, help="clips made at once")
    parser.add_argument("--waiting", type=int, default=40, help="more are answered 429")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--requests", type=int, default=64, help="per round")
    parser.add_argument("--bad", type=int, default=16, help="per round")
    parser.add_argument("--leaving", type=int, default=8, help="per round")
    summary = run(parser.parse_args(arguments))
    print(json.dumps(summary))
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
