"""Files that look like keys or credentials, which a job takes along only if they are named."""

import codecs
import re
from pathlib import Path

MOST_BYTES = 64 * 1024
"""Larger files are judged by their names alone."""

_NAMES = re.compile(
    r"[._]?netrc|[._]?pgpass(\.conf)?|id_(rsa|dsa|ecdsa|ed25519)(_.*)?|.*\.(key|p12|pfx|jks|keystore|kdbx|ppk|ovpn|tfstate|env)|.*_rsa"
    r"|(.*[-_.])?(credentials?|secrets?|passwords?|htpasswd|kubeconfig)([-_.].*)?"
    r"|(.*[-_.])?(service[-_]account|client[-_]secret|api[-_]?keys?|access[-_]?keys?|accesskeys)([-_.].*)?",
    re.IGNORECASE,
)
_CODE = frozenset({".py", ".pyi", ".md", ".rst"})
_CONTENT = re.compile(
    rb"PRIVATE KEY-----|\"(private_key|client_secret|refresh_token)\"\s*:|aws_secret_access_key\s*=|\bAccountKey=\w"
    rb"|^machine\s+\S+\s+login\s+\S+\s+password\s",
    re.IGNORECASE | re.MULTILINE,
)
_TOKEN = re.compile(
    rb"\b((AKIA|ASIA)[0-9A-Z]{16}|hf_[A-Za-z]{34}|gh[pousr]_[0-9A-Za-z]{36}|github_pat_\w{22,}|glpat-[\w-]{20}"
    rb"|AIza[\w-]{35}|xox[abpr]-[\w-]{10,}|sk-[\w-]{20,})"
    rb"|[A-Z]_?(API_KEY|TOKEN|SECRET|PASSWORD)(['\"]?\s*[=:]\s*['\"][\w/+-]{20,}['\"]|=[\w/+-]{20,}\s*$)",
    re.MULTILINE,
)
"""Tokens of AWS, Hugging Face, GitHub, GitLab, Google, Slack and OpenAI, and variables with a value."""
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
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "replace").encode()
    suffix = path.suffix.lower()
    if suffix == ".pem":
        return b"PRIVATE KEY-----" in content or not _CERTIFICATE.search(content)
    return bool(_CONTENT.search(content) or _TOKEN.search(content)) or (
        suffix not in _CODE and bool(_NAMES.fullmatch(path.name))
    )
