//! `gen serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;
use settings::{GpuOptions, Precision};

use crate::{DeviceArgs, PairedTokenizerArgs};

/// Arguments of `gen serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; one that other machines reach needs --api-key-file or --no-auth
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,

    /// Port to listen on; 0 for a free one
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub port: u16,

    #[command(flatten)]
    pub models: ServedModelArgs,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Write the log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,

    /// Write prompts to the log, too
    #[arg(long)]
    pub log_prompts: bool,

    #[command(flatten)]
    pub compute: ServingArgs,
}

/// The models.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ServedModelArgs {
    /// Model: a directory, a config (with --weights), or the name of a bundled model; repeatable, the
    /// first is the default of requests [default: the bundled model]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub model: Vec<String>,

    /// Transformer checkpoint, .pt or .safetensors, of a single --model
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<PathBuf>,

    #[command(flatten)]
    pub tokenizer: PairedTokenizerArgs,

    /// Folder of the text encoder (FLAN-T5 in Hugging Face's layout) of models of prompts [default:
    /// the model's own]
    #[arg(long, value_name = "DIR")]
    pub text_encoder: Option<PathBuf>,

    /// Another name of a model in requests, such as gpt-image-1=imagenet56-64; repeatable
    #[arg(long, value_name = "NAME=MODEL", value_parser = alias)]
    pub alias: Vec<(String, String)>,
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, model)) if !name.is_empty() && !model.is_empty() => Ok((name.into(), model.into())),
        _ => Err("expected NAME=MODEL".into()),
    }
}

/// Who may use the server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// File of the keys that clients send as `Authorization: Bearer KEY`, one a line; lines that begin
    /// with # are comments
    #[arg(long, value_name = "FILE", conflicts_with = "no_auth")]
    pub api_key_file: Option<PathBuf>,

    /// Let everyone who reaches the address use the server
    #[arg(long)]
    pub no_auth: bool,

    /// Let pages of this origin, scheme and host, use the server; repeatable
    #[arg(long, value_name = "https://HOST", value_parser = origin)]
    pub cors_origin: Vec<String>,
}

fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or("");
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*".contains(&b));
    if plain { Ok(text.into()) } else { Err("expected an origin, such as https://example.org".into()) }
}

/// Bounds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Images drawn at a time: a number, or auto for as many as the memory holds
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = slots)]
    pub slots: Slots,

    /// Images that may wait; requests beyond are refused
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,

    /// Connections at a time; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_connections: u32,

    /// Largest body of a request with images or codes, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_body: u32,

    /// Time within which a request's head must arrive, and its body
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub read_seconds: u32,

    /// Time that running images have to finish after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86400))]
    pub drain_seconds: u32,
}

/// Number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// As many as the memory holds.
    Auto,
    /// This many.
    Fixed(usize),
}

impl Slots {
    /// The number, unless it is by memory.
    pub fn number(self) -> Option<usize> {
        match self {
            Slots::Auto => None,
            Slots::Fixed(n) => Some(n),
        }
    }
}

fn slots(text: &str) -> Result<Slots, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Slots::Auto),
        (_, Ok(n @ 1..=65536)) => Ok(Slots::Fixed(n)),
        _ => Err("expected auto or a number from 1 to 65536".into()),
    }
}

/// Device, precision and kernels.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct ServingArgs {
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Dtype of the transformer's weights: fp32, bf16, fp16, or int8 (fastest for small batches).
    /// The text encoder runs in bf16 with bf16, else in fp32, since T5 overflows in fp16
    #[arg(long, value_name = "DTYPE", default_value_t)]
    pub precision: Precision,

    /// Dtype of the tokenizer: fp32, bf16 or fp16
    #[arg(long, value_name = "DTYPE", default_value_t, value_parser = crate::floating)]
    pub tokenizer_precision: Precision,

    #[command(flatten)]
    pub gpu: GpuOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert_eq!(slots("auto"), Ok(Slots::Auto));
        assert_eq!(slots("4"), Ok(Slots::Fixed(4)));
        assert!(slots("0").is_err() && slots("many").is_err());
        assert!(origin("https://example.org:8443").is_ok());
        assert!(
            origin("*").is_err() && origin("https://example.org/").is_err() && origin("http://").is_err()
        );
        assert!(alias("a=b").is_ok() && alias("a").is_err() && alias("=b").is_err());
    }
}
