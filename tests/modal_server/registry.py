"""The in-memory Modal server's registry of apps, functions and classes."""

import asyncio
import base64
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.resources import BUILDER, Resources

TOKEN_ID, TOKEN_SECRET, ENVIRONMENT = "ak-test", "as-test", "main"
LOG_INTERVAL_S = 0.2  # between two looks at what containers wrote


@dataclass
class App:
    name: str
    functions: dict = field(default_factory=dict)  # tag -> function id
    classes: dict = field(default_factory=dict)  # tag -> class id
    published: bool = False  # whether it is deployed, and so can be found by its name
    stopped: bool = False
    versions: int = 0  # times that it was published


class Registry(Resources):
    """The part of the protocol that deploys and looks up."""

    def __init__(self, folder):
        super().__init__(folder)
        self.apps, self.functions = {}, {}
        self.web_urls = {}  # function id -> address
        self.bound = {}  # bound function id -> (function id, serialized parameters)

    def definition(self, function_id):
        """Return a function as a container gets it: its first choice of GPU."""
        request = self.functions[self.bound.get(function_id, (function_id,))[0]]
        if not request.HasField("function_data"):
            return request.function
        function = api_pb2.Function()
        function.CopyFrom(request.function_data.ranked_functions[0].function)
        return function

    def function_data(self, function_id):
        """Return a function in the newer form, which Modal answers with in any case."""
        request = self.functions[function_id]
        if request.HasField("function_data"):
            return request.function_data
        ranked = api_pb2.FunctionData.RankedFunction(function=request.function)
        name = request.function.function_name
        return api_pb2.FunctionData(function_name=name, ranked_functions=[ranked])

    def metadata(self, function_id):
        request = self.functions[self.bound.get(function_id, (function_id,))[0]]
        in_data = request.HasField("function_data")
        function = request.function_data if in_data else request.function
        methods = {
            name: api_pb2.FunctionHandleMetadata(
                function_name=method.function_name,
                function_type=method.function_type,
                use_method_name=name,
                is_method=True,
                supported_input_formats=method.supported_input_formats,
                supported_output_formats=method.supported_output_formats,
            )
            for name, method in function.method_definitions.items()
        }
        return api_pb2.FunctionHandleMetadata(
            function_name=function.function_name,
            function_type=function.function_type,
            is_method=False,
            definition_id=f"de-{function_id}",
            class_parameter_info=function.class_parameter_info,
            method_handle_metadata=methods,
            web_url=self.web_urls.get(function_id, ""),
            supported_input_formats=self.definition(function_id).supported_input_formats,
            supported_output_formats=self.definition(function_id).supported_output_formats,
        )

    def layout(self, app):
        functions = {*app.functions.values(), *self.bound}
        objects = [
            api_pb2.Object(object_id=i, function_handle_metadata=self.metadata(i))
            for i in functions
        ]
        objects += [
            api_pb2.Object(object_id=i, class_handle_metadata=api_pb2.ClassHandleMetadata())
            for i in app.classes.values()
        ]
        objects += [
            api_pb2.Object(object_id=i, volume_metadata=api_pb2.VolumeMetadata())
            for i in self.volumes
        ]
        others = (*self.secrets, *self.images, *self.dicts)
        objects += [api_pb2.Object(object_id=i) for i in others]
        objects += [
            api_pb2.Object(object_id=i, mount_handle_metadata=api_pb2.MountHandleMetadata())
            for i in self.mounts
        ]
        return api_pb2.AppLayout(objects=objects, function_ids=app.functions, class_ids=app.classes)

    # Clients

    async def ClientHello(self, stream):
        await stream.recv_message()
        self.check_token(stream)
        await stream.send_message(api_pb2.ClientHelloResponse(image_builder_version=BUILDER))

    def check_token(self, stream):
        given = stream.metadata.get("x-modal-token-id"), stream.metadata.get("x-modal-token-secret")
        if given != (TOKEN_ID, TOKEN_SECRET):
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID not found")

    async def AuthTokenGet(self, stream):
        await stream.recv_message()
        claims = json.dumps({"exp": int(time.time()) + 86400}).encode()
        payload = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
        await stream.send_message(api_pb2.AuthTokenGetResponse(token=f"e30.{payload}.x"))

    async def EnvironmentGetOrCreate(self, stream):
        request = await stream.recv_message()
        name = self.check_environment(request.deployment_name)
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER)
        metadata = api_pb2.EnvironmentMetadata(name=name, settings=settings)
        await stream.send_message(
            api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)
        )

    def check_environment(self, name):
        if name not in ("", ENVIRONMENT):
            raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")
        return ENVIRONMENT

    # Apps

    async def AppCreate(self, stream):
        request = await stream.recv_message()
        self.check_token(stream)
        app_id = self.new_id("ap")
        self.apps[app_id] = App(request.description)
        await stream.send_message(api_pb2.AppCreateResponse(app_id=app_id))

    async def AppGetByDeploymentName(self, stream):
        request = await stream.recv_message()
        self.check_token(stream)
        app_id = next(
            (i for i, a in self.apps.items() if a.published and a.name == request.name), ""
        )
        await stream.send_message(api_pb2.AppGetByDeploymentNameResponse(app_id=app_id))

    async def AppGetLayout(self, stream):
        request = await stream.recv_message()
        layout = self.layout(self.apps[request.app_id])
        await stream.send_message(api_pb2.AppGetLayoutResponse(app_layout=layout))

    async def AppPublish(self, stream):
        request = await stream.recv_message()
        app = self.apps[request.app_id]
        app.functions, app.classes = dict(request.function_ids), dict(request.class_ids)
        app.versions += 1
        app.published = request.app_state == api_pb2.APP_STATE_DEPLOYED
        # The next input goes to a container of this version; the others end when they are done.
        await self.retire(app)
        await self.notify()
        await stream.send_message(
            api_pb2.AppPublishResponse(url="https://modal.com/apps/test", deployed_at=time.time())
        )

    async def AppClientDisconnect(self, stream):
        app = self.apps[(await stream.recv_message()).app_id]
        if not app.published:
            app.stopped = True
            await self.stop(app)
        await stream.send_message(Empty())

    def functions_of(self, app):
        """Return the ids of an app's functions, those of classes with parameters included."""
        plain = set(app.functions.values())
        return plain | {bound for bound, (function_id, _) in self.bound.items()
                        if function_id in plain}  # fmt: skip

    def app_of(self, function_id):
        """Return the id of the app that a function belongs to."""
        plain = self.bound.get(function_id, (function_id,))[0]
        return next(i for i, app in self.apps.items() if plain in app.functions.values())

    async def AppHeartbeat(self, stream):
        await stream.recv_message()
        await stream.send_message(Empty())

    async def AppGetLogs(self, stream):
        """Send what the app's containers write until the app is stopped."""
        app = self.apps[(await stream.recv_message()).app_id]
        sent = defaultdict(int)
        while True:
            stopped = app.stopped
            for container in list(self.tasks.values()):
                if container.function_id in self.functions_of(app) and container.log.exists():
                    text = container.log.read_text(errors="replace")[sent[container.task_id] :]
                    sent[container.task_id] += len(text)
                    item = api_pb2.TaskLogs(data=text, timestamp=time.time())
                    batch = api_pb2.TaskLogsBatch(task_id=container.task_id, items=[item])
                    await stream.send_message(batch)
            if stopped:
                break
            await asyncio.sleep(LOG_INTERVAL_S)
        await stream.send_message(api_pb2.TaskLogsBatch(app_done=True))

    # Functions and classes

    async def FunctionPrecreate(self, stream):
        request = await stream.recv_message()
        function_id = request.existing_function_id or self.new_id("fu")
        metadata = api_pb2.FunctionHandleMetadata(
            function_name=request.function_name,
            function_type=request.function_type,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
        )
        await stream.send_message(
            api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)
        )

    async def FunctionCreate(self, stream):
        request = await stream.recv_message()
        function_id = request.existing_function_id or self.new_id("fu")
        self.functions[function_id] = request
        self.apps[request.app_id].functions[self.definition(function_id).function_name] = (
            function_id
        )
        if self.definition(function_id).webhook_config.type and function_id not in self.web_urls:
            self.web_urls[function_id] = await self.start_web(function_id)
        answer = api_pb2.FunctionCreateResponse(
            function_id=function_id,
            function_data=self.function_data(function_id),
            handle_metadata=self.metadata(function_id),
        )
        await stream.send_message(answer)

    async def ClassCreate(self, stream):
        request = await stream.recv_message()
        class_id = request.existing_class_id or self.new_id("cs")
        metadata = api_pb2.ClassHandleMetadata()
        await stream.send_message(
            api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=metadata)
        )

    def find(self, kind, request):
        self.check_environment(request.environment_name)
        for app in self.apps.values():
            found = getattr(app, kind).get(request.object_tag)
            if app.published and app.name == request.app_name and found:
                return found
        raise GRPCError(
            Status.NOT_FOUND, f"App '{request.app_name}' or '{request.object_tag}' not found"
        )

    async def ClassGet(self, stream):
        class_id = self.find("classes", await stream.recv_message())
        await stream.send_message(
            api_pb2.ClassGetResponse(
                class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata()
            )
        )

    async def FunctionGet(self, stream):
        self.check_token(stream)
        function_id = self.find("functions", await stream.recv_message())
        await stream.send_message(
            api_pb2.FunctionGetResponse(
                function_id=function_id,
                function=self.function_data(function_id),
                handle_metadata=self.metadata(function_id),
            )
        )

    async def FunctionBindParams(self, stream):
        request = await stream.recv_message()
        wanted = (request.function_id, request.serialized_params)
        bound_id = next((b for b, known in self.bound.items() if known == wanted), None)
        if bound_id is None:
            bound_id = self.new_id("fu")
            self.bound[bound_id] = wanted
        await stream.send_message(
            api_pb2.FunctionBindParamsResponse(
                bound_function_id=bound_id, handle_metadata=self.metadata(bound_id)
            )
        )
