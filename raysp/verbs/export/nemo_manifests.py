"""Export to NeMo's manifests."""

from dataclasses import KW_ONLY
from typing import ClassVar

from raysp.columns import SECONDS
from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.specs.values import spec
from raysp.text.formats.safe_values import json_line
from raysp.verbs.export.destination import ShardFiles
from raysp.verbs.export.export_rows import Row, is_by_channel, missing
from raysp.verbs.export.row_files import LineFiles, Lines
from raysp.verbs.export.source_audio import Source


@spec
class Nemo:
    """NeMo manifests: `audio_filepath`, `duration`, `offset`, `text`, `pred_text` and `score`.

    Attributes:
        column: prefix of the columns.
        audio: write the paths of recordings that were read by path; of others, the id is written.
        one_file: write one file for all label shards.
    """

    NAME: ClassVar[str] = "nemo"

    column: str = "pred"
    _: KW_ONLY
    audio: bool = True
    one_file: bool = False

    def writing(self, source: Source) -> LineFiles:
        """Return the export to manifests.

        Raises:
            PlanError: there are no texts, or they are of each channel; or as `Source.pipeline`, like TrustError.
        """
        labelling = source.labelling
        if self.audio:
            source.check_paths()
        text, score, reference = f"{self.column}_text", f"{self.column}_score", labelling.reference
        names = labelling.schema.names
        if text not in names:
            raise missing(labelling, self.NAME, (text,), "Ask for it with Transcript()")
        if is_by_channel(labelling.schema, text):
            raise PlanError(
                f"{labelling.url}: column {text!r} has a text for each channel, and a line of a NeMo manifest has one; "
                "export to jsonl or ctm, or label one channel by Decode(channel=0)"
            )
        reference_column = reference if reference in names else None

        def lines(shard: Shard) -> Lines:
            recordings = source.paths(shard) if self.audio else {}

            def line(row: Row, id_: str) -> str:
                path, offset = recordings.get(int(str(row["row"])), (id_, None))
                spoken = row[reference_column] if reference_column and row[reference_column] is not None else row[text]
                values = {"audio_filepath": path, "duration": row[SECONDS], "offset": offset, "text": spoken or ""}
                values |= {"pred_text": row[text] or "", "score": row.get(score)}
                return json_line({key: value for key, value in values.items() if key != "offset" or value is not None})

            return line

        def count(row: Row, files: ShardFiles) -> None:
            files.tally.without_reference += reference_column is not None and row[reference_column] is None

        columns = [text, *([score] if score in names else []), *([reference_column] if reference_column else [])]
        return LineFiles(labelling, ".jsonl", columns, lines, self.one_file, count=count)
