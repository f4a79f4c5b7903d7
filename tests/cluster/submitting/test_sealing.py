"""Values of environment variables that travel sealed with the token of the cluster."""

import json
from pathlib import Path

import pytest

from raysp import PlanError, SpecError
from raysp.cluster.addresses import SUBMITTED_BY
from raysp.cluster.submitting import sealing
from raysp.cluster.submitting.arrival import check_arrival
from raysp.labelling.planning import certified

TOKEN = "4f1c" * 16


@pytest.fixture
def sealed(monkeypatch) -> str:
    """Two sealed variables, in a process that has neither of them."""
    monkeypatch.setenv("CORPUS_KEY", "AKIA")
    monkeypatch.setenv("CORPUS_SECRET", 'p"a$s{}s\n\u00fc')
    found = sealing.seal(["CORPUS_KEY", "CORPUS_SECRET"], TOKEN)
    monkeypatch.delenv("CORPUS_KEY")
    monkeypatch.delenv("CORPUS_SECRET")
    return found


def arrive(monkeypatch, sealed: str, token: str | None) -> None:
    """Be a process of the job."""
    monkeypatch.setenv(sealing.SEALED, sealed)
    monkeypatch.setattr(sealing, "own_token", lambda: token)


def test_a_process_with_the_token_has_the_values(sealed, monkeypatch):
    import os

    arrive(monkeypatch, sealed, TOKEN)
    sealing.check_opened()
    assert (os.environ["CORPUS_KEY"], os.environ["CORPUS_SECRET"]) == ("AKIA", 'p"a$s{}s\n\u00fc')


def test_names_are_readable_and_values_are_not(sealed):
    assert json.loads(sealed)["names"] == ["CORPUS_KEY", "CORPUS_SECRET"]
    assert "AKIA" not in sealed
    assert TOKEN not in sealed


def test_ray_changes_nothing_in_what_is_sent(sealed):
    """Ray replaces ${NAME} in the values of environment variables."""
    assert "$" not in sealed


def test_the_same_values_are_sealed_differently_each_time(monkeypatch):
    monkeypatch.setenv("CORPUS_SECRET", "hush")
    assert sealing.seal(["CORPUS_SECRET"], TOKEN) != sealing.seal(["CORPUS_SECRET"], TOKEN)


@pytest.mark.parametrize("token", [None, "", "another"])
def test_a_worker_with_another_token_goes_on_and_the_run_is_refused(sealed, monkeypatch, token):
    arrive(monkeypatch, sealed, token)
    sealing.open_sealed()
    monkeypatch.setenv("CORPUS_KEY", "set on the cluster")
    monkeypatch.setenv("CORPUS_SECRET", "set on the cluster")
    with pytest.raises(PlanError, match=r"^--env: the values were sealed with another token than that of this cluster"):
        sealing.check_opened()


@pytest.mark.parametrize("damage", ["", "{}", "[]", "no json", '{"salt": "zz", "values": ""}', '{"salt": 1}'])
def test_a_worker_survives_a_damaged_value(monkeypatch, damage):
    arrive(monkeypatch, damage, TOKEN)
    sealing.open_sealed()


def test_a_variable_that_is_not_set_is_refused(monkeypatch):
    monkeypatch.delenv("CORPUS_SECRET", raising=False)
    with pytest.raises(SpecError, match=r"^--env CORPUS_SECRET: the environment variable is not set here; set it, or"):
        sealing.seal(["CORPUS_SECRET"], TOKEN)


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAYSP_SEALED", "PYTHONPATH", "LD_PRELOAD"])
def test_variables_that_configure_the_cluster_are_refused(name):
    with pytest.raises(SpecError, match=rf"^--env {name}: configures processes of the cluster and is not sent"):
        sealing.seal([name], TOKEN)


def test_the_folder_of_certificates_is_read_by_the_job_alone_and_sent(monkeypatch):
    monkeypatch.setenv(certified.FOLDER, "certificates")
    sealed = sealing.seal([certified.FOLDER], TOKEN)
    monkeypatch.delenv(certified.FOLDER)
    arrive(monkeypatch, sealed, TOKEN)
    sealing.check_opened()
    assert certified._folder() == Path("certificates")


def test_outside_a_job_nothing_is_checked(monkeypatch):
    monkeypatch.delenv(SUBMITTED_BY, raising=False)
    monkeypatch.setenv(sealing.SEALED, "no json")
    check_arrival()


def test_a_job_of_another_version_is_refused_before_anything_else(monkeypatch):
    monkeypatch.setenv(SUBMITTED_BY, "9.9.9")
    with pytest.raises(PlanError, match=r"^submitted by raysp 9\.9\.9, the cluster has raysp [\d.]+; install the same"):
        check_arrival()
