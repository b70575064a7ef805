"""Load a service: many clients at once, mixed requests, some bad, some leaving early.

    python -m tests.load.load                      # serves the embedded model itself, and compares
    python -m tests.load.load --address http://127.0.0.1:8000 --clients 16 --requests 32

Every answer is compared, sample for sample, with what the engine makes of the same request without
any server. Ends with one line of JSON, and with 1 where an answer was lost, wrong, or another's.
"""

import argparse
import asyncio
import base64
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np

from musicgen_lab.clip import Clip, decode_audio
from musicgen_lab.request import GenerationRequest
from tests.service.demo_server import SLOTS

BAD = ({}, {"prompt": "x", "duration": 45}, {"prompt": "x", "nonsense": 1}, {"prompt": ""})
PROMPTS = ("calm acoustic guitar melody", "upbeat electronic dance music with heavy bass", "x")
LEAVE_AFTER_S = 0.2


def make_requests(count):
    """Return requests of mixed durations and parameters, no two alike."""
    mixed = itertools.product((1.0, 1.5, 2.0), (0.7, 1.0, 1.3), (1.0, 3.0), PROMPTS)
    points = itertools.islice(itertools.cycle(mixed), count)
    return [
        GenerationRequest(prompt=prompt, duration=s, temperature=t, cfg_coef=c, seed=seed)
        for seed, (s, t, c, prompt) in enumerate(points)
    ]


def make_offline(requests):
    """Return each request's samples by its seed, made without a server, and the seconds it took."""
    from tests.service.demo_server import open_demo

    engine = open_demo()._engine
    started_s = time.perf_counter()
    made = {clip.request.seed: clip.samples for clip in engine.generate(requests)}
    return made, time.perf_counter() - started_s


def memory_mib(pid):
    """Return a process's resident memory, or None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


class Load:
    """One run of clients against an address."""

    def __init__(self, address, clients, pid):
        self.address, self.clients, self.pid = address, clients, pid
        self.answers, self.statuses, self.memory = {}, {}, []
        self.finished_s = 0.0

    async def run(self, requests, bad, leaving):
        """Send everything with that many clients at once."""
        work = [(self.ask, r) for r in requests] + [
            (self.ask_badly, BAD[i % 4]) for i in range(bad)
        ]
        work += [(self.leave, r) for r in leaving]
        order = np.random.default_rng(0).permutation(len(work))
        queue = iter([work[i] for i in order])
        limits = httpx2.Limits(max_connections=self.clients)
        async with httpx2.AsyncClient(base_url=self.address, timeout=600, limits=limits) as http:

            async def client():
                for action, what in queue:
                    await action(http, what)

            started_s = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(self.clients)))
            return self.finished_s - started_s

    def count(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1

    async def ask(self, http, request):
        fields = request.model_dump(exclude={"model"})
        answer = await self.post(http, fields)
        while answer.status_code == 429:
            self.count("429 asked again")
            await asyncio.sleep(float(answer.headers["Retry-After"]))
            answer = await self.post(http, fields)
        self.count(answer.status_code)
        if answer.status_code == 200:
            body = answer.json()
            samples, _ = decode_audio(base64.b64decode(body["audio_base64"]))
            self.answers[request.seed] = (body["seed"], samples)
        self.finished_s = time.perf_counter()
        if self.pid and len(self.answers) % 8 == 0:
            self.memory.append(memory_mib(self.pid))

    def post(self, http, fields):
        return http.post("/generate_endpoint", json=fields, params={"sample_format": "FLOAT"})

    async def ask_badly(self, http, fields):
        self.count((await http.post("/generate_endpoint", json=fields)).status_code)

    async def leave(self, http, request):
        try:
            await asyncio.wait_for(self.post(http, request.model_dump()), LEAVE_AFTER_S)
        except (TimeoutError, httpx2.TransportError):
            self.count("left")


def report(load, requests, wall_s, offline, offline_s, bad):
    """Return what happened, and whether every answer was its own."""
    wrong = [
        seed
        for seed, (said, samples) in load.answers.items()
        if said != seed or not np.array_equal(samples, offline[seed])
    ]
    lost = [r.seed for r in requests if r.seed not in load.answers]
    audio_s = sum(r.duration for r in requests)
    memory = [mib for mib in load.memory if mib is not None]
    return {
        "clients": load.clients,
        "requests": len(requests),
        "statuses": {str(status): n for status, n in sorted(load.statuses.items(), key=str)},
        "lost": lost,
        "wrong": wrong,
        "bad_answered_422": load.statuses.get(422, 0) == bad,
        "audio_s_per_s": round(audio_s / wall_s, 3),
        "offline_audio_s_per_s": round(audio_s / offline_s, 3),
        "share_of_offline": round(offline_s / wall_s, 3),
        "memory_mib": [memory[0], memory[len(memory) // 2], memory[-1]] if memory else [],
        "ok": not lost and not wrong and load.statuses.get(422, 0) == bad,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="a service of the demo model; started here by default")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--bad", type=int, default=16)
    parser.add_argument("--leaving", type=int, default=8)
    options = parser.parse_args(arguments)
    requests = make_requests(options.requests)
    leaving = [
        GenerationRequest(prompt=PROMPTS[0], duration=30, seed=100_000 + i)
        for i in range(options.leaving)
    ]
    offline, offline_s = make_offline(requests)
    assert all(isinstance(samples, np.ndarray) for samples in offline.values()), Clip
    server = None
    try:
        address = options.address
        if address is None:
            command = [sys.executable, "-m", "tests.service.demo_server"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            address = server.stdout.readline().decode().split()[-1]
        load = Load(address, options.clients, server and server.pid)
        wall_s = asyncio.run(load.run(requests, options.bad, leaving))
    finally:
        if server is not None:
            server.terminate()
            server.wait()
    summary = report(load, requests, wall_s, offline, offline_s, options.bad)
    print(json.dumps({**summary, "slots": SLOTS}))
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
