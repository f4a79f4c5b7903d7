"""Stores of urls, local, on S3 or of fsspec, and the files that a url lists."""

from collections.abc import Mapping
from contextlib import suppress

from raysp.errors import StoreError
from raysp.storage.options import GivenOptions, is_listed, literal_prefix, marker, options_of, split_glob
from raysp.storage.store import (
    Entry,
    Listing,
    LocalStore,
    NothingListedError,
    Store,
    expand_local,
    normalise,
    refuse_empty_part,
    scheme_of,
    split_url,
)


def open_store(url: str, storage_options: GivenOptions | None = None) -> Store:
    """Return the store of a url, without access to it.

    `storage_options` are those of the object store's client, or a file system of fsspec that was made with them, and
    may contain `raysp.Env` values. They are ignored for a local path.

    Raises:
        StoreError: The url's scheme is unknown, its client is not installed, or the client has no such option.
    """
    scheme = scheme_of(url)
    if not scheme:
        return LocalStore(url)
    options = options_of(storage_options or {})
    if scheme == "s3":
        from raysp.storage.s3 import S3Store

        return S3Store(url, options)
    from raysp.storage.fsspec_store import FsspecStore

    return FsspecStore(url, options)


def expand(
    url: str, storage_options: Mapping[str, object] | None = None, folder_pattern: str = "**/*.parquet"
) -> Listing:
    """List the files of a folder that match `folder_pattern`, of a glob (`*`, `?`, `[]`, `**`), or a single file.

    Names that `is_passed_over` are skipped anywhere below the root. Links are followed, loops are not. An object store
    is listed once, by the literal prefix of the glob. Local names that are not valid UTF-8 are listed as well; see
    `check_names`.

    Raises:
        StoreError: The url does not exist, no file matches, or it cannot be read.
    """
    is_remote = scheme_of(url)
    listing = _expand_remote(url, storage_options, folder_pattern) if is_remote else expand_local(url, folder_pattern)
    if not listing.entries:
        raise NothingListedError(
            f"{url!r}: no file matches; folders that begin with '.' or '_' and files that begin with '.' are ignored"
        )
    return listing


def _expand_remote(url: str, storage_options: Mapping[str, object] | None, folder_pattern: str) -> Listing:
    place = normalise(url)
    folder, name = split_url(place)
    is_file = not url.endswith("/") and not folder.endswith("://")
    if is_file and (entry := open_store(folder, storage_options).stat(name)):
        return Listing(folder, (entry,))
    if scheme_of(url) in ("http", "https"):
        raise NothingListedError(f"{url!r}: no such file; a web server does not list its files: give the url of each")
    scheme, _, path = place.partition("://")
    root, pattern = split_glob(path)
    refuse_empty_part(f"{scheme}://{root}", url)
    if pattern and _is_folder(place, storage_options):
        root, pattern = path, ""
    store = open_store(f"{scheme}://{root}", storage_options)
    pattern = pattern or folder_pattern
    entries: list[Entry] = []
    markers: set[str] = set()
    for entry in store.list(literal_prefix(pattern)):
        if is_listed(entry.path, pattern):
            entries.append(entry)
        elif (mark := marker(entry.path)) is not None:
            markers.add(mark)
    if not entries and root == path and next(store.list(), None) is None:
        raise NothingListedError(f"{url!r}: no such file or folder; check the url")
    return Listing(store.url, tuple(entries), frozenset(markers))


def _is_folder(url: str, storage_options: Mapping[str, object] | None) -> bool:
    """Return whether files are under a url whose wildcards are taken literally."""
    with suppress(StoreError):
        return next(open_store(url, storage_options).list(), None) is not None
    return False
