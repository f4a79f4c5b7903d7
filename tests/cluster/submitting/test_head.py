"""The head of a cluster: addresses, tokens, TLS, and errors that say what to do."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from raysp import PlanError
from raysp.cluster.submitting.head import OLDEST_RAY, Head, UnreachableError
from raysp.cluster.submitting.job_entries import Job, job_of
from raysp.cluster.submitting.job_stop import stop
from tests.cluster.submitting.fake_head import FakeHead
from tests.s3_servers import free_port

ROOT = Path(__file__).parents[3]


def test_the_oldest_ray_is_the_one_of_the_requirements():
    assert f'"ray[data,train,default]>={OLDEST_RAY}"' in (ROOT / "pyproject.toml").read_text()


class TestAddresses:
    def test_the_given_address_goes_before_the_environment(self, head: FakeHead, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        assert Head(head.url).jobs() == []

    def test_without_one_the_environment_names_it(self, head: FakeHead, monkeypatch):
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"{head.url}/")
        assert Head(None).address == head.url

    def test_a_missing_scheme_is_http(self, head: FakeHead):
        assert Head(head.url.removeprefix("http://")).address == head.url

    @pytest.mark.parametrize("variable", [None, "auto", "head:6379"])
    def test_no_address_is_refused(self, monkeypatch, variable):
        if variable:
            monkeypatch.setenv("RAY_ADDRESS", variable)
        with pytest.raises(PlanError, match=r"^no cluster given; give --address http://HEAD:8265"):
            Head(None)

    def test_an_address_of_ray_client_is_refused(self):
        with pytest.raises(PlanError, match=r"^--address ray://head:10001: expected the address of the"):
            Head("ray://head:10001")

    def test_a_head_that_is_not_up_is_said_to_be(self):
        port = free_port()
        with pytest.raises(UnreachableError, match=rf"^--address http://127\.0\.0\.1:{port}: nothing answers there"):
            Head(f"http://127.0.0.1:{port}")

    def test_an_answer_of_another_server_is_said_to_be(self, head: FakeHead):
        head.ray_version = None
        head.failing = [500]
        with pytest.raises(PlanError, match=rf"^--address {head.url}: .*500"):
            Head(head.url)
        head.failing = [404]
        with pytest.raises(PlanError, match=rf"^--address {head.url}: .*404"):
            Head(head.url)

    def test_an_old_ray_is_refused(self, head: FakeHead):
        head.ray_version = "2.9.3"
        with pytest.raises(PlanError, match=r"found Ray 2\.9\.3 there, expected 2\.56 or later"):
            Head(head.url)


class TestTokens:
    @pytest.fixture
    def guarded(self, head: FakeHead, monkeypatch) -> FakeHead:
        """A head with a token; the token of this process is a wrong one until a test changes it."""
        head.token = "right"
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: "wrong")
        return head

    def test_without_a_token_the_message_says_how_to_give_it(self, guarded):
        with pytest.raises(PlanError, match=r"the head requires a token and got none; set RAY_AUTH_MODE="):
            Head(guarded.url)

    def test_a_wrong_token_is_said_to_be(self, guarded, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        with pytest.raises(PlanError, match=r"the head refuses the token; set RAY_AUTH_TOKEN to the cluster's own"):
            Head(guarded.url)

    @pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
    def test_a_given_token_is_sent(self, guarded, monkeypatch, variable):
        monkeypatch.setenv(variable, "given")
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: "right")
        assert Head(guarded.url).jobs() == []

    def test_a_token_of_a_local_ray_is_not_sent_unasked(self, guarded, monkeypatch):
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: "right")
        with pytest.raises(PlanError, match="requires a token"):
            Head(guarded.url)
        assert not any("Authorization" in headers for _, _, headers in guarded.requests)

    def test_headers_for_a_proxy_are_sent_beside_the_token(self, guarded, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: "right")
        monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Team": "speech"}')
        Head(guarded.url)
        assert guarded.requests[-1][2]["X-Team"] == "speech"
        monkeypatch.setenv("RAY_JOB_HEADERS", '{"Authorization": "Basic proxy"}')
        with pytest.raises(PlanError, match="refuses the token"):  # there is no proxy here that takes its header away
            Head(guarded.url)
        sent = guarded.requests[-1][2]
        assert (sent["Authorization"], sent["X-Ray-Authorization"]) == ("Basic proxy", "Bearer right")
        monkeypatch.setenv("RAY_JOB_HEADERS", "X-Team: speech")
        with pytest.raises(PlanError, match=r"^RAY_JOB_HEADERS: expected a JSON object"):
            Head(guarded.url)

    def test_no_token_at_all_is_refused_before_any_request(self, guarded, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: None)
        with pytest.raises(PlanError, match=r"^RAY_AUTH_MODE=token: found no token; set RAY_AUTH_TOKEN, or"):
            Head(guarded.url)
        assert not guarded.requests


class TestTls:
    @pytest.fixture(scope="class")
    @classmethod
    def certificate(cls, tmp_path_factory) -> Path:
        """A certificate of no known authority for localhost, and its key beside it."""
        folder = tmp_path_factory.mktemp("tls")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        today = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM))
        (folder / "key.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        return folder / "ca.pem"

    @pytest.fixture
    def secure(self, certificate):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        with FakeHead().serving(context) as serving:
            yield serving

    def test_a_private_authority_is_trusted_if_it_is_given(self, secure, certificate):
        assert secure.url.startswith("https://")
        assert Head(secure.url, str(certificate)).jobs() == []

    def test_an_unknown_certificate_is_refused(self, secure):
        with pytest.raises(PlanError, match=rf"^--address {secure.url}: TLS failed \(.*certificate.*\).*--ca FILE"):
            Head(secure.url)

    def test_a_missing_file_of_certificates_is_refused(self, secure):
        with pytest.raises(PlanError, match=r"^--ca: .*gone\.pem"):
            Head(secure.url, "/gone.pem")


class TestJobs:
    def test_the_jobs_of_raysp_are_listed_oldest_first(self, head: FakeHead):
        head.add("raysp-b", start_time=2000)
        head.add("raysp-a", start_time=1000)
        head.add("other", metadata={"team": "x"})
        head.add("bare", metadata=None)
        assert [job.id for job in Head(head.url).jobs()] == ["raysp-a", "raysp-b"]

    @pytest.mark.parametrize("job_id", ["gone", "other"])
    def test_a_job_that_is_not_of_raysp_is_not_found(self, head: FakeHead, job_id):
        head.add("other", metadata={})
        with pytest.raises(PlanError, match=rf"has no job of raysp named '{job_id}'; `raysp jobs` lists them"):
            Head(head.url).job(job_id)

    @pytest.mark.parametrize(
        ("status", "code", "message", "exit_code"),
        [
            ("RUNNING", None, "", None),
            ("PENDING", None, "", None),
            ("SUCCEEDED", 0, "", 0),
            ("FAILED", 1, "", 1),
            ("FAILED", 2, "", 2),
            ("FAILED", 3, "", 3),
            ("FAILED", -9, "", 137),
            ("FAILED", 137, "", 137),
            ("FAILED", None, "the node failed", 1),
            ("STOPPED", None, "", 143),
            ("FAILED", 127, "sh: 1: python: not found", 2),
            ("FAILED", 1, "/usr/bin/python: No module named raysp", 2),
            ("FAILED", None, "ModuleNotFoundError: No module named 'raysp'", 2),
        ],
    )
    def test_the_exit_code_is_that_of_the_run(self, head: FakeHead, status, code, message, exit_code):
        head.add("raysp-a", status, driver_exit_code=code, message=message)
        job = Head(head.url).job("raysp-a")
        assert (job.exit_code, job.is_over) == (exit_code, exit_code is not None)
        assert job.lacks_raysp == ("raysp" in message or "not found" in message)

    def test_a_job_is_stopped_and_waited_for(self, head: FakeHead, monkeypatch):
        monkeypatch.setattr("raysp.cluster.submitting.job_stop.POLL_SECONDS", 0.01)
        head.add("raysp-a")
        head.stops_after = 3
        assert stop(Head(head.url), "raysp-a").status == "stopped"

    def test_a_job_that_has_ended_is_not_asked_to_stop(self, head: FakeHead):
        head.add("raysp-a", "SUCCEEDED", driver_exit_code=0)
        assert stop(Head(head.url), "raysp-a").exit_code == 0
        assert "asked_to_stop" not in head.jobs["raysp-a"]


def test_a_job_without_metadata_is_not_one_of_raysp():
    assert job_of({"submission_id": "x", "status": "RUNNING", "metadata": None}) is None
    assert isinstance(job_of({"submission_id": "x", "status": "RUNNING", "metadata": {"raysp_version": "1"}}), Job)
