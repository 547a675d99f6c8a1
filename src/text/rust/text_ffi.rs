//! The functions of `text_ffi.h`. Every one that runs other code catches panics.

use std::panic::{catch_unwind, AssertUnwindSafe};

use serde_json::{Map, Value as Json};

use crate::assets::{failure, Asset, Assets, Failure};
use crate::chat;
use crate::decode::Stream;
use crate::template::{self, RenderInput, Template};
use crate::tokenizer::Text;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    data: *const u8,
    size: usize,
}

#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

#[repr(C)]
pub struct File {
    name: View,
    bytes: View,
}

#[repr(C)]
pub struct Facts {
    vocab_size: i32,
    bos_id: i32,
    eos_id: i32,
    pad_id: i32,
    unk_id: i32,
    chat_templates: i32,
}

#[repr(C)]
pub struct Chat {
    messages: View,
    tools: View,
    variables: View,
    name: View,
    add_generation_prompt: i32,
    python_containers: i32,
    now: i64,
}

pub struct TextStream {
    stream: Stream,
    skip_special: bool,
}

impl View {
    /// SAFETY: `data` is null or points to `size` bytes that live as long as the call.
    unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        match (self.data.is_null(), self.size) {
            (true, _) => None,
            (false, 0) => Some(&[]),
            (false, size) => Some(std::slice::from_raw_parts(self.data, size)),
        }
    }

    unsafe fn text<'a>(self, what: &str) -> Result<Option<&'a str>, Failure> {
        let not_utf8 = |_| failure("", format!("{what} is not UTF-8"));
        self.bytes().map(|bytes| std::str::from_utf8(bytes).map_err(not_utf8)).transpose()
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        let mut bytes = std::mem::ManuallyDrop::new(bytes);
        Buffer { data: bytes.as_mut_ptr(), size: bytes.len(), capacity: bytes.capacity() }
    }
}

fn id_bytes(ids: Vec<u32>) -> Vec<u8> {
    ids.into_iter().flat_map(|id| (id as i32).to_ne_bytes()).collect()
}

/// Panics are reported as errors: the hook that would print them as well is for programs in Rust.
fn silence_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// Runs `work`; a failure or a panic becomes `error`.
///
/// SAFETY: `error` points to a buffer that may be overwritten.
unsafe fn guarded<T>(error: *mut Buffer, work: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    silence_panics();
    let (failure, fault) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(failure)) => (failure, "input"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            (failure("", format!("the text library failed: {text}")), "program")
        }
    };
    let clean = |s: &str| s.replace('\0', " ");
    let message = format!("{}\0{}\0{fault}\0", clean(&failure.message), clean(&failure.file));
    *error = message.into_bytes().into();
    None
}

/// As `guarded`, with the result put into `out`.
unsafe fn guarded_bytes(
    out: *mut Buffer,
    error: *mut Buffer,
    work: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> i32 {
    match guarded(error, work) {
        Some(bytes) => {
            *out = bytes.into();
            1
        }
        None => 0,
    }
}

fn in_text(message: String) -> Failure {
    failure("", message)
}

/// # Safety
/// `buffer` came from this library and was not freed.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_free_buffer(buffer: Buffer) {
    if !buffer.data.is_null() {
        drop(Vec::from_raw_parts(buffer.data, buffer.size, buffer.capacity));
    }
}

/// # Safety
/// `files` points to `count` files.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_open(
    files: *const File,
    count: usize,
    error: *mut Buffer,
) -> *mut Text {
    let open = || {
        let files = if count == 0 { &[] } else { std::slice::from_raw_parts(files, count) };
        let mut assets = Vec::new();
        for file in files {
            let name = file.name.text("a file name")?.unwrap_or("");
            assets.push(Asset { name, bytes: file.bytes.bytes().unwrap_or(&[]) });
        }
        // Whatever goes wrong inside a tokenizer library while it reads a file, the file is at fault.
        let opened = catch_unwind(AssertUnwindSafe(|| Text::open(&Assets(assets))));
        opened.unwrap_or_else(|_| Err(failure("tokenizer files", "the tokenizer cannot be read")))
    };
    guarded(error, open).map_or(std::ptr::null_mut(), |text| Box::into_raw(Box::new(text)))
}

/// # Safety
/// `text` came from `millrace_text_open`, or is null.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_close(text: *mut Text) {
    if !text.is_null() {
        let owned = Box::from_raw(text);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
    }
}

/// # Safety
/// Both pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_facts(text: *const Text, facts: *mut Facts) {
    let text = &*text;
    let id = |name: &str| {
        let content = text.named.iter().find(|(n, _)| n == name).map(|(_, content)| content);
        content.and_then(|content| text.token_id(content)).map_or(-1, |id| id as i32)
    };
    *facts = Facts {
        vocab_size: text.vocab_size as i32,
        bos_id: id("bos_token"),
        eos_id: id("eos_token"),
        pad_id: id("pad_token"),
        unk_id: id("unk_token"),
        chat_templates: text.templates.len() as i32,
    };
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_encode(
    text: *const Text,
    input: View,
    add_special: i32,
    allow_special: i32,
    ids: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(ids, error, || {
        let input = input.text("the text")?.unwrap_or("");
        (*text).encode(input, add_special != 0, allow_special != 0).map(id_bytes).map_err(in_text)
    })
}

/// # Safety
/// `ids` points to `count` ids; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_decode(
    text: *const Text,
    ids: *const i32,
    count: usize,
    skip_special: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(out, error, || {
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        let ids = ids.iter().map(|id| *id as u32);
        (*text).decode(ids, skip_special != 0).map(String::into_bytes).map_err(in_text)
    })
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_token_id(text: *const Text, token: View) -> i32 {
    let content = token.text("the token").ok().flatten();
    content.and_then(|content| (*text).token_id(content)).map_or(-1, |id| id as i32)
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_token_text(
    text: *const Text,
    id: i32,
    out: *mut Buffer,
) -> i32 {
    match u32::try_from(id).ok().and_then(|id| (*text).token_text(id)) {
        Some(content) => {
            *out = content.into_bytes().into();
            1
        }
        None => 0,
    }
}

unsafe fn json(view: View, what: &str) -> Result<Json, Failure> {
    match view.text(what)? {
        None => Ok(Json::Null),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| failure("", format!("{what}: not valid JSON: {e}"))),
    }
}

unsafe fn read_chat<'a>(
    text: &'a Text,
    chat: &Chat,
) -> Result<(&'a Template, RenderInput), Failure> {
    let messages = json(chat.messages, "messages")?;
    let all_objects = |list: &Vec<Json>| list.iter().all(Json::is_object);
    if !messages.as_array().is_some_and(all_objects) {
        return Err(failure("", "messages must be a list of objects"));
    }
    let tools = json(chat.tools, "tools")?;
    if !(tools.is_null() || tools.is_array()) {
        return Err(failure("", "tools must be a list"));
    }
    let variables = match json(chat.variables, "template variables")? {
        Json::Null => Map::new(),
        Json::Object(object) => object,
        _ => return Err(failure("", "template variables must be an object")),
    };
    let name = chat.name.text("the name of the chat template")?;
    let template = template::choose(&text.templates, name, !tools.is_null()).map_err(in_text)?;
    let add_generation_prompt = match chat.add_generation_prompt {
        -1 => None,
        other => Some(other != 0),
    };
    let input = RenderInput {
        messages,
        tools,
        python_containers: chat.python_containers != 0,
        add_generation_prompt,
        variables,
        now: chat.now,
        keep: None,
    };
    Ok((template, input))
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_render_chat(
    text: *const Text,
    chat: *const Chat,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(out, error, || {
        let (template, mut input) = read_chat(&*text, &*chat)?;
        (*text).add_named_tokens(&mut input);
        template.render(&input).map(String::into_bytes).map_err(|e| failure(&template.file, e))
    })
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_encode_chat(
    text: *const Text,
    chat: *const Chat,
    ids: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(ids, error, || {
        let (template, input) = read_chat(&*text, &*chat)?;
        chat::encode_chat(&*text, template, input)
            .map(id_bytes)
            .map_err(|e| failure(&template.file, e))
    })
}

#[no_mangle]
pub extern "C" fn millrace_text_stream_open(skip_special: i32) -> *mut TextStream {
    Box::into_raw(Box::new(TextStream {
        stream: Stream::default(),
        skip_special: skip_special != 0,
    }))
}

/// # Safety
/// `stream` came from `millrace_text_stream_open`, or is null.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_stream_close(stream: *mut TextStream) {
    if !stream.is_null() {
        drop(Box::from_raw(stream));
    }
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_stream_push(
    text: *const Text,
    stream: *mut TextStream,
    id: i32,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(out, error, || {
        let TextStream { stream, skip_special } = &mut *stream;
        (*text).push(stream, id as u32, *skip_special).map(String::into_bytes).map_err(in_text)
    })
}

/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn millrace_text_stream_flush(
    text: *const Text,
    stream: *mut TextStream,
    out: *mut Buffer,
    error: *mut Buffer,
) -> i32 {
    guarded_bytes(out, error, || {
        (*text).flush(&mut (*stream).stream).map(String::into_bytes).map_err(in_text)
    })
}
