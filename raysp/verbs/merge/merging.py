"""Merge of labellings of one corpus into a sink of its own, shard by shard; no audio is read, and no Ray started."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import pyarrow as pa

from raysp.errors import ChangedError, PlanError, StoreError
from raysp.labelling.finished.finished_labels import Labelling, identity_of, refuse_overlap
from raysp.labelling.finished.labellings import match, open_all
from raysp.sink import absent, commit, footer, plan_record, run_record
from raysp.sink.absent import AbsentShard
from raysp.sink.commit import LabelShard
from raysp.sink.footer import Hashes
from raysp.sink.receipts import ShardReceipt
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Parquet
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.specs.text_rules import Text
from raysp.specs.values import JsonValue
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.verbs.merge.label_choice import PROVENANCE, Chooser
from raysp.verbs.merge.merge_result import Merge
from raysp.verbs.merge.rules import Rule, check_number, rule_of
from raysp.words import listed

MERGED = "merged"
"""Entry of the metadata of a merged label shard: a hash of the versions of the label shards that it was made from."""
TYPE_CHARACTERS = 40
"""Of the type of a column in a message."""
MERGE_VERSION = 1
"""Version of the rule of choice; a higher one makes merges of earlier versions other merges."""


def merge(
    *sinks: str | Parquet,
    to: str | Parquet | Store,
    by: str,
    text: str | None = None,
    normalise: str | Text | None = None,
    storage_options: GivenOptions | None = None,
    trust: bool = False,
    on_shard: Callable[[int, int], None] | None = None,
) -> Merge:
    """Merge labellings of one corpus: each row has the label of one of them, chosen by a rule.

    Rows are matched by the name of their shard and their number in it. A row that is ok in a labelling goes before one
    that is skipped, and this before an error row; then `by` decides; of equal ones the labelling named first is taken.
    A row that `forget` withdrew in a labelling stays withdrawn. The result is a sink of labels with all rows, the
    columns of the labellings and `labelling`, which holds the sink, run, fingerprint and checkpoint that each row was
    taken from.

    - A column: the highest value is taken, a null below all numbers.
    - "agreement": the transcript with the least mean distance to the transcripts of the other labellings in which the
      row is ok; if several are equal, the one with the highest score (`pred_score` of `pred_text`). The distance is the
      fewest edits in words divided by the words of the longer text, the same in both directions. If a row is ok in
      only two labellings, the score decides. At least three labellings.
    - "vote": the words are elected (ROVER, Fiscus 1997). Transcripts are aligned in the order of the labellings; of
      each place the word of the most transcripts wins, or none; of equally many those with the higher mean score:
      that of `pred_words` if all transcripts have words, else of `pred_score`. Words are compared normalised one by
      one and written as in their labelling. The row is that of the labelling with the fewest differing words. If there
      are any, its text is replaced, its words where all have times in order, else by null; null are its score,
      characters, n-best texts, and what outputs made of the text. See `raysp.text.consensus` for alignments.

    The same call again goes on. Label shards made from labels that have changed since are replaced. Shards that are not
    finished in all labellings, or that were made from other input, are not merged and listed.

    Args:
        sinks: urls of two or more sinks; or `Parquet`s, for their storage options.
        to: url of the merged sink, outside of the merged labellings; or a `Parquet`.
        by: column of numbers, such as "pred_score"; a field of a struct after a dot; or "agreement" or "vote".
        text: with these, the column of the transcripts; None: `pred_text`.
        normalise: with these, the normalisation of the texts, as of `evaluate`; None: "letters".
        storage_options: options to reach all sinks; None: with `trust` the recorded ones of each.
        trust: use the recorded storage options.
        on_shard: called after each label shard with the number of finished shards, and of all.

    Raises:
        SpecError: fewer than two sinks are given, with "agreement" fewer than three; or an option has no effect.
        PlanError: one is not a sink of labels, two are the same, they have no finished shard in common, their columns
            differ, `by` is not a column of numbers, or `text` none of texts.
        ChangedError: `to` holds other labels.
        StoreError: a label shard cannot be read or written.
    """
    rule = rule_of(by, text, normalise)
    check_number(rule, len(sinks))
    labellings = open_all(sinks, storage_options, trust=trust)
    names, not_merged = _names(labellings)
    chooser = Chooser(labellings, _columns(labellings, rule), rule)
    merged = _sink(to, storage_options)
    for labelling in labellings:
        refuse_overlap(labelling.store, merged.store)
    return _Merging(labellings, chooser, merged).run(names, not_merged, on_shard)


def _names(labellings: Sequence[Labelling]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the shards that all labellings have finished, and other shards with the reason."""
    first, *further = labellings
    not_merged: dict[str, str] = {}
    for labelling in further:
        shards = match(first, labelling)
        not_merged |= dict.fromkeys(shards.only_a, f"not in {labelling.url}")
        not_merged |= dict.fromkeys(shards.only_b, f"only in {labelling.url}")
        not_merged |= dict.fromkeys(shards.unfinished_a, f"not finished in {first.url}")
        not_merged |= dict.fromkeys(shards.unfinished_b, f"not finished in {labelling.url}")
        not_merged |= {**shards.foreign_a, **shards.foreign_b}
        not_merged |= dict.fromkeys(shards.other_input, f"made from other input in {labelling.url}")
    names = [name for name in first.shards if name not in not_merged]
    if not names:
        foreign = listed([reason for labelling in labellings for reason in labelling.foreign.values()], 1)
        raise PlanError(f"{first.url}: no shard is finished in all labellings; {foreign or 'finish their runs'}")
    return names, not_merged


def _columns(labellings: Sequence[Labelling], rule: Rule) -> tuple[str, ...]:
    """Return the columns that all labellings have."""
    first, *further = labellings
    schemas = (labelling.schema for labelling in labellings)
    fields = [{field.name: field.type for field in schema if field.name != PROVENANCE} for schema in schemas]
    for labelling, theirs in zip(further, fields[1:], strict=True):
        names = [name for name in {**fields[0], **theirs} if fields[0].get(name) != theirs.get(name)]
        if names:
            shown = ", ".join(f"{name} ({_type(fields[0].get(name))}; {_type(theirs.get(name))})" for name in names)
            raise PlanError(
                f"{first.url} and {labelling.url}: their label shards differ in the columns {shown}; merge labellings "
                "with the same outputs and the same sink.keep"
            )
    for labelling in labellings:
        rule.check(labelling.url, labelling.schema)
    return tuple(fields[0])


def _type(of_column: pa.DataType | None) -> str:
    """Return a type as a short text."""
    text = "absent" if of_column is None else str(of_column)
    return text if len(text) <= TYPE_CHARACTERS else f"{text[:TYPE_CHARACTERS]}..."


def _sink(to: str | Parquet | Store, storage_options: GivenOptions | None) -> Sink:
    return Sink.of(to) if isinstance(to, Parquet) else Sink.open(to, storage_options if isinstance(to, str) else None)


class _Merging:
    """Merge of label shards into a sink that records it."""

    def __init__(self, labellings: Sequence[Labelling], chooser: Chooser, sink: Sink) -> None:
        self._labellings, self._chooser, self._sink = labellings, chooser, sink
        self._parts: dict[str, JsonValue] = {
            **chooser.rule.parts,
            "merge.fingerprints": [labelling.record.fingerprint for labelling in labellings],
            "merge.checkpoints": [labelling.checkpoint for labelling in labellings],
            "merge.version": MERGE_VERSION,
        }
        self._fingerprint = hash_parts(self._parts)
        self._file_parts: dict[str, JsonValue] = {**labellings[0].record.file_parts, "sink.rows": "all"}
        self._versions = [{entry.path: entry.version for entry in labelling.store.list()} for labelling in labellings]

    def run(
        self, names: Sequence[str], not_merged: Mapping[str, str], on_shard: Callable[[int, int], None] | None
    ) -> Merge:
        """Merge the label shards that the sink lacks."""
        store = self._sink.store
        log = RunLog(store, self._begin(names, not_merged))
        before = rows = 0
        try:
            for number, name in enumerate(names, 1):
                receipt = self._merge(name)
                if receipt is None:
                    before += 1
                else:
                    rows += receipt.counts.rows
                    log.add(receipt)
                if on_shard:
                    on_shard(number, len(names))
        finally:
            with suppress(StoreError):  # receipts are read for speed only
                log.flush()
        chosen = {labelling.url: self._chooser.counts[place] for place, labelling in enumerate(self._labellings)}
        return Merge(
            self._sink.url,
            self._fingerprint,
            str(self._parts["merge.by"]),
            len(names),
            before,
            rows,
            chosen,
            self._chooser.elected,
            not_merged,
        )

    def _begin(self, names: Sequence[str], not_merged: Mapping[str, str]) -> str:
        """Record the merge and its shards, and return the id of this run."""
        self._sink.refuse_other_kind()
        first, entry = self._labellings[0], RunEntry.now()
        pipeline, runs = _with_sink(first.record.pipeline, self._sink.url), (entry,)
        record = RunRecord(
            entry.started, pipeline, self._fingerprint, self._parts, self._file_parts, runs, first.record.root
        )
        run_record.begin(self._sink.store, record)
        planned = self._sink.shards()
        unmerged = {name: reason for name, reason in not_merged.items() if name not in planned}
        absent.record(self._sink.store, self._absent(unmerged))
        fresh = [first.shards[name] for name in names if planned.get(name) != first.shards[name]]
        plan_record.record(self._sink.store, fresh, supersede=any(shard.name in planned for shard in fresh))
        return entry.run_id

    def _absent(self, unmerged: Mapping[str, str]) -> Iterator[AbsentShard]:
        """Yield the shards that were never merged, as the merged sink records them."""
        for name, reason in unmerged.items():
            shard = next(
                labelling.shards[name] if name in labelling.shards else labelling.absent[name].shard
                for labelling in self._labellings
                if name in labelling.shards or name in labelling.absent
            )
            yield AbsentShard.of(shard, reason)

    def _merge(self, name: str) -> ShardReceipt | None:
        """Write a merged label shard; None if it is there, made from the same labels."""
        store, shard = self._sink.store, self._labellings[0].shards[name]
        made_from = identity_of(*(versions.get(name) for versions in self._versions))
        existing = store.stat(name)
        if existing is not None:
            before = footer.read(store, name)
            if before.receipt.fingerprint != self._fingerprint:
                raise ChangedError(
                    f"{store.url}/{name}: a label shard that this merge did not write; choose another sink", (name,)
                )
            if before.entries.get(MERGED) == made_from:
                return None
        label_shard = LabelShard(
            shard,
            self._fingerprint,
            metadata={MERGED: made_from, "merge": json.dumps(self._parts)},
            file_id=hash_parts(self._file_parts),
            texts=self._labellings[0].texts,
        )
        tables = self._chooser.tables([labelling.shards[name] for labelling in self._labellings])
        hashes = Hashes.zeros(shard.num_rows)
        receipt = commit.write(store, label_shard, tables, hashes, expected=existing.version if existing else None)
        if receipt is None and footer.read(store, name).entries.get(MERGED) != made_from:
            raise ChangedError(f"{store.url}/{name}: another process wrote other labels; merge again", (name,))
        return receipt


def _with_sink(pipeline: JsonValue, url: str) -> JsonValue:
    """Return the recorded pipeline of a labelling, whose columns the merged label shards have, with another sink."""
    if not isinstance(pipeline, dict) or not isinstance(sink := pipeline.get("sink"), dict):
        return pipeline
    return {**pipeline, "sink": {**sink, "url": url, "storage_options": {}, "rows": "all"}}
