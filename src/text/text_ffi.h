/* The C boundary between the Rust crate in rust/ and text.cc. Nothing unwinds across it: a function
 * that can fail returns 0 and fills `error` with three strings, each ended by a zero byte: what
 * went wrong, the file it is about
 * ("" if none) and a word for who is at fault ("input" or "program"). All text is UTF-8; none is
 * zero-terminated. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct MillraceText MillraceText;
typedef struct MillraceTextStream MillraceTextStream;

typedef struct {
  const char* data; /* null: absent */
  size_t size;
} MillraceTextView;

/* Memory that belongs to Rust; to be freed with millrace_text_free_buffer. Ids are native int32. */
typedef struct {
  uint8_t* data;
  size_t size;
  size_t capacity;
} MillraceTextBuffer;

typedef struct {
  MillraceTextView name;
  MillraceTextView bytes;
} MillraceTextFile;

typedef struct {
  int32_t vocab_size;
  int32_t bos_id; /* -1: none */
  int32_t eos_id;
  int32_t pad_id;
  int32_t unk_id;
  int32_t chat_templates; /* how many */
} MillraceTextFacts;

typedef struct {
  MillraceTextView messages;     /* JSON array */
  MillraceTextView tools;        /* JSON array, or absent */
  MillraceTextView variables;    /* JSON object, or absent */
  MillraceTextView name;         /* template, or absent */
  int32_t add_generation_prompt; /* -1: leave undefined */
  int32_t python_containers;     /* 0: lists and objects print as JSON */
  int64_t now;                   /* seconds since 1970 */
} MillraceTextChat;

void millrace_text_free_buffer(MillraceTextBuffer buffer);

MillraceText* millrace_text_open(const MillraceTextFile* files, size_t count,
                                 MillraceTextBuffer* error);
void millrace_text_close(MillraceText* text);
void millrace_text_facts(const MillraceText* text, MillraceTextFacts* facts);

int millrace_text_encode(const MillraceText* text, MillraceTextView input, int add_special,
                         int allow_special, MillraceTextBuffer* ids, MillraceTextBuffer* error);
int millrace_text_decode(const MillraceText* text, const int32_t* ids, size_t count,
                         int skip_special, MillraceTextBuffer* out, MillraceTextBuffer* error);
/* -1 if there is none. */
int32_t millrace_text_token_id(const MillraceText* text, MillraceTextView token);
/* 0 if there is none. */
int millrace_text_token_text(const MillraceText* text, int32_t id, MillraceTextBuffer* out);

int millrace_text_render_chat(const MillraceText* text, const MillraceTextChat* chat,
                              MillraceTextBuffer* out, MillraceTextBuffer* error);
int millrace_text_encode_chat(const MillraceText* text, const MillraceTextChat* chat,
                              MillraceTextBuffer* ids, MillraceTextBuffer* error);

/* A stream holds no pointer to a tokenizer; the same one must be given to every call. */
MillraceTextStream* millrace_text_stream_open(int skip_special);
void millrace_text_stream_close(MillraceTextStream* stream);
int millrace_text_stream_push(const MillraceText* text, MillraceTextStream* stream, int32_t id,
                              MillraceTextBuffer* out, MillraceTextBuffer* error);
int millrace_text_stream_flush(const MillraceText* text, MillraceTextStream* stream,
                               MillraceTextBuffer* out, MillraceTextBuffer* error);

#ifdef __cplusplus
}
#endif
