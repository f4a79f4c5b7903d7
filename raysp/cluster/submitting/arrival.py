"""Checks at the start of a run in a job that `raysp submit` started."""

import os

from raysp.cluster.addresses import SUBMITTED_BY
from raysp.errors import PlanError


def check_arrival() -> None:
    """Check that this job has the raysp that submitted it, and open its sealed variables; nothing outside a job.

    Raises:
        PlanError: another version of raysp is installed here, or the variables cannot be opened.
    """
    if not (submitted_by := os.environ.get(SUBMITTED_BY)):
        return
    from raysp import __version__

    if submitted_by != __version__:
        raise PlanError(
            f"submitted by raysp {submitted_by}, the cluster has raysp {__version__}; install the same version here or "
            f"there, or bring it along: raysp submit --with-raysp raysp=={submitted_by}"
        )
    from raysp.cluster.submitting.sealing import check_opened

    check_opened()
