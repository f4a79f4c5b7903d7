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
def test_the_policy_allows_every_request_of_a_shipped_pipeline_which_needs_each_of_its_statements(s3, tmp_path):
    """Of a run with the keys of its secret, its check and its clean-up, by the names of buckets of the policy."""
    corpus, labels = s3.bucket(), s3.bucket()
    s3.upload(write_shard(tmp_path / "in" / "a.parquet", 3).parent, corpus, "audio/en/")
    s3.upload(CHECKPOINT, corpus, "models/digits/")
    places = {"source.url": f"{corpus}/audio/**/*.parquet", "steps.1.checkpoint": f"{corpus}/models/digits"}
    settings = [f"--set={of}=s3://{place}" for of, place in {**places, "sink.url": f"{labels}/first"}.items()]
    with FaultyProxy.in_front_of(s3) as proxy:
        settings += [f"--set={of}.storage_options.endpoint_url={proxy.server.endpoint}" for of in ("source", "sink")]
        for verb in ("run", "verify", "gc"):
            line = [verb, CLUSTER / "kubernetes/overlays/kind/label.py", "--json", *settings]
            ran = run(line, STORAGE_KEY=s3.key, STORAGE_SECRET=s3.secret)
            assert (ran.code, s3.secret in ran.out + ran.err) == (0, False), ran.err
            result = json.loads(ran.out)
            assert verb != "run" or (result["rows"], result["errors"]) == (3, {})
    stored = s3.download(labels, tmp_path / "labels")
    assert not [key for key, data in stored.items() if s3.secret.encode() in data]
    requests = set()
    for method, url, _ in proxy.requests:
        action, resource, prefix = asked(method, url)
        requests.add((action, resource.replace(corpus, "my-corpus").replace(labels, "my-labels"), prefix))
    assert len(requests) > 10
    assert [one for one in requests if not allows(RUN, *one)] == []
    for statement in RUN["Statement"]:
        less = {"Statement": [one for one in RUN["Statement"] if one != statement]}
        assert [one for one in requests if not allows(less, *one)], statement["Sid"]


REFUSED = [
    ("s3:PutObject", "my-corpus/audio/a.parquet", None),
    ("s3:DeleteObject", "my-labels/first/a.parquet", None),
    ("s3:DeleteObject", "my-labels/second/.raysp/run.json", None),
    ("s3:PutObject", "my-labels/second/a.parquet", None),
    ("s3:GetObject", "my-corpus/secret", None),
    ("s3:ListBucket", "my-labels", "second/"),
    ("s3:ListBucket", "my-corpus", ""),
]


def test_the_policies_allow_nothing_else_and_no_label_shard_to_be_replaced():
    assert [one for one in REFUSED if allows(RUN, one[0], ARN + one[1], one[2])] == []
    statements = [one for file in POLICIES.glob("*.json") for one in json.loads(file.read_text())["Statement"]]
    allowed = [action for one in statements if one["Effect"] == "Allow" for action in as_list(one["Action"])]
    assert not any("*" in action for action in allowed)
    (only_new, _) = json.loads((POLICIES / "s3-bucket-new-labels-only.json").read_text())["Statement"]
    assert (only_new["Effect"], only_new["Action"]) == ("Deny", "s3:PutObject")
    for key, is_label in (("first/a.parquet", True), ("first/en/a.parquet", True), ("first/.raysp/run.json", False)):
        assert fnmatchcase(f"{ARN}my-labels/{key}", only_new["Resource"]) == is_label
