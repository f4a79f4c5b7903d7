"""The table of published layouts, by hub id, some with a revision."""

from tests.published.classifiers import CLASSIFIERS
from tests.published.ctc import CTC
from tests.published.encoders import ENCODERS
from tests.published.further import FURTHER
from tests.published.layout import Layout
from tests.published.refused import REFUSED
from tests.published.sequences import SEQUENCES

TABLE: dict[str, Layout] = {**CTC, **FURTHER, **ENCODERS, **CLASSIFIERS, **SEQUENCES, **REFUSED}
