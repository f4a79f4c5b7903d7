"""Secrets of a job: values of environment variables, sealed with the token of the cluster.

Ray shows the environment variables of a job in clear: to every client of its API, in `ray job list`, and in a log on
each node. Therefore raysp sends one variable with encrypted values. The key is derived from the cluster's token, which
every process of the cluster has, and which Ray does not show.
"""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken

from raysp.cluster.ray_session import own_token
from raysp.errors import PlanError, SpecError

SEALED = "RAYSP_SEALED"
"""Environment variable of a job with the sealed values, in JSON."""
SETUP_HOOK = f"{__name__}.open_sealed"
"""Function that Ray calls when a worker of the job starts."""
RESERVED = ("RAY_", "RAYSP_", "PYTHON", "LD_")
"""Beginnings of names that are not sent: these variables configure the cluster's processes."""
OF_A_JOB = ("RAYSP_CERTIFICATES",)
"""Names that begin so and are sent: the driver of a job alone reads them."""
_SCRYPT_COST = 2**14
"""Cost of the derivation: 16 MB and tens of milliseconds a process. It slows down guesses of a weak token."""


def seal(names: Sequence[str], token: str) -> str:
    """Return the values of these environment variables, sealed.

    Raises:
        SpecError: a variable is not set, or configures the cluster's processes.
    """
    for name in names:
        if name.startswith(RESERVED) and name not in OF_A_JOB:
            raise SpecError(f"--env {name}: configures processes of the cluster and is not sent; set it on the cluster")
        if not os.environ.get(name):
            raise SpecError(
                f"--env {name}: the environment variable is not set here; set it, or leave --env {name} out if it is "
                "set on every machine of the cluster"
            )
    salt = secrets.token_bytes(16)
    values = json.dumps({name: os.environ[name] for name in names}).encode()
    box = Fernet(_key(token, salt))
    return json.dumps({"names": [*names], "salt": salt.hex(), "values": box.encrypt(values).decode()})


def open_sealed() -> None:
    """Set the sealed variables of this job in this process; sets none if they cannot be opened."""
    if sealed := os.environ.get(SEALED):
        os.environ.update(_opened(sealed) or {})


def check_opened() -> None:
    """Set the sealed variables of this job in this process.

    Raises:
        PlanError: they were sealed with another token.
    """
    if not (sealed := os.environ.get(SEALED)):
        return
    if (values := _opened(sealed)) is None:
        raise PlanError(
            "--env: the values were sealed with another token than that of this cluster, or the cluster has no token "
            "authentication; submit with RAY_AUTH_TOKEN of this cluster, or set the variables on the cluster"
        )
    os.environ.update(values)


def _opened(sealed: str) -> dict[str, str] | None:
    """Return the sealed values by name; None if they were sealed with another token, or are damaged."""
    try:
        found = json.loads(sealed)
        box = Fernet(_key(own_token() or "", bytes.fromhex(found["salt"])))
        return dict(json.loads(box.decrypt(found["values"].encode())))
    except (InvalidToken, ValueError, KeyError, TypeError):
        return None


def _key(token: str, salt: bytes) -> bytes:
    return base64.urlsafe_b64encode(hashlib.scrypt(token.encode(), salt=salt, n=_SCRYPT_COST, r=8, p=1, dklen=32))
