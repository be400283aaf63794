"""Time-contrastive networks."""

import pytest

from tests.methods.case import config_of, loss_of, method_of, real_batch, start, zero_params_loss

OPTIONS = {"near": 2, "far": 4}


def collapsed(case):
    """Every frame alike: no negative is beyond the positive, and the margin remains."""
    return zero_params_loss(case), case.config["method"]["margin"]


def frames_of(name, count=32):
    return real_batch(count, config_of(name))


def test_windows_give_every_frame_positives_and_negatives_of_its_clip():
    method = method_of("time_contrastive", **OPTIONS)
    params, state, batch = start(method, batch=frames_of("time_contrastive"))
    metrics = loss_of(method, params, state, batch)[2]
    # Two windows of 16: 2 on either side but at the ends; all but 4 on either side.
    assert float(metrics["positives"]) == pytest.approx((16 * 4 - 6) / 16)
    assert float(metrics["negatives"]) == pytest.approx((16 * 15 - 16 * 8 + 20) / 16)
    across = method_of("time_contrastive", across=True, **OPTIONS)
    more = loss_of(across, params, state, batch)[2]
    assert float(more["negatives"] - metrics["negatives"]) == pytest.approx(16)


def test_info_nce_is_another_loss_of_the_same_frames():
    method = method_of("time_contrastive", loss="info_nce", **OPTIONS)
    params, state, batch = start(method, batch=frames_of("time_contrastive"))
    value, _, metrics = loss_of(method, params, state, batch)
    assert 0 < value < 4
    assert "active" not in metrics
    (sign,) = (value.at(16) for value in method.collapse)
    assert sign.metric == "embedding_std"
    # A cold softmax costs the worst mistakes.
    assert (
        loss_of(
            method_of("time_contrastive", loss="info_nce", temperature=0.01, **OPTIONS), params, state, batch
        )[0]
        > value
    )


def test_a_batch_without_clips_is_refused():
    method = method_of("time_contrastive")
    params, state, batch = start(method, batch=frames_of("time_contrastive"))
    del batch["clip"]
    with pytest.raises(ValueError, match="frames:<path> or frames:moving"):
        loss_of(method, params, state, batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"near": 0}, "near=0"), ({"near": 3, "far": 2}, "far=2"), ({"loss": "nce"}, "loss='nce'")],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        method_of("time_contrastive", **options)
