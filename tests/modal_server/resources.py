"""What functions on the in-memory Modal server need: images, mounts, secrets, volumes."""

import hashlib
import itertools

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

BUILDER = "2025.06"
SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)


class Resources(ModalClientBase):
    """The part of the protocol that keeps what is uploaded or named."""

    def __init__(self):
        self.mounts, self.files, self.secrets, self.images = {}, {}, {}, {}
        self.volumes, self.committed = {}, []
        self.numbers = itertools.count(1)

    def new_id(self, prefix):
        return f"{prefix}-{next(self.numbers):06d}"

    async def ImageGetOrCreate(self, stream):
        image = (await stream.recv_message()).image
        # As on Modal, a layer with the same definition is the same image, and not built again.
        image_id = f"im-{hashlib.sha256(image.SerializeToString(deterministic=True)).hexdigest()}"
        self.images[image_id] = image
        metadata = api_pb2.ImageMetadata(image_builder_version=BUILDER)
        await stream.send_message(
            api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=SUCCESS, metadata=metadata)
        )

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

    async def SecretGetOrCreate(self, stream):
        request = await stream.recv_message()
        secret_id = self.new_id("st")
        self.secrets[secret_id] = dict(request.env_dict)
        await stream.send_message(api_pb2.SecretGetOrCreateResponse(secret_id=secret_id))

    async def VolumeGetOrCreate(self, stream):
        request = await stream.recv_message()
        known = {name: volume_id for volume_id, name in self.volumes.items()}
        volume_id = known.get(request.deployment_name) or self.new_id("vo")
        self.volumes[volume_id] = request.deployment_name
        metadata = api_pb2.VolumeMetadata(version=request.version)
        await stream.send_message(
            api_pb2.VolumeGetOrCreateResponse(
                volume_id=volume_id, version=request.version, metadata=metadata
            )
        )

    async def VolumeCommit(self, stream):
        self.committed.append((await stream.recv_message()).volume_id)
        await stream.send_message(api_pb2.VolumeCommitResponse())

    async def VolumeReload(self, stream):
        await stream.recv_message()
        await stream.send_message(Empty())
