//! The files of a model that concern text, and what tokenizer_config.json and special_tokens_map.json say.

use serde_json::{Map, Value as Json};

use crate::template::Template;

/// An error with the file it is about.
#[derive(Debug)]
pub struct Failure {
    pub file: String,
    pub message: String,
}

pub fn failure(file: &str, message: impl ToString) -> Failure {
    Failure { file: file.into(), message: message.to_string() }
}

/// File name (relative to the model folder) and contents.
pub struct Asset<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
}

pub struct Assets<'a>(pub Vec<Asset<'a>>);

impl<'a> Assets<'a> {
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|a| a.name == name).map(|a| a.bytes)
    }

    pub fn json_object(&self, name: &str) -> Result<Map<String, Json>, Failure> {
        let Some(bytes) = self.get(name) else { return Ok(Map::new()) };
        match serde_json::from_slice(bytes) {
            Ok(Json::Object(object)) => Ok(object),
            Ok(_) => Err(failure(name, "the file does not hold a JSON object")),
            Err(e) => Err(failure(name, format!("not valid JSON: {e}"))),
        }
    }

    fn text(&self, asset: &Asset<'a>) -> Result<&'a str, Failure> {
        std::str::from_utf8(asset.bytes).map_err(|_| failure(asset.name, "the file is not UTF-8"))
    }
}

/// A token that a configuration file describes.
pub struct ConfigToken {
    pub id: Option<u32>,
    pub content: String,
    pub flags: Map<String, Json>,
    pub special: bool,
}

impl ConfigToken {
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.flags.get(name).and_then(Json::as_bool).unwrap_or(default)
    }
}

pub struct Config {
    /// `bos_token` and so on, by name, in the order in which transformers lists them.
    pub named: Vec<(String, String)>,
    pub tokens: Vec<ConfigToken>,
    /// `None` where the file does not say.
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_prefix_space: bool,
    pub legacy: bool,
    pub class: String,
    pub templates: Vec<Template>,
}

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Config {
    pub fn read(assets: &Assets) -> Result<Self, Failure> {
        let config = assets.json_object(CONFIG)?;
        let map = assets.json_object(SPECIAL_MAP)?;
        let mut result = Config {
            named: Vec::new(),
            tokens: Vec::new(),
            add_bos: config.get("add_bos_token").and_then(Json::as_bool),
            add_eos: config.get("add_eos_token").and_then(Json::as_bool),
            add_prefix_space: config
                .get("add_prefix_space")
                .and_then(Json::as_bool)
                .unwrap_or(false),
            legacy: config.get("legacy").and_then(Json::as_bool).unwrap_or(true),
            class: config.get("tokenizer_class").and_then(Json::as_str).unwrap_or("").to_string(),
            templates: templates(assets, &config)?,
        };
        for name in NAMES {
            // As in transformers, the older file counts only where the newer one says nothing.
            if let Some(value) = config.get(name).or_else(|| map.get(name)) {
                result.add_named(name, value);
            }
        }
        if let Some(extra) = config.get("extra_special_tokens").and_then(Json::as_object) {
            extra.iter().for_each(|(name, value)| result.add_named(name, value));
        }
        for list in ["additional_special_tokens", "extra_special_tokens"] {
            let values = config.get(list).or_else(|| map.get(list)).and_then(Json::as_array);
            values
                .into_iter()
                .flatten()
                .for_each(|value| result.tokens.extend(config_token(None, value, true)));
        }
        if let Some(added) = config.get("added_tokens_decoder").and_then(Json::as_object) {
            for (id, value) in added {
                let id = id
                    .parse()
                    .map_err(|_| failure(CONFIG, format!("added token with id '{id}'")))?;
                let special = value.get("special").and_then(Json::as_bool).unwrap_or(false);
                result.tokens.extend(config_token(Some(id), value, special));
            }
        }
        for (content, id) in assets.json_object("added_tokens.json")? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            result.tokens.extend(config_token(id, &Json::String(content), false));
        }
        Ok(result)
    }

    fn add_named(&mut self, name: &str, value: &Json) {
        if let Some(token) = config_token(None, value, true) {
            self.named.push((name.to_string(), token.content.clone()));
            self.tokens.push(token);
        }
    }

    pub fn named(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(n, _)| n == name).map(|(_, content)| content.as_str())
    }
}

/// A token is its text, or an object with `content` and flags.
fn config_token(id: Option<u32>, value: &Json, special: bool) -> Option<ConfigToken> {
    let flags = value.as_object().cloned().unwrap_or_default();
    let content =
        value.as_str().or_else(|| flags.get("content").and_then(Json::as_str))?.to_string();
    Some(ConfigToken { id, content, flags, special })
}

fn templates(assets: &Assets, config: &Map<String, Json>) -> Result<Vec<Template>, Failure> {
    let mut templates = Vec::new();
    for asset in &assets.0 {
        let folder = asset.name.strip_prefix("additional_chat_templates/");
        if let Some(name) = folder.and_then(|f| f.strip_suffix(".jinja")) {
            templates.push(Template::new(name, asset.name, assets.text(asset)?));
        } else if asset.name == "chat_template.jinja" {
            templates.push(Template::new("default", asset.name, assets.text(asset)?));
        }
    }
    // A file of its own wins over the configuration.
    if !templates.is_empty() {
        return Ok(templates);
    }
    match config.get("chat_template") {
        None | Some(Json::Null) => {}
        Some(Json::String(source)) => templates.push(Template::new("default", CONFIG, source)),
        Some(Json::Array(list)) => {
            for entry in list {
                let part = |key: &str| entry.get(key).and_then(Json::as_str);
                match (part("name"), part("template")) {
                    (Some(name), Some(source)) => {
                        templates.push(Template::new(name, CONFIG, source))
                    }
                    _ => return Err(failure(CONFIG, "a chat template has no name or no text")),
                }
            }
        }
        Some(_) => return Err(failure(CONFIG, "chat_template is neither text nor a list")),
    }
    Ok(templates)
}
