"""Blobs of the in-memory Modal server: what is too large for a message goes over HTTP."""

import hashlib

from aiohttp import web
from modal_proto import api_pb2

from tests.modal_server.registry import Registry


class Blobs(Registry):
    """The part of the protocol that issues blob addresses, and their contents."""

    def __init__(self, folder):
        super().__init__(folder)
        self.blobs, self.blob_url = {}, ""

    async def start_blobs(self):
        """Listen for blobs; return what to clean up."""
        application = web.Application(client_max_size=2**30)
        application.router.add_put("/{id}", self.put_blob)
        application.router.add_get("/{id}", self.get_blob)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.blob_url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return runner

    async def BlobCreate(self, stream):
        await stream.recv_message()
        blob_id = self.new_id("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self.blob_url}/{blob_id}"])
        await stream.send_message(api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls))

    async def BlobGet(self, stream):
        blob_id = (await stream.recv_message()).blob_id
        url = f"{self.blob_url}/{blob_id}"
        await stream.send_message(api_pb2.BlobGetResponse(download_url=url))

    async def put_blob(self, request):
        content = await request.read()
        self.blobs[request.match_info["id"]] = content
        return web.Response(headers={"ETag": hashlib.md5(content).hexdigest()})

    async def get_blob(self, request):
        return web.Response(body=self.blobs[request.match_info["id"]])
