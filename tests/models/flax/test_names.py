"""What of the JAX classes is there without JAX, and before they are used."""

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['jax'] = sys.modules['flax'] = None\n"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.drivers
@pytest.mark.slow
def test_no_other_name_imports_jax():
    code = "import sys\nfrom raysp.models import *\nprint('jax' in sys.modules or 'flax' in sys.modules)"
    assert python(code) == "False"


def test_without_jax_a_class_names_the_extra():
    tried = "try:\n    from raysp.models import FlaxSpeechEncoderDecoderModel\n"
    assert (
        python(WITHOUT + tried + "except ImportError as error:\n    print(error)")
        == "'FlaxSpeechEncoderDecoderModel' needs JAX and Flax: pip install \"raysp[jax]\""
    )


def test_a_jax_class_that_is_not_there_is_answered_by_what_to_use():
    with pytest.raises(ImportError, match="that raysp does not have: use 'HubertModel', or one of FlaxAutoModel, "):
        exec("from raysp.models import FlaxHubertModel")
