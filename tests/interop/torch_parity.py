"""A model of PyTorch against ours: random everywhere, the same inputs, features, tokens and the gradient to the input."""

import jax
import jax.numpy as jnp
import numpy as np


def randomize(model, seed=0):
    """Add noise to every parameter and buffer, so that a swapped or forgotten array shows; returns ``model.eval()``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += 0.1 * noise if tensor.ndim < 2 or 1 in tensor.shape else 0.02 * noise
    return model.eval()


def difference(ours, theirs):
    """Return the largest difference relative to the largest entry."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def check_parity(loaded, forward, *, height, width, channels=3, limit=1e-5):
    """Compare a loaded encoder with ``forward(tensor [b, c, h, w]) -> (features, tokens)`` of PyTorch; returns differences.

    The scalar whose gradient is compared is ``Σ f · w`` of the features with fixed random weights w.
    """
    import torch

    rng = np.random.default_rng(1)
    images = rng.standard_normal((2, height, width, channels)).astype(np.float32)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
    features, tokens = forward(inputs)
    weights = rng.standard_normal(tuple(features.shape)).astype(np.float32)
    (features * torch.from_numpy(weights)).sum().backward()
    theirs = {
        "features": features.detach().numpy(),
        "tokens": tokens.detach().numpy(),
        "gradient": inputs.grad.numpy().transpose(0, 2, 3, 1),
    }
    network, params, state = loaded.network, loaded.params, loaded.state

    def scalar(x):
        return jnp.sum(network.apply(params, state, x)[0] * weights)

    ours = {
        "features": network.apply(params, state, jnp.asarray(images))[0],
        "tokens": network.apply(params, state, jnp.asarray(images), output="tokens")[0],
        "gradient": jax.grad(scalar)(jnp.asarray(images)),
    }
    found = {name: difference(ours[name], theirs[name]) for name in theirs}
    assert max(found.values()) < limit, found
    return found
