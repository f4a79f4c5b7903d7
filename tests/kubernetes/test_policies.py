"""The policies of cluster/policies allow what a run asks of a store, and nothing that it could do harm with."""

import json
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.corpora import CHECKPOINT, write_shard
from tests.faulty_proxy import FaultyProxy
from tests.kit import run
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


@pytest.mark.drivers
@pytest.mark.slow
def test_the_policy_allows_every_request_of_a_run_which_needs_each_of_its_statements(s3, tmp_path):
    """Of a run, its check and its clean-up, with the names of buckets that the policy has."""
    corpus, labels = s3.bucket(), s3.bucket()
    write_shard(tmp_path / "in" / "a.parquet", 3)
    s3.upload(tmp_path / "in", corpus, "audio/en/")
    s3.upload(CHECKPOINT, corpus, "models/digits/")
    recipe = tmp_path / "of_policies.py"
    with FaultyProxy.in_front_of(s3) as proxy:
        recipe.write_text(PIPELINE.format(key=s3.key, endpoint=proxy.server.endpoint, corpus=corpus, labels=labels))
        for verb in ("run", "verify", "gc"):
            ran = run([verb, recipe])
            assert ran.code == 0, ran.err
    requests = set()
    for method, url, _ in proxy.requests:
        action, resource, prefix = asked(method, url)
        named = resource.replace(corpus, "my-corpus").replace(labels, "my-labels")
        requests.add((action, named, prefix))
    assert len(requests) > 10
    assert [one for one in requests if not allows(RUN, *one)] == []
    for statement in RUN["Statement"]:
        less = {"Statement": [one for one in RUN["Statement"] if one != statement]}
        assert [one for one in requests if not allows(less, *one)], statement["Sid"]


REFUSED = [
    ("s3:PutObject", "my-corpus/audio/a.parquet", None),
    ("s3:DeleteObject", "my-corpus/audio/a.parquet", None),
    ("s3:DeleteObject", "my-labels/first/a.parquet", None),
    ("s3:DeleteObject", "my-labels/second/.raysp/run.json", None),
    ("s3:PutObject", "my-labels/second/a.parquet", None),
    ("s3:GetObject", "my-labels/second/a.parquet", None),
    ("s3:GetObject", "my-corpus/secret", None),
    ("s3:ListBucket", "my-labels", "second/"),
    ("s3:ListBucket", "my-corpus", ""),
]


def test_the_policy_allows_nothing_else():
    assert [one for one in REFUSED if allows(RUN, one[0], ARN + one[1], one[2])] == []
    statements = [one for file in POLICIES.glob("*.json") for one in json.loads(file.read_text())["Statement"]]
    allowed = [action for one in statements if one["Effect"] == "Allow" for action in as_list(one["Action"])]
    assert not any("*" in action for action in allowed)


def test_label_shards_are_written_only_where_none_is():
    (only_new, _) = json.loads((POLICIES / "s3-bucket-new-labels-only.json").read_text())["Statement"]
    assert (only_new["Effect"], only_new["Action"]) == ("Deny", "s3:PutObject")
    assert only_new["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},  # parts of an upload have no condition, its completion has
    }
    for key, is_label in (("first/a.parquet", True), ("first/en/a.parquet", True), ("first/.raysp/run.json", False)):
        assert fnmatchcase(f"{ARN}my-labels/{key}", only_new["Resource"]) == is_label


@pytest.mark.slow
def test_the_pipeline_of_a_store_of_ones_own_labels_with_the_keys_of_its_secret(s3, tmp_path):
    bucket = s3.bucket()
    s3.upload(CHECKPOINT, bucket, "demo/unispeech-digits-ctc/")
    write_shard(tmp_path / "in" / "0.parquet")
    s3.upload(tmp_path / "in", bucket, "demo/audio/")
    settings = [f"{of}.storage_options.endpoint_url={s3.endpoint}" for of in ("source", "sink")]
    places = {"source.url": "demo/audio/*.parquet", "steps.1.checkpoint": "demo/unispeech-digits-ctc", "sink.url": "a"}
    settings += [f"{of}=s3://{bucket}/{place}" for of, place in places.items()]
    line = ["run", CLUSTER / "kubernetes/overlays/kind/label.py", "--json", *(f"--set={one}" for one in settings)]
    ran = run(line, STORAGE_KEY=s3.key, STORAGE_SECRET=s3.secret)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert (result["rows"], result["errors"]) == (3, {})
