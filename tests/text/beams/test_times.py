"""Times of given hypotheses, against all alignments and against greedy decoding."""

import itertools

import numpy as np
import pytest
import torch

from raysp.text.beams.decoder import BeamDecoder, Extras
from raysp.text.beams.search import Hypothesis
from raysp.text.beams.tokens import TokenTexts
from raysp.text.greedy_ctc import CTCTokens, greedy
from tests.text.beams.exhaustive import best_path, collapsed
from tests.text.beams.frames_of_logits import top_frames


def aligned(logits: torch.Tensor, *texts: tuple[int, ...], blank: int = 0, kept: int = 16) -> CTCTokens:
    """Align the tokens of each row with all its frames."""
    letters = [chr(97 + token) if token != blank else "" for token in range(logits.shape[-1])]
    decoder = BeamDecoder(TokenTexts(letters, None, blank, "|"), beams=2, extras=Extras())
    frames = top_frames(logits, blank=blank, kept=kept)
    given = [Hypothesis(np.array(one, np.int32), 0.0) for one in texts]
    return decoder.aligned(frames, [logits.shape[1]] * len(logits), given)


@pytest.mark.slow
@pytest.mark.parametrize("blank", [0, 3])
def test_the_alignment_is_the_most_probable_of_all(blank):
    logits = 2 * torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(3))
    log_probs = logits[0].log_softmax(-1).numpy()
    others = [token for token in range(4) if token != blank]
    for ids in itertools.chain.from_iterable(itertools.product(others, repeat=n) for n in range(1, 4)):
        found = aligned(logits, ids, blank=blank, kept=3)
        path = np.full(6, blank)
        for token, first, last in zip(ids, found.first_frames, found.last_frames, strict=True):
            path[first : last + 1] = token
        assert collapsed(path.tolist(), blank) == ids
        assert log_probs[range(6), path].sum() == pytest.approx(best_path(logits[0].tolist(), blank, ids), abs=1e-4)
        spans = zip(ids, found.first_frames, found.last_frames, strict=True)
        best = [log_probs[first : last + 1, token].max() for token, first, last in spans]
        assert found.token_scores == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("frames", [30, 400])
def test_rows_of_other_tokens_are_aligned_as_alone_beside_rows_of_greedy_tokens(frames):
    logits = 4 * torch.randn(4, frames, 12, generator=torch.Generator().manual_seed(frames))
    best = [tuple(row) for row in greedy(logits, torch.full((4,), frames), blank=0).ids()]
    texts = [best[0], best[1][1:], best[2][:-2], ()]
    together = aligned(logits, *texts)
    for row, part in enumerate(together.rows()):
        alone = aligned(logits[row : row + 1], texts[row])
        assert tuple(together.flat_ids[part].tolist()) == texts[row]
        for name in ("first_frames", "last_frames", "token_scores"):
            np.testing.assert_array_equal(getattr(together, name)[part], getattr(alone, name))
    np.testing.assert_array_equal(
        together.scores[:3], [aligned(logits[i : i + 1], texts[i]).scores[0] for i in range(3)]
    )
    assert np.isnan(together.scores[3])
