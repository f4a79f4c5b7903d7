"""Files that look like keys or credentials, which a job takes along only if they are named."""

import re
from pathlib import Path

MOST_BYTES = 64 * 1024
"""Larger files are judged by their names alone."""

_NAMES = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)(_.*)?|.*\.(key|p12|pfx|jks|keystore|kdbx|ppk|ovpn|tfstate|env)|.*_rsa"
    r"|(.*[-_.])?(credentials?|secrets?|passwords?|htpasswd|kubeconfig)([-_.].*)?"
    r"|(.*[-_.])?(service[-_]account|client[-_]secret|api[-_]?keys?|access[-_]?keys?|accesskeys)([-_.].*)?",
    re.IGNORECASE,
)
_CODE = frozenset({".py", ".pyi", ".md", ".rst"})
_CONTENT = re.compile(
    rb"PRIVATE KEY-----|\"private_key\"\s*:|aws_secret_access_key\s*=|\bAKIA[0-9A-Z]{16}\b", re.IGNORECASE
)
_CERTIFICATE = re.compile(rb"-----BEGIN (CERTIFICATE|PUBLIC KEY|X509 CRL)-----")


def looks_secret(path: Path, num_bytes: int) -> bool:
    """Return whether a file looks like a key or credentials, by its name or its content.

    Files of code and text with such a name do not. A file that cannot be read is judged by its name.
    """
    content = b""
    if num_bytes <= MOST_BYTES:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
    suffix = path.suffix.lower()
    if suffix == ".pem":
        return b"PRIVATE KEY-----" in content or not _CERTIFICATE.search(content)
    return bool(_CONTENT.search(content)) or (suffix not in _CODE and bool(_NAMES.fullmatch(path.name)))
