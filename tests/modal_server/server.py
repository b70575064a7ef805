"""An in-memory Modal server on 127.0.0.1: enough of its protocol for the real client and container.

It keeps what is registered, hands inputs to containers and results to callers, and can be told to
lose a container, to forget a result or to fail an input. No account, no network.
"""

import asyncio
import contextlib
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import grpclib.server
from google.protobuf.empty_pb2 import Empty
from modal._utils.grpc_testing import patch_mock_servicer
from modal_proto import api_pb2

from tests.modal_server.blobs import Blobs
from tests.modal_server.containers import Container, write_mounts
from tests.modal_server.registry import ENVIRONMENT, TOKEN_ID, TOKEN_SECRET

Results = api_pb2.GenericResult
HEARTBEAT_S = 10.0  # how long a heartbeat waits for news, less than the client's patience


@dataclass
class Call:
    function_id: str
    invocation: int
    inputs: dict = field(default_factory=dict)  # input id -> (index, input)
    outputs: dict = field(default_factory=dict)  # index -> item
    expired: bool = False


class Servicer(Blobs):
    """Inputs and outputs, and the containers between them. All on one event loop."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.url, self.volume = folder, "", folder / "volume"
        self.calls = {}
        self.waiting = defaultdict(asyncio.Queue)  # function id -> input ids
        self.inputs = {}  # input id -> call id
        self.delivered = defaultdict(set)  # function id -> input ids in its container
        self.containers = {}
        self.cancelled, self.told = [], defaultdict(int)  # input ids; how many a container knows
        self.changed, self.watchers = asyncio.Condition(), set()
        self.on_deliver = None  # (input id, input) -> "lose", "expire", a result, or None

    # Containers

    def start_container(self, function_id):
        task_id = self.new_id("ta")
        definition = self.definition(function_id)
        app_id = next(
            app_id
            for app_id, app in self.apps.items()
            if self.bound.get(function_id, (function_id,))[0] in app.functions.values()
        )
        home = self.folder / task_id
        mounts = [self.mounts[mount] for mount in definition.mount_ids if mount in self.mounts]
        root = write_mounts(home / "root", mounts, self.files)
        secrets = [self.secrets[secret] for secret in definition.secret_ids]
        environment = {name: text for secret in secrets for name, text in secret.items()}
        arguments = api_pb2.ContainerArguments(
            task_id=task_id,
            function_id=function_id,
            app_id=app_id,
            function_def=definition,
            serialized_params=self.bound.get(function_id, (None, b""))[1],
            environment_name=ENVIRONMENT,
            app_layout=self.layout(self.apps[app_id]),
        )
        environment |= {"MODAL_SERVER_URL": self.url, "ROOT": str(root)}
        environment |= {"MUSICGEN_LAB_MODELS": str(self.volume)}  # the image says /models
        container = Container(home / "container", arguments, environment)
        self.containers[function_id] = container
        self.watchers.add(asyncio.ensure_future(self.watch(function_id, container)))

    async def watch(self, function_id, container):
        """Fail what a container had when it ends by itself, so that nobody waits for ever."""
        await asyncio.to_thread(container.process.wait)
        if self.containers.get(function_id) is not container:
            return
        del self.containers[function_id]
        said = container.log.read_text(errors="replace")[-2000:]
        ended = Results(
            status=Results.GENERIC_STATUS_FAILURE, exception=f"the container ended: {said}"
        )
        for input_id in self.delivered.pop(function_id, set()):
            await self.finish(input_id, ended)
        while not self.waiting[function_id].empty():
            await self.finish(self.waiting[function_id].get_nowait(), ended)

    def print_logs(self):
        """Print what containers wrote, for a test that failed."""
        for log in sorted(self.folder.glob("*/container/log")):
            print(f"--- {log.parts[-3]}\n{log.read_text(errors='replace')[-4000:]}")

    async def finish(self, input_id, result, data_format=api_pb2.DATA_FORMAT_PICKLE):
        call_id = self.inputs.pop(input_id, None)
        if call_id is None:
            return
        call = self.calls[call_id]
        index, _ = call.inputs[input_id]
        self.delivered[call.function_id].discard(input_id)
        async with self.changed:
            call.outputs[index] = api_pb2.FunctionGetOutputsItem(
                result=result, idx=index, input_id=input_id, data_format=data_format
            )
            self.changed.notify_all()

    async def lose_container(self, function_id, input_id):
        """Kill the container as a preemption would, and start another for what it had besides."""
        self.containers.pop(function_id).kill()
        lost = Results(
            status=Results.GENERIC_STATUS_INTERNAL_FAILURE,
            exception="the container was lost (preempted) and its input was not retried",
        )
        for other in self.delivered.pop(function_id, set()) - {input_id}:
            self.waiting[function_id].put_nowait(other)
        await self.finish(input_id, lost)
        self.start_container(function_id)

    async def FunctionGetInputs(self, stream):
        function_id = (await stream.recv_message()).function_id
        while True:
            input_id = await self.waiting[function_id].get()
            if input_id not in self.inputs:
                continue  # cancelled while it waited
            call = self.calls[self.inputs[input_id]]
            _, given = call.inputs[input_id]
            verdict = self.judge(input_id, given)
            if verdict == "lose":
                # Not in this handler: it ends with the connection of the container it serves.
                losing = self.lose_container(function_id, input_id)
                self.watchers.add(asyncio.ensure_future(losing))
                return
            elif verdict == "expire":
                call.expired = True
                await self.finish(input_id, Results())
            elif verdict is not None:
                await self.finish(input_id, verdict)
            else:
                break
        async with self.changed:
            self.delivered[function_id].add(input_id)
            self.changed.notify_all()
        item = api_pb2.FunctionGetInputsItem(
            input_id=input_id,
            input=given,
            function_call_id=self.inputs[input_id],
            function_call_invocation_type=call.invocation,
        )
        await stream.send_message(api_pb2.FunctionGetInputsResponse(inputs=[item]))

    def judge(self, input_id, given):
        """Ask the test what becomes of an input; nothing waits for a test that is broken."""
        try:
            return self.on_deliver(input_id, given) if self.on_deliver else None
        except Exception as error:
            return Results(status=Results.GENERIC_STATUS_FAILURE, exception=f"the test: {error!r}")

    async def FunctionPutOutputs(self, stream):
        for item in (await stream.recv_message()).outputs:
            await self.finish(item.input_id, item.result, item.data_format)
        await stream.send_message(Empty())

    async def ContainerHeartbeat(self, stream):
        await stream.recv_message()
        container = stream.peer.addr()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S), self.changed:
                await self.changed.wait_for(lambda: len(self.cancelled) > self.told[container])
        news = self.cancelled[self.told[container] :]
        self.told[container] = len(self.cancelled)
        event = api_pb2.CancelInputEvent(input_ids=news) if news else None
        await stream.send_message(api_pb2.ContainerHeartbeatResponse(cancel_input_event=event))

    async def FunctionGetDynamicConcurrency(self, stream):
        request = await stream.recv_message()
        await stream.send_message(
            api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=request.max_concurrency)
        )

    async def TaskResult(self, stream):
        result = (await stream.recv_message()).result
        for function_id, inputs in self.delivered.items():
            for input_id in list(inputs):
                await self.finish(input_id, result)
            while not self.waiting[function_id].empty():
                await self.finish(self.waiting[function_id].get_nowait(), result)
        await stream.send_message(Empty())

    # Calls

    async def FunctionMap(self, stream):
        request = await stream.recv_message()
        call_id = self.new_id("fc")
        call = Call(request.function_id, request.function_call_invocation_type)
        self.calls[call_id] = call
        queued = [self.enqueue(call_id, item) for item in request.pipelined_inputs]
        await stream.send_message(
            api_pb2.FunctionMapResponse(
                function_call_id=call_id, pipelined_inputs=queued, max_inputs_outstanding=1000
            )
        )

    async def FunctionPutInputs(self, stream):
        request = await stream.recv_message()
        queued = [self.enqueue(request.function_call_id, item) for item in request.inputs]
        await stream.send_message(api_pb2.FunctionPutInputsResponse(inputs=queued))

    def enqueue(self, call_id, item):
        call, input_id = self.calls[call_id], self.new_id("in")
        call.inputs[input_id] = (item.idx, item.input)
        self.inputs[input_id] = call_id
        self.waiting[call.function_id].put_nowait(input_id)
        if call.function_id not in self.containers:
            self.start_container(call.function_id)
        return api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=input_id)

    async def FunctionGetOutputs(self, stream):
        request = await stream.recv_message()
        call = self.calls[request.function_call_id]

        def ready():
            return [item for index, item in call.outputs.items() if request.start_idx in (index, 0)]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.timeout or 0.001), self.changed:
                await self.changed.wait_for(ready)
        if call.expired and call.outputs:
            await stream.send_message(api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=0))
            return
        await stream.send_message(
            api_pb2.FunctionGetOutputsResponse(
                outputs=ready(), num_unfinished_inputs=len(call.inputs) - len(call.outputs)
            )
        )

    async def FunctionCallCancel(self, stream):
        call = self.calls[(await stream.recv_message()).function_call_id]
        stopped = Results(status=Results.GENERIC_STATUS_TERMINATED, exception="cancelled")
        for input_id in list(call.inputs):
            self.cancelled.append(input_id)
            await self.finish(input_id, stopped)
        await stream.send_message(Empty())


class ModalServer:
    """The server in a thread of its own. Its `servicer` says what was registered."""

    def __init__(self, folder: Path):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.servicer: Servicer = self._run(self._start(folder))
        self.environment = {
            "MODAL_SERVER_URL": self.servicer.url,
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_ENVIRONMENT": ENVIRONMENT,
            "MODAL_CONFIG_PATH": str(folder / "modal.toml"),
        }

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self, folder):
        servicer = patch_mock_servicer(Servicer)(folder)
        self._server = grpclib.server.Server([servicer])
        await self._server.start("127.0.0.1", 0)
        port = self._server._server.sockets[0].getsockname()[1]
        servicer.url = f"http://127.0.0.1:{port}"
        self._blobs = await servicer.start_blobs()
        return servicer

    def wait_until(self, happened, timeout_s=120):
        """Wait until something is true of the servicer, looked at whenever inputs move."""

        async def wait():
            async with asyncio.timeout(timeout_s), self.servicer.changed:
                await self.servicer.changed.wait_for(lambda: happened(self.servicer))

        self._run(wait())

    def close(self):
        while self.servicer.containers:
            self.servicer.containers.popitem()[1].kill()

        async def stop():
            self._server.close()
            await self._blobs.cleanup()

        self._run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextlib.contextmanager
def modal_server(folder: Path):
    """Yield a running server; its containers end with it."""
    server = ModalServer(folder)
    try:
        yield server
    finally:
        server.close()
