from pathlib import Path

from packaging.requirements import Requirement

from tests.versions.bounds import TEST_PACKAGES, requirements


def test_the_oldest_environment_has_every_lower_bound_and_the_newest_every_range_without_torch():
    text = Path("pyproject.toml").read_text()
    oldest, newest = ([Requirement(line) for line in requirements(which, text)] for which in ("oldest", "newest"))
    assert [one.name for one in oldest] == [one.name for one in newest]
    assert {"ray", "pyarrow", "av", "boto3", "scipy", *TEST_PACKAGES} <= {one.name for one in oldest}
    assert not {"torch", "silero-vad"} & {one.name for one in oldest}
    for pin, bound in zip(oldest, newest, strict=True):
        (of_pin,), (of_bound,) = pin.specifier, bound.specifier
        assert (of_bound.operator, of_bound.version) == (">=", of_pin.version)
        assert of_pin.operator == (">=" if pin.name in TEST_PACKAGES else "==")
