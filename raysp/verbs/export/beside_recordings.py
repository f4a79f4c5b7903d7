"""Export of files next to recordings: no other file of the folder is replaced."""

from pathlib import Path

from raysp.errors import PlanError
from raysp.storage.store import HOME, join_url, scheme_of
from raysp.storage.stores import open_store
from raysp.verbs.export.destination import Destination
from raysp.verbs.export.source_audio import Source


def open_beside(source: Source, to: str) -> Destination:
    """Open the folder of a source's recordings as a destination.

    Raises:
        PlanError: the source is not one folder of recordings, or the folder is gone.
        TrustError: the sink's record, which names the folder, may not be used.
    """
    options = source.pipeline.source.storage_options
    if (folder := source.only_folder()) is None:
        raise PlanError(
            f"{source.labelling.url}: beside=True needs a source that is one folder of recordings, found "
            f"{', '.join(source.pipeline.source.urls)}; give a destination instead"
        )
    if not scheme_of(folder) and not Path(folder).is_dir():
        raise PlanError(f"{folder}: the folder of the recordings is no longer there; run the pipeline on its new place")
    records = open_store(join_url(folder, f"{HOME}beside/{to}"), options)
    return Destination(records, open_store(folder, options))
