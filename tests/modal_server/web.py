"""Web addresses of the in-memory Modal server: HTTP in front of the container program's ASGI."""

import asyncio
from functools import partial
from urllib.parse import urlencode

from aiohttp import web
from modal._serialization import deserialize_data_format, serialize, serialize_data_format
from modal_proto import api_pb2

from tests.modal_server.calls import Calls

ASGI = api_pb2.DATA_FORMAT_ASGI
CALL_ID = "__modal_function_call_id"  # query of the address that a slow answer is fetched from
PROXY_KEY, PROXY_SECRET = "wk-test", "ws-test"  # what Modal's proxy takes


class Servicer(Calls):
    """The whole server. Each web function has an address of its own on 127.0.0.1."""

    def __init__(self, folder):
        super().__init__(folder)
        self.listeners = []
        self.redirect_after_s = 150.0  # how long Modal lets a client wait before it redirects it

    async def start_web(self, function_id):
        """Listen for a web function; return its address."""
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", partial(self.answer, function_id))
        runner = web.AppRunner(application, handler_cancellation=True)
        await runner.setup()
        self.listeners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def answer(self, function_id, request):
        """Answer an HTTP request by a call of the web function, or go on with one under way."""
        given = (request.headers.get("Modal-Key"), request.headers.get("Modal-Secret"))
        protected = self.definition(function_id).webhook_config.requires_proxy_auth
        if protected and given != (PROXY_KEY, PROXY_SECRET):
            text = "modal-http: missing or invalid credentials for proxy authorization"
            return web.Response(status=401, text=text)
        call_id = request.query.get(CALL_ID)
        if call_id is None:
            call_id = self.new_call(function_id, api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC)
            await self.enqueue(call_id, self.web_input(request))
            self.in_background(self.send_body(call_id, request))
        try:
            return await self.send_answer(call_id, request)
        except asyncio.CancelledError:  # the client has left
            await self.send_in(call_id, {"type": "http.disconnect"})
            raise

    def web_input(self, request):
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "scheme": "https",
            "path": request.path,
            "query_string": request.rel_url.raw_query_string.encode(),
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "client": request.transport.get_extra_info("peername"),
        }
        given = api_pb2.FunctionInput(
            args=serialize(((scope,), {})), data_format=api_pb2.DATA_FORMAT_PICKLE
        )
        return api_pb2.FunctionPutInputsItem(idx=0, input=given)

    async def send_in(self, call_id, message):
        chunks = self.calls[call_id].data_in
        data = serialize_data_format(message, ASGI)
        chunks.append(api_pb2.DataChunk(data_format=ASGI, data=data, index=len(chunks) + 1))
        await self.notify()

    async def send_body(self, call_id, request):
        async for body in request.content.iter_chunked(2**16):
            await self.send_in(call_id, {"type": "http.request", "body": body, "more_body": True})
        await self.send_in(call_id, {"type": "http.request", "body": b"", "more_body": False})

    async def send_answer(self, call_id, request):
        """Pass on what the container sends; redirect the client when that takes too long."""
        call = self.calls[call_id]
        async with self.changed:
            try:
                async with asyncio.timeout(self.redirect_after_s):
                    await self.changed.wait_for(lambda: call.data_out or call.outputs)
            except TimeoutError:
                query = urlencode({**request.query, CALL_ID: call_id})
                raise web.HTTPSeeOther(f"{request.path}?{query}") from None
        if not call.data_out:
            said = call.outputs[0].result.exception
            return web.Response(status=500, text=f"modal-http: internal error: {said}")
        start = self.message(call.data_out[0])
        response = web.StreamResponse(status=start["status"])
        for name, value in start["headers"]:
            response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        await response.prepare(request)
        sent, more = 1, True
        while more:
            async with self.changed:
                await self.changed.wait_for(lambda: len(call.data_out) > sent or call.outputs)  # noqa: B023
            if len(call.data_out) == sent:
                break  # the container ended in the middle of its answer
            message = self.message(call.data_out[sent])
            await response.write(message["body"])
            sent, more = sent + 1, message["more_body"]
        await response.write_eof()
        return response

    def message(self, chunk):
        data = self.blobs[chunk.data_blob_id] if chunk.data_blob_id else chunk.data
        return deserialize_data_format(data, chunk.data_format, None)
