import numpy as np
import torch

from fedprompt.prompts.attention import FeatureAttention


def test_features_are_weighed_as_the_equation_says() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 5))
    one, two = rng.normal(size=(2, 5))
    features = rng.normal(size=(3, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for z in features:
        scores = second @ np.tanh(first @ z + one) + two
        weights = np.exp(scores) / np.exp(scores).sum()
        weighed = weights * z
        expected.append(weighed / np.sqrt((weighed**2).sum()))
    made = FeatureAttention(
        hidden=torch.tensor(first),
        hidden_bias=torch.tensor(one),
        gate=torch.tensor(second),
        gate_bias=torch.tensor(two),
    )
    np.testing.assert_allclose(made(torch.tensor(features)).numpy(), expected, rtol=1e-12)


def test_equal_weights_leave_a_unit_feature_alone() -> None:
    nothing, flat = torch.zeros(4, 4), torch.zeros(4)
    made = FeatureAttention(hidden=torch.ones(4, 4), hidden_bias=flat, gate=nothing, gate_bias=flat)
    features = torch.nn.functional.normalize(torch.arange(8.0).reshape(2, 4), dim=-1)
    torch.testing.assert_close(made(features), features)
