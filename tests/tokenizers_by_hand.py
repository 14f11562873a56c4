"""Tokenizers of a few words whose post-processors put in front and behind what a test asks for."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("<unk>", "<s>", "</s>", "[gMASK]", "a", "b", "c", "d")
"""Token ids are the places in this tuple."""
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def words_tokenizer(template: str | None = None, **names: str) -> PreTrainedTokenizerFast:
    """A word a token; `template` as "<s> $A </s>"; `names` of special tokens, all of `NAMES` where none is given."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([word for word in WORDS if len(word) > 1])
    if template is not None:
        special = [(word, WORDS.index(word)) for word in template.split() if word != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names or NAMES))


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ 'c ' if message['role'] == 'user' else 'd ' }}{{ message['content'] }}{{ ' </s> ' }}{% endfor %}"
)
"""A chat template: BOS, then "c" before what the user says, "d" before the answer, EOS behind each."""
