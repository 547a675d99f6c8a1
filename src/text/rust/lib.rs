//! Tokenizers and chat templates behind one C header (`text_ffi.h`). docs/text.md has the overview.

mod added_tokens;
mod assets;
mod chat;
mod decode;
mod filters;
mod python;
mod sentencepiece;
mod template;
mod text_ffi;
mod tokenizer;
