"""BERT and RoBERTa: masked-language-model logits."""

BERT = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 150, "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 99, "hidden_act": "gelu", "max_position_embeddings": 64,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0, "tie_word_embeddings": True,
}
ROBERTA = BERT | {
    "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "max_position_embeddings": 66, "type_vocab_size": 1,
    "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}

CONFIGS = {
    "bert": BERT,
    "bert_odd": BERT | {"hidden_size": 51, "num_attention_heads": 3, "hidden_act": "relu",
                        "num_hidden_layers": 3, "layer_norm_eps": 0.02},
    "roberta": ROBERTA,
}
# What is added to every key alike drops out of the softmax. The pooler and the second type are not in use.
FAINT = [r".*\.key\.bias", r".*\.pooler\..*", r".*position_embeddings\.weight"]
