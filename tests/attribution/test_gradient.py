"""What attribution patching refuses; its numbers are tested by the laws of patching."""

import pytest
from cases import pairs, tiny

from jaxcirc import attribution


@pytest.mark.parametrize(
    "site, message",
    [
        ("mlp_up", "toy has no site 'mlp_up': it has"),
        ("zz", "unknown site 'zz': did you mean 'z'"),
        ("logits", "'logits' lies outside the layers: score resid_pre"),
        ("blocks.1.attn.hook_z", r"names one layer: sites=\('z',\) scores every layer"),
    ],
)
def test_sites_that_cannot_be_scored(site, message):
    with pytest.raises(ValueError, match=message):
        attribution.nodes(tiny("learned"), pairs(), sites=(site,))


def test_scores_are_also_attributes():
    scores = attribution.nodes(tiny("learned"), pairs(), sites=("z",), direction="denoise")
    assert scores.z is scores.raw.z and scores.mlp_out is None
    assert (scores.importance.z == scores.z).all()
    with pytest.raises(AttributeError):
        scores.nothing  # noqa: B018
