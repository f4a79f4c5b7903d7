from pathlib import Path

from packaging.requirements import Requirement

from tests.versions.bounds import EXTRAS, TEST_PACKAGES, requirements

TEXT = Path("pyproject.toml").read_text()


def test_the_oldest_environment_has_every_lower_bound_and_the_newest_every_range():
    oldest, newest = ([Requirement(line) for line in requirements(which, TEXT)] for which in ("oldest", "newest"))
    assert [one.name for one in oldest] == [one.name for one in newest]
    assert {"ray", "pyarrow", "av", "boto3", "scipy", *TEST_PACKAGES} <= {one.name for one in oldest}
    for pin, bound in zip(oldest, newest, strict=True):
        (of_pin,), (of_bound,) = pin.specifier, bound.specifier
        assert of_bound.operator == ">="
        assert of_pin.version == of_bound.version
        assert of_pin.operator == (">=" if pin.name in TEST_PACKAGES else "==")


def test_no_environment_asks_for_an_open_range_of_torch():
    assert EXTRAS == ("s3", "turns")
    asking = {"torch", "silero-vad"}
    for which in ("oldest", "newest"):
        assert not asking & {Requirement(line).name for line in requirements(which, TEXT)}
