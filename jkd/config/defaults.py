"""Every key of every config, with its default and its meaning. `configs/*.py` only say what differs."""

from typing import Any

from ml_collections import ConfigDict

AUTO = "auto"


def _network(model: str, width: int, depth: int) -> dict[str, Any]:
    return dict(
        model=model,  # images: mlp, vgg8 ..., resnet20 ..., wrn_16_2 ...; texts: bert, bigru, fasttext; objects: yolo
        width=width,  # units of a hidden layer, or of the residual stream; channels that those of stages are multiples
        # of: as published 64 for a vgg and resnet18 ..., 16 for resnet20 ..., resnet8x4 ... and wrn_16_2 ...
        depth=depth,  # hidden layers, transformer blocks or recurrent layers; others have it in their names
        attention_heads=4,  # bert
        feed_forward=0,  # bert: units inside a block; 0 = 4 times the width
        embedding_width=0,  # bert, bigru: width of the word table; 0 = the width (bert: no factorisation)
        activation="gelu",  # bert: gelu, gelu_new or relu
        pooling="auto",  # bert: cls or mean; bigru: max or mean
        rows=8192,  # fasttext: rows of the table of hashed n-grams
        ngrams=3,  # fasttext: longest n-gram
        hidden=64,  # fasttext: units of the hidden layer; 0 = none
        tokenizer="",  # tokenizer.json, vocab.txt or a folder; "" = that of `init` or `weights`, of the teacher (for a
        # student), or one made of the training texts
        init="",  # where training starts: a Hugging Face folder or hf:ORG/NAME@REVISION; for a student also `teacher`
        init_layers="uniform",  # init = "teacher": which of its layers: uniform, first, last, or numbers as in "1,3,5"
        cfg="",  # yolo: a Darknet .cfg, or small for one that jkd brings; `weights` or `init` are then .weights of it
        cfg_width=1.0,  # yolo: factor of the filters of the cfg's convolutions
        cfg_depth=1.0,  # yolo: factor of how often the cfg repeats equal residual blocks
        batch_norm=False,  # mlp, and a vgg of layout torchvision; a resnet and a CIFAR-layout vgg always have it
        dropout=0.0,  # share of units dropped, one key per sample; yolo: above 0 = the cfg's own dropout layers drop
        layout="cifar",  # cifar or torchvision. vgg: global average and one dense layer, or 7x7 pooling and three;
        # resnet18 ...: a stem of 3x3, or of 7x7 with stride 2 and a pooling
        dtype="float32",  # compute type: float32 or bfloat16 (parameters stay float32)
        train=dict(
            steps=2000,  # optimiser steps; 0 = take `epochs`
            epochs=0,  # passes over the samples trained on, where steps = 0
            batch=64,  # global batch size
            accumulate=1,  # micro-batches per step; relations still see the whole batch
            group_by_length=0,  # texts: so many batches at a time are sorted by length, to pad less; 0 = as they come
            steps_per_call=1,  # steps run by one dispatch: > 1 for tiny networks; keep 1 for convolutions on CPU
            checkpoint_every=1000,  # steps; 0 = only when the run is stopped
            digest_every=1000,  # steps between lines of digests.jsonl, the SHA-256 of the whole state
            log_every=100,  # steps between lines of metrics.jsonl
            eval_every=0,  # steps between evaluations on the validation split; 0 = never
            ema=0.0,  # decay of an exponential moving average of parameters, used for evaluation; 0 = none
            optimizer=dict(
                name="adam",  # adam, adamw, sgd, lamb, lion, rmsprop
                learning_rate=1e-3,
                momentum=0.9,  # sgd
                nesterov=False,  # sgd
                weight_decay=0.0,
                clip=0.0,  # global gradient norm; 0 = no clipping
                schedule="constant",  # constant, cosine, linear, step
                warmup=0.0,  # share of the steps that the rate takes to rise linearly from 0
                boundaries=(
                    0.625,
                    0.75,
                    0.875,
                ),  # step: where, as shares of all steps, the rate is multiplied
                factor=0.1,  # step: by what
            ),
            augment=dict(
                shift=0,  # pixels up to which an image is moved, zeros shifted in
                pad_crop=0,  # pixels of zero padding before a random crop to the old size
                flip=False,  # mirror half of the images left to right, with their boxes
                cutout=0,  # side of a square set to the mean
                mixup=0.0,  # alpha of mixup's Beta(alpha, alpha); 0 = off
                cutmix=0.0,  # alpha of CutMix's Beta(alpha, alpha); 0 = off; with both on, each sample flips a coin
                jitter=0.0,  # objects: share of the image that each side of a crop moves by at most, in or out
                hue=0.0,  # objects: turn of the hue, up to this share of the circle
                saturation=1.0,  # objects: factor up to this, or its inverse
                exposure=1.0,  # objects: likewise, of the brightness
                mosaic=0.0,  # objects: share of the samples that become mosaics of four images
                mask=0.0,  # texts: share of tokens replaced by the mask token
                drop=0.0,  # texts: share of tokens left out
                replace=0.0,  # texts: share of tokens replaced by one near them in the teacher's word table
            ),
        ),
    )


def default() -> ConfigDict:
    """The whole tree with its defaults. `config.students` maps a name to what differs from `config.student`."""
    config = ConfigDict()
    config.name = "run"
    config.task = "classification"  # or detection, of images with objects
    config.seeds = (0,)  # students (and nothing else) are trained once per seed
    config.replicates = 1  # how often pool, labels, teacher and graph are made anew
    config.devices = 0  # how many of the devices to use; 0 = all
    config.reduction = "plain"  # plain (fast) or elastic (the same bits on any number of devices and processes)
    config.shards = 8  # elastic: virtual shards of a batch; decides the bits, and how many devices can share the work
    config.deterministic = True  # accelerators: only what repeats to the bit; False is faster
    config.parallelism = "jit"  # jit, or pmap (one process, equal to rounding)
    config.data = ConfigDict(
        dict(
            source="digits",  # images: digits, images (a folder or tars), npz; texts: trec, trec:fine, texts (files of
            # them); images with objects: shapes, voc, coco, yolo; tfds:NAME of any of these
            path="",  # folder, or a tar, npz, tsv, csv or jsonl file; for tfds the data_dir
            train="train",  # name of the training split
            test="test",  # name of the test split, evaluated once, at the end
            limit=0,  # keep so many training samples by a fixed rule; 0 = all
            test_limit=0,
            image_size=0,  # resize to this many pixels a side; 0 = as they are, and all must agree (shapes: 96)
            fit="stretch",  # objects: stretch to a square, or letterbox
            interpolation="bilinear",  # objects: bilinear (as OpenCV) or antialiased (as Pillow)
            max_boxes=0,  # objects: most that are kept of an image, the largest first; 0 = all
            train_difficult=False,  # objects: train on those that VOC marks as difficult
            origin=0,  # voc and tfds: number of the first pixel, 0 or 1
            names="",  # yolo: file of class names, where it is not in the folder
            shapes=dict(  # shapes: what is drawn, see jkd.data.shapes.ShapeSettings
                seed=0,
                classes=6,
                least=2,  # objects of an image
                most=8,
                smallest=0.06,  # half a shape's side as a share of the image's
                largest=0.18,
                context=0.8,  # probability that an object is of its image's scene
                beside=0.7,  # probability that the second class of a scene stands beside the first
                noise=0.1,
            ),
            max_pixels=64_000_000,  # an image that claims more is refused from its header
            broken="refuse",  # refuse or skip unreadable images; skipped ones are listed in the manifest
            broken_limit=0.001,  # share of a split's images that may be skipped; more of them end the run
            mean=(0.5,),  # per channel, of pixels in 0..1
            std=(0.5,),
            text="",  # texts: the column, by name or position; "" = one that is called as texts are
            label="",  # texts: likewise
            header="auto",  # tsv, csv: whether the first row names the columns: auto, yes, no
            delimiter="",  # tsv, csv: one character; "" = by the file's ending
            quotes="auto",  # tsv, csv: whether texts may stand in quotes: auto (not in a tsv), yes, no
            encoding="",  # texts: "" = utf-8, and latin-1 for TREC's form
            errors="strict",  # texts: strict (refuse bytes that do not decode) or replace
            classes=(),  # texts, objects: class names in label order; () = as found
            test_share=0.2,  # texts of one file: share that is held out as the test split
            max_chars=20_000,  # texts: characters after which one is cut
            overlap="drop",  # texts of the training split that are test texts, too: drop, keep or refuse
            max_length=64,  # texts: tokens after which one is cut
            buckets=(16, 32, 64),  # texts: lengths that batches are padded to; each compiles once
            vocabulary=4000,  # texts: size of a tokenizer made of the training texts
            val_split="",  # texts: name of a validation split, in place of `val`: for choices, never for training
            val=0.0,  # share of the training samples put aside by a fixed rule: for choices, never for training
            pool=0,  # samples a replicate draws for its pool; 0 = all
            labels=0,  # how many of the pool keep their label; 0 = all
            noise="none",  # none, symmetric (any other class), pair_flip (the next class)
            noise_rate=0.0,  # share of the kept labels that are wrong
            workers=0,  # loader processes; the order does not depend on it
            timeout=60.0,  # seconds without a chunk after which loader processes count as hung; 0 = never
        )
    )
    config.teacher = ConfigDict(
        _network("mlp", 128, 3)
        | dict(
            seed=0,
            weights="",  # safetensors in torch layout; the teacher is loaded, not trained
            fn="",  # module:function, `(variables, images, train=False) -> (logits, taps)`: your own teacher
            variables="",  # safetensors with /-joined names: the variables of `fn`
            normalize=True,  # whether `fn` gets normalised images (as jkd's models do) or raw 0..1
        )
    )
    config.graph = ConfigDict(
        dict(
            views=("teacher", "input"),  # any of teacher, names in `files`, and of what the samples are made: input
            # (images); lexical, opening (texts); crop, context (objects)
            files=ConfigDict(dict(), type_safe=False),  # view name -> npz of embeddings by sample id, or an edge list
            k=8,  # neighbours of a sample
            temperature=0.1,  # of the row softmax over similarities
            rounds=20,  # of the belief join
            predicted_as=3,  # classes kept per sample
            block=2048,  # rows of a block of the similarity matrix
            taxonomy="",  # json file {classes, concepts, is_a}
            diagnosis="folds",  # folds (over the training labels), holdout (the validation split) or none
            folds=5,
        )
    )
    config.student = ConfigDict(
        _network("mlp", 32, 2)
        | dict(
            objective=ConfigDict(dict(), type_safe=False),  # term -> options; see `jkd methods`
            graph=dict(
                edges="none",  # real, random, class_random (random within the class), none
                view=AUTO,  # a view, mean (of all views), or auto: picked by the diagnosis
                strength=AUTO,  # a of q <- (1 - a) q0 + a W q, or auto
                mix=AUTO,  # m of the target (1 - m) teacher + m joined beliefs, or auto
                gate=True,  # switch the edges off where the diagnosis says they lose
                inject=True,  # start the join from the label where there is one; False when labels are noisy
                sharpen=1.0,  # power to which joined beliefs are raised before renormalising
            ),
            sampling=dict(
                of="pool",  # pool, or labelled
                budget=0,  # samples kept to train on; 0 = all
                by="uniform",  # uniform, class_balanced, facility_location (on the edges of `graph`)
                labelled_share=0.0,  # of each batch, where there are others: so much has labels; 0 = as samples come
            ),
            projection=64,  # width of the projected space, where a term uses it
            heads=4,  # attention heads of the feature join
        )
    )
    config.students = ConfigDict(dict(), type_safe=False)
    config.report = ConfigDict(
        dict(
            cards=12,
            cards_student=AUTO,
            reference=AUTO,
            neighbours=5,
            metrics=(),  # further columns of the table: f1 (macro), f1_binary, matthews
        )
    )
    return config
