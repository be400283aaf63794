"""Our encoder against the same one of another library: features, tokens and the gradient with respect to the input."""

import jax
import jax.numpy as jnp
import numpy as np

LIMIT = 1e-5
"""Of the largest entry, in float32."""


def randomize(module, *, seed=0):
    """Make all parameters and statistics of a torch module random, those that start at 0 or 1 too; evaluation mode.

    Buffers that a file does not hold stay as they are.
    """
    import torch

    generator, saved = torch.Generator().manual_seed(seed), module.state_dict()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point() and name in saved:
                noise = torch.randn(value.shape, generator=generator)
                positive = name.endswith("running_var")
                value.copy_(
                    1 + 0.5 * torch.rand(value.shape, generator=generator)
                    if positive
                    else value + 0.1 * noise
                )
    return module.eval()


def difference(ours, theirs):
    """Return the largest difference as a share of the largest entry."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def draw_images(height, width, *, channels=3, batch=2):
    return (
        np.random.default_rng(height * width)
        .standard_normal((batch, height, width, channels))
        .astype(np.float32)
    )


def assert_parity(loaded, theirs, images, *, limit=LIMIT):
    """Compare features ``[b, d]``, tokens ``[b, n, d]`` and a gradient; return the largest relative difference.

    Args:
      loaded: what ``load_pretrained`` gave.
      theirs: function from torch images ``[b, c, h, w]`` to (features, tokens); one of them may be ``None``.
      images: float32 ``[b, h, w, c]``.
      limit: of the difference, as a share of the largest entry.
    """
    import torch

    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    expected = theirs(pixels)
    weights = [
        None if value is None else np.random.default_rng(k).standard_normal(value.shape).astype(np.float32)
        for k, value in enumerate(expected)
    ]

    def scalar(x):
        outputs = [
            loaded.network.apply(loaded.params, loaded.state, x, output=output)[0]
            for output in ("features", "tokens")
        ]
        return sum(jnp.sum(w * y) for w, y in zip(weights, outputs, strict=True) if w is not None), outputs

    gradient, outputs = jax.jit(jax.grad(scalar, has_aux=True))(jnp.asarray(images))
    sum(
        (torch.from_numpy(w) * y).sum() for w, y in zip(weights, expected, strict=True) if w is not None
    ).backward()
    pairs = {"gradient": (np.asarray(gradient), pixels.grad.numpy().transpose(0, 2, 3, 1))}
    pairs |= {
        name: (np.asarray(ours), value.detach().numpy())
        for name, ours, value in zip(("features", "tokens"), outputs, expected, strict=True)
        if value is not None
    }
    differences = {name: np.abs(a - b).max() / np.abs(b).max() for name, (a, b) in pairs.items()}
    assert max(differences.values()) < limit, differences
    return max(differences.values())
