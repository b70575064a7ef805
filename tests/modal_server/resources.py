"""What functions on the in-memory Modal server need: images, mounts, secrets, volumes, dicts."""

import asyncio
import hashlib
import itertools

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

from tests.modal_server.containers import TASK
from tests.modal_server.images import Image

BUILDER = "2025.06"
SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
CREATE = (
    api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
    api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS,
)


class Resources(ModalClientBase):
    """The part of the protocol that keeps what is uploaded or named."""

    def __init__(self, folder):
        self.folder = folder
        self.tasks = {}  # task id -> Container
        self.mounts, self.files, self.images = {}, {}, {}
        self.secrets, self.named_secrets = {}, {}  # id -> variables; name -> id
        self.volumes, self.committed = {}, []  # id -> name; ids
        self.volume = folder / "volumes" / "musicgen-models"  # what is committed to the service's
        self.dicts, self.named_dicts = {}, {}  # id -> entries; name -> id
        self.numbers = itertools.count(1)

    def new_id(self, prefix):
        return f"{prefix}-{next(self.numbers):06d}"

    def find_or_create(self, kind, named, request, create):
        """Return the id of a named object, as the type of creation in the request has it."""
        name, creation = request.deployment_name, request.object_creation_type
        if not name:
            return create()
        if creation not in CREATE and name not in named:
            raise GRPCError(Status.NOT_FOUND, f"{kind} '{name}' not found")
        if creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS and name in named:
            raise GRPCError(Status.ALREADY_EXISTS, f"{kind} '{name}' already exists")
        overwrite = creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS
        if name not in named or overwrite:
            named[name] = create()
        return named[name]

    # Images and mounts

    async def ImageGetOrCreate(self, stream):
        image = (await stream.recv_message()).image
        # As on Modal, a layer with the same definition is the same image, and not built again.
        image_id = f"im-{hashlib.sha256(image.SerializeToString(deterministic=True)).hexdigest()}"
        self.images[image_id] = image
        metadata = api_pb2.ImageMetadata(image_builder_version=BUILDER)
        await stream.send_message(
            api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=SUCCESS, metadata=metadata)
        )

    def layers(self, image_id):
        """Return the layers of an image, the lowest first."""
        layer = self.images[image_id]
        below = [self.layers(base.image_id) for base in layer.base_images]
        return [*itertools.chain(*below), layer]

    def image(self, image_id):
        return Image(self.layers(image_id))

    async def MountBatchedCheckExistence(self, stream):
        request = await stream.recv_message()
        missing = [digest for digest in request.sha256_hex_hashes if digest not in self.files]
        await stream.send_message(
            api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)
        )

    async def MountPutFile(self, stream):
        request = await stream.recv_message()
        if request.WhichOneof("data_oneof") == "data_blob_id":
            self.files[request.sha256_hex] = self.blobs[request.data_blob_id]
        elif request.data or request.WhichOneof("data_oneof"):
            self.files[request.sha256_hex] = request.data
        exists = request.sha256_hex in self.files
        await stream.send_message(api_pb2.MountPutFileResponse(exists=exists))

    async def MountGetOrCreate(self, stream):
        request = await stream.recv_message()
        mount_id = self.new_id("mo")
        self.mounts[mount_id] = list(request.files)
        metadata = api_pb2.MountHandleMetadata()
        await stream.send_message(
            api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)
        )

    # Secrets

    async def SecretGetOrCreate(self, stream):
        request = await stream.recv_message()

        def create():
            secret_id = self.new_id("st")
            self.secrets[secret_id] = dict(request.env_dict)
            return secret_id

        secret_id = self.find_or_create("Secret", self.named_secrets, request, create)
        missing = [key for key in request.required_keys if key not in self.secrets[secret_id]]
        if missing:
            message = f"Secret is missing key(s): {', '.join(missing)}"
            raise GRPCError(Status.FAILED_PRECONDITION, message)
        await stream.send_message(api_pb2.SecretGetOrCreateResponse(secret_id=secret_id))

    # Volumes

    def volume_folder(self, volume_id):
        return self.folder / "volumes" / self.volumes[volume_id]

    async def VolumeGetOrCreate(self, stream):
        request = await stream.recv_message()
        named = {name: volume_id for volume_id, name in self.volumes.items()}
        volume_id = self.find_or_create("Volume", named, request, lambda: self.new_id("vo"))
        self.volumes[volume_id] = request.deployment_name
        metadata = api_pb2.VolumeMetadata(version=request.version)
        await stream.send_message(
            api_pb2.VolumeGetOrCreateResponse(
                volume_id=volume_id, version=request.version, metadata=metadata
            )
        )

    async def VolumeCommit(self, stream):
        volume_id = (await stream.recv_message()).volume_id
        await asyncio.to_thread(self.tasks[TASK.get()].volumes[volume_id].commit)
        self.committed.append(volume_id)
        await stream.send_message(api_pb2.VolumeCommitResponse(skip_reload=True))

    async def VolumeReload(self, stream):
        volume_id = (await stream.recv_message()).volume_id
        container = self.tasks[TASK.get()]
        volume = container.volumes[volume_id]
        if files := container.open_files(volume.folder):
            message = f"there are open files preventing the operation: {files[0].name}"
            raise GRPCError(Status.FAILED_PRECONDITION, message)
        await asyncio.to_thread(volume.reload)
        await stream.send_message(Empty())

    # Dicts

    async def DictGetOrCreate(self, stream):
        request = await stream.recv_message()

        def create():
            dict_id = self.new_id("di")
            self.dicts[dict_id] = {entry.key: entry.value for entry in request.data}
            return dict_id

        dict_id = self.find_or_create("Dict", self.named_dicts, request, create)
        metadata = api_pb2.DictMetadata(name=request.deployment_name)
        await stream.send_message(
            api_pb2.DictGetOrCreateResponse(dict_id=dict_id, metadata=metadata)
        )

    async def DictUpdate(self, stream):
        request = await stream.recv_message()
        entries = self.dicts[request.dict_id]
        created = not any(entry.key in entries for entry in request.updates)
        if created or not request.if_not_exists:
            entries.update({entry.key: entry.value for entry in request.updates})
        await stream.send_message(api_pb2.DictUpdateResponse(created=created))

    async def DictGet(self, stream):
        request = await stream.recv_message()
        value = self.dicts[request.dict_id].get(request.key)
        await stream.send_message(api_pb2.DictGetResponse(found=value is not None, value=value))

    async def DictContains(self, stream):
        request = await stream.recv_message()
        found = request.key in self.dicts[request.dict_id]
        await stream.send_message(api_pb2.DictContainsResponse(found=found))

    async def DictPop(self, stream):
        request = await stream.recv_message()
        value = self.dicts[request.dict_id].pop(request.key, None)
        await stream.send_message(api_pb2.DictPopResponse(found=value is not None, value=value))

    async def DictLen(self, stream):
        request = await stream.recv_message()
        await stream.send_message(api_pb2.DictLenResponse(len=len(self.dicts[request.dict_id])))

    async def DictContents(self, stream):
        request = await stream.recv_message()
        for key, value in self.dicts[request.dict_id].items():
            await stream.send_message(
                api_pb2.DictEntry(
                    key=key if request.keys else b"", value=value if request.values else b""
                )
            )
