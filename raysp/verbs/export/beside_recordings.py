"""Export of files beside recordings: into a folder of other files, none of which is replaced."""

from collections.abc import Mapping
from pathlib import Path

from raysp.errors import PlanError
from raysp.specs.values import JsonValue
from raysp.storage.store import HOME, join_url, scheme_of
from raysp.storage.stores import open_store
from raysp.verbs.export.destination import DONE, NAMES, WHOLE, Destination, read_hashes
from raysp.verbs.export.source_audio import Source


class Beside(Destination):
    """The folder of recordings as a destination, with the records of the export below `.raysp/`."""

    def _remove(self, record: Mapping[str, JsonValue]) -> None:
        """Remove the markers of an export, then its unchanged files, then their hashes."""
        found = [one.path for one in self.store.list(HOME)]
        for path in (path for path in found if path.startswith(DONE)):
            self.store.delete(path)
        for name in (path for path in found if path.startswith(NAMES)):
            for hashes in read_hashes(self.store, name):
                for path, written in hashes.items():
                    self.files_of(WHOLE).remove(path, written)
            self.store.delete(name)


def open_beside(source: Source, to: str) -> Beside:
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
    return Beside(records, open_store(folder, options))
