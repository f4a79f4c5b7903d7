"""Texts of recordings."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import Field

from raysp.capabilities import Capability
from raysp.errors import CheckpointError, about
from raysp.specs.outputs.output import (
    OWN_MODEL,
    GenerateValue,
    Output,
    OutputName,
    columns_of,
    schema_of,
    spans_of,
    spoken,
    spoken_by,
)
from raysp.specs.values import Column, Count, JsonValue, Named, NotNegative, Url, spec
from raysp.words import count

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.backends.finding import WritingBackend
    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel, Writer, WritingModel
    from raysp.models.tokenizers.text import TextTokenizer
    from raysp.ops.forward import OutputOp
    from raysp.ops.generating import Prompt


MOST_BEAMS = 1024
TOKENS_PER_SECOND = 4
"""Tokens of fast speech in a second."""
_WEIGHTS = {"lm_weight": 0.5, "word_bonus": 1.0}
"""Weights of a language model without weights of its own."""
_OF_SEARCH: Mapping[str, object] = {"nbest": 1, "lm": None, "hot_words": {}}
"""Fields of beam search, with the values that they have if they are left out."""


@spec
class Transcript(Output):
    """Transcript of a recording: columns `<name>_text` and `<name>_score`.

    A beam search (`beams` above 1) finds the most probable text over all alignments. The scores in `<name>_nbest` are

        log P(text | frames) + lm_weight * log P(text | lm) + word_bonus * (number of words) + weights of hot words

    where P(text | frames) is the sum over the alignments that the search kept. They are no means: compare them within a
    row. `<name>_score` and times keep their meaning: they are of the most probable alignment of the best text. Prefixes
    are extended by the 16 best tokens of a frame whose log-probability is at most 8 below the best. Hot words match
    whole words. On a CPU equal frames give equal texts and scores, whatever shares the batch.

    A language model is an ARPA file as KenLM writes it (`lmplz -o 3 < sentences.txt > words.arpa`), of words or of the
    tokens of the vocabulary, in the case and letters of the checkpoint's texts; it is refused if the checkpoint can
    write fewer than a tenth of its words. An unknown word has the probability of `<unk>`, else 10^-10 (10^-100 in a
    binary file). Binary files need `raysp[kenlm]`, and a process of its own tries each file first. "own" uses the
    folder `language_model` of a checkpoint with its alpha, beta and `unk_score_offset`, which mean what they mean in
    pyctcdecode. The fingerprint holds the digest of the content of a model.

    Attributes:
        name: prefix of the columns' names.
        generate: for checkpoints with a text decoder: options of `generate`, such as `{"num_beams": 4}`; with
            `do_sample` the samples depend only on `seed` and on the place of the row.
        language: None: as the checkpoint does. For checkpoints with a text decoder: language in which texts are
            written, by its token in the vocabulary, such as "de" for `de_DE` or `<|de|>`; texts begin with the token.
            For CTC checkpoints with adapters of languages, such as MMS: language whose adapter, head and vocabulary are
            used, such as "deu". All outputs of a step have one language, since they share the forward pass. Or
            `raysp.Column("lang")`: the column of the source with the language of each row, for these CTC checkpoints,
            for Whisper by CTranslate2 and for recognisers that name their languages.
        task: for checkpoints with a text decoder: a task, such as "translate"; its token follows the language's.
        words: add `<name>_words`: each word with its start and end in seconds and its probability.
        chars: add `<name>_chars`: the same for each character.
        detect: add `<name>_language`: the most probable language and its probability, those of a row of several windows
            by the mean of their probabilities. For Whisper by CTranslate2, of several languages, and for recognisers
            that write the language, without `language`.
        prompt: for recognisers that take one: words before the recording, such as its subject.
        keywords: for recognisers that take them: words that are likely, such as names.
        beams: for CTC checkpoints: prefixes that a beam search keeps after each frame; 1: the best token of each frame.
        nbest: if above 1, add `<name>_nbest`: at most `nbest` different texts with their scores, the best first.
        lm: language model of words or of characters: path or url of an ARPA file, which may be compressed (.gz), or of
            a binary file of KenLM; "own": the one that comes with the checkpoint. A url is read with the source's
            storage options if both have the same scheme, as for a checkpoint.
        lm_weight: factor of the natural log-probabilities of `lm`; None: 0.5, or the alpha of the checkpoint's own.
        word_bonus: added to the score for each word, or each character of a model of characters, if there is an `lm`;
            None: 1, or the beta of the checkpoint's own.
        hot_words: words or phrases, with the amount added to the score each time that a text contains them.
    """

    needs: ClassVar = (Capability.CTC, Capability.TRANSDUCER, Capability.TEXT_DECODER)
    allows_gaps: ClassVar = True
    NOT_HASHED: ClassVar = ("language", "task", "detect", "prompt", "keywords")
    FILES: ClassVar = ("lm",)

    name: OutputName = "pred"
    _: KW_ONLY
    words: bool = False
    chars: bool = False
    detect: bool = False
    generate: Mapping[str, GenerateValue] = field(default_factory=dict)
    language: Named | Column | None = None
    task: Named | None = None
    prompt: Named | None = None
    keywords: tuple[Named, ...] = ()
    beams: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 1
    nbest: Count = 1
    lm: Url | None = None
    lm_weight: NotNegative | None = None
    word_bonus: Annotated[float, Field(allow_inf_nan=False)] | None = None
    hot_words: Mapping[str, Annotated[float, Field(gt=0, le=100)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields of beam search against each other."""
        set_fields = [name for name, unset in _OF_SEARCH.items() if getattr(self, name) != unset]
        if self.beams == 1 and set_fields:
            raise ValueError(f"{', '.join(set_fields)} given with beams=1; they need a beam search, such as beams=8")
        if self.detect and self.language is not None:
            raise ValueError(f"detect with language={self.language!r}, which is given: leave out one of them")
        if self.nbest > self.beams:
            raise ValueError(f"nbest={self.nbest} is more than beams={self.beams}; raise beams, or lower nbest")
        unused = [name for name, value in _WEIGHTS.items() if getattr(self, name) not in (None, value)]
        if self.lm is None and unused:
            raise ValueError(f"{' and '.join(unused)} given without lm, the language model; give lm, or set null")
        if self.lm == "":
            raise ValueError("lm is empty; give the path or url of an ARPA file, or leave it out")
        if blank := [text for text in self.hot_words if text != " ".join(text.split()) or not text]:
            raise ValueError(f"hot_words holds {blank[0]!r}; give words separated by single spaces")
        if self._is_prompted:
            for option in ("forced_bos_token_id", "decoder_start_token_id"):
                if option in self.generate:
                    raise ValueError(f"generate has {option}, which language and task choose: leave out one of them")

    @property
    def _is_prompted(self) -> bool:
        return self.language is not None or self.task is not None

    @property
    def _of_decoder(self) -> str | None:
        """Language of a text decoder, the same for all rows."""
        return None if isinstance(self.language, Column) else self.language

    def label_fields(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return the fields that can change a label: settings of beam search only if there is one."""
        fields = super().label_fields(digests)
        if self.lm != OWN_MODEL:
            fields |= {key: value for key, value in _WEIGHTS.items() if fields[key] is None}
        unused = {"lm", "lm_weight", "word_bonus"} if self.lm is None else set()
        unused |= {"beams", "nbest", "hot_words"} if self.beams == 1 else set()
        return {key: value for key, value in fields.items() if key not in unused}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        kinds = {"words": self.words, "chars": self.chars, "nbest": self.nbest > 1, "language": self.detect}
        optional = [kind for kind, is_set in kinds.items() if is_set]
        return tuple(f"{self.name}_{kind}" for kind in ("text", "score", *optional))

    @property
    def text_column(self) -> str:
        """Column with the transcript."""
        return f"{self.name}_text"

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        nbest = pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())]))
        language = pa.struct([("language", pa.string()), ("score", pa.float32())])
        return schema_of(self.columns, text=pa.string(), nbest=nbest, language=language)

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that words and chars are used with CTC checkpoints, and `generate` with a text decoder.

        Raises:
            CheckpointError: the checkpoint does not support a setting.
        """
        if checkpoint.writes_text and (self.chars or (self.words and not checkpoint.writes_times)):
            settings = "chars" if checkpoint.writes_times else "words and chars"
            raise CheckpointError(
                f"{checkpoint.path}: {settings} need a CTC checkpoint, which gives times; "
                f"{checkpoint.architecture} writes text without times{' of characters' if self.chars else ''}: "
                f"leave them out; a second step Label(CTC, outputs=[Align('{self.name}_text', unknown='wildcard')]) "
                "gives times (raysp label: --align CTC)"
            )
        if self.detect and not checkpoint.detects:
            raise CheckpointError(
                f"{checkpoint.path}: detect is for a Whisper of several languages by CTranslate2, and for recognisers "
                f"that write the language; {checkpoint.architecture} by backend={checkpoint.backend!r} detects none"
            )
        for option in ("prompt", "keywords"):
            if getattr(self, option) and option not in checkpoint.takes:
                takes = f"; it takes {', '.join(checkpoint.takes)}" if checkpoint.takes else ""
                raise CheckpointError(
                    f"{checkpoint.path}: {option} given, which {checkpoint.architecture} does not take{takes}: leave "
                    f"{option} out"
                )
        if self.beams > 1:
            self._check_search(checkpoint)
        if (self.generate or self.task is not None) and not checkpoint.writes_text:
            option = f"generate={dict(self.generate)!r}" if self.generate else "task"
            raise CheckpointError(
                f"{checkpoint.path}: {option} is for checkpoints with a text decoder; "
                f"{checkpoint.architecture} has none"
            )
        if checkpoint.writes_text:
            self._check_writing(checkpoint)
        elif self.language is not None and Capability.TRANSDUCER in checkpoint.gives:
            raise CheckpointError(
                f"{checkpoint.path}: language={self.language!r} given; {checkpoint.architecture} writes the language "
                "that it hears: leave language out"
            )
        elif Capability.CTC in checkpoint.gives and self.language is not None:  # a look at languages imports torch
            spoken(checkpoint, self.language)

    def _check_writing(self, checkpoint: "CheckpointSummary") -> None:
        """Check `generate`, language and task against a checkpoint with a text decoder."""
        from raysp.backends.finding import choice_of
        from raysp.models.labelled_passes import OWN
        from raysp.ops.generating import ONE_TEXT

        if isinstance(self.language, Column) and not checkpoint.languages:
            raise CheckpointError(
                f"{checkpoint.path}: a language by row is for CTC checkpoints with adapters, Whisper of several "
                f"languages by CTranslate2, and recognisers that name their languages; {checkpoint.architecture} "
                "writes text by a decoder: run a pipeline for each language, with "
                f"Keep(where=[({self.language.name!r}, '==', ...)]) and Transcript(language=...)"
            )
        for option, value in ONE_TEXT.items():
            if self.generate.get(option, value) != value:
                raise CheckpointError(
                    f"Transcript.generate: {option} is {self.generate[option]!r}; a label holds only one text"
                )
        if checkpoint.backend != OWN:
            backend = cast("WritingBackend", choice_of(checkpoint).open())
            request = {name: value for name in ("prompt", "keywords") if (value := getattr(self, name))}
            options, language = self._options(checkpoint), self._of_decoder
            backend.check_writing(checkpoint, options, language=language, task=self.task, **request)
        else:
            self._longest_text(checkpoint)

    def _longest_text(self, checkpoint: "CheckpointSummary") -> int:
        """Check `generate`. Returns the number of tokens after which the text of a window is cut."""
        from raysp.models.generation_checks import check_generation
        from raysp.ops.generating import Prompt

        prompt = self._prompt(checkpoint) if self._is_prompted else Prompt({}, ())
        settings = check_generation(checkpoint.path, {**self.generate, **prompt.options}, prompt.num_forced)
        return settings.max_length - prompt.num_forced

    def notes(self, checkpoint: "CheckpointSummary", window_seconds: float) -> tuple[str, ...]:
        """Return sentences on labels that a user may not expect: texts of whole windows would be cut."""
        from raysp.models.labelled_passes import OWN

        if not checkpoint.writes_text or checkpoint.backend != OWN:
            return ()
        most, needed = self._longest_text(checkpoint), math.ceil(TOKENS_PER_SECOND * window_seconds)
        if most >= needed:
            return ()
        return (
            f"{self.name}_text is cut after {count(most, 'token')} of a window (max_length), and {window_seconds:g} "
            f"seconds of speech may have {needed}: for recordings of that length pass generate={{'max_new_tokens': N}}",
        )

    def _options(self, checkpoint: "CheckpointSummary") -> Mapping[str, object]:
        """Return `generate`, with the beams of a decoder that searches."""
        return {**self.generate, "beam_size": self.beams} if checkpoint.searches and self.beams > 1 else self.generate

    def _prompt(self, checkpoint: "CheckpointSummary") -> "Prompt":
        """Return the tokens of language and task."""
        from raysp.models.generation_checks import start_token
        from raysp.models.tokenizers.named_tokenizers import read_tokenizer
        from raysp.ops.generating import Prompt

        with about(str(checkpoint.path), CheckpointError, CheckpointError):
            tokenizer = cast("TextTokenizer", read_tokenizer(checkpoint.path))
            return Prompt.of(tokenizer, start_token(checkpoint.path), language=self._of_decoder, task=self.task)

    def _check_search(self, checkpoint: "CheckpointSummary") -> None:
        if Capability.TRANSDUCER in checkpoint.gives:
            raise CheckpointError(
                f"{checkpoint.path}: beams={self.beams} is for CTC checkpoints; {checkpoint.architecture} is a "
                "transducer, which is searched greedily: leave beams out"
            )
        if checkpoint.searches:
            if set_fields := [name for name, unset in _OF_SEARCH.items() if getattr(self, name) != unset]:
                raise CheckpointError(
                    f"{checkpoint.path}: {', '.join(set_fields)} given, which are for CTC checkpoints; the beams of "
                    f"{checkpoint.architecture} take none"
                )
            return
        if checkpoint.writes_text:
            raise CheckpointError(
                f"{checkpoint.path}: beams={self.beams} is for CTC checkpoints; {checkpoint.architecture} writes text "
                f"by a decoder: leave beams out, or use generate={{'num_beams': {self.beams}}}, which Whisper and "
                "decoders of raysp take"
            )
        if Capability.CTC in checkpoint.gives and (self.lm is not None or self.hot_words):
            from raysp.ops.transcripts.searching import check_settings

            checkpoint, tokenizer = spoken(checkpoint, self.language)
            if tokenizer is None:
                raise CheckpointError(
                    f"{checkpoint.path}: lm and hot_words are for one language, and {self.language!r} is the language "
                    "of each row: leave them out, or run a pipeline for each language; beams alone work"
                )
            if tokenizer.begins_words:
                raise CheckpointError(
                    f"{checkpoint.path}: lm and hot_words need a vocabulary of characters, and this one has pieces of "
                    "words: leave them out; beams alone work"
                )
            check_settings(tokenizer, checkpoint.vocab_size or 0, lm=self.lm, hot_words=self.hot_words)

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "OutputOp":
        """Return the op that computes the columns."""
        if not checkpoint.writes_text:
            return self._spoken_op(checkpoint, loaded)
        from raysp.ops.writing import Writing

        return Writing(
            self.schema(checkpoint),
            self._parts(),
            None if loaded is None else self._writer(checkpoint, loaded),
            frame_seconds=checkpoint.frame_seconds,
            words=self.words,
            languages=checkpoint.languages if self.detect else None,
        )

    def _spoken_op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None") -> "OutputOp":
        import pyarrow as pa

        from raysp.ops.transcribing import Transcribing

        ids, scores = pa.list_(pa.int32()), pa.list_(pa.float32())
        schemas = self.schema(checkpoint), columns_of(self.name, frame_ids=ids, frame_scores=scores)
        if isinstance(self.language, Column):
            from raysp.ops.row_languages import WithoutLanguage

            return cast("OutputOp", WithoutLanguage(*schemas, ("", None, *([] for _ in self.columns[2:]))))
        summary, tokenizer = spoken_by(loaded, checkpoint, self.language)
        greedy = Transcribing(
            *schemas, tokenizer, frame_seconds=summary.frame_seconds, words=self.words, chars=self.chars
        )
        if Capability.TRANSDUCER in summary.gives:
            from raysp.ops.transcripts.transducer_texts import Transducing

            tokens = dict.fromkeys(("token_ids", "token_frames", "token_ends"), ids)
            staged = columns_of(self.name, **tokens, token_scores=scores, num_frames=pa.int64())
            return Transducing(schemas[0], staged, greedy, getattr(loaded, "model", None))
        if self.beams == 1:
            return greedy
        from raysp.ops.transcripts.searched_texts import SearchSettings
        from raysp.ops.transcripts.searching import Searching

        settings = SearchSettings(
            greedy,
            vocab_size=summary.vocab_size or 0,
            beams=self.beams,
            nbest=self.nbest,
            lm=self.lm,
            lm_weight=self.lm_weight,
            word_bonus=self.word_bonus,
            hot_words=dict(self.hot_words),
        )
        return Searching(settings, "cpu" if loaded is None else str(loaded.device))

    def _writer(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel") -> "Writer":
        """Return the text decoder of a model, of raysp or of another backend."""
        from raysp.models.loading import LoadedCheckpoint
        from raysp.ops.generating import Generating

        if isinstance(loaded, LoadedCheckpoint):
            prompt = self._prompt(checkpoint) if self._is_prompted else None
            return Generating(loaded.model, loaded.tokenizer, self.generate, prompt, loaded.precision)
        options, language = self._options(checkpoint), self._of_decoder
        names = ("words", "detect", "prompt", "keywords")
        flags: dict[str, Any] = {name: value for name in names if (value := getattr(self, name))}
        return cast("WritingModel", loaded).writer(options, language=language, task=self.task, **flags)

    def _parts(self) -> "pa.Schema":
        """Return the staged columns of a text decoder."""
        import pyarrow as pa

        more: dict[str, pa.DataType] = {"part_words": spans_of("word")} if self.words else {}
        more |= {"part_languages": pa.list_(pa.float64())} if self.detect else {}
        return columns_of(self.name, part=pa.string(), part_score=pa.float64(), part_tokens=pa.int64(), **more)
