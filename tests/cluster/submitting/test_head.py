"""The head of a cluster: addresses, tokens, TLS, and errors that say what to do."""

import datetime
import json
import re
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.cluster.submitting.fake_head import FakeHead
from tests.kit import Ran, run
from tests.s3_servers import free_port

ROOT = Path(__file__).parents[3]


def jobs(address: str | None, *options: object, **variables: str) -> Ran:
    return run(["jobs", *(["--address", address] if address else []), *options], **variables)


def listed(address: str | None, *options: object, **variables: str) -> list[dict[str, object]]:
    ran = jobs(address, "--json", *options, **variables)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)["jobs"]


def refusal(address: str | None, *options: object, **variables: str) -> str:
    ran = jobs(address, *options, **variables)
    assert (ran.code, ran.out) == (2, "")
    return ran.err.removeprefix("raysp: ")


def test_the_oldest_ray_is_the_one_of_the_requirements(head: FakeHead):
    [oldest] = re.findall(r'"ray\[data,train,default\]>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    head.ray_version = f"{oldest}.0"
    assert listed(head.url) == []
    head.ray_version = f"{oldest.split('.')[0]}.{int(oldest.split('.')[1]) - 1}.9"
    assert f"found Ray {head.ray_version} there, expected {oldest} or later" in refusal(head.url)


def test_addresses_come_from_the_option_or_the_environment_and_odd_ones_are_refused(head: FakeHead):
    assert listed(head.url.removeprefix("http://"), RAY_ADDRESS="http://127.0.0.1:1") == []
    shown = jobs(None, RAY_API_SERVER_ADDRESS=f"{head.url}/").out
    assert " ".join(shown.split()) == f"jobs none of raysp at {head.url}"
    for variables in ({}, {"RAY_ADDRESS": "auto"}, {"RAY_ADDRESS": "head:6379"}):
        assert refusal(None, **variables).startswith("no cluster given; give --address http://HEAD:8265")
    assert refusal("ray://head:10001").startswith("--address ray://head:10001: expected the address of the")
    address = f"http://127.0.0.1:{free_port()}"
    assert refusal(address).startswith(f"--address {address}: nothing answers there")
    head.failing = [404]
    assert re.search(rf"^--address {head.url}: .*404", refusal(head.url))


def test_a_given_token_is_sent_beside_headers_for_a_proxy_and_that_of_a_local_ray_only_if_it_is_asked_for(
    head: FakeHead, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", f"{tmp_path}")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    head.token, of_ray = "right" * 8, tmp_path / ".ray" / "auth_token"
    of_ray.parent.mkdir()
    of_ray.write_text("wrong" * 8)
    assert "requires a token and got none; set RAY_AUTH_MODE=" in refusal(head.url)
    assert not any("Authorization" in headers for _, _, headers in head.requests)
    found = refusal(head.url, RAY_AUTH_MODE="token")
    assert "the head refuses the token; set RAY_AUTH_TOKEN to the cluster's own" in found
    (tmp_path / "token").write_text(head.token)
    given = {"RAY_AUTH_TOKEN": head.token}
    for variables in (given, {"RAY_AUTH_TOKEN_PATH": f"{tmp_path}/token"}):
        assert listed(head.url, **variables) == []
    of_ray.write_text(head.token)
    assert listed(head.url, RAY_AUTH_MODE="token") == []
    of_ray.unlink()
    head.requests.clear()
    assert refusal(head.url, RAY_AUTH_MODE="token").startswith(
        "RAY_AUTH_MODE=token: found no token; set RAY_AUTH_TOKEN"
    )
    assert not head.requests

    assert listed(head.url, **given, RAY_JOB_HEADERS='{"X-Team": "speech"}') == []
    assert head.requests[-1][2]["X-Team"] == "speech"
    # There is no proxy here that takes its header away.
    assert "refuses the token" in refusal(head.url, **given, RAY_JOB_HEADERS='{"Authorization": "Basic proxy"}')
    sent = head.requests[-1][2]
    assert (sent["Authorization"], sent["X-Ray-Authorization"]) == ("Basic proxy", f"Bearer {head.token}")
    found = refusal(head.url, **given, RAY_JOB_HEADERS="X-Team: speech")
    assert found.startswith("RAY_JOB_HEADERS: expected a JSON object")


def write_certificate(folder: Path) -> Path:
    """Write a certificate of no known authority for localhost, with its key."""
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
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return folder / "ca.pem"


def test_a_private_authority_is_trusted_if_it_is_given(tmp_path):
    certificate = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with FakeHead().serving(context) as secure:
        assert secure.url.startswith("https://")
        assert listed(secure.url, "--ca", certificate) == []
        said = rf"^--address {secure.url}: TLS failed \(.*certificate.*\).*--ca FILE"
        assert re.search(said, refusal(secure.url))
        assert re.search(r"^--ca: .*gone\.pem", refusal(secure.url, "--ca", "/gone.pem"))


def test_the_jobs_of_raysp_alone_are_listed_oldest_first_and_one_is_stopped_unless_it_has_ended(head: FakeHead):
    head.add("raysp-b", "SUCCEEDED", start_time=2000, driver_exit_code=0)
    head.add("raysp-a", start_time=1000)
    head.add("other", metadata={"team": "x"})
    head.add("bare", metadata=None)
    assert [job["id"] for job in listed(head.url)] == ["raysp-a", "raysp-b"]
    for job_id in ("gone", "other"):
        found = " ".join(refusal(head.url, job_id).split())
        assert f"has no job of raysp named '{job_id}'; `raysp jobs` lists them" in found
    head.stops_after = 2
    for job_id, status in (("raysp-a", "stopped"), ("raysp-b", "succeeded")):
        ran = run(["stop", job_id, "--address", head.url, "--json"])
        assert (ran.code, json.loads(ran.out)["status"]) == (0, status)
    assert "asked_to_stop" not in head.jobs["raysp-b"]


def test_the_exit_code_is_that_of_the_run(head: FakeHead):
    cases = [
        ("RUNNING", None, "", None),
        ("SUCCEEDED", 0, "", 0),
        ("FAILED", 3, "", 3),
        ("FAILED", -9, "", 137),
        ("FAILED", 137, "", 137),
        ("FAILED", None, "the node failed", 1),
        ("STOPPED", None, "", 143),
        ("FAILED", 127, "sh: 1: python: not found", 2),
        ("FAILED", 1, "/usr/bin/python: No module named raysp", 2),
        ("FAILED", None, "ModuleNotFoundError: No module named 'raysp'", 2),
    ]
    for number, (status, code, message, _) in enumerate(cases):
        head.add(f"raysp-{number}", status, driver_exit_code=code, message=message, start_time=1000 * (number + 1))
    found = [(job["status"], job["exit_code"]) for job in listed(head.url)]
    assert found == [(status.lower(), exit_code) for status, *_, exit_code in cases]
    [one] = listed(head.url, "raysp-3")
    assert (one["id"], one["exit_code"]) == ("raysp-3", 137)
