"""Calls on the in-memory Modal server: inputs on the way to containers, and results back."""

import asyncio
import contextlib
from collections import defaultdict, deque
from dataclasses import dataclass, field

import grpclib.server
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.blobs import Blobs
from tests.modal_server.containers import (
    TASK,
    Container,
    MountedVolume,
    ServicerForTask,
    image_python,
    write_mounts,
)
from tests.modal_server.registry import ENVIRONMENT
from tests.modal_server.resources import BUILDER
from tests.support.environments import modal_client

Result = api_pb2.GenericResult
HEARTBEAT_S = 10.0  # how long a heartbeat waits for news, less than the client's patience


@dataclass
class Call:
    function_id: str
    invocation: int
    inputs: dict = field(default_factory=dict)  # input id -> (index, input)
    outputs: dict = field(default_factory=dict)  # index -> item
    expired: bool = False
    data_in: list = field(default_factory=list)  # chunks to the container
    data_out: list = field(default_factory=list)  # chunks from it


class Calls(Blobs):
    """Inputs and outputs, and the containers between them. All on one event loop."""

    def __init__(self, folder):
        super().__init__(folder)
        self.calls = {}
        self.waiting = defaultdict(deque)  # function id -> input ids
        self.unfinished = {}  # input id -> call id
        self.containers = {}  # function id -> the container that takes its inputs
        self.cancelled = []  # input ids
        self.changed, self.background = asyncio.Condition(), set()
        self.on_deliver = None  # (input id, input) -> "lose", "expire", a result, or None

    def in_background(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    async def notify(self):
        async with self.changed:
            self.changed.notify_all()

    # Containers

    def start_container(self, function_id):
        task_id = self.new_id("ta")
        container = Container(task_id, function_id, self.folder / task_id)
        self.tasks[task_id] = self.containers[function_id] = container
        self.in_background(self.run_container(container))

    async def run_container(self, container):
        """Run a container until it ends, and see to the inputs that it leaves behind."""
        function_id = container.function_id
        definition = self.definition(function_id)
        mounts = [self.mounts[mount] for mount in definition.mount_ids if mount in self.mounts]
        container.root = write_mounts(mounts, self.files)
        for mount in definition.volume_mounts:
            folder = container.folder / "volumes" / mount.volume_id
            volume = MountedVolume(self.volume_folder(mount.volume_id), folder)
            container.volumes[mount.volume_id] = volume
        app_id = self.app_of(function_id)
        arguments = api_pb2.ContainerArguments(
            task_id=container.task_id,
            function_id=function_id,
            app_id=app_id,
            function_def=definition,
            serialized_params=self.bound.get(function_id, (None, b""))[1],
            environment_name=ENVIRONMENT,
            app_layout=self.layout(self.apps[app_id]),
        )
        server = grpclib.server.Server([ServicerForTask(self, container.task_id)])
        await server.start("127.0.0.1", 0)
        port = server._server.sockets[0].getsockname()[1]
        image = self.image(definition.image_id)
        variables = self.variables(container, image, definition)
        variables["MODAL_SERVER_URL"] = f"http://127.0.0.1:{port}"
        try:
            environment = await asyncio.to_thread(image.environment)
            client = await asyncio.to_thread(modal_client, BUILDER, image.python)
            python = await asyncio.to_thread(image_python, environment, client)
            if not container.killed:
                container.start(python, arguments, variables)
                await asyncio.to_thread(container.process.wait)
        except (OSError, RuntimeError) as error:
            container.log.write_text(f"the container could not be started: {error}")
        server.close()
        await self.clear_up(container)

    def variables(self, container, image, definition):
        """Return a container's variables of the environment, with paths that exist here."""

        def place(path):
            for mount in definition.volume_mounts:
                if path == mount.mount_path or path.startswith(f"{mount.mount_path}/"):
                    folder = str(container.volumes[mount.volume_id].folder)
                    return folder + path.removeprefix(mount.mount_path)
            return str(container.folder / path.lstrip("/")) if path.startswith("/") else path

        secrets = [self.secrets[secret] for secret in definition.secret_ids]
        given = {name: text for secret in secrets for name, text in secret.items()}
        return {name: place(text) for name, text in image.variables.items()} | given

    async def clear_up(self, container):
        """Fail what a container had when it ended; start another for what still waits."""
        function_id = container.function_id
        container.ended = True
        if self.containers.get(function_id) is container:
            del self.containers[function_id]
        ended = Result(
            status=Result.GENERIC_STATUS_FAILURE,
            exception=f"the container ended: {container.text()[-2000:]}",
        )
        left = list(container.inputs)
        if not container.served and not container.retired:
            left += self.waiting.pop(function_id, ())  # another one would not start either
        for input_id in left:
            await self.finish(input_id, ended)
        waiting = self.waiting[function_id] and function_id not in self.containers
        if waiting and not container.killed:
            self.start_container(function_id)

    async def retire_container(self, container):
        """Give a container no more inputs; it ends when it is done with those that it has."""
        container.retired = True
        function_id = container.function_id
        if self.containers.get(function_id) is container:
            del self.containers[function_id]
            if self.waiting[function_id]:
                self.start_container(function_id)
        await self.notify()

    async def retire(self, app):
        for container in self.containers_of(app):
            await self.retire_container(container)

    async def stop(self, app):
        for container in self.containers_of(app):
            self.waiting.pop(container.function_id, None)
            await asyncio.to_thread(container.kill)

    def containers_of(self, app):
        functions = self.functions_of(app)
        return [c for c in self.tasks.values() if c.function_id in functions and not c.ended]

    async def lose_container(self, container, input_id):
        """Kill a container as a preemption would, and give what it had besides to another."""
        if self.containers.get(container.function_id) is container:
            del self.containers[container.function_id]
        self.waiting[container.function_id].extend(container.inputs - {input_id})
        container.inputs.clear()
        container.kill()
        self.start_container(container.function_id)
        lost = Result(
            status=Result.GENERIC_STATUS_INTERNAL_FAILURE,
            exception="the container was lost (preempted) and its input was not retried",
        )
        await self.finish(input_id, lost)

    def log(self, name):
        """Return what the containers of a function wrote, by its name such as "web"."""
        return "".join(
            container.text()
            for container in self.tasks.values()
            if self.definition(container.function_id).function_name == name
        )

    def print_logs(self):
        """Print what containers wrote, for a test that failed."""
        for container in self.tasks.values():
            print(f"--- {container.task_id}\n{container.text()[-4000:]}")

    async def ContainerHello(self, stream):
        await stream.recv_message()
        await stream.send_message(Empty())

    async def ContainerHeartbeat(self, stream):
        await stream.recv_message()
        container = self.tasks[TASK.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S), self.changed:
                await self.changed.wait_for(lambda: container.cancelled)
        news, container.cancelled = container.cancelled, []
        event = api_pb2.CancelInputEvent(input_ids=news) if news else None
        await stream.send_message(api_pb2.ContainerHeartbeatResponse(cancel_input_event=event))

    async def ContainerStop(self, stream):
        request = await stream.recv_message()
        container = self.tasks[request.task_id]
        await self.retire_container(container)
        if not request.graceful:
            await asyncio.to_thread(container.kill)
        await stream.send_message(api_pb2.ContainerStopResponse())

    async def TaskList(self, stream):
        app_id = (await stream.recv_message()).app_id
        tasks = [
            api_pb2.TaskStats(task_id=c.task_id, app_id=app_id, enqueued_at=c.enqueued_at)
            for c in self.containers_of(self.apps[app_id])
        ]
        await stream.send_message(api_pb2.TaskListResponse(tasks=tasks))

    async def TaskResult(self, stream):
        """Hear that a container could not start: nothing that waits for it will be done."""
        result = (await stream.recv_message()).result
        container = self.tasks[TASK.get()]
        for input_id in [*container.inputs, *self.waiting.pop(container.function_id, ())]:
            await self.finish(input_id, result)
        await stream.send_message(Empty())

    # Inputs and outputs

    async def FunctionGetInputs(self, stream):
        await stream.recv_message()
        container = self.tasks[TASK.get()]
        waiting = self.waiting[container.function_id]
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: container.retired or waiting)
            if container.retired:
                stop = api_pb2.FunctionGetInputsItem(kill_switch=True)
                await stream.send_message(api_pb2.FunctionGetInputsResponse(inputs=[stop]))
                return
            input_id = waiting.popleft()
            if input_id not in self.unfinished:
                continue  # cancelled while it waited
            call_id = self.unfinished[input_id]
            call = self.calls[call_id]
            _, given = call.inputs[input_id]
            verdict = self.judge(input_id, given)
            if verdict == "lose":
                # Not in this handler: it ends with the connection of the container it serves.
                self.in_background(self.lose_container(container, input_id))
                return
            elif verdict == "expire":
                call.expired = True
                await self.finish(input_id, Result())
            elif verdict is not None:
                await self.finish(input_id, verdict)
            else:
                break
        container.inputs.add(input_id)
        container.served = True
        await self.notify()
        item = api_pb2.FunctionGetInputsItem(
            input_id=input_id,
            input=given,
            function_call_id=call_id,
            function_call_invocation_type=call.invocation,
        )
        await stream.send_message(api_pb2.FunctionGetInputsResponse(inputs=[item]))

    def judge(self, input_id, given):
        """Ask the test what becomes of an input; nothing waits for a test that is broken."""
        try:
            return self.on_deliver(input_id, given) if self.on_deliver else None
        except Exception as error:
            return Result(status=Result.GENERIC_STATUS_FAILURE, exception=f"the test: {error!r}")

    async def FunctionPutOutputs(self, stream):
        for item in (await stream.recv_message()).outputs:
            await self.finish(item.input_id, item.result, item.data_format)
        await stream.send_message(Empty())

    async def finish(self, input_id, result, data_format=api_pb2.DATA_FORMAT_PICKLE):
        for container in self.tasks.values():
            container.inputs.discard(input_id)
        call_id = self.unfinished.pop(input_id, None)
        if call_id is None:
            return
        call = self.calls[call_id]
        index, _ = call.inputs[input_id]
        call.outputs[index] = api_pb2.FunctionGetOutputsItem(
            result=result, idx=index, input_id=input_id, data_format=data_format
        )
        await self.notify()

    async def FunctionGetDynamicConcurrency(self, stream):
        request = await stream.recv_message()
        await stream.send_message(
            api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=request.max_concurrency)
        )

    # Calls

    async def FunctionMap(self, stream):
        request = await stream.recv_message()
        call_id = self.new_call(request.function_id, request.function_call_invocation_type)
        queued = [await self.enqueue(call_id, item) for item in request.pipelined_inputs]
        await stream.send_message(
            api_pb2.FunctionMapResponse(
                function_call_id=call_id, pipelined_inputs=queued, max_inputs_outstanding=1000
            )
        )

    async def FunctionPutInputs(self, stream):
        request = await stream.recv_message()
        queued = [await self.enqueue(request.function_call_id, item) for item in request.inputs]
        await stream.send_message(api_pb2.FunctionPutInputsResponse(inputs=queued))

    def new_call(self, function_id, invocation):
        call_id = self.new_id("fc")
        self.calls[call_id] = Call(function_id, invocation)
        return call_id

    async def enqueue(self, call_id, item):
        call, input_id = self.calls[call_id], self.new_id("in")
        call.inputs[input_id] = (item.idx, item.input)
        self.unfinished[input_id] = call_id
        self.waiting[call.function_id].append(input_id)
        if call.function_id not in self.containers:
            self.start_container(call.function_id)
        await self.notify()
        return api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=input_id)

    def call(self, call_id):
        if call_id not in self.calls:
            raise GRPCError(Status.NOT_FOUND, f"Function call {call_id} not found")
        return self.calls[call_id]

    async def FunctionCallFromId(self, stream):
        call_id = (await stream.recv_message()).function_call_id
        answer = api_pb2.FunctionCallFromIdResponse(
            function_call_id=call_id, num_inputs=len(self.call(call_id).inputs)
        )
        await stream.send_message(answer)

    async def FunctionGetOutputs(self, stream):
        request = await stream.recv_message()
        call = self.call(request.function_call_id)

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
        call_id = (await stream.recv_message()).function_call_id
        await self.cancel(call_id)
        await stream.send_message(Empty())

    async def cancel(self, call_id):
        stopped = Result(status=Result.GENERIC_STATUS_TERMINATED, exception="cancelled")
        for input_id in self.call(call_id).inputs:
            self.cancelled.append(input_id)
            for container in self.tasks.values():
                if input_id in container.inputs:
                    container.cancelled.append(input_id)
            await self.finish(input_id, stopped)
        await self.notify()

    # Streams of data into and out of a call

    async def FunctionCallGetDataIn(self, stream):
        request = await stream.recv_message()
        await self.pass_on(stream, self.call(request.function_call_id).data_in, request.last_index)

    async def FunctionCallPutDataOut(self, stream):
        request = await stream.recv_message()
        self.call(request.function_call_id).data_out.extend(request.data_chunks)
        await self.notify()
        await stream.send_message(Empty())

    async def FunctionCallGetDataOut(self, stream):
        request = await stream.recv_message()
        await self.pass_on(stream, self.call(request.function_call_id).data_out, request.last_index)

    async def pass_on(self, stream, chunks, sent):
        """Send the chunks after the first `sent` ones, as they come, until nobody listens."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: len(chunks) > sent)  # noqa: B023
            for chunk in chunks[sent:]:
                await stream.send_message(chunk)
                sent += 1
