"""The policies of cluster/policies allow what a run asks of a store, and nothing that it could do harm with."""

import json
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

import raysp
from tests import s3_servers
from tests.corpora import CHECKPOINT, write_shard
from tests.faulty_proxy import FaultyProxy
from tests.kit import pipeline_in
from tests.kubernetes.manifests import CLUSTER, Document

POLICIES = CLUSTER / "policies"
RUN = json.loads((POLICIES / "s3-run.json").read_text())
ARN = "arn:aws:s3:::"

PIPELINE = """
import raysp

options = {{"key": {key!r}, "secret": raysp.Env("RAYSP_TEST_SECRET"), "endpoint_url": {endpoint!r}}}
pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://{corpus}/audio/**/*.parquet", storage_options=options),
    steps=[raysp.Decode(), raysp.Label("s3://{corpus}/models/digits", outputs=[raysp.Transcript()])],
    sink=raysp.Parquet("s3://{labels}/first", storage_options=options),
)
"""


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allows(policy: Document, action: str, resource: str, prefix: str | None = None) -> bool:
    """Return whether a policy of allowing statements allows a request."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        condition = statement.get("Condition", {"StringLike": {"s3:prefix": "*"}})
        prefixes = as_list(condition["StringLike"]["s3:prefix"])
        if (
            action in as_list(statement["Action"])
            and any(fnmatchcase(resource, one) for one in as_list(statement["Resource"]))
            and any(fnmatchcase(prefix or "", one) for one in prefixes)
        ):
            return True
    return False


def asked(method: str, url: str) -> tuple[str, str, str | None]:
    """Return the action, the resource and the prefix of a request to S3."""
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if not key:
        action = "s3:ListBucketMultipartUploads" if "uploads" in query else "s3:ListBucket"
        return action, ARN + bucket, query.get("prefix", [""])[0] if action == "s3:ListBucket" else None
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", f"{ARN}{bucket}/{key}", None
    return "s3:GetObject" if method in ("GET", "HEAD") else "s3:PutObject", f"{ARN}{bucket}/{key}", None


@pytest.fixture(scope="module")
def requests(s3_server, tmp_path_factory):
    """Requests of a run, its check and its clean-up, with the names of buckets that the policy has."""
    folder = tmp_path_factory.mktemp("policies")
    corpus, labels = s3_server.bucket(), s3_server.bucket()
    write_shard(folder / "in" / "a.parquet", 3)
    s3_server.upload(folder / "in", corpus, "audio/en/")
    s3_server.upload(CHECKPOINT, corpus, "models/digits/")
    with pytest.MonkeyPatch.context() as patched, FaultyProxy.in_front_of(s3_server) as proxy:
        patched.setenv(s3_servers.SECRET_VARIABLE, s3_server.secret)
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        recipe = folder / "of_policies.py"
        values = {"key": s3_server.key, "endpoint": proxy.server.endpoint, "corpus": corpus, "labels": labels}
        recipe.write_text(PIPELINE.format(**values))
        pipeline = pipeline_in(recipe)
        assert raysp.run(pipeline, progress=False).exit_code == 0
        assert raysp.verify(f"s3://{labels}/first", pipeline=pipeline).differences == ()
        raysp.gc(f"s3://{labels}/first", pipeline=pipeline)
    named = {corpus: "my-corpus", labels: "my-labels"}
    found = set()
    for method, url, _ in proxy.requests:
        action, resource, prefix = asked(method, url)
        bucket, slash, key = resource.removeprefix(ARN).partition("/")
        found.add((action, f"{ARN}{named[bucket]}{slash}{key}", prefix))
    return found


@pytest.mark.drivers
@pytest.mark.slow
def test_the_policy_allows_every_request_of_a_run(requests):
    assert len(requests) > 10
    assert [one for one in requests if not allows(RUN, *one)] == []


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", [statement["Sid"] for statement in RUN["Statement"]])
def test_a_run_needs_each_of_its_statements(requests, name):
    less = {"Statement": [one for one in RUN["Statement"] if one["Sid"] != name]}
    assert [one for one in requests if not allows(less, *one)]


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:PutObject", "my-corpus/audio/a.parquet"),
        ("s3:DeleteObject", "my-corpus/audio/a.parquet"),
        ("s3:DeleteObject", "my-labels/first/a.parquet"),
        ("s3:DeleteObject", "my-labels/second/.raysp/run.json"),
        ("s3:PutObject", "my-labels/second/a.parquet"),
        ("s3:GetObject", "my-labels/second/a.parquet"),
        ("s3:GetObject", "my-corpus/secret"),
        ("s3:PutBucketPolicy", "my-labels"),
    ],
)
def test_the_policy_allows_nothing_else(action, resource):
    assert not allows(RUN, action, ARN + resource)


def test_no_other_prefix_is_listed():
    assert allows(RUN, "s3:ListBucket", f"{ARN}my-labels", "first/")
    for bucket, prefix in (("my-labels", ""), ("my-labels", "second/"), ("my-corpus", ""), ("my-corpus", "secret/")):
        assert not allows(RUN, "s3:ListBucket", ARN + bucket, prefix)


def test_no_statement_names_all_actions_or_all_of_a_service():
    for file in POLICIES.glob("*.json"):
        policy = json.loads(file.read_text())
        assert policy["Version"] == "2012-10-17"
        sids = [one["Sid"] for one in policy["Statement"]]
        assert len(set(sids)) == len(sids)
        for statement in policy["Statement"]:
            if statement["Effect"] == "Allow":
                assert not [one for one in as_list(statement["Action"]) if "*" in one]
            if statement["Resource"] == "*" and not all("Describe" in one for one in as_list(statement["Action"])):
                assert statement["Condition"]


def test_label_shards_are_written_only_where_none_is():
    (only_new, _) = json.loads((POLICIES / "s3-bucket-new-labels-only.json").read_text())["Statement"]
    assert (only_new["Effect"], only_new["Action"]) == ("Deny", "s3:PutObject")
    assert only_new["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},  # parts of an upload have no condition, its completion has
    }
    for key, is_label in (("first/a.parquet", True), ("first/en/a.parquet", True), ("first/.raysp/run.json", False)):
        assert fnmatchcase(f"{ARN}my-labels/{key}", only_new["Resource"]) == is_label


def test_on_google_cloud_files_are_deleted_by_a_role_of_their_own():
    labels, staged = (
        set(yaml.safe_load((POLICIES / f"gcs-{name}-role.yaml").read_text())["includedPermissions"])
        for name in ("labels", "staged")
    )
    assert staged == {"storage.objects.delete"}
    assert labels >= {"storage.objects.create", "storage.objects.get", "storage.objects.list"}
    assert not labels & staged
