"""Results of a model that outputs of a pipeline need; importable without torch."""

from enum import StrEnum


class Capability(StrEnum):
    """A result of a model. Heads give capabilities, outputs of a pipeline need them."""

    HIDDEN_STATES = "hidden_states"
    """Frames of the encoder's layers, which every model gives."""
    CTC = "ctc"
    """Logits of tokens for each frame."""
    TRANSDUCER = "transducer"
    """Frames over which a transducer searches for the tokens of a text."""
    TEXT_DECODER = "text_decoder"
    """Tokens of a text, generated one after another."""
    CLASSES = "classes"
    """Logits of classes for a recording."""
    FRAME_CLASSES = "frame_classes"
    """Logits of classes for each frame."""
    XVECTOR = "xvector"
    """A speaker embedding."""


TEXT = frozenset({Capability.CTC, Capability.TRANSDUCER, Capability.TEXT_DECODER})
"""Capabilities of checkpoints that have a tokenizer."""
