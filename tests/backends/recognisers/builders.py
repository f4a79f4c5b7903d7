"""Functions that write tiny random checkpoints, by model type."""

from tests.backends.recognisers.tiny import TINY_BUILDERS
from tests.backends.recognisers.tiny_ctc import TRANSDUCER_BUILDERS
from tests.backends.recognisers.tiny_omni import OMNI_BUILDERS
from tests.backends.recognisers.tiny_voxtral import VOXTRAL_BUILDERS

BUILDERS = {**TINY_BUILDERS, **OMNI_BUILDERS, **TRANSDUCER_BUILDERS, **VOXTRAL_BUILDERS}
