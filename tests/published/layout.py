"""The layout of a checkpoint as published: its files, the values in them that matter, and what raysp does with it."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
CONFIG = (".gitattributes", "README.md", "config.json")
FRONT = (*CONFIG, "preprocessor_config.json")
LETTERS = (*FRONT, "special_tokens_map.json", "vocab.json")
TOKENS = (*LETTERS, "tokenizer_config.json")


@dataclass(frozen=True)
class Layout:
    """One published checkpoint. Widths and depths are small; all else is as in its files."""

    builds: str
    """Class that makes the weights: of transformers, or `SpeechRegression`."""
    files: Sequence[str]
    """Files on the main branch."""
    _: KW_ONLY
    outputs: Sequence[str] = ()
    """Outputs that the test requests, and that `raysp inspect` shows."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the configuration that make the model."""
    written: Mapping[str, Any] = field(default_factory=dict)
    """Further values of config.json, as published; None takes a key away."""
    front: Mapping[str, Any] = field(default_factory=dict)
    """Content of preprocessor_config.json."""
    vocab: Mapping[str, Any] = field(default_factory=dict)
    """Content of vocab.json."""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Content of tokenizer_config.json."""
    special: Mapping[str, Any] = field(default_factory=dict)
    """Content of special_tokens_map.json."""
    added: Mapping[str, int] = field(default_factory=dict)
    """Content of added_tokens.json."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """Content of further files; a file without one is a placeholder."""
    backend: str = "torch"
    """What runs it where the `Label` step names nothing."""
    label: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of a `Label` step, for what is smaller than published."""
    language: str | None = None
    """Language of a transcript, of a recogniser that needs one."""

    @property
    def is_regression(self) -> bool:
        """Whether its head gives numbers."""
        return self.written.get("problem_type") == "regression"

    @property
    def is_pickle(self) -> bool:
        """Whether the only weights for PyTorch are pickles."""
        return PICKLE in self.files and not any(name.endswith(".safetensors") for name in self.files)
