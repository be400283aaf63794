"""timm's own ViTs, random and small, through the path that users take."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.interop import load_pretrained


@pytest.mark.long
@pytest.mark.no_warnings_as_errors
def test_a_vit_of_timm_gives_the_same_features(tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=128, num_heads=2, num_classes=0
    ).eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    loaded = load_pretrained(str(tmp_path / "vit.safetensors"))
    ours = loaded.network.apply(loaded.params, loaded.state, jnp.asarray(images))[0]
    theirs = model(torch.from_numpy(images.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
