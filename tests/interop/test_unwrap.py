"""Names in the checkpoints that authors released: which network is taken, and what is left of the names."""

import pytest

from ssl_jax.interop.unwrap import unwrap

RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")
VIT = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.bias")


def below(prefix, names):
    return [f"{prefix}{name}" for name in names]


LAYOUTS = [
    # name, part, names in the file, names that are left
    ("a plain file", "", [*VIT, "head.weight"], [*VIT, "head.weight"]),
    ("MAE", "", below("model.", VIT), VIT),
    (
        "MAE with its decoder",
        "",
        below("model.", (*VIT, "mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.bias")),
        [*VIT, "mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.bias"],
    ),
    (
        "MoCo v2",
        "encoder_q",
        [
            *below("state_dict.module.encoder_q.", (*RESNET, "fc.0.weight", "fc.2.weight")),
            *below("state_dict.module.encoder_k.", (*RESNET, "fc.0.weight", "fc.2.weight")),
            "state_dict.module.queue",
            "state_dict.module.queue_ptr",
            "optimizer.state.0.momentum_buffer",
        ],
        [*RESNET, "fc.0.weight", "fc.2.weight", "queue", "queue_ptr"],
    ),
    (
        "MoCo v3",
        "base_encoder",
        [
            *below("state_dict.module.base_encoder.", (*VIT, "head.0.weight")),
            *below("state_dict.module.momentum_encoder.", (*VIT, "head.0.weight")),
            "state_dict.module.predictor.0.weight",
        ],
        [*VIT, "head.0.weight", "predictor.0.weight"],
    ),
    (
        "SwAV",
        "",
        below("module.", (*RESNET, "projection_head.0.weight", "prototypes.weight")),
        [*RESNET, "projection_head.0.weight", "prototypes.weight"],
    ),
    (
        "Barlow Twins",
        "",
        [
            *below("model.module.backbone.", RESNET),
            "model.module.projector.0.weight",
            "model.module.bn.running_mean",
        ],
        [*RESNET, "projector.0.weight", "bn.running_mean"],
    ),
    (
        "SimSiam",
        "encoder",
        [
            *below("state_dict.module.encoder.", (*RESNET, "fc.0.weight")),
            "state_dict.module.predictor.0.weight",
        ],
        [*RESNET, "fc.0.weight", "predictor.0.weight"],
    ),
    (
        "DINO, all of it",
        "teacher",
        [
            *below("teacher.backbone.", VIT),
            "teacher.head.mlp.0.weight",
            "teacher.head.last_layer.weight_g",
            *below("student.module.backbone.", VIT),
            "student.module.head.mlp.0.weight",
            "dino_loss.center",
            "optimizer.state.0.exp_avg",
        ],
        [*VIT, "head.mlp.0.weight", "head.last_layer.weight_g"],
    ),
    (
        "DINOv2, blocks in chunks",
        "teacher",
        [
            "model.teacher.backbone.cls_token",
            "model.teacher.backbone.blocks.0.0.norm1.bias",
            "model.teacher.backbone.blocks.1.12.norm1.bias",
            "model.teacher.dino_head.mlp.0.weight",
            "model.teacher.ibot_head.last_layer.parametrizations.weight.original0",
            "model.student.backbone.cls_token",
            "iteration",
        ],
        [
            "cls_token",
            "blocks.0.norm1.bias",
            "blocks.12.norm1.bias",
            "dino_head.mlp.0.weight",
            "ibot_head.last_layer.weight_g",
        ],
    ),
    (
        "I-JEPA",
        "target_encoder",
        [
            *below("encoder.module.", VIT),
            *below("target_encoder.module.", VIT),
            "predictor.module.predictor_blocks.0.norm1.bias",
            "opt.state.0.exp_avg",
            "epoch",
        ],
        [*VIT, "predictor.predictor_blocks.0.norm1.bias"],
    ),
    ("iBOT", "", below("state_dict.", VIT), VIT),
    (
        "BEiT v2",
        "",
        below("module.", (*VIT, "lm_head.weight", "mask_token")),
        [*VIT, "lm_head.weight", "mask_token"],
    ),
    (
        "ConvNeXt with its average",
        "model_ema",
        [*below("model.", RESNET), *below("model_ema.", RESNET)],
        RESNET,
    ),
    ("compiled", "", below("_orig_mod.module.", VIT), VIT),
    (
        "an average inside",
        "_ema",
        [*below("model.", VIT), *below("model._ema.", VIT), "model.decoder.0.bias"],
        VIT,
    ),
    (
        "transformers, with a classifier",
        "",
        [
            "vit.embeddings.cls_token",
            "vit.encoder.layer.0.output.dense.bias",
            "vit.layernorm.bias",
            "classifier.weight",
        ],
        ["embeddings.cls_token", "encoder.layer.0.output.dense.bias", "layernorm.bias", "classifier.weight"],
    ),
    (
        "transformers' names are not containers",
        "",
        ["embeddings.cls_token", "encoder.layer.0.output.dense.bias", "layernorm.bias", "pooler.dense.bias"],
        ["embeddings.cls_token", "encoder.layer.0.output.dense.bias", "layernorm.bias", "pooler.dense.bias"],
    ),
    (
        "DINOv3 of transformers 5",
        "",
        ["embeddings.cls_token", "model.layer.0.norm1.bias", "norm.bias"],
        ["embeddings.cls_token", "model.layer.0.norm1.bias", "norm.bias"],
    ),
    (
        "CLIP of transformers",
        "vision_model",
        [
            "vision_model.embeddings.class_embedding",
            "vision_model.encoder.layers.0.mlp.fc1.bias",
            "text_model.encoder.layers.0.mlp.fc1.bias",
            "visual_projection.weight",
            "text_projection.weight",
            "logit_scale",
        ],
        ["embeddings.class_embedding", "encoder.layers.0.mlp.fc1.bias", "visual_projection.weight"],
    ),
    (
        "CLIP of OpenAI",
        "visual",
        [
            *(
                "visual.conv1.weight",
                "visual.class_embedding",
                "visual.transformer.resblocks.0.ln_1.bias",
                "visual.proj",
            ),
            *(
                "transformer.resblocks.0.ln_1.bias",
                "token_embedding.weight",
                "positional_embedding",
                "ln_final.bias",
            ),
            *("text_projection", "logit_scale"),
        ],
        ["conv1.weight", "class_embedding", "transformer.resblocks.0.ln_1.bias", "proj"],
    ),
    (
        "SigLIP of big_vision",
        "img",
        [
            "params.img.embedding.kernel",
            "params.img.MAPHead_0.probe",
            "params.txt.head.kernel",
            "params.t",
            "params.b",
        ],
        ["embedding.kernel", "MAPHead_0.probe"],
    ),
    (
        "an optimizer of Flax beside the weights",
        "",
        ["opt.target.embedding.kernel", "opt.target.cls", "opt.state.step"],
        ["embedding.kernel", "cls"],
    ),
    (
        "solo-learn",
        "",
        [
            *below("state_dict.backbone.", RESNET),
            *below("state_dict.momentum_backbone.", RESNET),
            "state_dict.projector.0.weight",
            "state_dict.momentum_projector.0.weight",
            "state_dict.classifier.weight",
        ],
        [*RESNET, "projector.0.weight", "classifier.weight"],
    ),
]


@pytest.mark.parametrize(
    ("name", "part", "given", "expected"), LAYOUTS, ids=[layout[0] for layout in LAYOUTS]
)
def test_the_network_that_authors_evaluate_is_taken(name, part, given, expected):
    found = unwrap({name: name for name in given})
    assert sorted(found.arrays) == sorted(expected)
    assert found.part == part
    for name, original in found.arrays.items():
        last = name.split(".")[-1]
        assert original.endswith((last, "original0")), "each array keeps its own name"
        assert not part or part in original or name.split(".")[0] not in ("cls_token", "conv1", "blocks")


@pytest.mark.parametrize(
    ("layout", "part", "mark"),
    [
        ("MoCo v2", "encoder_k", "encoder_k.conv1.weight"),
        ("MoCo v3", "momentum_encoder", "momentum_encoder.cls_token"),
        ("DINO, all of it", "student", "student.module.backbone.cls_token"),
        ("I-JEPA", "encoder", "encoder.module.cls_token"),
        ("ConvNeXt with its average", "model", "model.conv1.weight"),
        ("an average inside", "student", "model.cls_token"),
        ("solo-learn", "momentum_backbone", "momentum_backbone.conv1.weight"),
    ],
)
def test_another_part_is_taken_by_its_name(layout, part, mark):
    given = next(given for name, _, given, _ in LAYOUTS if name == layout)
    found = unwrap({name: name for name in given}, part=part)
    assert found.part == part
    first = found.arrays.get("cls_token", found.arrays.get("conv1.weight"))
    assert first.endswith(mark)
    if layout == "DINO, all of it":
        assert found.arrays["head.mlp.0.weight"] == "student.module.head.mlp.0.weight"


def test_a_part_inside_another_container_is_found():
    given = [*below("model.teacher.", VIT), *below("model.student.", VIT), *below("model_ema.", VIT)]
    assert (
        unwrap({name: name for name in given}, part="student").arrays["cls_token"]
        == "model.student.cls_token"
    )


def test_an_unknown_part_lists_those_there_are():
    given = dict.fromkeys([*below("teacher.", VIT), *below("student.", VIT)], 0)
    with pytest.raises(
        ValueError, match=r"a\.pth has no part 'studnet': did you mean 'student'\? allowed: student, teacher"
    ):
        unwrap(given, part="studnet", source="a.pth")
    with pytest.raises(
        ValueError, match=r"a\.pth has no part 'student': the file has one network and no parts"
    ):
        unwrap(dict.fromkeys(VIT, 0), part="student", source="a.pth")


def test_what_no_one_knows_beside_a_prefix_leaves_it():
    given = dict.fromkeys([*below("backbone.", VIT), "adapter.weight"], 0)
    assert unwrap(given).arrays == given


def test_an_empty_checkpoint_stays_empty():
    assert unwrap({}).arrays == {}
