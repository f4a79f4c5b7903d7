"""Backends that run the checkpoint of a `Label` step: the models of raysp, of another library or of another package.

The protocols of a model are here too, for packages that offer one by an entry point of the group `raysp.models`.
"""

from raysp.backends.finding import Backend, WritingBackend
from raysp.capabilities import Capability
from raysp.models.labelled_passes import CheckpointSummary, LabellingModel, ModelPass, Writer, WritingModel, Written

__all__ = [
    "Backend",
    "Capability",
    "CheckpointSummary",
    "LabellingModel",
    "ModelPass",
    "Writer",
    "WritingBackend",
    "WritingModel",
    "Written",
]
